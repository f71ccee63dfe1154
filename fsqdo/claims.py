"""Claiming without a herd: the highest priority first, then roughly the oldest, without listing a million names.

A claim is one rename from `pending/<priority>/<bundle>/` into the worker's own directory. A worker stays with its bundle:
listed once, kept in memory, in the order of ids. After a lost race it jumps to a random place; after three in a row it
chooses anew: any of the oldest unopened packs, or another bundle at random. So a few workers keep few bundles open, and a
thousand spread over many.

Where there are many workers, each begins at the place that its rank among them gives it (in the order of the random ends of
their names, the same for all), so that a thousand that start at once do not meet; and what one lost race says is that its
list is old.

Of a pack it opens a slice: what it uses in about half a minute. The rest stays packed, as two markers in the bundle, for
itself, who comes back to it before it opens another, and for those who come later: long tasks cost few inodes, and nobody
hoards.

With a judge each file is read before the rename, and not again after it: what does not fit this worker is never claimed.
What this worker has made loose itself it does not read at all.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from fsqdo.errors import FencedError, StorageError, TaskError
from fsqdo.ids import shard_of
from fsqdo.names import PLAIN, PackName, TaskName, moved_by_hand, parse_marker, parse_task
from fsqdo.packs import lines_of, open_pack
from fsqdo.requirements import Freed
from fsqdo.store import Entry, Store, bundles_among
from fsqdo.task import Definition, State

LOOK_S = 1.0
_MISSES = 3
_CROWD = 8
_CROWD_MOST = 10
_HERD = 16
_LISTED_AGAIN = 5
_PLENTY = 16
_PASS_MOST = 100
_ABSENT = 3
_ABSENT_S = 60.0
_SLICE_LEAST = 4
_SLICE_MOST = 500  # of a pack of 1000: half of it and two quarters, so that fewer files are there at any moment
_SLICE_S = 30.0


class Verdict(Enum):
    """What to do with a pending task: claim it; look at it again some time later; leave it to others for good."""

    CLAIM = 1
    LATER = 2
    LEAVE = 3


Judge = Callable[[Definition], Verdict]


class Claim(NamedTuple):
    """A task that this worker now holds: its name, its file in the worker's directory, and what was in that.

    Attributes
    ----------
    definition
        As the judge has seen it; None: there was no judge, or it cannot be read as it stands.
    """

    name: TaskName
    file: str
    content: bytes
    definition: Definition | None = None

    @property
    def key(self) -> str:
        """The name under which journals know it: `str(name)`, without making it anew."""
        return self.file[:-5]


class Claimer:
    """Claims tasks for one worker.

    Parameters
    ----------
    report
        Called with what people should know: a pack that cannot be opened.
    judge
        Called with the definition of each task before it is claimed; None: everything is claimed, as is what cannot be read:
        it is mended, or fails, in the hands of whoever claims it.
    slots
        Tasks that the worker runs at once.

    Attributes
    ----------
    unfit
        Ids of tasks this worker looked at and cannot run, or not even read: passed over.
    why
        Why the first of those cannot be read; "" when all can.
    cut_short
        The last claim looked at tasks that are left to others, and perhaps not yet at all there are: worth another try at once.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        report: Callable[[str], None] = lambda text: None,
        judge: Judge | None = None,
        slots: int = 1,
    ) -> None:
        self._report = report
        self._judge = judge
        self.cut_short = False
        self._passed: set[int] = set()
        self._in_turn = 0
        self._store = store
        self._own = f"running/{worker}"
        self._worker = worker
        self._directory = ""
        self._homes: list[str] = []
        self._names: list[tuple[str, TaskName]] = []
        self._contents: dict[str, bytes] = {}  # what this worker has written or read: a task's file never changes
        self._priority: int | None = None
        self._looked = float("-inf")
        self._crowded = 0
        self._rank, self._workers = 0, 1
        self._slots = slots
        self._claimed = 0
        self._since = time.monotonic()
        self._bad_packs: set[tuple[int, int]] = set()
        self._unfit_packs: dict[str, int] = {}
        self._absent: Counter[str] = Counter()
        self._absent_until = float("-inf")
        self.unfit: set[int] = set()
        self.why = ""
        self.openings: set[str] = set()

    @property
    def left(self) -> int:
        """Number of tasks this worker found that it cannot run."""
        return len(self.unfit) + sum(self._unfit_packs.values())

    @property
    def ready(self) -> bool:
        """Whether the next claim can be tried without a listing."""
        return bool(self._names) and time.monotonic() - self._looked <= LOOK_S

    @property
    def shard(self) -> int | None:
        """The shard of the task to be claimed next, where that is known without a listing."""
        return shard_of(self._names[-1][1].id) if self._names else None

    @property
    def plenty(self) -> bool:
        """Whether so many tasks are left of what was listed that others will not miss the next one."""
        return len(self._names) > _PLENTY and self.ready

    def offer(self, freed: list[Freed]) -> None:
        """Take note of tasks that this worker has just made pending: it can claim them without a listing.

        They come first only where nothing known comes before them: what was listed is used up, and of no higher priority. A
        higher one that came meanwhile is seen within a second, as always. A lost race is one as any other.
        """
        first = max(freed, key=lambda task: task.priority)
        if self._names or self._priority is None or first.priority < self._priority:
            return
        beside = {task.name.file: task for task in freed if task.directory == first.directory}
        if self._enter(first.directory, [(file, task.name) for file, task in beside.items()], first.priority):
            self._contents = {file: task.content for file, task in beside.items()}

    def claim(self, judge: Judge | None = None) -> Claim | None:
        """Claim the next task; None when nothing is pending that this worker can run.

        Parameters
        ----------
        judge
            Asked this time instead of the claimer's own.

        Raises
        ------
        FencedError
            When this worker's directory is gone.
        StorageError
            When the file system refuses.

        Notes
        -----
        One rename and one read; once a second a listing of `pending/`. A kill after the rename leaves the task in this
        worker's directory, for recover.
        """
        misses = 0
        judge = judge or self._judge
        self.cut_short = False
        self._passed = set()
        self._in_turn = 0
        while True:
            if (not self._names or time.monotonic() - self._looked > LOOK_S) and not self._look():
                return None
            file, name = self._names.pop()
            if name.id in self.unfit:
                continue
            taken = self._take(file, name, judge)
            if isinstance(taken, Claim):
                self._claimed += 1
                return taken
            if taken is not None:
                if self._pass_over(name.id, taken):
                    continue
                return None
            misses += 1
            self._absent[f"{self._directory}/{file}"] += 1
            if misses >= (1 if self._herd else _MISSES):
                self._names, self._crowded, misses = [], self._crowded + 1, 0
            elif len(self._names) > 2:
                # RACE: another worker is in this bundle; leave its neighbourhood.
                cut = random.randrange(len(self._names))
                self._names = self._names[cut:] + self._names[:cut]

    def _pass_over(self, task_id: int, verdict: Verdict) -> bool:
        """Leave a task where it is; False when that was enough for one turn."""
        self.cut_short = self.cut_short or verdict is Verdict.LEAVE
        (self.unfit if verdict is Verdict.LEAVE else self._passed).add(task_id)
        self._in_turn += 1
        return self._in_turn < _PASS_MOST

    def _take(self, file: str, name: TaskName, judge: Judge | None) -> Claim | Verdict | None:
        """Claim a task that fits; what the judge says when it does not; None when somebody else has it."""
        content = self._contents.pop(file, b"") or None  # of what is long only the name was kept
        definition = None
        if judge is not None:
            try:
                content = content or self._store.read(f"{self._directory}/{file}", sure=False)
            except StorageError as error:
                if not error.unreadable:
                    raise
                self._report(f"task {name.id} is left where it is: {error}")
                self.why = self.why or str(error)
                return Verdict.LEAVE
            if content is None:
                return None
            definition = Definition.if_sound(content, name.id)
            verdict = Verdict.CLAIM if definition is None else judge(definition)
            if verdict is not Verdict.CLAIM:
                return verdict
        # A name with @<worker> came by somebody's mv: under a fresh name, so that no journal knows an outcome for it.
        if name.worker is not None:
            name = moved_by_hand(name)
        own = file if len(file) == PLAIN else name.file
        if not self._store.move(f"{self._directory}/{file}", f"{self._own}/{own}", make=False):
            if self._store.ls_twice(self._own) is None:
                raise FencedError(f"{self._store.path(self._own)} is gone: this worker was declared dead")
            return None
        if content is None:
            content = self._read_own(own, name)
        return Claim(name, own, content, definition)

    def _read_own(self, own: str, name: TaskName) -> bytes:
        """Read what was claimed; where that cannot be read just now it goes back, lest nobody knows that it is held."""
        try:
            return self._store.read(f"{self._own}/{own}") or b""
        except StorageError:
            with suppress(StorageError):
                self._store.move(f"{self._own}/{own}", f"{self._directory}/{moved_by_hand(name).file}")
            raise

    @property
    def _herd(self) -> bool:
        """Whether there are so many workers that each keeps to a place of its own."""
        return self._workers >= _HERD

    def _look_around(self) -> None:
        """Find this worker's rank among the workers; false when others come or go, which makes it meet some."""
        own = self._worker[::-1]
        workers = [name[::-1] for name in self._store.ls("running") or ()]  # by their random ends, not by who came first
        self._workers = len(workers)
        self._rank = sum(name < own for name in workers)

    def _look(self) -> bool:
        """Find where to claim next; False when nothing is pending."""
        if self._crowded or self._looked == float("-inf"):
            self._look_around()
        self._looked = time.monotonic()
        if self._looked >= self._absent_until:
            self._absent.clear()
            self._absent_until = self._looked + _ABSENT_S
        for priority in self._store.priorities():
            if self._names and priority == self._priority and not self._interrupted(priority):
                return True  # stay with this bundle
            if self._settle_at(priority):
                return True
        self._names = []
        return False

    def _interrupted(self, priority: int) -> bool:
        """Whether tasks lie beside the bundles of a priority, and come first (`interrupted_first`)."""
        if not self._store.settings.interrupted_first:
            return False
        beside = _tasks_among(self._store.names(f"pending/{priority}"))
        return any(name.id not in self.unfit for _, name in beside)

    def _settle_at(self, priority: int) -> bool:
        """Choose a bundle of this priority and list it; False when there is nothing in any."""
        directory = f"pending/{priority}"
        names = sorted(self._store.ls(directory) or ())
        loose = _tasks_among(names)
        if self._enter(directory, loose, priority):  # somebody's mv
            return True
        for home in [home for home in reversed(self._homes) if home.startswith(f"{directory}/")]:
            if self._list(home, priority):
                return True
            self._homes.remove(home)
        found = bundles_among(names)
        again = _LISTED_AGAIN if self._herd else 0
        while found:
            pack, file = self._choose(found)
            found.remove((pack, file))
            if not file.endswith(".pack"):
                if self._list(f"{directory}/{file}", priority):
                    return True
            elif self._open(directory, pack, file, priority):
                return True
            elif again:  # RACE: others take what was listed here, one after the other
                again -= 1
                found = bundles_among(self._store.ls(directory) or ())
        if not loose:
            self._store.remove_directory(directory)
        return False

    def _choose(self, found: list[tuple[PackName, str]]) -> tuple[PackName, str]:
        """The oldest; in a crowd an unopened pack rather than a bundle, any of the first few: the more, the denser it is."""
        if not (self._crowded or self._herd):
            return found[0]
        packs = [item for item in found if item[1].endswith(".pack")]
        if not self._crowded:
            return (packs or found)[self._rank % len(packs or found)]
        return random.choice(packs[: _CROWD << min(self._crowded, _CROWD_MOST)] or found)

    def _list(self, bundle: str, priority: int) -> bool:
        """List a bundle; one found empty (but for its spent marker) is removed."""
        listed = self._store.ls(bundle) or []
        tasks = _tasks_among(listed)
        own = bundle.rpartition("/")[2] + ".pack"
        packs = sorted((marker, name) for name in listed if name != own and (marker := parse_marker(name)) is not None)
        if self._crowded and packs:
            # RACE: the others in here want its tasks: what is still packed is for those who come late.
            return self._open_one_of(bundle, packs, priority) or self._enter(bundle, tasks, priority)
        if self._enter(bundle, tasks, priority):
            return True
        if self._open_one_of(bundle, packs, priority):
            return True
        if not tasks:
            if own in listed:
                self._store.unlink(f"{bundle}/{own}")
            self._store.remove_directory(bundle)
        return False

    def _open_one_of(self, bundle: str, packs: list[tuple[PackName, str]], priority: int) -> bool:
        """Open one of the packs in a bundle: the oldest, in a crowd any; False when others have them all."""
        if self._crowded:
            random.shuffle(packs)
        return any(self._open(bundle, marker, name, priority) for marker, name in packs)

    def _enter(self, directory: str, tasks: list[tuple[str, TaskName]], priority: int) -> bool:
        fit = tasks
        if self.unfit or self._passed:
            fit = [task for task in tasks if task[1].id not in self.unfit and task[1].id not in self._passed]
        if self._absent:  # listed, and not there: a stale listing, a link to nothing
            fit = [task for task in fit if self._absent[f"{directory}/{task[0]}"] < _ABSENT]
        if not fit:
            return False
        fit.sort(reverse=True)
        if self._herd:
            # By ids, not by what is left of them: so a place is the same for all, however old their lists are.
            first, last = fit[-1][1].id, fit[0][1].id
            begin = first + self._rank * (last - first + 1) // self._workers
            cut = sum(task[1].id >= begin for task in fit)
            fit = fit[cut:] + fit[:cut]
        elif self._crowded:
            cut = random.randrange(len(fit))
            fit = fit[cut:] + fit[:cut]
        self._crowded = 0
        self._directory, self._names, self._priority = directory, fit, priority
        self._contents = {}
        if directory not in self._homes:
            self._homes.append(directory)
        return True

    def _open(self, directory: str, marker: PackName, file: str, priority: int) -> bool:
        if (marker.first, marker.last) in self._bad_packs:
            return False
        if self.unfit and not self._worth_opening(directory, file, marker):
            return False
        entry = Entry(State.PENDING, directory, file, marker)
        opening = f"{marker}@{priority}"
        self.openings.add(opening)
        contents: dict[str, bytes] = {}
        try:
            bundle = open_pack(self._store, self._worker, entry, priority, self._slice(), contents)
        except TaskError as error:
            self._bad_packs.add((marker.first, marker.last))
            self._report(f"cannot open a pack: {error}")
            return False
        finally:
            self.openings.discard(opening)
        if bundle is None:
            self._crowded += 1  # RACE: somebody else opened it first
            return False
        self._crowded = 0
        if not self._list(bundle, priority):
            return False
        if self._directory == bundle:
            self._contents = contents
        return True

    def _worth_opening(self, directory: str, file: str, marker: PackName) -> bool:
        """Whether any task of a pack is for this worker: asked once it met others, so that it opens none for nothing."""
        path = f"{directory}/{file}"
        if path in self._unfit_packs:
            return False
        judge = self._judge
        if judge is None:
            return True
        try:
            lines = lines_of(self._store, directory, marker)
        except TaskError:
            return True  # opening it says what is wrong
        definitions = (Definition.if_sound(line, task_id) for task_id, line in enumerate(lines, marker.first))
        if any(definition is None or judge(definition) is not Verdict.LEAVE for definition in definitions):
            return True
        self._unfit_packs[path] = marker.size
        return False

    def _slice(self) -> int:
        """How many tasks of a pack to make loose: what this worker uses in half a minute, as since the last opening."""
        # At least a second: what was claimed at once for free slots is no rate.
        now = time.monotonic()
        rate = self._claimed / max(now - self._since, 1.0)
        self._claimed, self._since = 0, now
        return max(_SLICE_LEAST * self._slots, min(int(rate * _SLICE_S), _SLICE_MOST))


def _tasks_among(files: list[str]) -> list[tuple[str, TaskName]]:
    return [(file, name) for file in files if (name := parse_task(file)) is not None]
