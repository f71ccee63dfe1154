"""`fsqdo do`: a worker, its last words, and its last acts. Without click in the forms that batch jobs use.

A thousand jobs that start at once read the same Python modules from the same file system, so a worker imports what it needs
and no more. `plain_options` reads `do NAME -j 8 --runtime=3600 …`, as `launch` writes it; all that people type beside that is
left to click, which knows more forms and says what is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsqdo.cli.output import complain, counted, say

if TYPE_CHECKING:
    from fsqdo.store import Store

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,9}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_INTEGERS = {
    "--cores": "cores",
    "--gpus": "gpus",
    "--mem": "mem_mb",
    "--nodes-per-worker": "nodes",
    "--max-fails": "max_fails",
}
_SPANS = {"--timeout": "timeout", "--runtime": "runtime_s", "--stagger": "stagger_s"}
_TEXTS = {"--script": "script", "--func": "func", "--mpirun": "mpirun", "--health-check": "health_check"}


def plain_options(words: Sequence[str]) -> dict[str, Any] | None:
    """Read the words after `do`, in the forms that `launch` writes; None when there is any other among them."""
    if not words or not _NAME.fullmatch(words[0]):
        return None
    found: dict[str, Any] = {"queue": words[0], "chain": False}
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "-j" and rest and _INTEGER.fullmatch(rest[0]):
            found["slots"] = int(rest.pop(0))
        elif word == "--chain":
            found["chain"] = True
        elif equals and option in _TEXTS:
            found[_TEXTS[option]] = value
        elif option in _INTEGERS and _INTEGER.fullmatch(value):
            found[_INTEGERS[option]] = int(value)
        elif option in _SPANS and _SECONDS.fullmatch(value):
            found[_SPANS[option]] = float(value)
        else:
            return None
    return found


def work(queue: str, chain: bool = False, verbose: bool = False, **options: Any) -> int:
    """Be a worker, then do what a batch job does at its end; the exit code."""
    from fsqdo.allocation import cores, job_number
    from fsqdo.queue import connect

    if options.get("slots") == "auto":
        options["slots"] = cores(os.environ)
    asked = {key: value for key, value in options.items() if value is not None}
    opened = connect(queue)
    summary = opened.do(verbose=verbose, **asked)
    say(str(summary))
    if "drained" in summary.why and job_number(os.environ, opened.store.directory) is not None:
        _cancel_queued(opened.store)
    if chain:
        from fsqdo.cli.autoscale import go_on

        go_on(opened, summary.why, **{key: asked[key] for key in ("script", "func", "timeout") if key in asked})
    return int(summary.trouble)


def _cancel_queued(store: Store) -> None:
    """Cancel the jobs that wait for nothing any more; that this fails is no failure of the worker."""
    from fsqdo.errors import FsqdoError
    from fsqdo.jobs import cancel_queued

    try:
        cancelled = cancel_queued(store)
    except FsqdoError as error:
        complain(f"jobs that wait in the batch system were not cancelled: {error}")
        return
    if cancelled:
        say(f"{counted(len(cancelled), 'job')} cancelled that waited in the batch system")
