"""What an end of an attempt may mean: lists of exit codes and signals, and the exit-code protocol of a queue. Pure.

An end is written as an exit code (`75`), a range of them (`"64-78"`), a signal (`"SIGBUS"`), or one of the words `time_limit`
and `success_check` for an attempt that was failed by one of these. Exit code 128+n is signal n, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from fsqdo.errors import InputError, short

ACTIONS = ("succeed", "fail", "retry", "restart", "pause")
TIME_LIMIT = "time_limit"
SUCCESS_CHECK = "success_check"

_SIGNAL = 128
_CAUSES = {TIME_LIMIT: -1, SUCCESS_CHECK: -2}
_LAST = 255

Ends = tuple["int | str", ...]


def read_ends(given: Any, key: str) -> Ends:
    """Check a list of ends and return it in its one written form.

    Parameters
    ----------
    given
        A list of the forms above; a number alone; or text with commas between them, as on the command line.
    key
        What it is called, for the message.

    Raises
    ------
    InputError
        Naming every entry that is none.
    """
    if isinstance(given, str):
        given = [word.strip() for word in given.split(",") if word.strip()]
    elif type(given) is int:
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, (bytes, Mapping)):
        raise InputError(f"{key} is {short(given)}, but must be a list like {_EXAMPLE}")
    found, wrong = [], []
    for item in given:
        end = _read_end(item)
        if end is None:
            wrong.append(short(item))
        else:
            found.append(end)
    if wrong:
        raise InputError(f"{key} has {', '.join(wrong)} in it, but its entries are written like {_EXAMPLE}")
    return tuple(dict.fromkeys(found))


_EXAMPLE = f'75, "64-78", "SIGBUS", "{TIME_LIMIT}", "{SUCCESS_CHECK}"'


def _read_end(item: Any) -> int | str | None:
    """The written form of one entry; None when it is none."""
    if type(item) is int:
        return item if 1 <= item <= _LAST else None
    if not isinstance(item, str):
        return None
    if item in _CAUSES:
        return item
    if _is_number(item):
        return int(item) if 1 <= int(item) <= _LAST else None
    first, dash, last = item.partition("-")
    if dash and _is_number(first) and _is_number(last):
        return f"{int(first)}-{int(last)}" if 1 <= int(first) <= int(last) <= _LAST else None
    return item if _signal_number(item) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _signal_number(name: str) -> int:
    """The number of a signal by its full name; 0 when there is none."""
    import signal

    found = getattr(signal.Signals, name, None) if name.startswith("SIG") else None
    return int(found) if isinstance(found, signal.Signals) else 0


def read_actions(given: Any, key: str) -> dict[str, str]:
    """Check an exit-code protocol (end -> action) and return it in its written form.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    if given == ():
        given = {}
    if not isinstance(given, Mapping):
        raise InputError(f'{key} is {short(given)}, but must map exit codes to actions: {{"75": "restart"}}')
    found: dict[str, str] = {}
    owners: dict[int, str] = {}
    problems = []
    for item, action in given.items():
        end = _read_end(item)
        if end is None:
            problems.append(f"{key} has {short(item)} in it, but its codes are written like {_EXAMPLE}")
        elif action not in ACTIONS:
            problems.append(f"{key} says {short(action)} for {item}, but must say one of {', '.join(ACTIONS)}")
        elif (end, action) == (SUCCESS_CHECK, "succeed"):
            problems.append(f"{key} says succeed for {SUCCESS_CHECK}, which then says nothing: leave out the check")
        else:
            twice = [owners[n] for n in _numbers(end) if owners.setdefault(n, str(end)) != str(end)]
            if twice:
                problems.append(f"{key} has two actions for the same end: {twice[0]} and {end}")
            found[str(end)] = action
    if problems:
        raise InputError("; ".join(problems))
    return found


def _numbers(end: int | str) -> Iterable[int]:
    """The numbers by which `end_of` knows an end in its written form."""
    if isinstance(end, int):
        return (end,)
    if end in _CAUSES:
        return (_CAUSES[end],)
    first, dash, last = end.partition("-")
    if dash:
        return range(int(first), int(last) + 1)
    return (int(end),) if _is_number(end) else (_SIGNAL + _signal_number(end),)


@lru_cache(maxsize=256)
def numbers_of(ends: Ends) -> frozenset[int]:
    """The numbers of a list of ends."""
    return frozenset(number for end in ends for number in _numbers(end))


@lru_cache(maxsize=64)
def _table(actions: tuple[tuple[str, str], ...]) -> dict[int, str]:
    return {number: action for end, action in actions for number in _numbers(end)}


def action_table(actions: Mapping[str, str]) -> Mapping[int, str]:
    """An exit-code protocol by the numbers of `end_of`."""
    return _table(tuple(actions.items()))


def end_of(exit_code: int | None, number: int | None, cause: str = "") -> int | None:
    """The number by which an end is looked up; None for a command that could not be started at all.

    Parameters
    ----------
    number
        The signal.
    cause
        "" or TIME_LIMIT or SUCCESS_CHECK: then neither code nor signal counts.
    """
    if cause:
        return _CAUSES[cause]
    return exit_code if number is None else _SIGNAL + number


def read_percentage(text: Any) -> float | None:
    """The factor that `"300%"` means: 3.0; None when it is no percentage of at least 100 and at most a million."""
    if not isinstance(text, str) or not text.endswith("%"):
        return None
    digits = text[:-1]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 7 and 100 <= int(digits) <= 1_000_000):
        return None
    return int(digits) / 100
