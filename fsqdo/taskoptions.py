"""The options of a task: everything about it beside the task itself. What people pass is checked here, and what files say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fsqdo.errors import InputError, short
from fsqdo.ids import IdSet, is_range_text
from fsqdo.names import check_priority
from fsqdo.rules import Ends, read_ends
from fsqdo.texts import encode_json


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
        """Options as JSON gives them; only what stands there is checked: files name few, and there are many files."""
        values = _revived(given)
        options = object.__new__(cls)
        vars(options).update(_DEFAULTS, **values)
        options._check(values)
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
        return f"{key} is {short(value)}, but must be a positive number of seconds (below 10^12)"
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


def _revived(known: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON says, as what it means."""
    values = {key: value for key, value in known.items() if value is not None}
    for key in ("requires", "after"):
        if key in values:
            words = values[key]
            written = isinstance(words, list) and all(type(word) is str for word in words)
            values[key] = IdSet.parse(",".join(words)) if written else IdSet.of(words)
    if "tags" in values:
        values["tags"] = _words(values["tags"])
    return values
