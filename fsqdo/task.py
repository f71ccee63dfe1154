"""What a task is: its state, its definition (the content of its file), the outcome of an attempt. Data and JSON, no files.

A definition is one JSON object on one line. Fields at their defaults are left out, unknown fields are kept.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote_json
from typing import Any, NamedTuple

from fsqdo.errors import InputError, TaskError, short
from fsqdo.ids import IdSet, is_range_text
from fsqdo.names import check_priority
from fsqdo.rules import Ends, read_ends


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


def utc_now() -> str:
    """This instant, ISO 8601 UTC to the second, as it stands in every JSON file."""
    return utc_text(int(time.time()))


@lru_cache(maxsize=2)
def utc_text(second: int) -> str:
    """A second since 1970, likewise; a thousand tasks a second share the text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def encode_json(value: object) -> str:
    """JSON on one line.

    Raises
    ------
    InputError
        When the value has no JSON form.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{short(value)} is not JSON-able: {error}") from None


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


@dataclass(frozen=True)
class Options:
    """Everything about a task beside the task itself; the keyword arguments of `add`.

    Attributes
    ----------
    priority
        Larger runs earlier.
    requires, after
        Ids of the tasks that must succeed, or end, first.
    cores, gpus, mem_mb
        What the task needs while it runs; mem_mb in MiB. Of a parallel one `cores` are those of each rank, the others those on
        each node.
    ranks, nodes
        A parallel (MPI) task: run by mpirun in so many processes, on so many nodes of its worker. None of them: it is not.
    time_request_s, time_limit_s
        How long it is expected to need; when it is stopped. Seconds.
    max_retries
        How often it is run again after a failure; None leaves it to the queue.
    retry_on, no_retry_on
        Ends (see `rules`) after which it is run again at all, and after which it is not; None leaves it to the queue.
    name, tags
        For people; a name can also be required within one load.
    env, cwd
        More environment variables; the directory it runs in (None: the worker's).
    created_at
        ISO 8601 UTC.
    """

    priority: int = 0
    requires: IdSet = field(default_factory=IdSet)
    after: IdSet = field(default_factory=IdSet)
    cores: int = 1
    gpus: int = 0
    mem_mb: int | None = None
    ranks: int | None = None
    nodes: int | None = None
    time_request_s: float | None = None
    time_limit_s: float | None = None
    max_retries: int | None = None
    retry_on: Ends | None = None
    no_retry_on: Ends | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    created_at: str | None = None

    def __post_init__(self) -> None:
        self._check(OPTION_NAMES)

    def _check(self, given: Iterable[str]) -> None:
        problems = list(_option_problems(self, given))
        if problems:
            raise InputError("; ".join(problems))

    @classmethod
    def of_file(cls, given: Mapping[str, Any]) -> Options:
        """`cls(**given)`, checking nothing else: files name few options, and there are many files."""
        options = object.__new__(cls)
        vars(options).update(_DEFAULTS, **given)
        options._check(given)
        return options

    @classmethod
    def of(cls, **given: Any) -> Options:
        """Make options from keyword arguments, of whatever types people pass.

        Raises
        ------
        InputError
            For an unknown name or a value that cannot be meant.
        """
        unknown = sorted(set(given) - set(OPTION_NAMES))
        if unknown:
            raise InputError(f"unknown task option {unknown[0]!r}", "the options are " + ", ".join(sorted(OPTION_NAMES)))
        values = {key: value for key, value in given.items() if value is not None}
        for key in ("requires", "after"):
            if key in values:
                values[key] = IdSet.of(values[key])
        if "tags" in values:
            values["tags"] = _words(values["tags"])
        if isinstance(values.get("cwd"), (str, os.PathLike)) and values["cwd"]:
            values["cwd"] = os.path.abspath(os.fspath(values["cwd"]))
        return cls(**values)

    @property
    def parallel(self) -> bool:
        """Whether it is run by mpirun."""
        return self.ranks is not None or self.nodes is not None

    def suffix(self) -> str:
        """The options as they follow the task in its JSON object: `,"priority":5,…}`, without the requirements."""
        text = ""
        for name in _WRITTEN:
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                text += f',"{name}":{encode_json(value)}'
        return text + "}"


_LOWEST = {"cores": 1, "gpus": 0, "mem_mb": 1, "ranks": 1, "nodes": 1, "max_retries": 0}


def _option_problems(o: Options, given: Iterable[str]) -> Iterable[str]:
    """What is wrong with those options of which the names are given."""
    for key in given:
        check = _CHECKS.get(key)
        problem = None if check is None else check(key, getattr(o, key))
        if problem is not None:
            yield problem
    if isinstance(o.ranks, int) and isinstance(o.nodes, int) and o.ranks < o.nodes:
        yield f"ranks is {o.ranks}, but must be at least as many as the {o.nodes} nodes"
    if o.retry_on is not None or o.no_retry_on is not None:
        yield from _ends_problems(o)


def _priority_problem(key: str, value: Any) -> str | None:
    try:
        check_priority(value)
    except InputError as error:
        return error.message
    return None


def _number_problem(key: str, value: Any) -> str | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < _LOWEST[key]):
        return f"{key} is {short(value)}, but must be an integer of at least {_LOWEST[key]}"
    return None


def _seconds_problem(key: str, value: Any) -> str | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12):
        return f"{key} is {short(value)}, but must be a positive number of seconds"
    return None


def _name_problem(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and not is_range_text(value) and _plain(value)):
        return None
    return f"{short(value)} cannot be a task's {key}: it must be text that does not look like an id"


def _tags_problem(key: str, value: Any) -> str | None:
    if isinstance(value, tuple) and all(isinstance(tag, str) and _plain(tag) for tag in value):
        return None
    return f"{key} are {short(value)}, but must be words"


def _env_problem(key: str, value: Any) -> str | None:
    if isinstance(value, Mapping) and all(_env_ok(*item) for item in value.items()):
        return None
    return f"{key} is {short(value)}, but must map names to texts (no NUL; no = in a name)"


def _cwd_problem(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value and _plain(value)):
        return None
    return f"{key} {short(value)} cannot be a directory"


_CHECKS: dict[str, Callable[[str, Any], str | None]] = {
    "priority": _priority_problem,
    **dict.fromkeys(_LOWEST, _number_problem),
    **dict.fromkeys(("time_request_s", "time_limit_s"), _seconds_problem),
    "name": _name_problem,
    "tags": _tags_problem,
    "env": _env_problem,
    "cwd": _cwd_problem,
}


def _ends_problems(o: Options) -> Iterable[str]:
    """What is wrong with the ends that decide on retries; they get their one written form here."""
    for key in ("retry_on", "no_retry_on"):
        if getattr(o, key) is not None:
            try:
                object.__setattr__(o, key, read_ends(getattr(o, key), key))  # frozen only once it is made
            except InputError as error:
                yield error.message


def _words(tags: Any) -> Any:
    """Tags as a tuple; one alone is a word, not its letters. What cannot be tags is left for the check."""
    if isinstance(tags, str):
        return (tags,)
    return tuple(tags) if isinstance(tags, Iterable) and not isinstance(tags, (bytes, Mapping)) else tags


def _plain(text: str) -> bool:
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def _env_ok(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, str) and key != "" and "=" not in key and _plain(key) and _plain(value)


OPTION_NAMES = tuple(f.name for f in fields(Options))
_DEFAULTS: dict[str, Any] = vars(Options())
_WRITTEN = [name for name in OPTION_NAMES if name not in ("priority", "requires", "after")]


def requirement_text(priority: int, requires: IdSet, after: IdSet) -> str:
    """The part of a definition that decides where the task is filed."""
    text = f',"priority":{priority}' if priority else ""
    if requires:
        text += f',"requires":{encode_json(requires.to_json())}'
    if after:
        text += f',"after":{encode_json(after.to_json())}'
    return text


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
            return cls(task_id, task, Options.of_file(_revived(known)), raw)
        except (InputError, TypeError, AttributeError) as error:
            raise _bad_field(error) from None

    def words(self) -> str:
        """The task as people see it: the command, or the object as JSON."""
        return self.task if isinstance(self.task, str) else json.dumps(self.task)


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
_shared: dict[str, tuple[Options, Mapping[str, Any]]] = {}
_REMEMBERED = 1 << 14


def _remember(rest: str, definition: Definition) -> None:
    if len(rest) > _REMEMBERED or '"id":' in rest or '"task":' in rest:
        return  # of a key that is there twice the last one counts
    if len(_shared) >= 100:
        _shared.clear()
    _shared[rest] = definition.options, definition.extra


def _revived(known: dict[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in known.items() if value is not None}
    for key in ("requires", "after"):
        if key in values:
            words = values[key]
            written = isinstance(words, list) and all(type(word) is str for word in words)
            values[key] = IdSet.parse(",".join(words)) if written else IdSet.of(words)
    if "tags" in values:
        values["tags"] = _words(values["tags"])
    return values


class Outcome(NamedTuple):
    """How one attempt ended; one line of a worker's journal.

    Attributes
    ----------
    name
        The task's name with its counters, as it was while it ran: the key.
    outcome
        "succeeded", "failed" (for good), "retry" (failed, goes back), "interrupted" or "killed".
    to
        Where the task's file goes, relative to the queue: replaying the line completes the move.
    exit_code, signal
        Of the command; at most one of them is set.
    reason
        In words, where the two do not say it: "time limit of 60 s", "cwd /x does not exist", an exception.
    log
        (slot, first byte, end byte) of its output in `logs/<worker>/<slot>.log`, or None.
    result
        What the function returned.
    """

    name: str
    outcome: str
    to: str
    started_at: str | None = None
    ended_at: str | None = None
    elapsed_s: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    slot: int | None = None
    log: tuple[int, int, int] | None = None
    cpu_s: float | None = None
    max_rss_kb: int | None = None
    result: Any = None
    worker: str | None = None

    def to_json(self) -> str:
        """One line, ending in a newline; nulls are left out, and so is the worker, whose journal it is."""
        # Written out by hand: this is done once a task, and json.dumps would cost as much as the move itself.
        text = f'{{"name":"{self.name}","outcome":"{self.outcome}","to":"{self.to}"'
        if self.started_at is not None:
            text += f',"started_at":{quote_json(self.started_at)}'
        if self.ended_at is not None:
            text += f',"ended_at":{quote_json(self.ended_at)}'
        if self.elapsed_s is not None:
            text += f',"elapsed_s":{self.elapsed_s}'
        if self.exit_code is not None:
            text += f',"exit_code":{self.exit_code}'
        if self.signal is not None:
            text += f',"signal":{self.signal}'
        if self.slot is not None:
            text += f',"slot":{self.slot}'
        if self.cpu_s is not None:
            text += f',"cpu_s":{self.cpu_s}'
        if self.max_rss_kb is not None:
            text += f',"max_rss_kb":{self.max_rss_kb}'
        if self.log is not None:
            text += f',"log":{encode_json(self.log)}'
        if self.reason is not None:
            text += f',"reason":{quote_json(self.reason)}'
        if self.result is not None:
            text += f',"result":{encode_json(self.result)}'
        return text + "}\n"

    @classmethod
    def from_json(cls, text: str | bytes, worker: str | None = None) -> Outcome | None:
        """Read a line; None when it is torn or of a kind this release does not know."""
        try:
            return cls.from_raw(json.loads(text), worker)
        except (ValueError, RecursionError):
            return None

    @classmethod
    def from_raw(cls, raw: Any, worker: str | None = None) -> Outcome | None:
        """The same, of what the JSON says."""
        try:
            if raw.get("log") is not None:
                slot, first, end = raw["log"]
                raw["log"] = (int(slot), int(first), int(end))
            return cls(worker=worker, **{key: value for key, value in raw.items() if key in _OUTCOME_KEYS})
        except (ValueError, TypeError, AttributeError):
            return None

    def how(self) -> str:
        """How it ended, in words."""
        if self.reason:
            return self.reason
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        if self.exit_code is not None:
            return f"exit code {self.exit_code}"
        return self.outcome


def success_line(
    key: str,
    to: str,
    started_at: str,
    ended_at: str,
    elapsed_s: float,
    slot: int | None = 0,
    cpu_s: float | None = None,
    max_rss_kb: int | None = None,
    log: tuple[int, int, int] | None = None,
) -> bytes:
    """`Outcome.to_json` of a usual success, once a task, so without the object: of a command, or without `cpu_s` of a call."""
    begin = (
        f'{{"name":"{key}","outcome":"succeeded","to":"{to}","started_at":"{started_at}","ended_at":"{ended_at}",'
        f'"elapsed_s":{elapsed_s:.4f}'
    )
    if cpu_s is None:
        return f'{begin},"slot":{slot}}}\n'.encode()
    place = "" if log is None else f',"log":[{log[0]},{log[1]},{log[2]}]'
    return f'{begin},"exit_code":0,"slot":{slot},"cpu_s":{cpu_s:.4f},"max_rss_kb":{max_rss_kb}{place}}}\n'.encode()


_OUTCOME_KEYS = frozenset(Outcome._fields) - {"worker"}


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
