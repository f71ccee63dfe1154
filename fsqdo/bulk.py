"""The verbs that change many tasks: retry, rerun, kill, reprioritize; and setting one from outside.

Every task is moved by one rename of its own, to a fresh name. A kill in the middle leaves some moved, the rest where they were:
say it again. Packs move as their marker where all of their tasks are meant, else they are opened first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from fsqdo import requirements
from fsqdo.errors import InputError, StorageError, TaskError
from fsqdo.finals import Finals
from fsqdo.holder import Holder, fresh_path
from fsqdo.ids import MAX_ID, SHARD_SIZE, IdSet, bits_of, ids_in, shard_of
from fsqdo.journal import story_path
from fsqdo.names import PackName, shard_name
from fsqdo.packs import definition_of, roll_forward
from fsqdo.selection import OPEN_STATES, Selection, Selector, always, in_one_shard, never, refuse_unknown_ids
from fsqdo.store import Entry, Store
from fsqdo.task import State
from fsqdo.taskoptions import Options
from fsqdo.unpacking import loosened

_RESET_LOOKS = 3


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
        self, selector: Selector, states: Iterable[State], dry_run: bool, whole: Callable[[PackName], bool] = never
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
        """End a task that nobody runs, as somebody says that it has ended; False when it is not in a state for that."""
        if state not in (State.SUCCEEDED, State.FAILED):
            raise InputError(f"a task cannot be set to {state}", "set it Succeeded, Failed, Killed or Pending")
        self._publish_rest(False)
        sources = (*OPEN_STATES, State.FAILED, State.KILLED)
        selector = Selector(ids=IdSet.of(task_id))
        done = False
        for _ in range(2):  # RACE: it may move between the listing and the look
            for entry, _ in self._chosen(selector, sources, False):
                done = done or self._holder.end(entry, state, err, message)
            self._look_again()
            if done:
                return True
        self._say_what_is_left(selector, 0)
        return False

    def _kill_open(self, selector: Selector, dry_run: bool) -> int:
        killed = 0
        try:
            for entry, count in self._chosen(selector, OPEN_STATES, dry_run, whole=in_one_shard):
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
            for entry, count in self._chosen(selector, OPEN_STATES, dry_run, whole=always):
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
