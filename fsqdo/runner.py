"""Run one command and say how it ended. This module knows no queue; functions are run by `fsqdo.functions`.

The calling sequence of a worker::

    spawner = Spawner()                                  # once
    run = spawner.start(command, log_fd, env, cwd)       # SpawnError: the attempt failed; BusyError: give the task back
    ended = run.poll()                                   # None while it runs: again after SIGCHLD
    run.terminate()                                      # SIGTERM to its process group; run.kill() for SIGKILL

Every command gets a session and process group of its own, /dev/null as stdin, the log itself as stdout and stderr, no blocked
and no ignored signals. It is executed directly when no shell could do anything with it but split it into words and execute the
first, else by `/bin/sh -c`. When the direct way fails, `sh` is asked after all: so `sh` alone decides what an outcome is (127
not found, 126 not executable, a script without `#!` is run), whichever way is taken.

The worker's own current directory is where the last command was started: everything else in the worker needs absolute paths.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from fsqdo.errors import InputError
from fsqdo.spawn import BusyError, SpawnError, execute, shell

__all__ = ["BusyError", "Ended", "Run", "SpawnError", "Spawner"]

# Only these characters, and in the first word fewer, mean themselves and nothing else to every sh. Not here: whatever expands,
# quotes, separates or assigns, what depends on the locale (anything not ASCII), and `-` or `+` as the very first character.
_PLAIN_COMMAND = re.compile(r"[ \t]*(?![-+])[A-Za-z0-9_./+@,:-]+(?:[ \t]+[A-Za-z0-9_./+@,:%=-]+)*[ \t]*", re.ASCII)

# Reserved words and builtins of dash, bash, ksh, zsh and busybox: a program of the same name may differ in the details.
# (ksh has also cat, sleep and the like as builtins. These do what the programs do, and are too common to go through sh.)
_SHELL_WORD_LIST = """
    if then else elif fi do done case esac while until for in function select time coproc foreach repeat nocorrect always
    end . : alias autoload bg bind break builtin caller cd chdir command compgen complete compopt continue declare dirs
    disown echo enable eval exec exit export false fc fg float functions getconf getopts global hash help hist history
    inlib integer jobs kill let local log logout mapfile nameref newgrp noglob popd print printf pushd pwd r read
    readarray readonly realpath redirect rename return set setopt shift shopt source stop suspend test times trap true
    type typeset ulimit umask unalias unset unsetopt vared wait whence where which whoami
"""
_SHELL_WORDS = frozenset(_SHELL_WORD_LIST.split())

_LOOK_AGAIN_S = 1.0
_encoded = lru_cache(maxsize=1024)(os.fsencode)  # names and most values come again with every task


class Ended(NamedTuple):
    """How an attempt ended.

    Attributes
    ----------
    exit_code, signal
        At most one is set. Exit code 128+n is signal n, as a shell reports its child's death. Neither: it did not run at all,
        and `reason` says why.
    cpu_s
        CPU seconds, of its children that it waited for, too.
    max_rss_kb
        Peak memory in KiB. Never less than the worker's own at the start of a command (Linux hands the peak down through
        fork); for a function the peak since its process began.
    elapsed_s
        Seconds from the start until the end was seen.
    result
        What a function returned.
    error
        Traceback of a function's exception.
    reason
        In words, where exit code and signal do not say it.
    cause
        "", or `rules.SUCCESS_CHECK`: the command ended well, and the check after it did not.
    """

    exit_code: int | None
    signal: int | None
    cpu_s: float
    max_rss_kb: int
    elapsed_s: float
    result: Any = None
    error: str | None = None
    reason: str | None = None
    cause: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.exit_code == 0


def exit_or_signal(code: int) -> tuple[int | None, int | None]:
    """Exit code and signal to record, from `os.waitstatus_to_exitcode` or an exit code: 128+n is signal n."""
    if code < 0:
        return None, -code
    if 128 < code <= 192:
        return None, code - 128
    return code, None


class Prepared(NamedTuple):
    """A command with all that can be found out before it is started.

    Attributes
    ----------
    command
        As it was given.
    words
        To be executed directly; None when only a shell can tell.
    environ
        Its whole environment; may still be changed.
    cwd
        Where it runs, an absolute path.
    """

    command: str
    words: list[str] | None
    environ: dict[bytes, bytes]
    cwd: str


class Run:
    """A command that was started, the leader of its own session and process group.

    Attributes
    ----------
    pid
        Also the id of the process group.
    started
        `time.monotonic()` just before it was started: what it takes is never shorter than it ran.
    """

    def __init__(self, pid: int, started: float) -> None:
        self.pid = pid
        self.started = started
        self._ended: Ended | None = None

    @property
    def wait_fd(self) -> int | None:
        """A descriptor that becomes readable when `poll` should be asked; None: SIGCHLD says so."""
        return None

    def poll(self) -> Ended | None:
        """Say how it ended; None while it runs. Does not block.

        What the command left behind in its process group is killed. A process that made a session of its own escapes.
        """
        if self._ended is None:
            gone = reap(self.pid)
            if gone is not None:
                exit_code, number = exit_or_signal(gone.code)
                elapsed = time.monotonic() - self.started
                self._ended = Ended(exit_code, number, gone.cpu_s, gone.max_rss_kb, elapsed, reason=gone.reason)
        return self._ended

    def terminate(self) -> bool:
        """Send SIGTERM to the whole process group; False when it has ended by itself, which `poll` tells of."""
        over = self._over()
        self._send(signal.SIGTERM)
        return not over

    def _over(self) -> bool:
        """Whether it has ended, without collecting it: whoever waits for that is still to be woken by it."""
        try:
            return self._ended is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def kill(self) -> None:
        """Send SIGKILL to the whole process group; nothing when it has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        # Until `poll` has reaped it the pid is ours, dead or alive; afterwards it may be anybody's.
        if self._ended is None:
            signal_group(self.pid, number)


class Gone(NamedTuple):
    """What the kernel says of a child that has ended: `os.waitstatus_to_exitcode`, and what it used."""

    code: int
    cpu_s: float
    max_rss_kb: int
    reason: str | None = None


def signal_group(pid: int, number: int) -> None:
    """Signal the process group of a child that was not reaped yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)  # just forked, on its way to its own group
    except PermissionError:
        pass  # all that is there runs as another user by now (setuid)


def first_ended() -> int | None:
    """Pid of a child of this process that has ended and was not collected yet; None when all run.

    Raises
    ------
    ChildProcessError
        When there is no child at all: somebody else has collected them.
    """
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None if found is None else found.si_pid


def reap(pid: int, block: bool = False) -> Gone | None:
    """Collect a child that has ended, and kill what is left of its process group. None while it runs."""
    try:
        # WNOWAIT leaves the zombie in place: as long as it is there its pid cannot be given to another process or group.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG)) is None:
            return None
        signal_group(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:  # somebody else waited for it, or SIGCHLD is ignored: its outcome is lost, and success not proven
        return Gone(1, 0.0, 0, "its exit status was taken by another part of this process")
    return Gone(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


class Spawner:
    """Starts commands; holds what need not be found out for each: environment, current directory, where programs are.

    Parameters
    ----------
    environ
        What every command finds in its environment; default: the environment of this process as it is now.

    Raises
    ------
    InputError
        When the current directory is gone.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._home = current_directory()
        self._here = self._home
        self._here_until = 0.0
        self._environ = {os.fsencode(k): os.fsencode(v) for k, v in (os.environ if environ is None else environ).items()}
        self._programs: dict[tuple[str, bytes | None], str] = {}
        self._shell_words = _SHELL_WORDS | _exported_functions(self._environ)
        self._pwd = _logical_name(self._environ.get(b"PWD"), os.fsencode(self._home))

    def start(self, command: str, log_fd: int, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Run:
        """Prepare a command and start it."""
        return self.start_prepared(self.prepare(command, env, cwd), log_fd)

    def prepare(self, command: str, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Prepared:
        """Do what can be done before a command is started.

        Parameters
        ----------
        command
            For the shell, of any length.
        env
            Environment variables added to those of the spawner, or put in their place.
        cwd
            Where it runs; None: where this process was when the spawner was made.

        Raises
        ------
        SpawnError
            It can never run; the message says why.
        """
        environ = self._environ.copy()
        try:
            # A shell sets PWD, so a directly executed program must find the same.
            if cwd is None:
                cwd, environ[b"PWD"] = self._home, self._pwd
            else:
                cwd = cwd if cwd.startswith("/") else os.path.normpath(os.path.join(self._home, cwd))
                environ[b"PWD"] = _encoded(cwd)
            for key, value in (env or {}).items():
                environ[_encoded(key)] = _encoded(value)
        except ValueError as error:
            raise _not_for_a_program(error) from None
        return Prepared(command, self._words(command), environ, cwd)

    def like(self, prepared: Prepared, command: str) -> Prepared:
        """Another command with the same environment, of its own, and the same directory."""
        return Prepared(command, self._words(command), prepared.environ.copy(), prepared.cwd)

    def start_prepared(self, prepared: Prepared, log_fd: int) -> Run:
        """Start a command.

        Parameters
        ----------
        log_fd
            Becomes its stdout and stderr; open with O_APPEND.

        Raises
        ------
        SpawnError
            It cannot run, now or later; the message says why.
        BusyError
            The machine is short of something; give the task back.

        Notes
        -----
        A directory that was removed or renamed less than a second after it was last used here may go unnoticed.
        """
        self._enter(prepared.cwd)
        started = time.monotonic()
        try:
            return Run(self._spawn(prepared, log_fd), started)
        except ValueError as error:  # NUL, `=` in a variable's name, text that the locale's encoding cannot hold
            raise _not_for_a_program(error) from None

    def _enter(self, directory: str) -> None:
        now = time.monotonic()
        if directory == self._here and now < self._here_until:
            return
        try:
            os.chdir(directory)
        except (OSError, ValueError) as error:
            raise SpawnError(cwd_problem(directory, error)) from None
        self._here, self._here_until = directory, now + _LOOK_AGAIN_S

    def _spawn(self, prepared: Prepared, log_fd: int) -> int:
        command, words, environ, _ = prepared
        if words is not None:
            path = environ.get(b"PATH")
            program = self._find(words[0], path)
            if program is not None:
                try:
                    return execute(program, words, environ, log_fd)
                except OSError:
                    self._programs.pop((words[0], path), None)  # sh looks for itself, and says what is wrong
        return shell(command, environ, log_fd)

    def _words(self, command: str) -> list[str] | None:
        """Split a command without shell syntax into words; None when only a shell can tell."""
        if _PLAIN_COMMAND.fullmatch(command) is None:
            return None
        words = command.split()
        return None if words[0] in self._shell_words else words

    def _find(self, name: str, path: bytes | None) -> str | None:
        """Path of a program as sh would find it; None when that is better left to sh."""
        if "/" in name:
            return name
        if path is None:
            return None
        found = self._programs.get((name, path))
        if found is None:
            directories = os.fsdecode(path).split(":")
            if not all(directory.startswith("/") for directory in directories):
                return None  # depends on the current directory
            for directory in directories:
                candidate = f"{directory}/{name}"
                if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                    found = self._programs[name, path] = candidate
                    break
        return found


def _not_for_a_program(error: ValueError) -> SpawnError:
    return SpawnError(f"the command or its environment cannot be given to a program: {error}", 126)


def current_directory() -> str:
    """Path of the current directory.

    Raises
    ------
    InputError
        When it is gone.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise InputError(f"the current directory cannot be found: {error.strerror}", "cd to one that exists") from None


def cwd_problem(directory: str, error: Exception) -> str:
    """Why a task cannot run where it is to run."""
    if isinstance(error, FileNotFoundError):
        return f"the directory {directory} it is to run in does not exist"
    return f"the directory {directory} it is to run in cannot be entered: {getattr(error, 'strerror', None) or error}"


def _exported_functions(environ: Mapping[bytes, bytes]) -> frozenset[str]:
    """Names that a bash called sh takes for functions from its environment (`module`, `which` on many clusters)."""
    names = [os.fsdecode(key)[len("BASH_FUNC_") :] for key in environ if key.startswith(b"BASH_FUNC_")]
    return frozenset(name.removesuffix("%%").removesuffix("()") for name in names)


def _logical_name(pwd: bytes | None, directory: bytes) -> bytes:
    """Name the current directory as a shell would go on doing: by PWD if that is right (it may go through a link)."""
    try:
        return pwd if pwd is not None and pwd.startswith(b"/") and os.path.samefile(pwd, directory) else directory
    except OSError:
        return directory
