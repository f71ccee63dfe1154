"""The outcome of an attempt: one line of a journal, and how it is read back."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NamedTuple

from fsqdo.names import parse_task
from fsqdo.texts import encode_json, quote_json

ENDS = frozenset({"succeeded", "failed", "killed"})
_ENDED = ENDS | {"retry", "interrupted"}


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
            if not (isinstance(raw["outcome"], str) and isinstance(raw["to"], str) and parse_task(f"{raw['name']}.json")):
                return None
            raw["log"] = _log(raw.get("log"))
            # What another program writes as something else than it is does not count; how the attempt ended does.
            right = {key: value for key, value in raw.items() if key in _OUTCOME_KEYS and _is_right(key, value)}
            return cls(worker=worker, **right)
        except (ValueError, TypeError, AttributeError, KeyError):
            return None

    @property
    def ended(self) -> bool:
        """Whether it is an end, and not the note that an attempt began or something later releases write."""
        return self.outcome in _ENDED

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


def _log(raw: Any) -> tuple[int, int, int] | None:
    if isinstance(raw, (list, tuple)) and len(raw) == 3 and all(type(n) is int and abs(n) < _MOST for n in raw):
        return raw[0], raw[1], raw[2]
    return None


def _is_right(key: str, value: Any) -> bool:
    kinds = _KINDS.get(key)
    if value is None or kinds is None:
        return True
    return type(value) in kinds and (kinds is _TEXT or (isfinite(value) if type(value) is float else abs(value) < _MOST))


_MOST = 1 << 63
_INTEGER, _NUMBER, _TEXT = (int,), (int, float), (str,)
_KINDS = {
    **dict.fromkeys(("exit_code", "signal", "slot", "max_rss_kb"), _INTEGER),
    **dict.fromkeys(("elapsed_s", "cpu_s"), _NUMBER),
    **dict.fromkeys(("reason", "started_at", "ended_at"), _TEXT),
}
_OUTCOME_KEYS = frozenset(Outcome._fields) - {"worker"}
