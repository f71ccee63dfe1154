"""What failures lead to beyond their own task: a worker ends (`--max-fails`, the guard), or the queue is paused (`max_fails`).

`PAUSED` holds the reason as its first line. `RESUMED` holds the names of the tasks that had failed when the queue was last
resumed, a line each: these do not count again. `trouble/<worker>.txt` is what a worker that ended in trouble left for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fsqdo.guard import BAD_NODE_AFTER, Guard, is_last
from fsqdo.names import RESUMED, TaskName
from fsqdo.outcome import Outcome
from fsqdo.policy import Attempt
from fsqdo.store import Store
from fsqdo.task import State
from fsqdo.texts import utc_now
from fsqdo.workeroptions import WorkerOptions

TROUBLE_DIR = "trouble"
_REST = 10.0


class Failures:
    """The failures that one worker saw, and what is to be done about them.

    Attributes
    ----------
    why
        "" or why this worker is to claim no more.
    due
        Whether `act` has something to do.
    watching
        Whether successes are to be told, too.
    careful
        Whether the next task must not be started before the end of the one before it is recorded.
    """

    def __init__(self, store: Store, options: WorkerOptions, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._max_fails = options.max_fails
        self._guard = Guard(_guarded_after(options))
        self._failed = 0
        self._pauses = ""
        self._uncounted = False
        self._next_count = 0.0
        self._noted = False
        self.why = ""
        self.due = False
        self.watching = not self._guard.over

    @property
    def careful(self) -> bool:  # noqa: D102  (see Attributes)
        return self.watching or self._max_fails is not None

    def saw(self, name: TaskName, outcome: Outcome, attempt: Attempt) -> None:
        """An attempt has ended, and is about to be recorded."""
        if self.watching and attempt.slot is not None:  # not for one that could not even be read
            self._guard.saw(name, outcome.outcome, attempt.elapsed_s)
            self.watching = not self._guard.over
            if self._guard.tripped and not self.why:
                self.why, self.due = str(self._guard), True
        if attempt.pauses:
            self._pauses, self.due = attempt.pauses, True
        if outcome.outcome == "failed":
            self._failed += 1
            if self._max_fails is not None and self._failed >= self._max_fails and not self.why:
                self.why = f"{self._failed} of its tasks failed (--max-fails {self._max_fails})"
            if self._store.settings.max_fails is not None:
                self._uncounted = self.due = True

    def saw_late(self) -> None:
        """Outcomes that were kept have been recorded: what was counted before was without them."""
        if self._store.settings.max_fails is not None:
            self._uncounted = self.due = True

    def act(self, worker: str, last: bool = False) -> bool:
        """Do what is due; whether the queue is paused now, by this or by another worker that saw too many failures.

        Parameters
        ----------
        last
            The worker is about to end: count now, however long it takes.

        Raises
        ------
        StorageError
            It is due still.
        """
        if self._guard.tripped and not self._noted:
            self._note(worker)
        paused = False
        if self._pauses:
            paused = _pause(self._store, self._pauses, self._report)
            self._pauses = ""
        now = time.monotonic()
        if self._uncounted and (last or now >= self._next_count):
            paused = pause_after_too_many(self._store, self._report) or paused or self._store.paused()
            self._uncounted = False
            ended = time.monotonic()
            self._next_count = ended + _REST * (ended - now)  # a tenth of the time at most
        self.due = self._uncounted
        return paused

    def _note(self, worker: str) -> None:
        more = "; it was the only worker: nobody works on this queue now" if is_last(self._store, worker) else ""
        self._report(f"this worker ends: {self._guard}{more}")
        note(self._store, worker, f"{self._guard}{more}")
        self._noted = True


def _guarded_after(options: WorkerOptions) -> int:
    if callable(options.func):
        return 0  # a function of somebody's own program: nothing is learnt about the machine
    return BAD_NODE_AFTER if options.bad_node_after is None else options.bad_node_after


def _pause(store: Store, why: str, report: Callable[[str], None]) -> bool:
    if not store.pause(f"{why} ({utc_now()})"):
        return False
    report(f"the queue is paused: {why}")
    return True


# ---------------------------------------------------------------- the queue
def failed_since_resume(store: Store) -> int:
    """Number of tasks that are failed and were not yet when the queue was last resumed."""
    before = set((store.read(RESUMED) or b"").decode(errors="replace").split())
    return sum(entry.name.size for entry in store.entries(State.FAILED) if str(entry.name) not in before)


def pause_after_too_many(store: Store, report: Callable[[str], None] = lambda text: None) -> bool:
    """Pause a queue that has its `max_fails`; whether it was paused now.

    Notes
    -----
    A listing of `failed/`, then PAUSED is written. A kill between the two leaves it to whoever sees the next failure.
    """
    most = store.settings.max_fails
    if most is None or store.paused():
        return False
    failed = failed_since_resume(store)
    return failed >= most and _pause(store, f"{failed} tasks failed (max_fails is {most})", report)


def forgive(store: Store) -> None:
    """Let what has failed so far not count towards `max_fails`, and forget the trouble that workers had: a resume.

    Notes
    -----
    RESUMED is replaced whole, before PAUSED is removed: a kill between leaves the queue paused.
    """
    if store.settings.max_fails is not None:
        failed = "".join(f"{entry.name}\n" for entry in store.entries(State.FAILED))
        store.replace(RESUMED, failed.encode(), f"resumed.{store.token}")
    for file in store.names(TROUBLE_DIR):
        store.unlink(f"{TROUBLE_DIR}/{file}")


# ---------------------------------------------------------------- trouble
def note(store: Store, worker: str, text: str) -> None:
    """Leave word of why a worker ended in trouble."""
    store.write(f"{TROUBLE_DIR}/{worker}.txt", f"{utc_now()} {text}\n".encode(errors="replace"), make=True)


def troubles(store: Store) -> list[str]:
    """What workers left of their trouble since the last resume, one line each."""
    found = []
    for file in store.names(TROUBLE_DIR):
        text = (store.read(f"{TROUBLE_DIR}/{file}") or b"").decode(errors="replace").strip()
        if file.endswith(".txt") and text:
            found.append(f"{file.removesuffix('.txt')}: {text.splitlines()[0]}")
    return found
