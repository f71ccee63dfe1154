"""Run a Python function with each task object, in a forked child that is kept from task to task: one per slot of a worker.

The calling sequence::

    function = load_function("package.module:function")  # InputError: there is none
    slot = FunctionSlot(function)                        # forks nothing yet
    run = slot.start(task, log_fd, env, cwd)             # BusyError: give the task back
    ended = run.poll()                                   # after run.wait_fd became readable, or SIGCHLD; None while it runs
    slot.close()

Parent and child talk through two pipes, one JSON object a line::

    {"task": ..., "env": {...}, "cwd": null}
    {"exit_code": 0, "signal": null, "result": ..., "cpu_s": 0.1, "max_rss_kb": 9000}
    {"exit_code": 1, "signal": null, "error": "Traceback ...", "reason": "ValueError: ...", "cpu_s": 0.1, "max_rss_kb": 9000}

A task ends with its answer, or with the child: by a signal, `os._exit`, or a crash of the interpreter. The next task then gets
a new child. What a function does to its process stays for the next task in that slot: imported modules, module variables,
threads, signal handlers; and so do the processes it started and did not end, which share the child's process group (they die
with it). The directory is set anew for each task, and so are the environment variables that the worker or the task sets.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fsqdo.errors import InputError
from fsqdo.function_child import Function, flush, in_words, run_child
from fsqdo.runner import Ended, Gone, Run, current_directory, exit_or_signal, reap, signal_group
from fsqdo.spawn import BusyError

_READ_BYTES = 1 << 16
_CLOSING_S = 1.0

# The parent's ends of the pipes of all children: a new child closes its copies, or the others would not see their parent die.
_pipe_ends: set[int] = set()


def load_function(spec: str) -> Function:
    """Import the function `package.module:function`, or `module:Class.method`. The current directory is searched first.

    Raises
    ------
    InputError
        When there is no such module or function, or the import fails; the message says where.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise InputError(f"{spec!r} does not name a function", "write package.module:function")
    here = current_directory()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            hint = f"it is looked for in {here} and where Python finds its modules"
            raise InputError(f"there is no module {error.name}", hint) from None
        raise InputError(f"{module_name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{module_name} cannot be imported: {in_words(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{spec} is not a function but {type(found).__name__}")
    function: Function = found
    return function


class FunctionRun(Run):
    """A function at work; used like `Run`. Its process goes on after it, unless it was told to end."""

    def __init__(self, slot: FunctionSlot, child: _Child, started: float) -> None:
        super().__init__(child.pid, started)
        self._slot = slot
        self._child = child

    @property
    def wait_fd(self) -> int | None:
        """The pipe on which the answer comes; None after the end, or once the child has closed it (SIGCHLD follows)."""
        return None if self._ended is not None else self._child.answers

    def poll(self) -> Ended | None:
        """Say how it ended; None while it runs. Does not block, except for the instant in which a killed child ends."""
        if self._ended is not None:
            return self._ended
        child = self._child
        answer = child.read_answer()
        gone = child.reap() if answer is None else None
        if gone is not None:
            answer = child.read_answer()  # it may have answered between the two looks
        elapsed_s = time.monotonic() - self.started
        if answer is not None:
            self._ended = Ended(elapsed_s=elapsed_s, **answer)
            child.cpu_s += self._ended.cpu_s
        elif gone is not None:
            exit_code, number = exit_or_signal(gone.code)
            used_s = max(0.0, gone.cpu_s - child.cpu_s)
            self._ended = Ended(exit_code, number, used_s, gone.max_rss_kb, elapsed_s, reason=gone.reason)
        else:
            return None
        if child.doomed:
            self._slot.drop(child)
        return self._ended

    def _over(self) -> bool:
        if self.wait_fd is None:
            return True
        answers = select.poll()
        answers.register(self.wait_fd, select.POLLIN)
        return bool(answers.poll(0))  # its answer, or the end of its process

    def _send(self, number: int) -> None:
        if self._ended is None:
            self._child.signal(number)


class FunctionSlot:
    """A place where a function runs, with a child process of its own from the first task on.

    Parameters
    ----------
    function
        Called with the task object. What it returns is kept if it has a JSON form; if not, a line in the log says so, and the
        task has succeeded all the same. An exception is exit code 1; `sys.exit(n)` is exit code n.

    Notes
    -----
    The child is forked, so all that was imported is there at once. Threads are not: a module that starts some when it is
    imported will miss them. Python's `random` is seeded anew in each child, numpy's global generator is not.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._home = current_directory()
        self._child: _Child | None = None

    def start(
        self,
        task: object,
        log_fd: int,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        cpus: Sequence[int] = (),
    ) -> FunctionRun:
        """Call the function with a task, once the one before has ended.

        Parameters
        ----------
        task
            Any JSON value.
        log_fd
            What it prints goes there; the same number is taken for the same file.
        env
            Environment variables, for this task only.
        cwd
            Where it runs; None: where this process was when the slot was made.
        cpus
            Processors it runs on; (): those the one before had. A new process has those of the caller in any case.

        Raises
        ------
        BusyError
            No process could be made; give the task back.
        """
        request = (json.dumps({"task": task, "env": dict(env or {}), "cwd": cwd}) + "\n").encode()
        started = time.monotonic()
        child = self._child
        if child is None or child.log_fd != log_fd or child.reap() is not None or not child.send(request, cpus):
            self.close()  # none yet, or another log, or it died between two tasks
            child = self._child = self._fork(log_fd)
            if not child.send(request):
                self.close()
                raise BusyError("a new process for the function died at once")
        return FunctionRun(self, child, started)

    def close(self) -> None:
        """End the child, and what it left in its process group. For an idle slot; a running task is killed and waited for."""
        if self._child is not None:
            self.drop(self._child)

    def drop(self, child: _Child) -> None:
        """Give no more tasks to this child, and end it."""
        child.close()
        if child is self._child:
            self._child = None

    def _fork(self, log_fd: int) -> _Child:
        flush(sys.stdout, sys.stderr)  # else the child had a copy of what is unwritten
        fds: list[int] = []
        try:
            fds += os.pipe()
            fds += os.pipe()
            # A signal between fork and the child's own dispositions would run the worker's handlers there.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                pid = os.fork()
                if pid == 0:
                    run_child(self._function, fds[0], fds[3], log_fd, self._home, {*_pipe_ends, fds[1], fds[2]})
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise BusyError(f"no process could be started: {error.strerror}", "use fewer slots on this machine") from None
        os.close(fds[0])
        os.close(fds[3])
        return _Child(pid, fds[1], fds[2], log_fd)


class _Child:
    """The child of a slot, as its parent sees it.

    Attributes
    ----------
    answers
        The pipe from it; None once either side has closed it.
    doomed
        It is dead, or was told to die: it must not be given another task.
    cpu_s
        What its tasks so far have used.
    """

    def __init__(self, pid: int, requests: int, answers: int, log_fd: int) -> None:
        self.pid = pid
        self.log_fd = log_fd
        self.answers: int | None = answers
        self.doomed = False
        self.cpu_s = 0.0
        self._requests = requests
        self._fds = {requests, answers}
        self._buffer = b""
        self._closed_at = 0.0
        self._gone: Gone | None = None
        _pipe_ends.update(self._fds)
        os.set_blocking(answers, False)

    def send(self, request: bytes, cpus: Sequence[int] = ()) -> bool:
        """Give it a task, to be run on these processors; False when it is gone."""
        if cpus:
            with suppress(OSError):  # it died, or it is another user by now: the task runs all the same
                os.sched_setaffinity(self.pid, cpus)  # not reaped yet, so the pid is its own
        rest = memoryview(request)
        try:
            while rest:
                rest = rest[os.write(self._requests, rest) :]
        except BrokenPipeError:
            return False
        return True

    def read_answer(self) -> dict[str, Any] | None:
        """Take the answer, if all of it has come."""
        while self.answers is not None and not self._buffer.endswith(b"\n"):
            try:
                piece = os.read(self.answers, _READ_BYTES)
            except BlockingIOError:
                return None
            if not piece:
                self.answers, self._closed_at = None, time.monotonic()
            self._buffer += piece
        line, self._buffer = self._buffer, b""
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line.decode())
        return answer

    def reap(self) -> Gone | None:
        """Collect it if it has ended, and say how."""
        if self._gone is None:
            if self.answers is None and time.monotonic() - self._closed_at > _CLOSING_S:
                self.signal(signal.SIGKILL)  # the function has closed the pipe and goes on: no answer can come
            self._gone = reap(self.pid)
            self.doomed = self.doomed or self._gone is not None
        return self._gone

    def signal(self, number: int) -> None:
        """Signal its process group, and give it no more tasks: it may well answer before it dies."""
        self.doomed = True
        if self._gone is None:
            signal_group(self.pid, number)

    def close(self) -> None:
        """Kill it if it is still there, and close the pipes."""
        self.signal(signal.SIGKILL)
        if self._gone is None:
            self._gone = reap(self.pid, block=True)
        self.answers = None
        _pipe_ends.difference_update(self._fds)
        while self._fds:
            os.close(self._fds.pop())
