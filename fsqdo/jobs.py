"""Batch jobs as the queue remembers them: a script and a record each under `jobs/`, and what their batch system says of them.

A job has a number n, unique in its queue: `jobs/<n>.sh` is its exact script, `jobs/<n>.json` its record, `logs/job-<n>.log`
what it prints. `fsqdo.launch` writes them; here they are read, waited for and cancelled.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fsqdo.batch import BatchSystem, JobState, Reply, get_system
from fsqdo.errors import BatchError, InputError
from fsqdo.jobcache import StateCache
from fsqdo.jobrecords import Job, QueueLike, job_numbers, log_name, next_number, read_job, record_name, script_name
from fsqdo.jobwork import Work, work
from fsqdo.names import new_token
from fsqdo.store import Store
from fsqdo.texts import utc_now

ANSWER_S = 60.0
_LIKED_S = 1.0  # a system that may be asked more often than this is asked each time

_log = logging.getLogger(__name__)


class UnclearError(BatchError):
    """A batch system did not answer, or nobody can read its answer: it may have done what it was asked."""


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


def jobs(queue: QueueLike) -> list[Job]:
    """The batch jobs launched for a queue, in the order of their numbers, with their states and what they did.

    Each batch system is asked once, for all its jobs, and no more often than it likes: within half a minute the answer is
    that of the last command that asked. A query that fails, or knows nothing of a job, gives UNKNOWN.

    Raises
    ------
    StorageError
        When the queue cannot be read.
    """
    found = [read_job(queue.store, number) for number in job_numbers(queue.store)]
    done = work(queue.store) if found else {}
    states = _states(queue.store, found)
    return [_with_work(replace(job, state=states.get(job.number, job.state)), done.get(str(job.number))) for job in found]


def _with_work(job: Job, done: Work | None) -> Job:
    if done is None:
        return job
    return replace(job, workers=tuple(done.workers), succeeded=done.succeeded, failed=done.failed, running=done.running)


def ended_jobs(store: Store) -> frozenset[str]:
    """Numbers of the jobs of which the batch system says that they have ended; those it does not know are not among them."""
    found = [job for job in (read_job(store, number) for number in job_numbers(store)) if job.batch_id is not None]
    states = _states(store, found)
    return frozenset(str(job.number) for job in found if states.get(job.number) is JobState.ENDED)


def batch_id_of(store: Store, given: str, system: str) -> str:
    """The id in the batch system of a job that is named by its number in this queue; what is no such number is an id itself.

    Raises
    ------
    InputError
        When the job has no id, or is one of another batch system.
    """
    if not given.isdigit() or int(given) not in job_numbers(store):
        return given
    job = read_job(store, int(given))
    if job.batch_id is None:
        raise InputError(f"job {given} has no id in its batch system: {job.error or 'it was not submitted'}")
    if job.system != system:
        raise InputError(f"job {given} is one of {job.system}, and no job of {system} can wait for it")
    return job.batch_id


def note_submitted(store: Store, started: Iterable[Job]) -> None:
    """Have `jobs` know of new jobs before it may ask again."""
    by_system: dict[str, list[str]] = {}
    for job in started:
        if job.batch_id is not None:
            by_system.setdefault(job.system, []).append(job.batch_id)
    for name, ids in by_system.items():
        keep_s = get_system(name).poll_s[0]
        if keep_s >= _LIKED_S:
            StateCache(store, name, keep_s).submitted(ids)


# ---------------------------------------------------------------- cancelling
def cancel_jobs(
    queue: QueueLike, numbers: Iterable[int] | None = None, queued_only: bool = False, dry_run: bool = False
) -> list[Job]:
    """Cancel batch jobs of a queue. What their workers run goes back to pending, as at any other end of a job.

    Parameters
    ----------
    numbers
        Only these; None: all that have not ended.
    queued_only
        Only those that wait in the batch system, which is asked now.
    dry_run
        Only say which.

    Returns
    -------
    list
        The jobs that were cancelled (or would be), in the order of their numbers.

    Raises
    ------
    InputError
        For a number that no job has, or one of another queue, of which this one is a copy. Nothing was cancelled.
    BatchError
        When a batch system refuses. Those of other systems may have been cancelled.
    """
    there = job_numbers(queue.store)
    wanted = there if numbers is None else sorted(set(numbers))
    unknown = sorted(set(wanted) - set(there))
    if unknown:
        raise InputError(f"queue {queue.name} has no job {unknown[0]}", f"`fsqdo jobs {queue.name}` lists them")
    found = [job for number in wanted if (job := read_job(queue.store, number)).batch_id is not None]
    own = [job for job in found if not _is_of_another_queue(queue.store, job)]
    if len(own) < len(found) and (numbers is not None or not own):
        other = next(job for job in found if job not in own)
        hint = f"this queue is a copy of that one, or was it: cancel it there, or {other.batch_id} in the batch system"
        raise InputError(f"job {other.number} was launched for {other.queue}", hint)
    return _cancel(queue.store, own, queued_only, dry_run, ask_now=True)


def _is_of_another_queue(store: Store, job: Job) -> bool:
    """Whether this queue is a copy of the one that a job was launched for; one that was renamed is not."""
    try:
        return job.queue is not None and not os.path.samefile(job.queue, store.directory)
    except OSError:
        return False


def cancel_queued(store: Store) -> list[Job]:
    """Cancel the jobs that still wait in the batch system and were launched to be cancelled when the queue is drained."""
    found = (read_job(store, number) for number in job_numbers(store))
    left = [job for job in found if job.cancel_when_drained and job.batch_id is not None and job.cancelled_at is None]
    left = [job for job in left if not _is_of_another_queue(store, job)]
    return _cancel(store, left, queued_only=True, dry_run=False, ask_now=False)


def _cancel(store: Store, found: list[Job], queued_only: bool, dry_run: bool, ask_now: bool) -> list[Job]:
    states = _states(store, found, ask_now)
    found = [replace(job, state=states.get(job.number, job.state)) for job in found]
    wrong = (JobState.ENDED, JobState.RUNNING, JobState.UNKNOWN) if queued_only else (JobState.ENDED,)
    chosen = [job for job in found if job.state not in wrong]
    if dry_run:
        return chosen
    by_system: dict[str, list[Job]] = {}
    for job in chosen:
        by_system.setdefault(job.system, []).append(job)
    for name, asked in by_system.items():
        reply = run(get_system(name).cancel_command([job.batch_id for job in asked if job.batch_id is not None]))
        listed = ", ".join(str(job.number) for job in asked)
        if reply.returncode != 0:
            said = (reply.stderr.strip() + "\n" + reply.stdout.strip()).strip() or "no output"
            raise BatchError(
                f"{name} did not cancel all of jobs {listed}: exit code {reply.returncode}: {said}", "ask `fsqdo jobs` again"
            )
        _log.info("cancel-jobs jobs=%s system=%s", listed, name)
        for job in asked:
            _note_cancelled(store, job)
    return chosen


def _note_cancelled(store: Store, job: Job) -> None:
    """Keep that in the record, so that no other worker does it again; launch has long written its last word there."""
    try:
        raw = json.loads(store.read(record_name(job.number)) or b"")
        content = (json.dumps({**raw, "cancelled_at": utc_now()}, indent=1) + "\n").encode()
    except (ValueError, TypeError):
        return
    store.replace(record_name(job.number), content, f"job.{new_token()}")


# ---------------------------------------------------------------- waiting
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
        states = _states(queue.store, (job for job in watched if job.state is not JobState.ENDED))
        watched = [replace(job, state=states.get(job.number, job.state)) for job in watched]
        waiting = [job for job in watched if job.batch_id is not None and job.state is not JobState.ENDED]
        left_s = end - time.monotonic()
        if not waiting or left_s <= 0:
            return watched
        shortest_s, longest_s = max(get_system(job.system).poll_s for job in waiting)
        pause_s = min(max(pause_s * 1.5, shortest_s), longest_s)
        time.sleep(min(pause_s, left_s))


# ---------------------------------------------------------------- states
def _states(store: Store, jobs: Iterable[Job], ask_now: bool = False) -> dict[int, JobState]:
    """The states, by number, of those jobs that a batch system has; `ask_now`: whatever it said a moment ago."""
    by_system: dict[str, list[Job]] = {}
    for job in jobs:
        if job.batch_id is not None:
            by_system.setdefault(job.system, []).append(job)
    states: dict[int, JobState] = {}
    for name, asked in by_system.items():
        found = _known(store, name, [job.batch_id for job in asked if job.batch_id is not None], ask_now)
        states |= {job.number: found.get(job.batch_id or "", JobState.UNKNOWN) for job in asked}
    return states


def _known(store: Store, name: str, ids: list[str], ask_now: bool) -> dict[str, JobState]:
    """What a system says of jobs, or said within the time it likes to be left alone."""
    try:
        system = get_system(name)
    except BatchError as error:
        _log.warning("the states of the jobs in %s are unknown: %s", name, error)
        return {}
    keep_s = system.poll_s[0]
    if keep_s < _LIKED_S:
        return _ask(system, ids)
    cache = StateCache(store, name, keep_s)
    open_ids = [batch_id for batch_id in ids if cache.state(batch_id) is not JobState.ENDED]
    if open_ids and (ask_now or not cache.fresh):
        cache.answered(_ask(system, open_ids))
    return {batch_id: cache.state(batch_id) for batch_id in ids}


def _ask(system: BatchSystem, ids: list[str]) -> dict[str, JobState]:
    try:
        return system.states(ids, run(system.status_command(ids)))
    except BatchError as error:
        # Not knowing is never "ended": a worker would be declared dead, or a job launched twice.
        _log.warning("the states of the jobs in %s are unknown: %s", system.name, error)
        return {}


__all__ = [
    "Job",
    "QueueLike",
    "UnclearError",
    "batch_id_of",
    "cancel_jobs",
    "cancel_queued",
    "ended_jobs",
    "jobs",
    "log_name",
    "next_number",
    "note_submitted",
    "record_name",
    "run",
    "script_name",
    "wait_for",
]
