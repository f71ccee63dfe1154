"""The check of a success (`success_check`): a command run after a task that ended well, in its place and with what it had.

A task and its check are one attempt: one time limit, one log, one slot; whoever stops the task stops the check. The check is
in a session of its own, which stands in the journal as the attempt's, so that nothing of it outlives a worker that dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fsqdo.errors import StorageError, TaskError
from fsqdo.rules import SUCCESS_CHECK, action_table, end_of
from fsqdo.runner import BusyError, Ended, Run, Spawner
from fsqdo.settings import Settings

Announce = Callable[[int], None]


def well_ended(settings: Settings) -> Callable[[Ended], bool]:
    """What tells whether an end is a success: exit code 0, or an end that `exit_codes` calls so."""
    well = {end for end, action in action_table(settings.exit_codes).items() if action == "succeed"}
    if not well:
        return lambda ended: ended.exit_code == 0
    return lambda ended: ended.exit_code == 0 or end_of(ended.exit_code, ended.signal) in well


class Check:
    """The `success_check` of a queue, for all slots of a worker.

    Parameters
    ----------
    command
        For the shell, like a task's.
    spawner
        What starts it.
    is_well
        Whether an end counts as a success, and so is to be checked.
    """

    def __init__(self, command: str, spawner: Spawner, is_well: Callable[[Ended], bool]) -> None:
        self._prepared = spawner.prepare(command)
        self._spawner = spawner
        self.is_well = is_well

    def start(self, environ: Mapping[bytes, bytes], cwd: str, log_fd: int, exit_code: int) -> Run:
        """Start it with a task's environment, directory and log; errors as of `Spawner.start_prepared`."""
        variables = {**environ, b"FSQDO_EXIT_CODE": str(exit_code).encode()}
        return self._spawner.start_prepared(self._prepared._replace(environ=variables, cwd=cwd), log_fd)


class CheckedRun:
    """A task and, once that has ended well, its check; used like `Run`.

    Parameters
    ----------
    run
        The task, at work; or how it ended (a function of this process).
    start
        Starts the check, given the task's exit code.

    Attributes
    ----------
    announce
        Called with the pid of the check when it runs.
    """

    def __init__(self, run: Run | Ended, check: Check, start: Callable[[int], Run], started: float) -> None:
        self._run: Run | None = run if isinstance(run, Run) else None
        self._task: Ended | None = run if isinstance(run, Ended) else None
        self._check = check
        self._start = start
        self._killed = False
        self.announce: Announce = lambda pid: None
        self.started = started
        self.pid = 0 if self._run is None else self._run.pid

    @property
    def wait_fd(self) -> int | None:
        """As of `Run`."""
        return None if self._run is None else self._run.wait_fd

    def terminate(self) -> bool:
        """Send SIGTERM to what runs now, the task or the check; False when both have ended by themselves.

        A check that does not run yet never will.
        """
        if self._run is not None and self._task is not None:
            return self._run.terminate()
        self._killed = True
        if self._run is not None:
            self._run.terminate()
        return True

    def kill(self) -> None:
        """Send SIGKILL to what runs now; a check that does not run yet never will."""
        self._killed = True
        if self._run is not None:
            self._run.kill()

    def poll(self) -> Ended | None:
        """How both ended; None while one of them runs, or while the machine has no process for the check."""
        ended = None if self._run is None else self._run.poll()
        if self._run is not None and ended is None:
            return None
        if self._run is not None and self._task is not None and ended is not None:
            # From the start of the task, as its time limit counts, not the sum: a check begins a moment after the task's end.
            before_s = self._run.started - self.started
            return self._joined(self._task, ended._replace(elapsed_s=before_s + ended.elapsed_s))
        self._task = self._task or ended
        if self._task is None or not self._check.is_well(self._task):
            return self._task
        self._run = None
        return self._begin(self._task)

    def _begin(self, task: Ended) -> Ended | None:
        """Start the check; how the attempt ended when that cannot be."""
        if self._killed:
            return _failed(task, "it was stopped before it began")
        try:
            self._run = self._start(end_of(task.exit_code, task.signal) or 0)
        except BusyError:
            return None  # asked again with the next poll
        except TaskError as error:
            return _failed(task, error.message)
        self.pid = self._run.pid
        self.announce(self.pid)
        return None

    @staticmethod
    def _joined(task: Ended, check: Ended) -> Ended:
        whole = task._replace(
            cpu_s=task.cpu_s + check.cpu_s,
            max_rss_kb=max(task.max_rss_kb, check.max_rss_kb),
            elapsed_s=check.elapsed_s,
        )
        if check.exit_code == 0:
            return whole
        how = f"signal {check.signal}" if check.exit_code is None else f"exit code {check.exit_code}"
        return _failed(whole, how)


def _failed(task: Ended, how: str) -> Ended:
    """The end of an attempt whose check failed: without an exit code, since the task's own was a good one."""
    return task._replace(exit_code=None, signal=None, result=None, reason=f"{SUCCESS_CHECK} {how}", cause=SUCCESS_CHECK)


def announcing(started: Callable[[int], None]) -> Announce:
    """Call `started` with the check's pid; a note that cannot be written does not end an attempt."""

    def announce(pid: int) -> None:
        try:
            started(pid)
        except StorageError:
            return

    return announce
