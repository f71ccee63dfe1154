"""Start a program: posix_spawn in a session of its own, with the log as its output. Used by `fsqdo.runner` alone."""

from __future__ import annotations

import errno
import os
import signal
import time

from fsqdo.errors import FsqdoError, TaskError

SHELL = "/bin/sh"

_ALL_SIGNALS = tuple(int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_BUSY = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_BUSY_DELAYS_S = (0.01, 0.03, 0.1)


class SpawnError(TaskError):
    """The attempt failed before anything of it ran.

    Attributes
    ----------
    task_exit_code
        What to record: 126 when it can never be executed, None when it was not even tried (no such directory).
    """

    def __init__(self, message: str, task_exit_code: int | None = None) -> None:
        super().__init__(message)
        self.task_exit_code = task_exit_code


class BusyError(FsqdoError):
    """The machine has no process, memory or file descriptor left for it just now. That is not the task's failure."""


def shell(command: str, environ: dict[bytes, bytes], log_fd: int) -> int:
    """Start `/bin/sh -c command`, or its like for a command of any length; return the pid.

    Raises
    ------
    SpawnError, BusyError
    """
    if command[:1] in ("-", "+"):
        command = " " + command  # else sh takes it for an option of its own
    try:
        return execute(SHELL, ["sh", "-c", command], environ, log_fd)
    except OSError as error:
        if error.errno == errno.E2BIG:
            return _script(command, environ, log_fd)
        raise SpawnError(f"{SHELL}: {error.strerror}", 126) from None


def execute(program: str, argv: list[str], environ: dict[bytes, bytes], log_fd: int) -> int:
    """Start a program and return its pid, once it is running.

    Raises
    ------
    BusyError
        The machine is short of something, and was still after some tries.
    OSError
        The program cannot be executed.
    """
    delays = iter(_BUSY_DELAYS_S)
    while True:
        try:
            return _posix_spawn(program, argv, environ, log_fd)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            delay = next(delays, None)
            if delay is None:
                raise BusyError(f"no process could be started: {error.strerror}", "use fewer slots on this machine") from None
        time.sleep(delay)


def _posix_spawn(program: str, argv: list[str], environ: dict[bytes, bytes], log_fd: int) -> int:
    # The log first: its descriptor may be 0 where the worker was started without a stdin.
    actions = (
        (os.POSIX_SPAWN_DUP2, log_fd, 1),
        (os.POSIX_SPAWN_DUP2, log_fd, 2),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    )
    try:
        # Python ignores SIGPIPE and SIGXFSZ, `nohup` and `&` other signals: how a task ends must not depend on that.
        return os.posix_spawn(program, argv, environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_ALL_SIGNALS)
    except NotImplementedError:
        return _popen(program, argv, environ, log_fd)


def _popen(program: str, argv: list[str], environ: dict[bytes, bytes], log_fd: int) -> int:
    """Do the same in a Python that was built where posix_spawn knew no sessions (glibc before 2.26, as conda's often is)."""
    import subprocess

    old_mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())  # subprocess would hand ours on
    try:
        child = subprocess.Popen(
            argv,
            executable=program,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,
            close_fds=False,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    child.returncode = 0  # the runner waits for it: subprocess must not, nor warn that nobody did
    return child.pid


def _script(command: str, environ: dict[bytes, bytes], log_fd: int) -> int:
    """Run a command that is longer than one argument may be (128 KiB, MAX_ARG_STRLEN in execve(2)): sh reads it from a file.

    The file has no name; the command inherits its descriptor, as nothing that every sh understands could close it.
    """
    try:
        fd = _nameless_file()
        try:
            text = memoryview(os.fsencode(command))
            while text:
                text = text[os.write(fd, text) :]
            return execute(SHELL, ["sh", "-c", f". /dev/fd/{fd}"], environ, log_fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise SpawnError("the environment of the command is longer than the system allows", 126) from None
        raise SpawnError(f"the command is too long for an argument, and as a file: {error.strerror}", 126) from None


def _nameless_file() -> int:
    """Make an empty file without a name, in memory where the system has that; its descriptor is inherited."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fsqdo-command", 0)
    import tempfile

    with tempfile.TemporaryFile() as file:
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    return fd
