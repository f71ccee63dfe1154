"""What follows from the end of an attempt: the outcome, and the place the task goes to. Pure but for the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fsqdo.names import (
    TaskName,
    failed_once_more,
    failed_path,
    interrupted_once_more,
    killed_path,
    stopped_once_more,
    succeeded_path,
)
from fsqdo.outcome import Outcome
from fsqdo.requirements import pending_place, returned_place
from fsqdo.rules import action_table, end_of, numbers_of
from fsqdo.settings import Settings
from fsqdo.taskoptions import Options
from fsqdo.texts import utc_now

KILLED = "killed by its user"


@dataclass
class Attempt:
    """What is known of an attempt when it has ended; the fields of `Outcome` that are not decided here.

    Attributes
    ----------
    detail
        More for the story of a failure: a traceback.
    cause
        "", or `rules.TIME_LIMIT` or `rules.SUCCESS_CHECK`, which failed it whatever its exit code or signal.
    pauses
        Why the queue is to be paused on its account; set by `decide`.
    """

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
    cause: str = ""
    pauses: str = ""


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
        "succeeded", "failed", "interrupted" or "killed"; a failure with retries left becomes "retry", and the queue's
        `exit_codes` may make anything of it.
    """
    retry: bool | None = None
    if kind == "failed" and settings.exit_codes:
        kind, retry = _by_protocol(name, settings, attempt)
    if kind == "succeeded":
        to = succeeded_path(name, key, worker)
    else:
        kind, to = _destination(name, options, settings, worker, attempt, kind, retry)
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


def _by_protocol(name: TaskName, settings: Settings, attempt: Attempt) -> tuple[str, bool | None]:
    """What `exit_codes` makes of a failure: (kind, whether it is run again if it may be; None: as the lists say)."""
    end = end_of(attempt.exit_code, attempt.signal, attempt.cause)
    action = "" if end is None else action_table(settings.exit_codes).get(end, "")
    if action == "succeed":
        return "succeeded", None
    if action in ("fail", "retry"):
        return "failed", action == "retry"
    if action == "restart" and name.i >= settings.max_interruptions:
        attempt.reason = f"{_how(attempt)}: restart, but max_interruptions is {settings.max_interruptions}"
        return "failed", False
    if action == "pause":
        attempt.pauses = f"task {name.id} asked for it by {_how(attempt)}"
    if action in ("restart", "pause"):
        attempt.reason = f"{_how(attempt)}: {action}"
        return ("interrupted" if action == "pause" else action), None
    return "failed", None


def _how(attempt: Attempt) -> str:
    """How it ended, in words."""
    if attempt.cause:
        return attempt.reason or attempt.cause
    return f"signal {attempt.signal}" if attempt.exit_code is None else f"exit code {attempt.exit_code}"


def _destination(
    name: TaskName, options: Options, settings: Settings, worker: str, attempt: Attempt, kind: str, retry: bool | None
) -> tuple[str, str]:
    if kind == "killed":
        return kind, killed_path(name)
    if kind in ("interrupted", "restart"):
        fresh = stopped_once_more(name) if kind == "interrupted" else interrupted_once_more(name)
        return "interrupted", f"{returned_place(settings, fresh, options)}/{fresh.file}"
    fresh = failed_once_more(name)
    retries = settings.max_retries if options.max_retries is None else options.max_retries
    if name.f >= retries or not (_worth_a_retry(options, settings, attempt) if retry is None else retry):
        return "failed", failed_path(fresh, worker)
    delay_s = settings.retry_delay_s * 2 ** min(name.f, 30)
    if delay_s <= 0:
        return "retry", f"{pending_place(fresh, options)}/{fresh.file}"
    return "retry", f"waiting/until/{int(time.time() + delay_s) + 1}/{fresh.file}"


def _worth_a_retry(options: Options, settings: Settings, attempt: Attempt) -> bool:
    """What `retry_on` and `no_retry_on` say, the task's own before the queue's."""
    retry_on = settings.retry_on if options.retry_on is None else options.retry_on
    no_retry_on = settings.no_retry_on if options.no_retry_on is None else options.no_retry_on
    if not retry_on and not no_retry_on:
        return True
    end = end_of(attempt.exit_code, attempt.signal, attempt.cause)
    if end in numbers_of(no_retry_on):
        return False
    return not retry_on or end in numbers_of(retry_on)
