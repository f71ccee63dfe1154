"""How long the tasks of a queue take: what `time_request: auto` goes by. Little is read, and rarely."""

from __future__ import annotations

import time
from collections import deque

from fsqdo import journal
from fsqdo.settings import Settings
from fsqdo.store import Store
from fsqdo.taskoptions import Options

SAMPLES = 20
_KEEP = 200
_AGAIN_S = 60.0


class Durations:
    """The times of tasks that succeeded: this worker's own, and until there are enough of them some of others' journals.

    Notes
    -----
    At most once a minute some journals are looked at, and none any more once this worker has seen 20 tasks itself.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._own: deque[float] = deque(maxlen=_KEEP)
        self._others: list[float] = []
        self._read_at = float("-inf")
        self._known: tuple[int, float] | None = None

    def note(self, elapsed_s: float) -> None:
        """A task took so long."""
        self._own.append(elapsed_s)
        self._known = None

    def p90_s(self) -> float | None:
        """What nine of ten tasks need at most, in seconds; None as long as fewer than 20 are known."""
        if len(self._own) < SAMPLES and time.monotonic() - self._read_at > _AGAIN_S:
            self._read_at = time.monotonic()
            self._others = journal.durations(self._store)
            self._known = None
        if self._known is None:
            known = sorted([*self._own, *self._others])
            self._known = (len(known), known[(9 * len(known) - 1) // 10] if known else 0.0)
        number, value = self._known
        return value if number >= SAMPLES else None


def expected_s(options: Options, settings: Settings, durations: Durations) -> float | None:
    """How long a task is expected to need, in seconds: as it says itself, else as was seen, else as the queue says."""
    if options.time_request_s is not None:
        return options.time_request_s
    seen_s = durations.p90_s() if settings.time_request == "auto" else None
    return settings.time_request_s if seen_s is None else seen_s
