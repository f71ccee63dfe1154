"""The command line: parse, one call of the library, print. stdout is data, stderr is words.

Here is `main`, and the one place that turns an error into a message and an exit code: 0 done, 1 error, 2 usage,
130 interrupted, 141 when nobody reads the output any more. The commands themselves are found by `group` and imported one at
a time: start-up is most of what a short command costs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from fsqdo.cli.output import ReaderGoneError, complain
from fsqdo.errors import FsqdoError

INTERRUPTED = 130
NOBODY_READS = 141
_COMPLETION = "_FSQDO_COMPLETE"  # set by the completion of the shell, which asks without words


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    args
        The words after the program's name; None takes those of this process.

    Returns
    -------
    int
        The exit code.
    """
    words = list(sys.argv[1:] if args is None else args)
    _prepare_streams()
    code = _guarded(lambda: _dispatch(words))
    # What is still in the buffer is written here, where a failure has an answer, and not by the interpreter's shutdown.
    return _guarded(_flush) or code


def _dispatch(words: list[str]) -> int:
    """Answer the forms that need no click, whose import takes longer than all the rest, and leave the others to it."""
    if words in (["--help"], ["-h"]) or (not words and _COMPLETION not in os.environ):
        from fsqdo.cli.commands import help_text

        print(help_text())
        return 0
    if len(words) == 2 and words[0] == "status" and not words[1].startswith("-"):
        from fsqdo.cli.status import print_status

        return print_status(words[1])
    if words[:1] == ["do"]:
        from fsqdo.cli.work import plain_options, work

        options = plain_options(words[1:])
        if options is not None:
            return work(**options)
    from fsqdo.cli.group import run

    return run(words)


def _guarded(call: Callable[[], int]) -> int:
    try:
        return call()
    except (BrokenPipeError, ReaderGoneError):
        _drop_output()
        return NOBODY_READS
    except KeyboardInterrupt:
        return INTERRUPTED
    except FsqdoError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:
        _trace(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename:
            # Printing is what comes last: who does it all again would, say, add again what is added.
            complain(f"the output cannot be written: {error.strerror}; send it elsewhere, what was to be changed is changed")
        else:
            complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1


def _flush() -> int:
    sys.stdout.flush()
    return 0


def _prepare_streams() -> None:
    """Make stdout something that can be written to, whatever the caller closed and whatever the locale cannot encode."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the life of the process)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still buffered to nowhere: the interpreter would complain when it cannot write it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _trace(error: OSError) -> None:
    """Show where an error of the operating system came from to those who asked for much (-vv)."""
    if "logging" in sys.modules:
        import logging

        logging.getLogger(__name__).debug("traceback", exc_info=error)
