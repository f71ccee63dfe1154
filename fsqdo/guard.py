"""The guard against bad nodes: a machine on which everything fails at once would else eat the whole queue.

A worker whose first few different tasks all fail within seconds claims no more. One success, or one attempt that took its time,
and the guard is over for good: the machine works. Tasks that were run before, anywhere, prove nothing about this machine.
"""

from __future__ import annotations

from fsqdo.liveness import Observer
from fsqdo.names import TaskName, is_worker_name
from fsqdo.store import Store

BAD_NODE_AFTER = 5
AT_ONCE_S = 3.0


class Guard:
    """Watches the first attempts of one worker.

    Parameters
    ----------
    after
        How many different tasks must have failed at once.

    Attributes
    ----------
    over
        It has seen what it waits for, the good or the bad.
    tripped
        It was the bad.
    """

    def __init__(self, after: int) -> None:
        self._after = after
        self._failed: list[int] = []
        self.over = after < 1
        self.tripped = False

    def saw(self, name: TaskName, outcome: str, elapsed_s: float) -> None:
        """An attempt has ended."""
        if self.over:
            return
        if outcome == "succeeded" or (outcome in ("failed", "retry") and elapsed_s >= AT_ONCE_S):
            self.over = True
        elif outcome in ("failed", "retry") and name.f == name.r == 0 and name.id not in self._failed:
            self._failed.append(name.id)
            self.over = self.tripped = len(self._failed) >= self._after

    def __str__(self) -> str:
        ids = ", ".join(map(str, self._failed))
        return f"its first {len(self._failed)} tasks ({ids}) all failed within {AT_ONCE_S:g} s: this machine may be bad"


def is_last(store: Store, worker: str) -> bool:
    """Whether no other worker of the queue is alive, as far as is known."""
    observer = Observer(store)
    others = (name for name in store.names("running") if is_worker_name(name) and name != worker)
    return all(observer.judge(name).alive is False for name in others)
