"""The forked child in which a function runs, from one task to the next. The other side is `fsqdo.functions`.

Nothing here may return into the code that was running when the child was forked: that is the worker's.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from fsqdo.runner import cwd_problem, exit_or_signal

Function = Callable[[Any], object]

_BROKEN = 70  # EX_SOFTWARE: the child itself failed
_ERROR_LENGTH = 100_000
_SUCCESS = '"exit_code": 0, "signal": null'
_encode = json.JSONEncoder(allow_nan=False).encode  # made once: json.dumps would make one for each result
_old_streams: list[object] = []  # kept: collecting them would close descriptors 0 to 2


def run_child(function: Function, requests: int, answers: int, log_fd: int, home: str, close_fds: Iterable[int]) -> NoReturn:
    """Be the child: take tasks from the pipe `requests` until it is closed, then exit."""
    status = _BROKEN
    try:
        _settle(log_fd, close_fds)
        os.chdir(home)
        _serve(function, requests, answers)
        status = 0
    except BrokenPipeError:
        pass  # the worker is dead, and nobody wants the answer
    except BaseException:  # noqa: BLE001 - not one may reach the worker's code
        sys.excepthook(*sys.exc_info())
    finally:
        flush(sys.stdout, sys.stderr)
        os._exit(status)


def _settle(log_fd: int, close_fds: Iterable[int]) -> None:
    """Take leave of the worker: session, signals, descriptors, streams."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # As in every Python program, but for SIGINT: nobody types ^C here, and it shall end the process like any other signal.
        signal.signal(number, signal.SIG_IGN if number in (signal.SIGPIPE, signal.SIGXFSZ) else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for fd in close_fds:
        os.close(fd)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    _old_streams.extend([sys.stdin, sys.stdout, sys.stderr])
    sys.stdin = os.fdopen(0, closefd=False)
    # By line, so that what both say is in order, and is there when the process is killed.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _serve(function: Function, requests: int, answers: int) -> None:
    home = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    pid = os.getpid()
    used_s = _usage()[0]
    originals: dict[str, str | None] = {}
    with open(requests, "rb") as tasks:
        for line in tasks:
            request = json.loads(line.decode())
            problem = _enter(home, request["cwd"], request["env"], originals)
            code, members = (1, _members(None, reason=problem)) if problem else _call(function, request["task"])
            flush(sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
            if os.getpid() != pid:
                os._exit(code)  # the function forked, and this is the copy: it has no say
            before_s, (used_s, peak_kb) = used_s, _usage()
            rest = memoryview(f'{{{members}, "cpu_s": {used_s - before_s:.6f}, "max_rss_kb": {peak_kb}}}\n'.encode())
            while rest:
                rest = rest[os.write(answers, rest) :]


def _usage() -> tuple[float, int]:
    """CPU seconds and peak KiB so far, with those of its children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu_s, max(own.ru_maxrss, children.ru_maxrss)


def _enter(home: int, cwd: str | None, env: Mapping[str, str], originals: dict[str, str | None]) -> str | None:
    """Set environment and directory for a task; say what is wrong. `originals` has what the variables set so far had been."""
    os.fchdir(home)  # by descriptor: no look-up of a path for every task
    if cwd is not None:
        try:
            os.chdir(cwd)
        except (OSError, ValueError) as error:
            return cwd_problem(cwd, error)
        env = {"PWD": os.path.abspath(cwd), **env}
    try:
        for key in originals.keys() - env.keys():
            _set(key, originals.pop(key))
        for key, value in env.items():
            present = os.environ.get(key)
            originals.setdefault(key, present)
            if present != value:  # asking is cheaper than setting, and most stay the same
                os.environ[key] = value
    except (OSError, ValueError) as error:
        return f"the environment of the task cannot be set: {error}"
    return None


def _set(key: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(key, None)
    else:
        os.environ[key] = value


def _call(function: Function, task: object) -> tuple[int, str]:
    """Call the function; return its exit code and the members of the answer that say how it ended."""
    try:
        result = function(task)
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            _say(str(code))
            code = 1
        return (code or 0) & 0xFF, _members((code or 0) & 0xFF)
    except BaseException as error:  # noqa: BLE001 - the function may raise what it likes
        text = _traceback(error)
        _say(text.rstrip("\n"))
        return 1, _members(1, error=text[-_ERROR_LENGTH:], reason=in_words(error))
    if result is None:
        return 0, _SUCCESS
    try:
        return 0, f'{_SUCCESS}, "result": {_encode(result)}'
    except Exception as error:  # noqa: BLE001 - also what a result's own items() may raise
        reason = f"its result is not kept: {in_words(error)}"
        _say(f"fsqdo: {reason}")
        return 0, _members(0, reason=reason)


def _members(exit_code: int | None, **others: str) -> str:
    number = None
    if exit_code is not None:
        exit_code, number = exit_or_signal(exit_code)
    return _encode({"exit_code": exit_code, "signal": number, **others})[1:-1]


def _traceback(error: BaseException) -> str:
    import traceback

    frames = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, frames.tb_next if frames else None))


def in_words(error: BaseException) -> str:
    """Put an exception on one line, as far as it can be said."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever its __str__ raises
        text = "(it has no text)"
    return " ".join(f"{type(error).__name__}: {text}".split())[:500].removesuffix(":")


def _say(text: str) -> None:
    """Write a line to the log."""
    try:
        sys.stderr.write(text + "\n")
    except (OSError, ValueError):
        pass  # the disk is full, or the function closed it: the answer still tells


def flush(*streams: Any) -> None:
    """Write out what streams hold, as far as they can."""
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # full disk, closed, or no stream at all
