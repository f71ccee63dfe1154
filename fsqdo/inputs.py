"""What people give to be added: files and streams, iterables, tasks with options of their own. Read lazily; changes nothing."""

from __future__ import annotations

import io
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from fsqdo.errors import InputError
from fsqdo.ids import IdSet, is_range_text
from fsqdo.task import encode_task
from fsqdo.taskoptions import OPTION_NAMES

_BYTES = 1 << 18
_LINES = 100


class NewTask:
    """A task to be added, with options of its own; an item of `add_multiple`.

    Parameters
    ----------
    task
        A command or a JSON-able object.
    requires, after
        Ids in any form, names of tasks of the same load, or a mixture.
    options
        The other keyword arguments of `add`; what is not given here is taken from the load.
    """

    __slots__ = ("after", "options", "requires", "task")

    def __init__(self, task: object, *, requires: object = None, after: object = None, **options: Any) -> None:
        self.task = task
        self.requires = requires
        self.after = after
        self.options = options


def spread(tasks: Iterable[object], requires: object, after: object) -> tuple[Iterable[object], object, object]:
    """Tell requirements that are common to all tasks from those that come one list per task.

    Returns
    -------
    tuple
        The items for `load`, and the common requirements.
    """
    if not (_per_task(requires) or _per_task(after)):
        return tasks, requires, after
    return _zipped(tasks, requires, after), None if _per_task(requires) else requires, None if _per_task(after) else after


def _per_task(wanted: object) -> bool:
    return isinstance(wanted, (list, tuple)) and any(
        item is None or isinstance(item, (list, tuple, set, frozenset, range, IdSet)) for item in wanted
    )


def _zipped(tasks: Iterable[object], requires: Any, after: Any) -> Iterator[NewTask]:
    each_requires = requires if _per_task(requires) else ()
    each_after = after if _per_task(after) else ()
    number = 0
    for number, task in enumerate(flat(tasks), 1):
        if 0 < len(each_requires) < number or 0 < len(each_after) < number:
            break
        own = task if isinstance(task, NewTask) else NewTask(task)
        yield NewTask(
            own.task,
            requires=each_requires[number - 1] if each_requires else own.requires,
            after=each_after[number - 1] if each_after else own.after,
            **own.options,
        )
    else:
        if len(each_requires) in (0, number) and len(each_after) in (0, number):
            return
    raise InputError(
        f"{len(each_requires or each_after)} lists of requirements for another number of tasks",
        "give one list of ids for all tasks, or exactly one list for each",
    )


def split_names(wanted: object) -> tuple[IdSet, tuple[str, ...]]:
    """Tell ids from names in what a task requires.

    Raises
    ------
    InputError
        For what is neither.
    """
    if wanted is None:
        return IdSet(), ()
    if isinstance(wanted, str):
        wanted = wanted.split(",") if all(is_range_text(word) for word in wanted.split(",")) else [wanted]
    if not isinstance(wanted, (list, tuple, set, frozenset)):
        return IdSet.of(wanted), ()
    found = [word for word in wanted if isinstance(word, str) and not all(is_range_text(w) for w in word.split(","))]
    ids = IdSet.of(word for word in wanted if not isinstance(word, str) or word not in found)
    return ids, tuple(found)


def key_of(task: object) -> int:
    """Key under which equal tasks are recognised (64 bits of this process' own; for `--dedupe`)."""
    return hash(encode_task(task))


class Commands(list[str]):
    """Some commands that were checked together; stands for them all where tasks are read."""


def flat(tasks: Iterable[object]) -> Iterator[object]:
    """Yield each task by itself."""
    for task in tasks:
        if type(task) is Commands:
            yield from task
        else:
            yield task


class Lines:
    """The tasks of a text: a line each, blank lines and lines that begin with # left out.

    Parameters
    ----------
    chunks
        A binary file, or its lines.
    source
        What to call it in messages.
    as_json
        Each line is a JSON value: the task, or an object with `task` and options.

    Notes
    -----
    To be iterated over once. InputError for what is not UTF-8, or not what it should be, with the number of the line.
    """

    def __init__(self, chunks: Iterable[bytes], source: str, as_json: bool = False) -> None:
        self._chunks = chunks
        self._source = source
        self._as_json = as_json
        self._left_out = array("Q")  # numbers of lines: there may be millions

    def __iter__(self) -> Iterator[object]:
        """Yield the tasks; commands many at once where nothing is wrong with any (`flat` yields each)."""
        return self._objects() if self._as_json else self._commands()

    def where(self, number: int) -> str:
        """Where the task with this number, from 1, stands in the text, in words."""
        for left_out in self._left_out:
            if left_out > number:
                break
            number += 1
        return f"{self._source}, line {number}"

    def _commands(self) -> Iterator[Commands | str]:
        before = 0
        for some in _some_at_a_time(self._chunks):
            try:
                # Some editors begin a file with a byte order mark; kept, it would be part of the first command, unseen.
                text = b"\n".join(some).decode("utf-8" if before else "utf-8-sig")
            except UnicodeDecodeError:
                raise _not_utf8(some, before, self._source) from None
            found = [line for raw in text.split("\n") if (line := raw.strip()) and line[0] != "#"]
            if len(found) < len(some):
                self._left_out.extend(number for number, raw in enumerate(some, before + 1) if _is_left_out(raw, number))
            if "\0" in text:
                yield from found  # one of them may be none
            elif found:
                yield Commands(found)
            before += len(some)

    def _objects(self) -> Iterator[object]:
        for number, line in enumerate(map(str, flat(self._commands())), 1):
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{self.where(number)} is not JSON: {error.msg} at character {error.colno}") from None
            except (ValueError, RecursionError) as error:  # a number of too many digits; a nest that is too deep
                raise InputError(f"{self.where(number)} cannot be read as JSON: {error}") from None
            if not isinstance(value, dict) or "task" not in value:
                yield value
                continue
            unknown = sorted(set(value) - {"task", *OPTION_NAMES})
            if unknown:
                raise InputError(
                    f"{self.where(number)} has the field {unknown[0]!r} beside `task`",
                    "the options are " + ", ".join(OPTION_NAMES) + "; an object that is itself the task goes into `task`",
                )
            yield NewTask(value.pop("task"), **value)


def _is_left_out(raw: bytes, number: int) -> bool:
    line = raw.decode("utf-8" if number > 1 else "utf-8-sig").strip()
    return not line or line[0] == "#"


def _some_at_a_time(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a file about a quarter of a MiB at a time, those of another iterable a few at a time."""
    if isinstance(lines, io.IOBase):
        while found := lines.readlines(_BYTES):
            yield found
        return
    rest = iter(lines)
    while some := list(islice(rest, _LINES)):
        yield some


def _not_utf8(lines: list[bytes], before: int, source: str) -> InputError:
    """What is wrong with the first of some lines that is not UTF-8."""
    for number, raw in enumerate(lines, before + 1):
        try:
            raw.decode("utf-8" if number > 1 else "utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"{source}, line {number} is not UTF-8: {error.reason} at byte {error.start + 1}"
            return InputError(where, "convert it, e.g. with iconv")
    return InputError(f"{source} is not UTF-8", "convert it, e.g. with iconv")


def source_name(source: object) -> str:
    """What to call an input in messages."""
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the input")
    return "standard input" if name in ("-", "<stdin>") else str(name)


def open_source(source: object) -> Iterable[bytes]:
    """Open a path, `-` or a binary stream for reading line by line.

    Raises
    ------
    InputError
        When there is no such file, or it cannot be read.
    """
    if source == "-":
        import sys

        if sys.stdin is None:
            raise InputError("standard input is closed", "give a file, or commands through a pipe")
        return sys.stdin.buffer
    if isinstance(source, (str, os.PathLike)):
        try:
            return open(source, "rb", buffering=1 << 20)
        except OSError as error:
            raise InputError(f"cannot read {os.fspath(source)}: {error.strerror}") from None
    return source  # type: ignore[return-value]
