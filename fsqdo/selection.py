"""Which tasks are meant: the one selector of all verbs, and the tasks and names that it selects."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fsqdo import requirements
from fsqdo.errors import InputError, StorageError, TaskError, TaskNotFoundError
from fsqdo.ids import SHARD_SIZE, IdSet, shard_of
from fsqdo.names import PackName, TaskName
from fsqdo.packs import definition_of, definitions
from fsqdo.rows import Outcomes, Task
from fsqdo.store import Entry, Store, fs
from fsqdo.task import Definition, State

OPEN_STATES = (State.WAITING, State.PENDING)
SELECTIONS = ("state", "exitcode", "match", "older_than_s", "blocked")
_PACKED_STATES = (*OPEN_STATES, State.KILLED)
_OPENING_LOOKS = 30
_OPENING_PAUSE_S = 0.1


def _in_hands(entry: Entry) -> bool:
    """Whether a marker lies in the directory of a worker that opens it."""
    return entry.directory.startswith(("running/", "recovering/"))


def in_packing(entry: Entry) -> bool:
    """Whether a task is packed, or its shard is being packed: nothing is taken from there by hand."""
    return entry.packed is not None or (entry.state is State.SUCCEEDED and "." in entry.directory)


@dataclass(frozen=True)
class Selector:
    """Which tasks are meant; everything given must hold.

    Attributes
    ----------
    ids, states
        None: any.
    exit_code
        Of the attempt that ended it.
    match
        Regular expression that is found in the command, or in the JSON of an object.
    older_than_s
        Ended (or, if it has not, was added) at least this many seconds ago.
    blocked
        Waits for a task that failed or was killed.
    """

    ids: IdSet | None = None
    states: tuple[State, ...] | None = None
    exit_code: int | None = None
    match: re.Pattern[str] | None = None
    older_than_s: float | None = None
    blocked: bool = False

    @classmethod
    def of(
        cls,
        id: object = None,
        state: object = None,
        exitcode: int | None = None,
        match: str | None = None,
        older_than_s: float | None = None,
        blocked: bool = False,
    ) -> Selector:
        """Make a selector of what people pass.

        Raises
        ------
        InputError
            For a state, id or regular expression that is none.
        """
        states: tuple[State, ...] | None = None
        if state is not None:
            given: Iterable[object] = (state,) if isinstance(state, str) else state  # type: ignore[assignment]
            states = tuple(State.read(str(word)) for word in given)
        try:
            pattern = None if match is None else re.compile(match)
        except re.error as error:
            raise InputError(f"{match!r} is not a regular expression: {error}") from None
        if exitcode is not None and type(exitcode) is not int:
            raise InputError(f"{exitcode!r} is not an exit code")
        return cls(None if id is None else IdSet.of(id), states, exitcode, pattern, older_than_s, blocked)

    @property
    def everything(self) -> bool:
        """Whether nothing was asked for."""
        return self == Selector()

    @property
    def by_name_alone(self) -> bool:
        """Whether names tell who is meant, without a look into files."""
        return self.exit_code is None and self.match is None and self.older_than_s is None and not self.blocked

    def fits(self, task: Task) -> bool:
        """Whether a task is meant, as far as it tells itself."""
        if self.ids is not None and task.id not in self.ids:
            return False
        if self.match is not None and not self.match.search(task.definition.words()):
            return False
        if self.exit_code is not None and not (task.state.final and self.exit_code in _ends(task)):
            return False
        return self.older_than_s is None or _age_s(task) >= self.older_than_s


def _ends(task: Task) -> tuple[int | None, ...]:
    """The exit codes by which a task is found: of a signal n it is 128+n, as in a shell."""
    number = task.outcome.signal if task.outcome else None
    return (task.exitcode,) if number is None else (128 + number,)


def _age_s(task: Task) -> float:
    outcome = task.outcome
    since = (outcome.ended_at if outcome else None) or task.created_at
    try:
        return time.time() - datetime.fromisoformat(str(since).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")


def never(name: PackName) -> bool:
    """Every marker is opened."""
    return False


def always(name: PackName) -> bool:
    """A marker is taken as it is."""
    return True


def in_one_shard(name: PackName) -> bool:
    """Whether a marker can stand in the directory of a shard."""
    return shard_of(name.first) == shard_of(name.last)


def refuse_unknown_ids(store: Store, ids: IdSet | None) -> None:
    """Refuse ids that were never given away.

    Raises
    ------
    TaskNotFoundError
        Naming them all.
    """
    if not ids:
        return
    next_id = store.next_id()
    never = IdSet(span for span in [(ids.lowest, min(ids.highest, 0)), *_from(next_id, ids)] if span[0] <= span[1])
    if never:
        name = os.path.basename(store.directory)
        hint = f"ids below {next_id} were used: `fsqdo tasks {name} --long` shows them" if next_id > 1 else "none was added yet"
        text = str(never)
        raise TaskNotFoundError(f"queue {name} has no task {text if len(text) <= 60 else text[:57] + '...'}", hint)


def _from(low: int, ids: IdSet) -> Iterator[tuple[int, int]]:
    """What of a set is not below an id."""
    return ((max(first, low), last) for first, last in ids.ranges)


class Selection:
    """The tasks of a queue that a selector means.

    Attributes
    ----------
    left
        Ranges of markers that `entries` gave up: somebody has been opening them all the time.
    """

    def __init__(self, store: Store, selector: Selector, states: Iterable[State]) -> None:
        self._store = store
        self._selector = selector
        self._states = [state for state in states if selector.states is None or state in selector.states]
        self._outcomes = Outcomes(store)
        self._lost: list[tuple[int, int]] = []
        self.left: list[tuple[int, int]] = []
        self._blocked = sorted(requirements.blocked(store), key=lambda entry: entry.name.first) if selector.blocked else []
        if selector.blocked:
            self._states = [state for state in self._states if state is State.WAITING]

    def lost(self, entry: Entry) -> None:
        """Somebody else took this marker first: `entries` goes on with what comes of it."""
        if isinstance(entry.name, PackName):
            self._lost.append(entry.name.first_last)

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks one by one, read lazily. A file that cannot be read is a task with an `error`."""
        for state in self._states:
            for entry in self._listed(state, self._selector.ids):
                yield from self.at(entry)

    def _listed(self, state: State, ids: IdSet | None) -> Iterable[Entry]:
        """Names that may be meant; of blocked ones no others are looked at."""
        if not self._selector.blocked:
            return self._store.entries(state, ids)
        return (entry for entry in self._blocked if ids is None or ids.meets(*entry.name.first_last))

    def at(self, entry: Entry) -> Iterator[Task]:
        """Yield the tasks of one name that are meant."""
        for task in self._all_of(entry):
            if self._selector.fits(task):
                yield task

    def _all_of(self, entry: Entry) -> Iterator[Task]:
        try:
            if isinstance(entry.name, PackName):
                for definition in definitions(self._store, entry):
                    yield Task(entry, definition, self._outcomes)
            else:
                yield Task(entry, definition_of(self._store, entry), self._outcomes)
        except (TaskError, StorageError) as error:
            if isinstance(error, StorageError) and not error.unreadable:
                raise
            loose = isinstance(entry.name, TaskName) and entry.packed is None
            if loose and isinstance(error, TaskError) and self._store.read(entry.path) is None:
                # RACE: it moved between the listing and the look. One that was packed is where it was, for those who ask.
                if entry.state is State.SUCCEEDED:
                    again = self._store.entries(State.SUCCEEDED, IdSet.of(entry.name.first))
                    yield from (task for one in again if one.path != entry.path for task in self._all_of(one))
                return
            yield Task(entry, Definition(entry.name.first, ""), self._outcomes, error=str(error))

    def entries(
        self, open_pack: Callable[[Entry], list[Entry]] | None, whole: Callable[[PackName], bool] = never
    ) -> Iterator[tuple[Entry, int]]:
        """Yield (name, number of its tasks that are meant).

        Parameters
        ----------
        open_pack
            Opens a marker of which a part is meant; None: nothing is changed, the marker stands for that part.
        whole
            Whether a marker of which all is meant is yielded as it is.
        """
        for state in self._states:
            wanted = self._selector.ids
            for _ in range(_OPENING_LOOKS):
                # Listed whole before the first move: what is moved could otherwise be met again on the way.
                listed = [entry for entry in self._listed(state, wanted) if not in_packing(entry)]
                held = [] if open_pack is None else [entry for entry in listed if state in _PACKED_STATES and _in_hands(entry)]
                for entry in listed:
                    if entry not in held:
                        yield from self._meant(entry, open_pack, whole)
                again, self._lost = [entry.name.first_last for entry in held] + self._lost, []
                if not again:
                    break
                # RACE: these markers are being opened: their tasks are the opener's until it publishes them, in a moment.
                wanted = IdSet(again)
                fs.sleep(_OPENING_PAUSE_S if held else 0.0)
            else:
                self.left += again

    def packed(self) -> Iterator[int]:
        """Yield the ids of the tasks that are meant and are packed, or being packed."""
        for state in self._states:
            for entry in filter(in_packing, self._listed(state, self._selector.ids)):
                if any(True for _ in self._meant(entry, None, never)):
                    yield entry.name.first

    def chosen(self) -> tuple[dict[int, int], list[Entry]]:
        """The ids that are meant, by shard as bits of one number; and the markers that hold some of them."""
        found: dict[int, int] = {}
        markers = []
        for state in self._states:
            for entry in self._listed(state, self._selector.ids):
                if isinstance(entry.name, PackName):
                    markers.append(entry)
                for task_id in self._ids_of(entry):
                    shard, bit = divmod(task_id, SHARD_SIZE)
                    found[shard] = found.get(shard, 0) | 1 << bit
        return found, markers

    def _ids_of(self, entry: Entry) -> Iterable[int]:
        """The ids of one name that are meant."""
        if not self._selector.by_name_alone:
            return (task.id for task in self.at(entry))
        ids = self._selector.ids
        return (i for i in range(entry.name.first, entry.name.last + 1) if ids is None or i in ids)

    def of_markers(self, markers: list[Entry], open_pack: Callable[[Entry], list[Entry]]) -> Iterator[tuple[Entry, int]]:
        """Markers of which all is meant, and what is meant of the tasks of others, which are opened, as of `entries`."""
        for entry in markers:
            if not _in_hands(entry):  # RACE: else somebody opens it: `entries` meets what comes of it
                yield from self._of_marker(entry, open_pack, always)

    def _meant(
        self, entry: Entry, open_pack: Callable[[Entry], list[Entry]] | None, whole: Callable[[PackName], bool]
    ) -> Iterator[tuple[Entry, int]]:
        if isinstance(entry.name, PackName):
            yield from self._of_marker(entry, open_pack, whole)
        elif self._selector.by_name_alone:
            if self._selector.ids is None or entry.name.id in self._selector.ids:
                yield entry, 1
        elif any(True for _ in self.at(entry)):
            yield entry, 1

    def _of_marker(
        self, entry: Entry, open_pack: Callable[[Entry], list[Entry]] | None, whole: Callable[[PackName], bool]
    ) -> Iterator[tuple[Entry, int]]:
        chosen = set(self._ids_of(entry))
        if not chosen or not isinstance(entry.name, PackName):
            return
        if open_pack is None or (len(chosen) == entry.name.size and whole(entry.name)):
            yield entry, len(chosen)
            return
        opened = open_pack(entry)
        if not opened:
            self.lost(entry)
        for loose in opened:
            if loose.name.first in chosen:
                yield loose, 1
