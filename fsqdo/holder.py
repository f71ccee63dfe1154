"""A process that is a worker without a loop: it takes single tasks (`Queue.get`), and opens packs for the bulk verbs."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from dataclasses import replace

from fsqdo import requirements
from fsqdo.claims import Claim, Claimer
from fsqdo.errors import FencedError, InputError, StorageError, TaskError
from fsqdo.failures import pause_after_too_many
from fsqdo.journal import story_path
from fsqdo.member import Member
from fsqdo.names import PackName, ShardEntry, moved_by_hand
from fsqdo.packs import claimed_definition, definition_of, open_pack
from fsqdo.policy import Attempt, begin, decide
from fsqdo.recovery import complete
from fsqdo.rows import Outcomes, Task
from fsqdo.store import Entry, Store
from fsqdo.task import Definition, State
from fsqdo.taskoptions import Options
from fsqdo.unpacking import unpack
from fsqdo.upkeep import Passes


class Holder:
    """This process as a worker, from the first time it holds something until `close` (or the end of the process).

    Several threads may use it at once: each of its acts is one at a time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._member: Member | None = None
        self._claimer: Claimer | None = None
        self._holds: dict[int, tuple[Task, Attempt]] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def _part_from_parent(self) -> None:
        """In a child of fork what the parent holds, and its journal, stay the parent's: here it starts anew."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._member = self._claimer = None
            self._holds = {}
            self._lock = threading.RLock()  # a thread of the parent may hold that one for ever

    def _join(self) -> Member:
        self._part_from_parent()
        if self._member is None:
            self._member = Member(self._store, slots=1)
            self._claimer = Claimer(self._store, self._member.name)
            atexit.register(self.close)
            if "multiprocessing.util" in sys.modules:  # its children end without atexit
                sys.modules["multiprocessing.util"].Finalize(None, self.close, exitpriority=10)
        return self._member

    def close(self) -> None:
        """Give back what is held, and stop being a worker."""
        atexit.unregister(self.close)
        self._part_from_parent()
        with self._lock:
            member, self._member = self._member, None
            if member is not None:
                member.leave()

    # ------------------------------------------------------------ single tasks
    def get(self, timeout_s: float) -> Task | None:
        """Take one pending task; None when there was none for `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        passes = Passes(self._store)
        pause_s = 0.05
        while True:
            if not self._store.paused():
                self._part_from_parent()
                with self._lock:
                    claim = self._claim()
                    if claim is not None:
                        return self._task(claim)
                if passes.run():
                    continue
            left_s = end - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, 5.0)

    def _claim(self) -> Claim | None:
        for _ in range(2):
            self._join()
            try:
                return self._claimer.claim() if self._claimer else None
            except FencedError:
                self._rejoin()
        return None

    def _rejoin(self) -> None:
        """Declared dead while the program did something else: start anew, under another name, with the next `_join`."""
        if self._member is not None:
            self._member.abandon()
        self._member = None

    def _task(self, claim: Claim) -> Task | None:
        member = self._join()
        entry = Entry(State.RUNNING, member.directory, claim.file, claim.name)
        attempt = begin()
        try:
            path = f"{member.directory}/{claim.file}"
            definition = claimed_definition(self._store, path, claim.name, claim.content)
            task = Task(entry, definition, Outcomes(self._store), self)
            self._holds[task.id] = task, attempt
            return task
        except TaskError as error:
            attempt.reason = str(error)
            attempt.detail = "content of its file:\n" + claim.content[:2000].decode(errors="replace")
            self._finish(claim.file, entry, attempt, "failed")
            return self.get(0.0)

    def held(self, task_id: int) -> Task | None:
        """The task of this id that this process holds."""
        self._part_from_parent()
        return self._holds[task_id][0] if task_id in self._holds else None

    def end(self, entry: Entry, state: State, err: int | None, message: str) -> bool:
        """End a loose task that nobody runs, as somebody says that it has ended; False when somebody else moved it first.

        Notes
        -----
        The outcome into the own journal, then one rename from where it is to its end. A kill between the two leaves it where it
        was: that line is of an attempt that nobody looks for.
        """
        _check_err(err)
        self._part_from_parent()
        with self._lock:
            return self._end(entry, state, err, message)

    def _end(self, entry: Entry, state: State, err: int | None, message: str) -> bool:
        if isinstance(entry.name, PackName):
            return False
        name = moved_by_hand(entry.name)
        try:
            definition = definition_of(self._store, entry)
        except TaskError:
            if self._store.gone(entry.path):
                return False
            definition = Definition(name.id, "")  # that it cannot be read is no reason to keep it
        member = self._join()
        if self._store.ls_twice(member.directory) is None:  # declared dead: its journal may be put away
            self._rejoin()
            member = self._join()
        attempt = begin()
        attempt.exit_code, attempt.reason = err, message
        # As it is said: neither what the queue makes of exit codes nor retries change it.
        settings, options = replace(self._store.settings, exit_codes={}), replace(definition.options, max_retries=0)
        outcome = decide(name, str(name), options, settings, member.name, attempt, state.directory)
        member.journal.append(outcome)
        member.journal.sync()
        # Where it does not come about: somebody may give the task the very name that the line is about.
        withdrawn = outcome._replace(outcome="interrupted", to="", reason="it was not moved")
        try:
            moved = complete(self._store, entry.path, outcome, definition)
        except (StorageError, KeyboardInterrupt):
            if not self._store.gone(entry.path):
                member.journal.append(withdrawn)
            raise
        if not moved:
            member.journal.append(withdrawn)
            return False
        if entry.state is State.FAILED:
            self._store.unlink(story_path(entry.path))
        if outcome.outcome == "failed":
            pause_after_too_many(self._store)
        return True

    def set_state(self, task: Task, state: State, err: int | None, message: str | None) -> None:
        """End a task that was taken here."""
        if state in (State.WAITING, State.RUNNING):
            raise InputError(f"a task that was taken cannot be set to {state}", "set it Succeeded, Failed, Killed or Pending")
        _check_err(err)
        self._part_from_parent()
        with self._lock:
            self._set_state(task, state, err, None if message is None else str(message))

    def _set_state(self, task: Task, state: State, err: int | None, message: str | None) -> None:
        held = self._holds.get(task.id)
        if held is None or held[0] is not task:
            raise TaskError(f"task {task.id} is not held here any more", "its state was set before")
        attempt = held[1]
        attempt.elapsed_s = time.monotonic() - attempt.started
        attempt.exit_code, attempt.reason = err, message
        kind = {State.PENDING: "interrupted"}.get(state, state.directory)
        there = self._finish(task.entry.file, task.entry, attempt, kind, task)
        del self._holds[task.id]  # not before: on a full disk it can be set again once there is room
        if not there:
            raise TaskError(f"task {task.id} is not held here any more", "this process was declared dead, or somebody moved it")
        task.state = state

    def _finish(self, file: str, entry: Entry, attempt: Attempt, kind: str, task: Task | None = None) -> bool:
        member = self._member
        if member is None or isinstance(entry.name, PackName) or entry.directory != member.directory:
            return False
        options = task.definition.options if task else Options()
        outcome = decide(entry.name, str(entry.name), options, self._store.settings, member.name, attempt, kind)
        member.journal.append(outcome)
        member.journal.sync()
        source, definition = f"{member.directory}/{file}", task.definition if task else None
        moved = complete(self._store, source, outcome, definition, attempt.detail)
        if attempt.pauses:
            self._store.pause(attempt.pauses)
        if outcome.outcome == "failed":
            pause_after_too_many(self._store)
        return moved

    # ------------------------------------------------------------ packs
    def open(self, entry: Entry) -> list[Entry]:
        """Open a marker so that its tasks can be moved one by one; returns them. Empty: somebody else took it first."""
        if entry.state is State.PENDING:
            priority = int(entry.directory.split("/")[1])  # where somebody's mv may have put it
        else:
            priority = requirements.priority_of(entry.name, definition_of(self._store, entry).options)
        with self._lock:
            try:
                bundle = open_pack(self._store, self._join().name, entry, priority)
            except FencedError:
                self._rejoin()
                bundle = open_pack(self._store, self._join().name, entry, priority)
        if bundle is None:
            return []
        return self._store.loose_in(entry.state, bundle)

    def unpack(self, packed: ShardEntry) -> bool:
        """Make the tasks of a packed shard loose again; False when somebody else took it first."""
        with self._lock:
            try:
                return unpack(self._store, self._join().name, packed)
            except FencedError:
                self._rejoin()
                return unpack(self._store, self._join().name, packed)


def _check_err(err: object) -> None:
    if err is not None and type(err) is not int:
        raise InputError(f"err is {err!r}, but must be an exit code")


def fresh_path(entry: Entry, directory: str, renew: bool = False, priority: int | None = None) -> str:
    """Where an entry goes that somebody moves by hand: the directory, and a fresh name."""
    return f"{directory}/{moved_by_hand(entry.name, renew, priority).file}"
