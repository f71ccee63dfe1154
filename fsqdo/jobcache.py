"""What a batch system last said of a queue's jobs, kept in `jobs/.states.json`: so it is not asked more often than it likes.

For each system: when it was asked, and the state of each id. That a job has ended is kept for good, and not asked again: batch
systems forget ended jobs. Whoever loses a race between two writers asks once more. No task is ever decided by a time in here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from fsqdo.batch import JobState
from fsqdo.errors import StorageError
from fsqdo.names import new_token
from fsqdo.store import Store

CACHE = "jobs/.states.json"


class StateCache:
    """The last answers of one batch system.

    Parameters
    ----------
    keep_s
        For how long an answer counts.
    """

    def __init__(self, store: Store, system: str, keep_s: float) -> None:
        self._store = store
        self._system = system
        self._keep_s = keep_s
        self._all = _read(store)
        self._asked_at, self._states = _entry(self._all.get(system))

    @property
    def fresh(self) -> bool:
        """Whether the last answer still counts. The clocks of hosts differ by a little, and then it counts a little longer."""
        return 0 <= time.time() - self._asked_at < self._keep_s

    def state(self, batch_id: str) -> JobState:
        """What is known of a job; UNKNOWN when nothing is."""
        return self._states.get(batch_id, JobState.UNKNOWN)

    def answered(self, states: Mapping[str, JobState]) -> None:
        """Keep a new answer; an empty one, of a query that failed, too: it is not repeated at once either."""
        ended = {batch_id: state for batch_id, state in self._states.items() if state is JobState.ENDED}
        self._asked_at = time.time()
        self._states = {**ended, **states}
        self._save()

    def submitted(self, batch_ids: list[str]) -> None:
        """Keep that jobs were handed over: they wait, as far as anybody knows until the next answer."""
        self._states |= dict.fromkeys(batch_ids, JobState.QUEUED)
        self._save()

    def _save(self) -> None:
        states = {batch_id: str(state) for batch_id, state in self._states.items() if state is not JobState.UNKNOWN}
        content = {**self._all, self._system: {"asked_at": self._asked_at, "states": states}}
        try:
            self._store.replace(CACHE, json.dumps(content).encode(), f"states.{new_token()}", sync=False)
        except StorageError:
            pass  # a queue of somebody else, or a full file system: the next one asks again


def _read(store: Store) -> dict[str, Any]:
    try:
        raw = json.loads(store.read(CACHE) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _entry(raw: Any) -> tuple[float, dict[str, JobState]]:
    try:
        return float(raw["asked_at"]), {str(batch_id): JobState(state) for batch_id, state in raw["states"].items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return 0.0, {}
