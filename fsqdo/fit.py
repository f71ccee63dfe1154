"""Which tasks a worker may claim: those it has the resources and the time for.

A pending task's file is read before its rename, and not again after it, so that looking costs nothing. What this worker can
never run it does not claim. What only has to wait until something here has ended is claimed by a worker that keeps no such
task yet; it then waits in the worker, while at most as many smaller ones as the worker has slots may start before it: so cores
do not idle for it, and it does not starve.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fsqdo.claims import Verdict
from fsqdo.durations import Durations, expected_s
from fsqdo.resources import Resources
from fsqdo.store import Store
from fsqdo.task import Definition
from fsqdo.taskoptions import Options

NEVER = float("inf")


class Fit:
    """What fits one worker.

    Parameters
    ----------
    ends
        When tasks must have ended, on the monotonic clock: the deadline less the grace, or infinity.
    keeps
        Whether a task that has to wait is kept already.

    Attributes
    ----------
    why
        The first task that this worker had to leave, and why; "" when there was none.
    """

    def __init__(self, store: Store, resources: Resources, ends: float, keeps: Callable[[], bool]) -> None:
        self._settings = store.settings
        self._resources = resources
        self._ends = ends
        self._keeps = keeps
        self.why = ""
        self.durations = Durations(store)

    def judge(self, definition: Definition) -> Verdict:
        """Whether to claim a pending task."""
        options = definition.options
        why = self.never(options)
        if why:
            self.why = self.why or f"task {definition.id}: {why}"
            return Verdict.LEAVE
        if self._keeps() and not self._resources.fits_now(options):
            return Verdict.LATER
        return Verdict.CLAIM

    def never(self, options: Options) -> str:
        """Why this worker cannot run a task, now or later; "" when it can."""
        return self._resources.never(options) or self._late(options)

    def fits_now(self, options: Options) -> bool:
        """Whether there is room for a task at this moment."""
        return self._resources.fits_now(options)

    def _late(self, options: Options) -> str:
        if self._ends == NEVER:
            return ""
        needed_s = expected_s(options, self._settings, self.durations)
        left_s = self._ends - time.monotonic()
        if needed_s is None or needed_s <= left_s:
            return ""
        return f"it asks for {needed_s:.3g} s and this worker has {max(left_s, 0):.3g} s left"
