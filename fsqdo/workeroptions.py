"""How a worker works, and what it did: plain data, checked when it is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fsqdo.errors import InputError


@dataclass
class WorkerOptions:
    """How a worker works.

    Attributes
    ----------
    slots, cores
        Tasks at once at most, and cores they may use in all (None: those this process may use, or one a slot if more).
    idle_s
        End after this many seconds without a task; None: when the queue is drained.
    max_tasks
        Start at most this many attempts.
    runtime_s
        End, with tasks stopped and given back, before this many seconds are over.
    script
        Template that makes a command of each task.
    func
        `package.module:function` to be called with each task in a forked child per slot, or a callable, called here.
    max_fails
        Claim no more after so many of its tasks have failed for good.
    health_check
        Command to be run before the first claim, in place of the queue's.
    bad_node_after
        End when the first so many different tasks all fail at once; 0: never. None: 5, or 0 for a callable.
    report
        Called with each line that people should see.
    verbose
        Report every claim and every end.
    """

    slots: int = 1
    cores: int | None = None
    idle_s: float | None = None
    max_tasks: int | None = None
    runtime_s: float | None = None
    script: str | None = None
    func: str | Callable[[Any], Any] | None = None
    max_fails: int | None = None
    health_check: str | None = None
    bad_node_after: int | None = None
    report: Callable[[str], None] = lambda text: print(f"fsqdo: {text}", file=sys.stderr)  # noqa: T201
    verbose: bool = False

    def __post_init__(self) -> None:
        for key, lowest in (("slots", 1), ("cores", 1), ("max_tasks", 0), ("max_fails", 1), ("bad_node_after", 0)):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < lowest):
                raise InputError(f"{key} is {value!r}, but must be an integer of at least {lowest}")
        for key in ("idle_s", "runtime_s"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
                raise InputError(f"{key} is {value!r}, but must be a number of seconds")
        if self.health_check is not None and (not self.health_check.strip() or "\0" in self.health_check):
            raise InputError(f"health_check is {self.health_check!r}, but must be a command")
        if self.func is not None and self.script is not None:
            raise InputError("a worker has a script or a function, not both")
        if callable(self.func) and self.slots != 1:
            raise InputError("a function of this process runs one task at a time", "give it as 'package.module:function'")
        if self.cores is None:
            self.cores = max(self.slots, len(os.sched_getaffinity(0)))


@dataclass
class Summary:
    """What a worker did: numbers of attempts, and why it ended; `trouble`: because something was wrong, with work left."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    interrupted: int = 0
    killed: int = 0
    why: str = ""
    trouble: bool = False

    def __str__(self) -> str:
        parts = [f"{self.succeeded} succeeded", f"{self.failed} failed"]
        parts += [f"{n} {word}" for n, word in self._rare() if n]
        return ", ".join(parts) + f"; {self.why}"

    def _rare(self) -> list[tuple[int, str]]:
        return [(self.retried, "to be retried"), (self.interrupted, "interrupted"), (self.killed, "killed")]

    def count(self, kind: str) -> None:
        """Add one attempt that ended so."""
        if kind == "succeeded":
            self.succeeded += 1
            return
        attribute = {"retry": "retried"}.get(kind, kind)
        setattr(self, attribute, getattr(self, attribute) + 1)
