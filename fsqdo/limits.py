"""Time limits: a task's own, the queue's, and the queue's as a percentage of what tasks took so far (`time_limit: "300%"`).

The median is that of the last successes in a few journals, this worker's own among them as one of many. It is looked up rarely
and never for one task: what it costs does not grow with the number of tasks.
"""

from __future__ import annotations

import time
from contextlib import suppress

from fsqdo import journal
from fsqdo.errors import StorageError
from fsqdo.rules import read_percentage
from fsqdo.store import Store
from fsqdo.taskoptions import Options

NEVER = float("inf")
LEAST_SAMPLES = 10
FLOOR_S = 10.0
REFRESH_S = 60.0
EARLY_S = 5.0


class Limits:
    """The time limits of the tasks of one worker.

    Notes
    -----
    A relative limit holds from the tenth success on, also for what was started before, and is never below 10 s: where the
    median is a tenth of a second, three times that says nothing about a node that is busy for a moment.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 0.0
        self._relative_s = NEVER

    @property
    def changing(self) -> bool:
        """Whether the limit of a running task may be another one later."""
        return self._store.settings.time_limit is not None

    def of(self, options: Options) -> float:
        """The time limit of a task, in seconds, as of now."""
        if options.time_limit_s:
            return options.time_limit_s
        settings = self._store.settings
        fixed_s = settings.time_limit_s or NEVER
        if settings.time_limit is None:
            return fixed_s
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (EARLY_S if self._relative_s == NEVER else REFRESH_S)
            with suppress(StorageError):  # what was known stays
                self._look(read_percentage(settings.time_limit) or NEVER)
        return min(fixed_s, self._relative_s)

    def words(self, options: Options, limit_s: float) -> str:
        """What is said of a task that was stopped at this limit."""
        fixed = options.time_limit_s or self._store.settings.time_limit_s
        if limit_s == fixed or self._store.settings.time_limit is None:
            return f"time limit of {limit_s:g} s"
        return f"time limit of {limit_s:.4g} s ({self._store.settings.time_limit} of the median, at least {FLOOR_S:g} s)"

    def _look(self, factor: float) -> None:
        elapsed = journal.durations(self._store)
        if len(elapsed) >= LEAST_SAMPLES:
            elapsed.sort()
            self._relative_s = max(FLOOR_S, factor * elapsed[len(elapsed) // 2])
