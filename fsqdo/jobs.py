"""Batch jobs as the queue remembers them: a script and a record each under `jobs/`, and what their batch system says of them.

A job has a number n, unique in its queue: `jobs/<n>.sh` is its exact script, `jobs/<n>.json` its record, `logs/job-<n>.log`
what it prints. Nothing is changed here; `fsqdo.launch` writes them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fsqdo.batch import JobState, Reply, get_system
from fsqdo.errors import BatchError
from fsqdo.names import WORKER_FILE
from fsqdo.store import Store

ANSWER_S = 60.0
_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json\Z")
_NUMBER = re.compile(r"([1-9][0-9]{0,17})\.")
_JOURNAL_HEAD_BYTES = 4096

_log = logging.getLogger(__name__)


class UnclearError(BatchError):
    """A batch system did not answer, or nobody can read its answer: it may have done what it was asked."""


class QueueLike(Protocol):
    """The part of a queue that launching needs."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def directory(self) -> str:
        """Absolute path of its tree."""

    @property
    def store(self) -> Store:
        """Its tree."""


@dataclass(frozen=True)
class Job:
    """A batch job of a queue.

    Attributes
    ----------
    number
        Unique in the queue.
    batch_id
        Its id in the batch system; None when it has none (not submitted, or nobody could record it).
    state
        As the batch system says it; false as soon as the job goes on.
    submitted_at
        ISO 8601 UTC; None when it was not.
    slots
        Tasks that it runs at once.
    command
        The command that submits it.
    workers
        Names of the workers that ran or run in it, as far as the tree still tells.
    script_path, log_path
        Absolute paths of its script and of what it prints.
    error
        Why it was not submitted, or why its record cannot be read.
    script
        The text of the script; only in what `launch` returns.
    """

    number: int
    system: str
    profile: str
    batch_id: str | None
    state: JobState
    submitted_at: str | None
    slots: int
    command: tuple[str, ...]
    script_path: str
    log_path: str
    workers: tuple[str, ...] = ()
    error: str | None = None
    script: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them, without the script."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "script"}
        return {**shown, "state": str(self.state), "command": list(self.command), "workers": list(self.workers)}


def run(command: Sequence[str], timeout_s: float = ANSWER_S) -> Reply:
    """Run a command of a batch system and return what it answered.

    Raises
    ------
    BatchError
        When it cannot be run.
    UnclearError
        When it does not answer in time.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BatchError(f"{command[0]} cannot be run: {error.strerror}", "is it on PATH here?") from None
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as error:
            # The whole group: what a shell script of ours has started holds the pipes open, and would be waited for.
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnclearError(f"{command[0]} did not answer for {timeout_s:g} s") from None
            raise
    return Reply(process.returncode, stdout, stderr)


def script_name(number: int) -> str:
    """Path of a job's script, relative to the queue."""
    return f"jobs/{number}.sh"


def record_name(number: int) -> str:
    """Path of a job's record, relative to the queue."""
    return f"jobs/{number}.json"


def log_name(number: int) -> str:
    """Path of what a job prints, relative to the queue."""
    return f"logs/job-{number}.log"


def next_number(store: Store) -> int:
    """A number above all that were taken (false as soon as somebody launches)."""
    taken = (int(match[1]) for name in store.ls("jobs") or () if (match := _NUMBER.match(name)))
    return max(taken, default=0) + 1


def jobs(queue: QueueLike) -> list[Job]:
    """The batch jobs launched for a queue, in the order of their numbers, with their states.

    Each batch system is asked once, for all its jobs. A query that fails, or knows nothing of a job, gives UNKNOWN. Nothing
    is changed.

    Raises
    ------
    StorageError
        When the queue cannot be read.
    """
    found = [_read(queue.store, number) for number in _numbers(queue.store)]
    workers = _workers(queue.store) if found else {}
    states = _states(found)
    return [
        replace(job, state=states.get(job.number, job.state), workers=tuple(workers.get(str(job.number), ()))) for job in found
    ]


def wait_for(queue: QueueLike, jobs: Iterable[Job], timeout_s: float | None = None) -> list[Job]:
    """Wait until jobs have ended.

    Parameters
    ----------
    jobs
        Those to wait for; one without an id in the batch system is not waited for.
    timeout_s
        Return after so many seconds in any case.

    Returns
    -------
    list
        The jobs with their last known states, in the order given.
    """
    watched = list(jobs)
    end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    pause_s = 0.0
    while True:
        states = _states(job for job in watched if job.state is not JobState.ENDED)
        watched = [replace(job, state=states.get(job.number, job.state)) for job in watched]
        waiting = [job for job in watched if job.batch_id is not None and job.state is not JobState.ENDED]
        left_s = end - time.monotonic()
        if not waiting or left_s <= 0:
            return watched
        shortest_s, longest_s = max(get_system(job.system).poll_s for job in waiting)
        pause_s = min(max(pause_s * 1.5, shortest_s), longest_s)
        time.sleep(min(pause_s, left_s))


def _numbers(store: Store) -> list[int]:
    return sorted(int(match[1]) for name in store.ls("jobs") or () if (match := _RECORD.match(name)))


def _read(store: Store, number: int) -> Job:
    """The job of a record; one whose record is no record is UNKNOWN and says so."""
    path = store.path(record_name(number))
    text = store.read(record_name(number))
    try:
        raw = json.loads(text or b"")
        return Job(
            number=number,
            system=_text(raw["system"]),
            profile=_text(raw["profile"]),
            batch_id=None if raw["batch_id"] is None else _text(raw["batch_id"]),
            state=JobState.ENDED if raw.get("state") == "refused" else JobState.UNKNOWN,
            submitted_at=None if raw["submitted_at"] is None else _text(raw["submitted_at"]),
            slots=int(raw["slots"]),
            command=tuple(_text(word) for word in raw["command"]),
            script_path=store.path(script_name(number)),
            log_path=store.path(log_name(number)),
            error=None if raw.get("error") is None else _text(raw["error"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error = f"{path} is not the record of a job"
    return Job(
        number, "", "", None, JobState.UNKNOWN, None, 0, (), store.path(script_name(number)), store.path(log_name(number)),
        error=error,
    )  # fmt: skip


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _states(jobs: Iterable[Job]) -> dict[int, JobState]:
    """The states, by number, of those jobs that a batch system has."""
    by_system: dict[str, list[Job]] = {}
    for job in jobs:
        if job.batch_id is not None:
            by_system.setdefault(job.system, []).append(job)
    states: dict[int, JobState] = {}
    for name, asked in by_system.items():
        ids = [job.batch_id for job in asked if job.batch_id is not None]
        try:
            system = get_system(name)
            found = system.states(ids, run(system.status_command(ids)))
        except BatchError as error:
            # Not knowing is never "ended": a worker would be declared dead, or a job launched twice.
            _log.warning("the states of the jobs in %s are unknown: %s", name, error)
            found = {}
        states |= {job.number: found.get(job.batch_id or "", JobState.UNKNOWN) for job in asked}
    return states


def _workers(store: Store) -> dict[str, list[str]]:
    """Names of the workers by job number: as their `worker.json` says, or the first line of their journal."""
    found: dict[str, list[str]] = {}
    for holder in store.holders():
        _note_worker(found, holder.rpartition("/")[2], store.read(f"{holder}/{WORKER_FILE}") or b"")
    for name in store.names("outcomes"):
        worker = name.removesuffix(".jsonl")
        if worker != name:
            head = store.read_slice(f"outcomes/{name}", 0, _JOURNAL_HEAD_BYTES)
            _note_worker(found, worker, head.partition(b"\n")[0])
    return found


def _note_worker(found: dict[str, list[str]], worker: str, text: bytes) -> None:
    try:
        job = json.loads(text).get("job")
    except (ValueError, AttributeError, RecursionError):
        return
    if job is not None and worker not in found.setdefault(str(job), []):
        found[str(job)].append(worker)
