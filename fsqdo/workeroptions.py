"""How a worker works, and what it did: plain data, checked when it is made."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fsqdo import allocation
from fsqdo.errors import InputError

GRACE_S = 10.0


_MOST = 100_000


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # nobody listens: no reason to end
        print(f"fsqdo: {text}", file=sys.stderr)  # noqa: T201


@dataclass
class WorkerOptions:
    """How a worker works.

    Attributes
    ----------
    slots, cores
        Tasks at once at most, and cores they may use in all (None: those this process may use, or one a slot if more).
    gpus, mem_mb
        Gpus and memory (MiB) they may use in all (None: those of the allocation, or of the machine).
    nodes
        Nodes of the allocation that are this worker's, its own the first; `cores`, `gpus` and `mem_mb` are those of each.
    mpirun
        Words that start a parallel task, as one text or several (None: srun in Slurm, else mpiexec).
    pin
        Keep each task on processors of its own.
    stagger_s
        Wait at random up to so many seconds before the first claim.
    grace_s
        Seconds that tasks have to end when they are told to stop, and that stopping begins before the deadline. None: 10, or
        half of what the batch system leaves if that is less.
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
    gpus: int | None = None
    mem_mb: int | None = None
    nodes: int = 1
    mpirun: str | tuple[str, ...] | None = None
    pin: bool = False
    stagger_s: float = 0.0
    grace_s: float | None = None
    idle_s: float | None = None
    max_tasks: int | None = None
    runtime_s: float | None = None
    script: str | None = None
    func: str | Callable[[Any], Any] | None = None
    max_fails: int | None = None
    health_check: str | None = None
    bad_node_after: int | None = None
    report: Callable[[str], None] = _to_stderr
    verbose: bool = False

    def __post_init__(self) -> None:
        lowest_values = {"slots": 1, "cores": 1, "gpus": 0, "mem_mb": 1, "nodes": 1, "max_tasks": 0, "max_fails": 1}
        for key, lowest in {**lowest_values, "bad_node_after": 0}.items():
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < lowest):
                raise InputError(f"{key} is {value!r}, but must be an integer of at least {lowest}")
        for key in ("idle_s", "runtime_s", "stagger_s", "grace_s"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
                raise InputError(f"{key} is {value!r}, but must be a number of seconds")
        if self.health_check is not None and (not self.health_check.strip() or "\0" in self.health_check):
            raise InputError(f"health_check is {self.health_check!r}, but must be a command")
        if self.script is not None and (not self.script.strip() or "\0" in self.script):
            raise InputError(f"script is {self.script!r}, but must be a command")
        for key in ("slots", "gpus"):
            if (getattr(self, key) or 0) > _MOST:
                raise InputError(f"{key} is {getattr(self, key)}, but must be at most {_MOST}")
        self._check_func()
        if self.cores is None:
            self.cores = max(self.slots, allocation.cores(os.environ))
        self.mpirun = _mpirun(self.mpirun)

    def _check_func(self) -> None:
        if self.func is not None and not callable(self.func) and not isinstance(self.func, str):
            raise InputError(f"func is {self.func!r}, but must be a function", "or its name, as 'package.module:function'")
        if self.func is not None and self.script is not None:
            raise InputError("a worker has a script or a function, not both")
        if callable(self.func) and self.slots != 1:
            raise InputError("a function of this process runs one task at a time", "give it as 'package.module:function'")


def _mpirun(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The words of a command; by default what is usual here."""
    if given is None:
        return ("srun",) if os.environ.get("SLURM_JOB_ID") else ("mpiexec",)
    try:
        words = tuple(shlex.split(given)) if isinstance(given, str) else tuple(given)
    except ValueError as error:
        raise InputError(f"mpirun is {given!r}, which is no command: {error}") from None
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise InputError(f"mpirun is {given!r}, but must be a command", "such as srun, or mpiexec --oversubscribe")
    return words


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
