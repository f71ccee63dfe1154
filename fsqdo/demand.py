"""What a queue needs: the work that is ready, less what the jobs and workers there are will do of it, in core seconds.

Only pending tasks are work, and what is left of the running ones; waiting tasks are not, and nothing is while the queue is
paused. A million tasks are counted by names; of `SAMPLE` of them, spread evenly over all, the files are read.

How long a task takes: what it says itself (`time_request_s`), else what the queue says, else the mean of what has succeeded,
from the ends of some journals, else `DEFAULT_TASK_S`. `Demand` is pure; `gather` asks the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from fsqdo.batch import JobState
from fsqdo.errors import TaskError
from fsqdo.jobs import Job, QueueLike, jobs
from fsqdo.journal import durations
from fsqdo.names import PackName
from fsqdo.packs import definition_of, lines_of
from fsqdo.show import workers as worker_rows
from fsqdo.store import Entry, Store
from fsqdo.task import Definition, State
from fsqdo.taskoptions import Options

SAMPLE = 400
DEFAULT_TASK_S = 60.0
# A job or worker without a limit counts as if it went on for so long: enough to matter, too little to hold up the rest.
UNLIMITED_S = 3600.0
FORGOTTEN_S = 7 * 86400.0
_SHORTEST_S = 0.01

T = TypeVar("T")


@dataclass(frozen=True)
class TaskTime:
    """What is expected of one task: seconds; whether the worker knows that, too (as a time request); cores; memory in MiB."""

    seconds: float
    requested: bool = False
    cores: int = 1
    mem_mb: int = 0


@dataclass(frozen=True)
class Supply:
    """What a job or worker there is can still do.

    Attributes
    ----------
    label
        What it is, for people.
    cores, seconds
        Cores it has for tasks, and for how long yet.
    """

    label: str
    cores: int
    seconds: float

    @property
    def core_s(self) -> float:
        """Both in one."""
        return self.cores * self.seconds


@dataclass(frozen=True)
class Demand:
    """What a queue needs, in numbers.

    Attributes
    ----------
    ready, running
        Pending and running tasks.
    paused
        Whether nobody may claim: then nothing is needed.
    tasks
        A sample of the ready ones.
    known_by
        How their times are known, in words.
    supplies
        The jobs and workers there are.
    """

    ready: int
    running: int = 0
    paused: bool = False
    tasks: tuple[TaskTime, ...] = (TaskTime(DEFAULT_TASK_S),)
    known_by: str = "given"
    supplies: tuple[Supply, ...] = ()

    @property
    def task_s(self) -> float:
        """Expected seconds of a task, in the mean."""
        return sum(task.seconds for task in self.tasks) / len(self.tasks)

    @property
    def task_core_s(self) -> float:
        """Expected core seconds of a task, in the mean."""
        return sum(task.seconds * task.cores for task in self.tasks) / len(self.tasks)

    @property
    def work_core_s(self) -> float:
        """What is to be done: the ready tasks, and half of each running one."""
        return 0.0 if self.paused else (self.ready + self.running / 2) * self.task_core_s

    @property
    def supplied_core_s(self) -> float:
        """What those there are will do."""
        return sum(supply.core_s for supply in self.supplies)

    @property
    def missing_tasks(self) -> int:
        """How many of the ready tasks nobody there has time for."""
        if self.paused:
            return 0
        missing = (self.work_core_s - self.supplied_core_s) / self.task_core_s
        return max(0, min(self.ready, -int(-missing // 1)))

    def lines(self) -> list[str]:
        """The numbers in words, a line each."""
        said = [f"ready: {self.ready} tasks, running: {self.running}" + ("; the queue is paused" if self.paused else "")]
        if self.ready and not self.paused:
            said.append(f"a task: {self.task_s:.4g} s, {self.task_core_s:.4g} core s in the mean ({self.known_by})")
            said.append(f"work: ({self.ready} + {self.running}/2) x {self.task_core_s:.4g} = {self.work_core_s:.0f} core s")
            said += [f"there is {s.label}: {s.cores} cores x {s.seconds:.0f} s = {s.core_s:.0f} core s" for s in self.supplies]
            said.append(f"missing: {self.work_core_s:.0f} - {self.supplied_core_s:.0f} core s, {self.missing_tasks} tasks")
        return said


def gather(queue: QueueLike, leaving: int | None = None, found: Sequence[Job] | None = None) -> Demand:
    """Ask a queue what it needs.

    Parameters
    ----------
    leaving
        Number of a job that is about to end, and counts no more.
    found
        The jobs, where they are known already.

    Raises
    ------
    StorageError
        When the queue cannot be read.

    Notes
    -----
    Changes nothing. False as soon as somebody adds, claims or launches.
    """
    store = queue.store
    ready, picked = spread(store.entries(State.PENDING), lambda entry: entry.name.size, SAMPLE)
    running = sum(entry.name.size for entry in store.entries(State.RUNNING))
    if not ready:
        return Demand(0, running, store.paused())
    tasks, known_by = expected(
        [options for options in _options(store, picked) if options is not None],
        store.settings.time_request_s,
        durations(store),
    )
    least = min(task.cores for task in tasks)
    rows = worker_rows(store)
    there = tuple(supplies(jobs(queue) if found is None else found, rows, time.time(), least, leaving))
    return Demand(ready, running, store.paused(), tasks, known_by, there)


# ---------------------------------------------------------------- pure
def spread(items: Iterable[T], size: Callable[[T], int], most: int) -> tuple[int, list[tuple[T, int]]]:
    """Count what stands for several, and choose some of it evenly over all.

    Returns
    -------
    (int, list)
        The sum of the sizes; and at most `most` pairs (item, place in it), in order.
    """
    total, stride, picked = 0, 1, list[tuple[T, int]]()
    for item in items:
        count = size(item)
        for at in range(-total % stride, count, stride):
            picked.append((item, at))
        total += count
        while len(picked) > 2 * most:
            picked, stride = picked[::2], stride * 2
    if len(picked) > most:
        picked = [picked[at * len(picked) // most] for at in range(most)]
    return total, picked


def expected(options: Sequence[Options], queue_s: object, seen_s: Sequence[float]) -> tuple[tuple[TaskTime, ...], str]:
    """What is expected of the tasks of a sample, and how that is known.

    Parameters
    ----------
    queue_s
        The queue's time request; what is no number is none.
    seen_s
        Seconds of tasks that succeeded. They stand in for tasks that say nothing, spread evenly over these.
    """
    own = [o.time_request_s for o in options]
    unknown = sum(request is None for request in own)
    queue_number = float(queue_s) if isinstance(queue_s, (int, float)) and not isinstance(queue_s, bool) else None
    if queue_number is not None:
        rest, words = [queue_number], "the queue's time request"
    elif seen_s:
        rest, words = sorted(seen_s), f"the mean of {len(seen_s)} that succeeded"
    else:
        rest, words = [DEFAULT_TASK_S], f"nothing is known: {DEFAULT_TASK_S:g} s is assumed"
    tasks, at = [], 0
    for option, request in zip(options, own, strict=True):
        seconds = request
        if seconds is None:
            # In the middle of its share, so that a sample of any size has the same mean.
            seconds = rest[(2 * at + 1) * len(rest) // (2 * unknown)]
            at += 1
        known = request is not None or queue_number is not None
        tasks.append(TaskTime(max(float(seconds), _SHORTEST_S), known, option.cores, option.mem_mb or 0))
    if not tasks:  # not one could be read: they moved, or are broken
        tasks = [TaskTime(max(value, _SHORTEST_S), queue_number is not None) for value in rest]
    elif not unknown:
        words = "their time requests"
    elif unknown < len(tasks):
        words = f"the time requests of {len(tasks) - unknown} of {len(tasks)} looked at; for the others {words}"
    return tuple(tasks), words


def supplies(
    found: Iterable[Job], rows: Iterable[dict[str, Any]], now: float, cores_per_slot: int = 1, leaving: int | None = None
) -> Iterator[Supply]:
    """What jobs and workers can still do.

    Parameters
    ----------
    found, rows
        The jobs, and the workers as `Queue.workers` has them.
    now
        Unix time.

    Notes
    -----
    A job counts that waits, runs, or is unknown; not one that never got an id and has no worker (it may have been refused),
    nor an unknown one a week after it must have been over. A running job has as long as its workers' deadline says.
    """
    by_job: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("alive") is not False:
            by_job.setdefault(str(row.get("job")), []).append(row)
    for job in found:
        here = by_job.pop(str(job.number), [])
        if job.number == leaving or not _counts(job, here, now):
            continue
        cores = max(1, job.slots) * (getattr(job, "array", None) or 1) * cores_per_slot
        yield Supply(f"job {job.number} ({job.state})", cores, _left_s(job, here, now))
    for named, here in by_job.items():
        if leaving is None or named != str(leaving):
            for row in here:
                slots = row.get("slots")
                count = slots if isinstance(slots, int) else 1
                yield Supply(f"worker {row.get('name')}", count * cores_per_slot, _worker_left_s(row, now))


def _counts(job: Job, here: Sequence[object], now: float) -> bool:
    if job.state in (JobState.QUEUED, JobState.RUNNING) or here:
        return True
    if job.state is JobState.ENDED or job.batch_id is None:
        return False
    submitted = unix_time(job.submitted_at)
    return submitted is None or now < submitted + _walltime_s(job) + FORGOTTEN_S


def _walltime_s(job: Job) -> float:
    limit = getattr(job, "walltime_s", None)
    return float(limit) if isinstance(limit, (int, float)) and limit > 0 else UNLIMITED_S


def _left_s(job: Job, here: Sequence[dict[str, Any]], now: float) -> float:
    """How long a job goes on: till its workers' deadline; else its whole walltime, since nobody knows when it began."""
    if here:
        return max(_worker_left_s(row, now) for row in here)
    return _walltime_s(job)


def _worker_left_s(row: dict[str, Any], now: float) -> float:
    deadline = row.get("deadline")
    return max(0.0, float(deadline) - now) if isinstance(deadline, (int, float)) else UNLIMITED_S


def unix_time(text: str | None) -> float | None:
    """Unix time of an instant as it stands in JSON; None when there is none."""
    try:
        return datetime.fromisoformat((text or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


# ---------------------------------------------------------------- asking
def _options(store: Store, picked: Sequence[tuple[Entry, int]]) -> Iterator[Options | None]:
    """The options of chosen tasks; None for one that has moved or cannot be read. A pack is read once."""
    lines: list[bytes] = []
    last: Entry | None = None
    for entry, at in picked:
        try:
            if not isinstance(entry.name, PackName):
                yield definition_of(store, entry).options
                continue
            if entry is not last:
                last, lines = entry, []  # what cannot be read has no lines, and is not tried again
                lines = lines_of(store, entry.directory, entry.name)
            yield Definition.from_json(lines[at]).options if at < len(lines) else None
        except TaskError:
            yield None
