"""Signals of a worker: noted by handlers, acted on by its loop, and a way to wait for them and for children at once."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

# SIGUSR2 is Grid Engine's notice before it kills (qsub -notify); it goes to all processes of the job.
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_POLL_S = 0.02
_AT_ONCE_S = 0.001


class Signals:
    """Handlers for the time of a `with`; in a thread other than the main one, where there can be none, only the waiting.

    Parameters
    ----------
    interrupt_calls
        Inside `call` a stop signal raises `Signals.Interrupted`.
    warnings
        Signals that do not: they are only noted.

    Attributes
    ----------
    got
        Numbers of the stop signals that came, oldest first.

    Notes
    -----
    The handlers write to a pipe (signal.set_wakeup_fd), so `wait` returns at once for a signal that came just before it.

    One may be inside another (a function that is a worker itself): what the inner one got, and the time that is over for the
    outer one, the outer one gets in the end. A copy that a function forked has no say: signals end it, and so does its return.
    """

    class Interrupted(BaseException):
        """A stop signal came while a function ran."""

    class TimeUp(BaseException):
        """The function ran longer than it may."""

    def __init__(self, interrupt_calls: bool = False, warnings: Sequence[int] = ()) -> None:
        self._warnings = warnings
        self.got: list[int] = []
        self._interrupt_calls = interrupt_calls
        self._inside = self._timed = self._time_is_up = False
        self._pid = os.getpid()
        self._all: list[int] = []
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        self._poll = select.poll()

    def __enter__(self) -> Self:
        if not self._main:
            return self
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in _STOP:
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._time_up)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        _active.append(self)
        self._poll.register(self._read_fd, select.POLLIN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._main:
            return
        _active.remove(self)
        self.restore_handlers()
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)
        if self._time_is_up:
            signal.setitimer(signal.ITIMER_REAL, _AT_ONCE_S)
        for number in self._all:
            outer = self._before[number]
            if isinstance(getattr(outer, "__self__", None), Signals):
                outer(number, None)

    def restore_handlers(self) -> None:
        """Have signals handled as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @property
    def limits_calls(self) -> bool:
        """Whether calls can be ended at their time limit: only in the main thread."""
        return self._main

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.got.append(number)
        self._all.append(number)
        if self._inside and number not in self._warnings:
            self._inside = False
            raise Signals.Interrupted

    def take(self) -> list[int]:
        """The signals that came, forgotten here."""
        taken, self.got = self.got, []
        return taken

    def _time_up(self, number: int, frame: FrameType | None) -> None:
        if self._inside and self._timed:
            self._inside = False
            raise Signals.TimeUp
        self._time_is_up = True  # that of a call around this one

    def call(self, function: Callable[[Any], Any], argument: object, limit_s: float) -> Any:
        """Call a function; a stop signal ends it with `Signals.Interrupted`, the time limit with `Signals.TimeUp`."""
        self._timed = limit_s < inf and self._main
        self._inside = self._interrupt_calls
        try:
            if self._timed:
                return self._timed_call(function, argument, limit_s)
            return function(argument)
        finally:
            self._inside = False
            if os.getpid() != self._pid:
                _end_copy(sys.exc_info()[1])

    def _timed_call(self, function: Callable[[Any], Any], argument: object, limit_s: float) -> Any:
        started = time.monotonic()
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            return function(argument)
        finally:
            self._inside = False
            if left_s:
                left_s = max(_AT_ONCE_S, left_s - (time.monotonic() - started))
            signal.setitimer(signal.ITIMER_REAL, left_s)

    def wait(self, seconds: float, fds: list[int]) -> None:
        """Wait until a signal comes (a child's end among them), one of the descriptors is readable, or the time is over."""
        if not self._main:
            seconds = min(seconds, _POLL_S)
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        ready = self._poll.poll(min(seconds, 86400.0) * 1000)
        for fd in fds:
            self._poll.unregister(fd)
        if self._main and any(fd == self._read_fd for fd, _ in ready):
            try:
                os.read(self._read_fd, 4096)
            except BlockingIOError:
                return


# What a function forks (a pool of multiprocessing does) is no worker: it has the handlers that were there before. Signals are
# blocked around the fork, or one that comes before its handlers are restored would be lost: Python forgets it in the copy.
_active: list[Signals] = []
_masks = threading.local()


def _before_fork() -> None:
    if _active:
        _masks.saved = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, signal.SIGALRM})


def _after_fork_in_parent() -> None:
    saved = _masks.__dict__.pop("saved", None)
    if saved is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, saved)


def _after_fork_in_child() -> None:
    if _active:
        signal.set_wakeup_fd(-1)
        for signals in reversed(_active):
            signals.restore_handlers()
        _active.clear()
    _after_fork_in_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _end_copy(error: BaseException | None) -> None:
    """End a copy of this process that a function has forked, and that came back from it."""
    import traceback

    if error is not None and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0 if error is None else 1)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: with the default one a child's end would not wake the loop."""
