"""What a task is: its state, and its definition, the content of its file. Data and JSON, no files.

A definition is one JSON object on one line. Fields at their defaults are left out, unknown fields are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from fsqdo.errors import InputError, TaskError, short
from fsqdo.taskoptions import OPTION_NAMES, Options, requirement_text
from fsqdo.texts import encode_json, quote_json


class State(str, Enum):
    """State of a task. A str, read in any case: `State("failed") is State.FAILED`."""

    WAITING = "Waiting"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    KILLED = "Killed"

    @classmethod
    def _missing_(cls, value: object) -> State | None:
        wanted = value.strip().lower() if isinstance(value, str) else ""
        for state in cls:
            if state.value.lower() == wanted:
                return state
        return None

    @classmethod
    def read(cls, text: str) -> State:
        """The state of this name, in any case.

        Raises
        ------
        InputError
            With the list of the states.
        """
        try:
            return cls(text)
        except ValueError:
            raise InputError(f"{text!r} is not a state", "the states are " + ", ".join(s.value for s in cls)) from None

    def __str__(self) -> str:
        return self.value

    @property
    def directory(self) -> str:
        """Name of the state's directory."""
        return self.value.lower()

    @property
    def final(self) -> bool:
        """Whether a task in this state has ended."""
        return self in (State.SUCCEEDED, State.FAILED, State.KILLED)


FINAL_STATES = (State.SUCCEEDED, State.FAILED, State.KILLED)


def encode_task(task: object) -> str:
    """Check what is to be a task and return its JSON form.

    A string is a command: it must have something in it beside blanks, no NUL, and be text that UTF-8 can hold.

    Raises
    ------
    InputError
        Naming what is wrong.
    """
    if isinstance(task, str):
        check_command(task)
        return quote_json(task)
    if task is None:
        check_command(task)
    if isinstance(task, bytes):
        raise InputError("the task is bytes, not text", "decode it first")
    return encode_json(task)


def check_command(command: str | None) -> None:
    """Raise InputError for what cannot be a command."""
    if not command or command.isspace():
        raise InputError("the task is empty" if command is not None else "the task is empty (null)")
    if "\0" in command:
        raise InputError(f"the command {short(command)} has a NUL byte in it", "no program can be given one")
    if not command.isascii():
        try:
            command.encode()
        except UnicodeEncodeError:
            raise InputError(f"the command {short(command)} is not text that UTF-8 can hold") from None


class Definition(NamedTuple):
    """The content of a task's file.

    Attributes
    ----------
    id
        Unique in the queue, for ever.
    task
        A string (a command) or any JSON value (an object task).
    options
        Everything else fsqdo knows of.
    extra
        Fields it does not know; kept as they are.
    """

    id: int
    task: Any
    options: Options = Options()
    extra: Mapping[str, Any] = {}

    def to_json(self) -> str:
        """One line, ending in a newline."""
        o = self.options
        middle = requirement_text(o.priority, o.requires, o.after)
        end = o.suffix()
        if self.extra:
            end = end[:-1] + "," + encode_json(dict(self.extra))[1:]
        return f'{{"id":{self.id},"task":{encode_task(self.task)}{middle}{end}\n'

    @classmethod
    def from_json(cls, text: str | bytes) -> Definition:
        """Read a definition.

        Raises
        ------
        TaskError
            Saying what is wrong with it.
        """
        try:
            if isinstance(text, bytes):
                text = text.decode()
            head = _HEAD.match(text)
            if head is not None:
                task, end = _scan_once(text, head.end())
                shared = _shared.get(text[end:])
                if shared is not None:
                    return cls(int(head[1]), _checked(task), *shared)
            raw = _decode(text)
        except StopIteration:
            raise TaskError("the task's file is not JSON: there is no task in it") from None
        except (ValueError, RecursionError) as error:
            raise TaskError(f"the task's file is not JSON: {error}") from None
        definition = cls.from_raw(raw)
        if head is not None:
            _remember(text[end:], definition)
        return definition

    @classmethod
    def if_sound(cls, content: bytes, task_id: int) -> Definition | None:
        """The same, of the file of this task; None when it cannot be read, or is another's."""
        try:
            definition = cls.from_json(content)
        except TaskError:
            return None
        return definition if definition.id == task_id else None

    @classmethod
    def from_raw(cls, raw: Any) -> Definition:
        """The same, of what the JSON says, which is used up."""
        if not isinstance(raw, dict) or "task" not in raw or type(raw.get("id")) is not int:
            raise TaskError("the task's file is not an object with an integer `id` and a `task`")
        task_id, task = raw.pop("id"), _checked(raw.pop("task"))
        try:
            known = {name: raw.pop(name) for name in [key for key in raw if key in OPTION_NAMES]}
            return cls(task_id, task, Options.of_file(known), raw)
        except (InputError, TypeError, AttributeError) as error:
            raise _bad_field(error) from None

    def words(self) -> str:
        """The task as people see it: the command, or the object as JSON."""
        return self.task if isinstance(self.task, str) else json.dumps(self.task, ensure_ascii=False)


_scan_once: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _decode(text: str) -> Any:
    """`json.loads` without its look at keywords: once a task, that counts."""
    try:
        value, end = _scan_once(text, 0)
    except StopIteration:
        raise ValueError("it does not begin with a value") from None
    if text[end:] != "\n" and text[end:].strip():
        raise ValueError("there is more after the object")
    return value


def _checked(task: Any) -> Any:
    if task is None or isinstance(task, str):
        try:
            check_command(task)
        except InputError as error:
            raise _bad_field(error) from None
    return task


def _bad_field(error: Exception) -> TaskError:
    return TaskError(f"the task's file has a bad field: {error}")


# The tasks of a load differ in their ids and commands, and share the rest of the text: that is read and checked once.
_HEAD = re.compile(r'\{"id":([1-9][0-9]{0,17}),"task":(?=\S)')
_TWICE = re.compile(r'"(?:id|task)"\s*:|\\u')
_shared: dict[str, tuple[Options, Mapping[str, Any]]] = {}
_REMEMBERED = 1 << 14


def _remember(rest: str, definition: Definition) -> None:
    if len(rest) > _REMEMBERED or _TWICE.search(rest):
        return  # of a key that is there twice, however it is written, the last one counts
    if len(_shared) >= 100:
        _shared.clear()
    _shared[rest] = definition.options, definition.extra


def command_from(task: object, script: str) -> str:
    """Expand a script template for one task.

    Parameters
    ----------
    task
        A command: its text follows the script as it is. An object: `{key}` in the script becomes its value, quoted for the
        shell; `{{` and `}}` are braces. Any other value: its JSON form follows the script, quoted.

    Raises
    ------
    TemplateError
        For a missing key (naming the keys there are), attribute or index access, conversions and format tricks.
    """
    from fsqdo.template import expand

    if isinstance(task, str):
        return f"{script} {task}"
    if isinstance(task, dict):
        return expand(script, task)
    import shlex

    return f"{script} {shlex.quote(json.dumps(task))}"
