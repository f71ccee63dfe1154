"""The verbs that change many tasks: retry, rerun, kill, reprioritize; and the one selector they share.

Every task is moved by one rename of its own, to a fresh name. A kill in the middle leaves some moved, the rest where they were:
say it again. Packs move as their marker where all of their tasks are meant, else they are opened first.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fsqdo import requirements
from fsqdo.errors import InputError, StorageError, TaskError, TaskNotFoundError
from fsqdo.finals import Finals
from fsqdo.holder import Holder, fresh_path
from fsqdo.ids import MAX_ID, SHARD_SIZE, IdSet, bits_of, ids_in, shard_of
from fsqdo.journal import story_path
from fsqdo.names import PackName, TaskName, shard_name
from fsqdo.packs import definition_of, definitions, roll_forward
from fsqdo.rows import Outcomes, Task
from fsqdo.store import Entry, Store, fs
from fsqdo.task import Definition, State
from fsqdo.taskoptions import Options
from fsqdo.unpacking import loosened

OPEN_STATES = (State.WAITING, State.PENDING)
_PACKED_STATES = (*OPEN_STATES, State.KILLED)
_OPENING_LOOKS = 30
_RESET_LOOKS = 3
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


SELECTIONS = ("state", "exitcode", "match", "older_than_s", "blocked")


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


def _never(name: PackName) -> bool:
    return False


def _always(name: PackName) -> bool:
    return True


def _in_one_shard(name: PackName) -> bool:
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
        self, open_pack: Callable[[Entry], list[Entry]] | None, whole: Callable[[PackName], bool] = _never
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
                if any(True for _ in self._meant(entry, None, _never)):
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
                yield from self._of_marker(entry, open_pack, _always)

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


class Bulk:
    """The bulk verbs on one queue.

    Parameters
    ----------
    holder
        What opens packs, when they must be.
    """

    def __init__(self, store: Store, holder: Holder) -> None:
        self._store = store
        self._holder = holder
        self._opened_under: set[int] = set()
        self._selection = Selection(store, Selector(), ())
        self._left: list[tuple[int, int]] = []
        self._moved = 0

    def _open(self, entry: Entry) -> list[Entry]:
        if entry.waits_for is not None:
            self._opened_under.add(entry.waits_for)
        return self._holder.open(entry)

    def _look_again(self) -> None:
        """Move on what waits for a requirement that ended while its pack was being opened: its worker did not see it."""
        requirements.look_again(self._store, self._opened_under)
        self._opened_under.clear()

    def _publish_rest(self, dry_run: bool) -> None:
        """Bring what loaders left in the middle to its place first: these are tasks as others, and may be meant."""
        if not dry_run:
            requirements.look_again(self._store, roll_forward(self._store))

    def _chosen(
        self, selector: Selector, states: Iterable[State], dry_run: bool, whole: Callable[[PackName], bool] = _never
    ) -> Iterator[tuple[Entry, int]]:
        refuse_unknown_ids(self._store, selector.ids)
        self._selection = Selection(self._store, selector, states)
        yield from self._selection.entries(None if dry_run else self._open, whole)
        self._left += self._selection.left

    def _say_what_is_left(self, selector: Selector, moved: int) -> None:
        """Complain of packs that somebody was opening all the time: of their tasks none was moved.

        Raises
        ------
        TaskError
            Once all others have moved.
        """
        ids = IdSet([(1, MAX_ID)]) if selector.ids is None else selector.ids
        left = IdSet((max(a, c), min(b, d)) for a, b in self._left for c, d in ids.ranges if a <= d and c <= b)
        if left:
            done = f"{moved} other task{'s' if moved > 1 else ''} moved; " if moved else ""
            hint = f"{done}do the same again for these, and if who opens it has died, `fsqdo recover` first"
            raise TaskError(f"somebody is opening the pack of task {left}, and has not come to an end", hint)

    def reset(self, selector: Selector, states: tuple[State, ...], dry_run: bool) -> int:
        """Move tasks in final states back to pending, or to waiting where a requirement is open; returns how many."""
        if selector.states is not None:
            wrong = [state for state in selector.states if state not in states]
            if wrong:
                raise InputError(f"{wrong[0]} tasks cannot be reset", "only " + ", ".join(states) + " ones can")
        refuse_unknown_ids(self._store, selector.ids)
        self._publish_rest(dry_run)
        selection = Selection(self._store, selector, states)
        meant, markers = selection.chosen()
        if dry_run:
            return sum(bits.bit_count() for bits in meant.values())
        targets: set[int] = set()
        self._moved = 0
        try:
            # Last the packs that require what is set back, too: a pass must not find that succeeded still, and them waiting.
            first: list[Entry] = []
            last: list[Entry] = []
            for entry in markers:
                (last if self._requires(entry, meant) else first).append(entry)
            late: dict[int, int] = {}
            for entry in last:
                _mark(late, entry)
            # RACE: what was set back with its marker may have run again since, and is not to be met a second time.
            done = self._reset_all(selection.of_markers(first, self._open), meant, targets)
            rest = {shard: bits & ~done.get(shard, 0) & ~late.get(shard, 0) for shard, bits in meant.items()}
            self._reset_shards(selector, states, rest, meant, targets)
            done = self._reset_all(selection.of_markers(last, self._open), meant, targets)
            rest = {shard: meant.get(shard, 0) & bits & ~done.get(shard, 0) for shard, bits in late.items()}
            self._reset_shards(selector, states, rest, meant, targets)
            requirements.look_again(self._store, targets)
        except (StorageError, TaskError) as error:
            _say_how_many(error, self._moved)
            raise
        self._say_what_is_left(selector, self._moved)
        return self._moved

    def _reset_shards(
        self, selector: Selector, states: tuple[State, ...], which: dict[int, int], meant: dict[int, int], targets: set[int]
    ) -> None:
        """Move these, a shard at a time, so that a million cost no memory; the look at each shard is a new one."""
        for shard, bits in sorted(which.items()):
            for _ in range(_RESET_LOOKS if bits else 0):
                part = Selection(self._store, Selector(ids=IdSet.of(ids_in(shard, bits)), states=selector.states), states)
                found = list(part.entries(self._open))
                self._left += part.left
                if packed := IdSet.of(part.packed()):
                    found += [(entry, 1) for entry in loosened(self._store, self._holder.unpack, shard, packed)]
                moved = self._reset_all(found, meant, targets).get(shard, 0)
                bits &= ~moved
                if moved.bit_count() >= len(found):
                    break  # else, RACE: the shard was sealed between its listing and the moves

    def _requires(self, entry: Entry, meant: dict[int, int]) -> bool:
        """Whether the tasks of a marker require one of a shard of which some are meant, too."""
        options = self._options(entry)
        wanted = options.requires | options.after
        return bool(wanted) and any(wanted.meets(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE - 1) for shard in meant)

    def _reset_all(self, found: Iterable[tuple[Entry, int]], rerun: dict[int, int], targets: set[int]) -> dict[int, int]:
        """Move these; the ids that moved, by shard as bits of one number."""
        finals = Finals(self._store)
        done: dict[int, int] = {}
        in_order = sorted(found, key=lambda pair: pair[0].name.first)
        for entry, count in in_order:
            if not self._reset_one(entry, finals, rerun, targets):
                continue
            self._moved += count
            _mark(done, entry)
        for directory in {entry.directory for entry, _ in in_order if entry.state is State.KILLED}:
            self._store.remove_directory(directory)
        return done

    def _reset_one(self, entry: Entry, finals: Finals, rerun: dict[int, int], targets: set[int]) -> bool:
        """One move, under a fresh name. What requires another that is reset, too, waits for that one anew."""
        options = self._options(entry)
        directory, hold = requirements.pending_place(entry.name, options), None
        if options.requires or options.after:
            directory, hold = requirements.place(self._store, finals, entry.name, options, also_open=rerun)
        if hold is not None:
            targets.add(hold)
        if not self._store.move(entry.path, fresh_path(entry, directory, renew=True)):
            return False
        if entry.state is State.FAILED:
            self._store.unlink(story_path(entry.path))
        return True

    def _options(self, entry: Entry) -> Options:
        try:
            return definition_of(self._store, entry).options
        except TaskError:
            return Options()  # the worker that claims it files it under failed/ with its story

    def kill(self, selector: Selector, dry_run: bool, wait_s: float, report: Callable[[str], None]) -> int:
        """Take pending and waiting tasks out, and have running ones stopped.

        Parameters
        ----------
        wait_s
            For so many seconds look whether those that ran have stopped; what went back to pending meanwhile is killed there.
        report
            Told what became of those that ran.

        Returns
        -------
        int
            How many are killed, and, without a wait, are told to stop.

        Notes
        -----
        One rename each, to `killed/`. For a running task `<task>.kill` is written beside it: its worker (or whoever recovers
        that) obeys.
        """
        if selector.everything:
            raise InputError("kill wants to know which tasks", "give ids, or all pending ones: --state Pending")
        self._publish_rest(dry_run)
        killed = self._kill_open(selector, dry_run)
        told = left = self._tell(selector, dry_run, killed)
        end = time.monotonic() + wait_s
        while left and not dry_run and time.monotonic() < end:
            time.sleep(0.2)
            # Only these: what has begun since is none of those that were meant.
            again = Selector(ids=IdSet.of(sorted(left)))
            self._kill_open(again, dry_run)
            left = self._tell(again, dry_run, killed)
        stopped = len(told)
        if told and not dry_run:
            if wait_s > 0:
                stopped = self._number_killed(told)
            report(_what_became(len(told), stopped, len(left), wait_s > 0))
        self._say_what_is_left(selector, killed + stopped)
        return killed + stopped

    def _tell(self, selector: Selector, dry_run: bool, killed: int) -> set[int]:
        """Order that running tasks be stopped; which."""
        told: set[int] = set()
        try:
            for entry, _ in list(self._chosen(selector, (State.RUNNING,), True)):
                if dry_run or self._store.write(f"{entry.directory}/{entry.name}.kill", b""):
                    told.add(entry.name.first)
        except StorageError as error:
            _say_how_many(error, killed + len(told))
            raise
        return told

    def _number_killed(self, wanted: set[int]) -> int:
        killed = self._store.entries(State.KILLED, IdSet.of(sorted(wanted)))
        return sum(len(wanted.intersection(range(entry.name.first, entry.name.last + 1))) for entry in killed)

    def end(self, task_id: int, state: State, err: int | None, message: str) -> bool:
        """End a task that nobody runs, as somebody says that it has ended; False when it is not in a state for that.

        Notes
        -----
        It is taken as a worker takes one, from whatever state it is in, and ended as any other.
        """
        if state not in (State.SUCCEEDED, State.FAILED):
            raise InputError(f"a task cannot be set to {state}", "set it Succeeded, Failed, Killed or Pending")
        self._publish_rest(False)
        sources = (*OPEN_STATES, State.FAILED, State.KILLED)
        for entry, _ in self._chosen(Selector(ids=IdSet.of(task_id)), sources, False):
            task = self._holder.take(entry)
            if task is not None:
                task.set_state(state, err=err, message=message)
                return True
        return False

    def _kill_open(self, selector: Selector, dry_run: bool) -> int:
        killed = 0
        try:
            for entry, count in self._chosen(selector, OPEN_STATES, dry_run, whole=_in_one_shard):
                if dry_run:
                    killed += count
                elif not self._store.move(entry.path, fresh_path(entry, f"killed/{shard_name(entry.name.first)}")):
                    self._selection.lost(entry)
                elif isinstance(entry.name, PackName):
                    killed += count
                    self._pack_ended(entry.name)
                else:
                    killed += 1
                    requirements.ended(self._store, entry.name.first, succeeded=False)
            self._look_again()
        except (StorageError, TaskError) as error:
            _say_how_many(error, killed)
            raise
        return killed

    def _pack_ended(self, name: PackName) -> None:
        """Move on what waited for any task of a pack that was killed: one listing where nobody did."""
        directory = f"waiting/{shard_name(name.first)}"
        for requirement in self._store.names(directory):
            if requirement.isascii() and requirement.isdigit() and name.first <= int(requirement) <= name.last:
                requirements.ended(self._store, int(requirement), succeeded=False)

    def reprioritize(self, selector: Selector, priority: int, dry_run: bool) -> int:
        """Give pending and waiting tasks another priority; returns how many.

        Notes
        -----
        One rename each: pending ones to the directory of the priority, all to a fresh name that says it.
        """
        changed = 0
        self._publish_rest(dry_run)
        try:
            for entry, count in self._chosen(selector, OPEN_STATES, dry_run, whole=_always):
                if dry_run:
                    changed += count
                    continue
                directory = entry.directory
                if entry.state is State.PENDING:
                    pack = isinstance(entry.name, PackName)
                    directory = f"pending/{priority}" if pack else f"pending/{priority}/{shard_name(entry.name.first)}"
                if self._store.move(entry.path, fresh_path(entry, directory, priority=priority)):
                    changed += count
                else:
                    self._selection.lost(entry)
            self._look_again()
        except (StorageError, TaskError) as error:
            _say_how_many(error, changed)
            raise
        self._say_what_is_left(selector, changed)
        return changed


def _mark(found: dict[int, int], entry: Entry) -> None:
    """Add the ids of a name to those by shard, as bits of one number."""
    first, last = entry.name.first_last
    for shard in range(shard_of(first), shard_of(last) + 1):
        found[shard] = found.get(shard, 0) | bits_of(shard, first, last)


def _say_how_many(error: StorageError | TaskError, moved: int) -> None:
    """Have an error that cut a command on many tasks short say how far it came."""
    if moved:
        error.hint = f"{error.hint}; {moved} tasks were moved before that, do the same again for the rest".removeprefix("; ")


def _what_became(told: int, stopped: int, left: int, waited: bool) -> str:
    """What became of tasks that ran when they were to be killed, in words."""
    if not waited:
        which = "1 of them runs" if told == 1 else f"{told} of them run"
        return f"{which}: stopped within seconds, but for what ends before (--wait 1m waits, and tells)"
    others = [f"{told - stopped - left} had ended before"] if told > stopped + left else []
    others += [f"{left} still run{'s' if left == 1 else ''}"] if left else []
    return f"of {told} that ran {stopped} {'is' if stopped == 1 else 'are'} killed{''.join(f', {other}' for other in others)}"
