"""The settings of a queue: the content of `queue.json`, with every default set here and nowhere else. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fsqdo.errors import FormatError, InputError, short
from fsqdo.rules import Ends, read_actions, read_ends, read_percentage

FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What `queue.json` says.

    Attributes
    ----------
    max_retries
        How often a failed task is run again, unless it says so itself.
    retry_delay_s
        Pause before the first retry, in seconds; doubled for each further one.
    max_interruptions
        A task recovered from dead workers more often than this fails: it may be what kills them.
    time_limit_s
        When a task is stopped that sets no limit itself, in seconds; None: never.
    time_limit
        The same as a percentage of the median of what succeeded so far: "300%"; None: no such limit. The lower one counts.
    time_request_s
        How long a task is expected to run that does not say so, in seconds.
    time_request
        "auto": how long a task is expected to run that does not say so is learnt from those that ran so far.
    requires
        "succeed": a requirement must succeed; "finish": it must only end, as in qdo 0.5.
    retry_on, no_retry_on
        Ends (see `rules`) after which a failed task is run again, if it may be at all; after which it is not. No retry_on: all.
    exit_codes
        Ends with a meaning of their own: end -> succeed, fail, retry, restart or pause.
    success_check
        A command that must exit 0 after the task did, before the task has succeeded.
    max_fails
        When so many tasks have failed for good since the last resume the queue is paused; None: never.
    health_check
        A command that each worker runs before its first claim; if it does not exit 0 the worker ends.
    interrupted_first
        Whether interrupted tasks run before others of their priority.
    pack
        Whether the files of a finished shard become one.
    durability
        "normal": moves are not synced (a power cut may undo the last seconds); "paranoid": they are.
    """

    name: str = ""
    created_at: str = ""
    created_by: str = ""
    max_retries: int = 0
    retry_delay_s: float = 5.0
    max_interruptions: int = 5
    time_limit_s: float | None = None
    time_request_s: float | None = None
    time_request: str | None = None
    requires: str = "succeed"
    durability: str = "normal"
    time_limit: str | None = None
    retry_on: Ends = ()
    no_retry_on: Ends = ()
    exit_codes: Mapping[str, str] = field(default_factory=dict)
    success_check: str | None = None
    max_fails: int | None = None
    health_check: str | None = None
    interrupted_first: bool = False
    pack: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for key in ("max_retries", "max_interruptions"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                problems.append(f"{key} is {value!r}, but must be an integer of at least 0")
        if not _number(self.retry_delay_s) or self.retry_delay_s < 0:
            problems.append(f"retry_delay_s is {self.retry_delay_s!r}, but must be a number of seconds")
        for key in ("time_limit_s", "time_request_s"):
            value = getattr(self, key)
            if value is not None and (not _number(value) or value <= 0):
                problems.append(f"{key} is {value!r}, but must be a positive number of seconds, or null")
        for key, words in _WORDS.items():
            if getattr(self, key) not in words:
                problems.append(f"{key} is {getattr(self, key)!r}, but must be one of {', '.join(map(_word, words))}")
        problems += self._policy_problems()
        if problems:
            raise InputError("; ".join(problems))

    def _policy_problems(self) -> Iterator[str]:
        """What is wrong with the settings on failures; lists and the mapping get their one written form here."""
        for key, read in _READERS:
            try:
                value = getattr(self, key)
                object.__setattr__(self, key, read(() if value is None else value, key))  # frozen only once it is made
            except InputError as error:
                yield error.message
        if self.time_limit is not None and read_percentage(self.time_limit) is None:
            hint = "; seconds are time_limit_s" if _number(self.time_limit) else ""
            yield f'time_limit is {short(self.time_limit)}, but must be a percentage of at least 100, "300%", or null{hint}'
        if self.max_fails is not None and (type(self.max_fails) is not int or self.max_fails < 1):
            yield f"max_fails is {self.max_fails!r}, but must be an integer of at least 1, or null"
        for key in ("success_check", "health_check"):
            value = getattr(self, key)
            if value is not None and not _command(value):
                yield f"{key} is {short(value)}, but must be a command, or null"
        for key in ("interrupted_first", "pack"):
            if type(getattr(self, key)) is not bool:
                yield f"{key} is {getattr(self, key)!r}, but must be true or false"

    def to_json(self) -> bytes:
        """The content of queue.json: one object over several lines, for people to read and edit."""
        raw: dict[str, Any] = {"format": FORMAT}
        raw |= {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        raw |= self.extra
        return (json.dumps(raw, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, path: str) -> Settings:
        """Read queue.json.

        Raises
        ------
        FormatError
            When it is not readable, or of a newer format: naming both numbers.
        """
        try:
            raw = json.loads(text)
            found = raw.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise FormatError(f"{path} is not the file of a queue", "it should be JSON with a number `format` in it") from None
        if type(found) is not int or found < 1:
            raise FormatError(f"{path} has the format {found!r}, which is none", f"this fsqdo knows format {FORMAT}")
        if found > FORMAT:
            raise FormatError(f"{path} is of format {found}, this fsqdo knows up to format {FORMAT}", "use a newer fsqdo")
        known = {key: raw.pop(key) for key in (*SETTABLE, *_FIXED) if key in raw}
        try:
            return cls(**known, extra=raw)
        except InputError as error:
            raise FormatError(f"{path}: {error.message}", "correct it with an editor") from None

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """The settings with some changed.

        Raises
        ------
        InputError
            For a name there is not (with the nearest one) or a value that cannot be.
        """
        for key in changes:
            if key not in SETTABLE:
                from difflib import get_close_matches

                near = get_close_matches(key, SETTABLE, 1)
                hint = f"did you mean {near[0]}?" if near else "the settings are " + ", ".join(SETTABLE)
                raise InputError(f"there is no queue setting {key!r}", hint)
        return replace(self, **changes)


_FIXED = ("name", "created_at", "created_by")
SETTABLE = tuple(f.name for f in fields(Settings) if f.name not in (*_FIXED, "extra"))
_READERS: tuple[tuple[str, Callable[[Any, str], object]], ...] = (
    ("retry_on", read_ends),
    ("no_retry_on", read_ends),
    ("exit_codes", read_actions),
)
_WORDS = {"requires": ("succeed", "finish"), "durability": ("normal", "paranoid"), "time_request": ("auto", None)}


def _word(value: str | None) -> str:
    return "null" if value is None else value


def _number(value: object) -> bool:
    # The bound also keeps out NaN and infinity, which JSON readers accept and no sleep does.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e12 < value < 1e12


def _command(value: object) -> bool:
    return (
        isinstance(value, str) and bool(value.strip()) and "\0" not in value and value.encode(errors="ignore").decode() == value
    )
