"""Text for people and lines for programs. Imports nothing but sys: every command needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_BATCH = 1000


class ReaderGoneError(Exception):
    """Nobody reads stdout any more; not an OSError, so that click leaves it to `main`."""


def printable(text: str) -> str:
    """The text on one line, with everything that could steer a terminal written as an escape.

    A command may hold any character: shown raw, it could move the cursor, retitle the window or reverse the line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _ESCAPES.get(c) or c.encode("unicode_escape").decode() for c in text)


def task_text(task: object) -> str:
    """What was added, for people: the command, or the object as JSON."""
    if isinstance(task, str):
        return printable(task)
    import json

    return printable(json.dumps(task, ensure_ascii=False))


def json_line(value: object) -> str:
    """The value as JSON on one line; only ASCII, so that it is exact in every locale and harmless on every terminal."""
    import json

    return json.dumps(value)


def counted(number: int, noun: str) -> str:
    """`1 task`, `6 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def say(text: str) -> None:
    """Words for people, on stderr."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody listens: no reason to end, for a worker least of all
            print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """An error, on stderr: `fsqdo: what happened; what to do next`."""
    say("\n".join(printable(line) for line in f"fsqdo: {text}".split("\n")))


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout, a thousand at a time: a million rows cost a thousand writes.

    What came before an error is written, too.
    """
    batch: list[str] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) >= _BATCH:
                _write(batch)
    finally:
        _write(batch)


def _write(batch: list[str]) -> None:
    text = "\n".join(batch) + "\n" if batch else ""
    batch.clear()  # first, so that after a broken pipe nothing is tried again
    sys.stdout.write(text)


def aligned(rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> list[str]:
    """Rows as lines with their columns in line; the columns in `numbers` to the right."""
    right = set(numbers)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def fields(values: Mapping[str, str], indent: str = "") -> list[str]:
    """Names and values, one pair a line, values in line."""
    width = max(map(len, values), default=0)
    return [f"{indent}{name + ':':<{width + 1}}  {value}".rstrip() for name, value in values.items()]
