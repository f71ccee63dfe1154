"""The slots of a worker: in each runs one task at a time, with its log, its environment, its clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsqdo.claims import Claim
from fsqdo.errors import TaskError
from fsqdo.journal import log_path
from fsqdo.member import Member
from fsqdo.policy import Attempt, begin
from fsqdo.runner import Ended, Run, Spawner
from fsqdo.store import Appender, Store
from fsqdo.task import Definition, Options, command_from

if TYPE_CHECKING:
    from fsqdo.functions import FunctionSlot

NEVER = float("inf")
_NO_OPTIONS = Options()


class Launcher:
    """Starts tasks as processes, for all slots of a worker: as they are, through a script, or by a function's name.

    Parameters
    ----------
    script, func
        As in `WorkerOptions`.
    variables
        Environment variables that are the same for all tasks.
    """

    def __init__(self, script: str | None, func: str | None, variables: dict[str, str]) -> None:
        self._script = script
        self._variables = variables
        # The batch job is the worker's, not the task's: a worker started by a task must not claim to be in it.
        environ = {key: value for key, value in os.environ.items() if key != "FSQDO_JOB"}
        self._spawner = Spawner({**environ, **variables})
        self._new_function_slot = None if func is None else _function_slots(func)

    def start(self, slot: Slot, definition: Definition, log: Appender, env: dict[str, str]) -> Any:
        """Start a task in a slot; returns its run.

        Raises
        ------
        SpawnError, TaskError
            It cannot run, now or later.
        BusyError
            The machine is short of something; give the task back.
        """
        cwd = definition.options.cwd
        if self._new_function_slot is None:
            return self._spawner.start(self._command(definition), log.fd, env, cwd)
        slot.function = slot.function or self._new_function_slot()
        return slot.function.start(definition.task, log.fd, {**self._variables, **env}, cwd)

    def _command(self, definition: Definition) -> str:
        if self._script is not None:
            return command_from(definition.task, self._script)
        if isinstance(definition.task, str):
            return definition.task
        raise TaskError("an object is no command", "give the worker a script or a function: --script, --func")


def _function_slots(spec: str) -> Callable[[], FunctionSlot]:
    """Import a function by name, once; returns what makes a forked child for it."""
    from fsqdo.functions import FunctionSlot, load_function

    function = load_function(spec)
    return lambda: FunctionSlot(function)


class Slot:
    """One place in which a task runs.

    Attributes
    ----------
    claim, definition, options, attempt
        What it has; `claim` is None when it is free.
    run
        The process; None when there is none.
    stopped_as
        "" or how the attempt counts because it was told to stop: "failed" (time limit), "interrupted", "killed".
    due
        When its clock wants something, on the monotonic clock.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.function: FunctionSlot | None = None
        self._log: Appender | None = None
        self._log_first = self._log_end = 0
        self.clear()

    def clear(self) -> None:
        """Make it free."""
        self.claim: Claim | None = None
        self.definition: Definition | None = None
        self.options = _NO_OPTIONS
        self.attempt: Attempt | None = None
        self.run: Run | Any | None = None
        self.stopped_as = ""
        self._stop_at = self._kill_at = NEVER

    @property
    def due(self) -> float:
        """The earlier of its time limit and the end of its grace."""
        return min(self._stop_at, self._kill_at)

    def begin(self, store: Store, member: Member, launcher: Launcher, limit_s: float) -> None:
        """Start the process of the task it has; errors as of `Launcher.start`."""
        if self.definition is None or self.attempt is None or self.claim is None:
            return
        log = self._open_log(store, member)
        self.run = launcher.start(self, self.definition, log, self._environment(member))
        self._stop_at = self.attempt.started + limit_s
        member.journal.started(self.claim.name, self.attempt.started_at, self.index, self._log_first, self.run.pid)

    def _open_log(self, store: Store, member: Member) -> Appender:
        if self._log is None:
            store.make_directories(f"logs/{member.name}")
            self._log = Appender(store, log_path(member.name, self.index))
            self._log_end = self._log.size()
        # One task at a time writes to it, and nothing of a task's process group outlives it.
        self._log_first = self._log_end
        return self._log

    def _environment(self, member: Member) -> dict[str, str]:
        env = dict(self.options.env)
        env["FSQDO_WORKER"] = member.name
        env["FSQDO_TASK_ID"] = str(self.definition.id if self.definition else 0)
        env["FSQDO_SLOT"] = str(self.index)
        env["FSQDO_CORES"] = str(self.options.cores)
        env["FSQDO_GPUS"] = str(self.options.gpus)
        env["FSQDO_ATTEMPT"] = str(self.claim.name.attempt if self.claim else 1)
        return env

    def stop(self, kind: str, why: str, grace_s: float) -> None:
        """Send SIGTERM to the task's process group, and SIGKILL when `grace_s` is over; once."""
        if self.stopped_as or self.run is None:
            return
        self.stopped_as = kind
        if self.attempt is not None:
            self.attempt.reason = why
        self._stop_at = NEVER
        self._kill_at = time.monotonic() + grace_s
        self.run.terminate()

    def kill(self) -> None:
        """Send SIGKILL now."""
        self._kill_at = NEVER
        if self.run is not None:
            self.run.kill()

    def enforce(self, now: float, limit_s: float, grace_s: float) -> None:
        """Do what its clock wants: stop at the time limit, kill when the grace is over."""
        if now >= self._kill_at:
            self.kill()
        elif now >= self._stop_at:
            self.stop("failed", f"time limit of {limit_s:g} s", grace_s)

    def poll(self) -> tuple[Attempt, str] | None:
        """How the attempt ended, as (attempt, kind); None while it runs."""
        ended: Ended | None = None if self.run is None else self.run.poll()
        if ended is None:
            return None
        attempt = self.attempt or begin(self.index)
        attempt.elapsed_s, attempt.cpu_s, attempt.max_rss_kb = ended.elapsed_s, ended.cpu_s, ended.max_rss_kb
        attempt.exit_code, attempt.signal, attempt.result = ended.exit_code, ended.signal, ended.result
        attempt.detail = ended.error or ""
        attempt.reason = attempt.reason or ended.reason
        self.note_output(attempt)
        kind = "succeeded" if ended.exit_code == 0 else "failed"
        if not self.stopped_as:
            return attempt, kind
        if kind == "succeeded":  # it ended well in the very moment it was to be stopped
            attempt.reason = None
            return attempt, kind
        return attempt, self.stopped_as

    def note_output(self, attempt: Attempt) -> None:
        """Note which bytes of the log are this attempt's."""
        if self._log is not None:
            self._log_end = self._log.size()
            if self._log_end > self._log_first:
                attempt.log = (self.index, self._log_first, self._log_end)

    def close(self) -> None:
        """End its function's child, close its log."""
        if self.function is not None:
            self.function.close()
            self.function = None
        if self._log is not None:
            self._log.close()
            self._log = None
