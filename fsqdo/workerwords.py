"""The words of a worker's command line, `fsqdo do NAME -j SLOTS …`, as a batch job runs it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fsqdo.errors import InputError
from fsqdo.plan import Shape
from fsqdo.walltime import parse_walltime


def fsqdo_command() -> tuple[str, ...]:
    """The words that run this very fsqdo, installed or not, whatever PATH is where they run.

    Notes
    -----
    The package's directory and not `-m fsqdo`, with which Python would look for every module in the current directory
    first: a `random.py` among somebody's scripts would end the worker.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    if os.path.isfile(f"{package}/__main__.py"):
        return (sys.executable, package)
    return (sys.executable, "-m", "fsqdo")


def limit(runtime_s: float | None, walltime_s: int | None) -> float | None:
    """When a worker ends in any case, in seconds: the shorter of the two."""
    limits = [float(walltime_s)] if walltime_s is not None else []
    if runtime_s is not None:
        limits.append(_seconds("runtime", runtime_s))
    return min(limits, default=None)


def read_walltime(walltime: str | int | None) -> int | None:
    """Seconds of a walltime, where there is one."""
    return None if walltime is None else parse_walltime(walltime)


def split_words(name: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Words from text, or from several texts, each split as a shell does it."""
    texts = [given] if isinstance(given, str) else list(given or ())
    try:
        return tuple(word for text in texts for word in shlex.split(text))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{name} is {given!r}, which is no words of a shell: {error}") from None


def worker_options(options: Mapping[str, Any], mpirun: Sequence[str] | None, limit_s: float | None) -> list[str]:
    """What all workers of a launch are told; each option in one word with its value, which may begin with a dash.

    Parameters
    ----------
    options
        script, func, timeout, stagger, max_fails, health_check, chain: as `do` has them; what is None or False is left out.
    """
    words = [_text(name, options.get(name)) for name in ("script", "func")]
    spans = {name: options[name] for name in ("timeout", "stagger") if options.get(name) is not None}
    words += [f"--{name}={_plain(_seconds(name, value, 0))}" for name, value in spans.items()]
    if limit_s is not None:
        words.append(f"--runtime={_plain(limit_s)}")
    if mpirun:
        words.append(f"--mpirun={shlex.join(mpirun)}")
    if options.get("max_fails") is not None:
        words.append(f"--max-fails={_count('max_fails', options['max_fails'])}")
    words.append(_text("health_check", options.get("health_check")))
    words += ["--chain"] * bool(options.get("chain"))
    return [word for word in words if word]


def shape_options(shape: Shape, says_cores: bool) -> list[str]:
    """What the workers of one shape are told of their part of the node."""
    got = {
        "cores": shape.cores if says_cores else None,
        "gpus": shape.gpus,
        "mem": shape.mem_mb,
        "nodes-per-worker": shape.nodes_per_worker,
    }
    return ["-j", str(shape.slots), *(f"--{name}={value}" for name, value in got.items() if value is not None)]


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        hint = "a function is named as package.module:function" if name == "func" else ""
        raise InputError(f"{name} is {value!r}, but must be text", hint)
    return f"--{name.replace('_', '-')}={value}"


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be an integer of at least 1")
    return value


def _seconds(name: str, value: object, lowest: float = 1e-3) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value < 1e12:
        raise InputError(f"{name} is {value!r}, but must be a positive number of seconds")
    return float(value)


def _plain(seconds: float) -> str:
    """Seconds to the millisecond, without an exponent."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
