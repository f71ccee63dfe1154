"""What follows from the end of an attempt: the outcome, and the place the task goes to. Pure but for the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fsqdo.ids import SHARD_SIZE
from fsqdo.journal import failed_path
from fsqdo.names import TaskName, failed_once_more, interrupted_once_more
from fsqdo.recovery import killed_path
from fsqdo.requirements import pending_place
from fsqdo.settings import Settings
from fsqdo.task import Options, Outcome, utc_now


@dataclass
class Attempt:
    """What is known of an attempt when it has ended; the fields of `Outcome` that are not decided here."""

    started_at: str
    started: float
    elapsed_s: float = 0.0
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    slot: int | None = None
    log: tuple[int, int, int] | None = None
    cpu_s: float | None = None
    max_rss_kb: int | None = None
    result: Any = None
    detail: str = ""


def begin(slot: int | None = None) -> Attempt:
    """An attempt that begins now."""
    return Attempt(utc_now(), time.monotonic(), slot=slot)


def decide(name: TaskName, key: str, options: Options, settings: Settings, worker: str, attempt: Attempt, kind: str) -> Outcome:
    """The outcome of an attempt.

    Parameters
    ----------
    key
        `str(name)`, which the caller has.
    kind
        "succeeded", "failed", "interrupted" or "killed"; a failure with retries left becomes "retry".
    """
    if kind == "succeeded":
        to = f"succeeded/{name.id // SHARD_SIZE:06d}/{key}@{worker}.json"
    else:
        kind, to = _destination(name, options, settings, worker, kind)
    return Outcome(
        key,
        kind,
        to,
        attempt.started_at,
        utc_now(),
        round(attempt.elapsed_s, 4),
        attempt.exit_code,
        attempt.signal,
        attempt.reason,
        attempt.slot,
        attempt.log,
        None if attempt.cpu_s is None else round(attempt.cpu_s, 4),
        attempt.max_rss_kb,
        attempt.result,
        worker,
    )


def _destination(name: TaskName, options: Options, settings: Settings, worker: str, kind: str) -> tuple[str, str]:
    if kind == "killed":
        return kind, killed_path(name)
    if kind == "interrupted":
        fresh = interrupted_once_more(name)
        return kind, f"{pending_place(fresh, options)}/{fresh.file}"
    fresh = failed_once_more(name)
    retries = settings.max_retries if options.max_retries is None else options.max_retries
    if name.f >= retries:
        return "failed", failed_path(fresh, worker)
    delay_s = settings.retry_delay_s * 2 ** min(name.f, 30)
    if delay_s <= 0:
        return "retry", f"{pending_place(fresh, options)}/{fresh.file}"
    return "retry", f"waiting/until/{int(time.time() + delay_s) + 1}/{fresh.file}"
