"""The pass: finish what others left in the middle, put right what was misplaced, release retries, promote, recover, pack.

Any worker or shell may run it.

A soft lock keeps a thousand workers from all doing it at once. It only saves work: seen for longer than a pass takes (by the
clock of who sees it: a file's time is compared with itself alone), the pass is done all the same, since every part of it can
be done by several at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from fsqdo import misplaced, packs, requirements
from fsqdo.errors import FormatError, StorageError
from fsqdo.packing import BATCH, Packer
from fsqdo.recovery import recover
from fsqdo.store import Store
from fsqdo.task import State

_LOCK = "locks/pass"
_ASK_S = 5.0
_HELD_S = 30.0


class Passes:
    """The passes of one process over one queue.

    Parameters
    ----------
    report
        Told what does not keep the pass from the rest: that there is no room to pack.

    Attributes
    ----------
    held_up
        The last pass was left to one who was at it already before: he may be dead.

    Notes
    -----
    Only renames that are decisions of their own; a kill anywhere leaves what the next pass goes on with.
    """

    def __init__(self, store: Store, report: Callable[[str], None] = lambda text: None) -> None:
        self._store = store
        self._report = report
        self._complete_loads: set[str] = set()
        self._workers = 1
        self._packer = Packer(store)
        self._lock_seen: tuple[int, float] | None = None
        self._passed: int | None = None
        self.held_up = False

    def run(self, shards: int = BATCH) -> bool:
        """Do the pass unless somebody else is at it, and pack at most so many shards; True when something moved."""
        lock = self._lock()
        if lock is None:
            return False
        try:
            targets = packs.roll_forward(self._store, self._complete_loads)
            moved = requirements.look_again(self._store, targets)
            moved += misplaced.put_right(self._store, self._report)
            moved += requirements.promote(self._store)
            moved += self._recover()
            if self._store.settings.pack:
                moved += self._pack(lambda: self._packer.run(shards))
            return moved > 0
        finally:
            if lock is not False:
                with suppress(OSError):  # nothing rests on it
                    lock.release()

    def _recover(self) -> int:
        """Recover; what cannot be read of one dead worker keeps nobody from the rest."""
        try:
            return sum(recovery.tasks for recovery in recover(self._store))
        except (FormatError, StorageError) as error:
            if isinstance(error, StorageError) and not error.unreadable:
                raise
            self._report(str(error))
            return 0

    def due(self) -> bool:
        """Whether nobody seems to have done the pass since this was asked last, if it was: each takes and leaves the lock.

        Notes
        -----
        One lstat; times of the file server are compared with themselves alone. Where locks do not work it is always due.
        """
        before, self._passed = self._passed, self._store.changed_ns("locks")
        return self._passed is None or self._passed == before

    def _pack(self, pack: Callable[[], int]) -> int:
        """Pack; no worker waits for room, or for a journal that can be read, when this is all there is to do."""
        try:
            return pack()
        except (FormatError, StorageError) as error:
            if isinstance(error, StorageError) and not (error.full or error.unreadable):
                raise
            self._report(f"finished tasks are not packed now: {error}")
            return 0

    def pack_left(self, shards: Iterable[int]) -> None:
        """Pack such of these shards as have ended: this worker had tasks in them and has gone on to others.

        Whoever ends the last task of a shard leaves it after that, so there is always one who finds it ended.
        """
        if self._store.settings.pack:
            self._pack(lambda: self._packer.run_on(shards))

    @property
    def sharers(self) -> int:
        """Number of workers that share the work of the passes, as seen in the last one; at least 1."""
        return max(1, self._workers)

    def _lock(self) -> Any:
        """The lock, False when it is done without, None when others are at it."""
        self.held_up = False
        self._workers = len(self._store.ls("running") or ())
        if self._workers <= 1:
            return False  # nobody to share with, so the library need not be imported
        held_s = self._held_s()
        if held_s is not None and held_s < _ASK_S:  # nor by all those who only learn that somebody is at it
            self.held_up = held_s > 0
            return None
        if held_s is not None and held_s >= _HELD_S:
            try:
                self._store.unlink(_LOCK)
            except StorageError:  # somebody else's, perhaps
                return False
        # Of one who died on this host the library knows at once, and takes his lock.
        from filelock import SoftFileLock, Timeout

        lock = SoftFileLock(self._store.path(_LOCK), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            self.held_up = bool(held_s)
            return None
        except OSError:  # locks do not work here: nothing rests on them
            return False
        return lock

    def _held_s(self) -> float | None:
        """For how many seconds this process has seen the lock that is there; None when there is none."""
        changed = self._store.changed_ns(_LOCK)
        if changed is None:
            self._lock_seen = None
            return None
        now = time.monotonic()
        if self._lock_seen is None or self._lock_seen[0] != changed:
            self._lock_seen = (changed, now)
        return now - self._lock_seen[1]

    def more_to_come(self) -> bool:
        """Whether a task that is not pending now may become so: by a pass, by itself, or by what runs and is waited for."""
        if self.held_up:
            return True
        if next(self._store.delayed(), None) is not None:
            return True
        holds = {requirement for requirement, _ in self._store.watched()}
        if not holds:
            return False
        return any(entry.name.first in holds for entry in self._store.entries(State.RUNNING))
