"""Walltimes as people write them: `24:00:00`, `30:00`, `0:120:00`, `45`, `1-12:00:00`. Pure."""

from __future__ import annotations

import re

from fsqdo.errors import InputError, short

_FORM = re.compile(r"(?:(?P<days>[0-9]{1,9})-)?(?P<rest>[0-9]{1,9}(?::[0-9]{1,9}){0,2})\Z")
_FORMS = "write h:m:s, m:s, minutes, or days-h:m:s: 24:00:00, 30:00, 45, 2-12:00:00"
_MOST_S = 10 * 366 * 86400


def parse_walltime(text: str | int) -> int:
    """Read a walltime.

    Parameters
    ----------
    text
        a:b:c is hours, minutes and seconds, a:b is minutes and seconds, a bare number is minutes (as in Slurm). After days,
        as in `1-12:30`, the parts are hours, minutes and seconds, as many as there are. A part may exceed 60: `0:120:00` is
        two hours.

    Returns
    -------
    int
        Seconds, at least 1.

    Raises
    ------
    InputError
        When it is something else, nothing at all, or beyond ten years.
    """
    written = str(text).strip() if isinstance(text, (str, int)) and not isinstance(text, bool) else ""
    match = _FORM.match(written)
    if match is None:
        raise InputError(f"{short(text)} is not a walltime", _FORMS)
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is not None:
        parts = [24 * int(match["days"]) + parts[0], *parts[1:], *[0] * (3 - len(parts))]
    elif len(parts) == 1:
        parts.append(0)
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + part
    if not 0 < seconds <= _MOST_S:
        raise InputError(f"the walltime {written} is {'nothing' if not seconds else 'more than ten years'}", _FORMS)
    return seconds


def format_walltime(seconds: int) -> str:
    """Write a walltime as h:mm:ss, the form that every batch system takes."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
