"""Launching by need: what a queue lacks (`demand`) becomes jobs of the most efficient shape (`shape`), within the limits.

One call looks once and launches at most once. It may come from a shell, from cron on several machines at once, or from a worker
at its end (`fsqdo do --chain`). `scaleguard` keeps several from doing the same, and stops after failures.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fsqdo.allocation import job_number
from fsqdo.batch import JobState
from fsqdo.config import Config, Profile, load_config
from fsqdo.demand import Demand, gather
from fsqdo.errors import BatchError, InputError, StorageError
from fsqdo.jobs import Job, QueueLike, jobs, next_number, run
from fsqdo.launch import launch
from fsqdo.requirements import blocked
from fsqdo.scaleguard import failures, forgive, forgiven_up_to, one_at_a_time
from fsqdo.shape import Choice, Forecast, choose, parse_test_only
from fsqdo.shapemodel import Permitted
from fsqdo.store import Store
from fsqdo.task import State
from fsqdo.upkeep import Passes
from fsqdo.walltime import format_walltime, parse_walltime

SHORTEST_INTERVAL_S = 30.0
# What is assumed of a batch system whose profile does not say it; each is named in the explanation.
ASSUMED_WALLTIME_S = 86400
ASSUMED_JOBS = 10
FORECAST_S = 10.0
_CHAINS = ("its time is over", "SIGUSR1", "do not fit", "walltime")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What the user permits, beside the profile.

    Attributes
    ----------
    most
        Tasks at once in the new jobs.
    nodes, walltime
        Exactly these, of one job; None: chosen.
    max_nodes, max_walltime, max_jobs
        At most these: of one job, and jobs at once. Walltimes as `parse_walltime` reads them.
    node_hours
        That may be charged for what is launched now.
    finish_by_s
        All should be done in so many seconds.
    """

    most: int | None = None
    nodes: int | None = None
    walltime: str | int | None = None
    max_nodes: int | None = None
    max_walltime: str | int | None = None
    max_jobs: int | None = None
    node_hours: float | None = None
    finish_by_s: float | None = None

    def __post_init__(self) -> None:
        for key in ("most", "nodes", "max_nodes", "max_jobs"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{key} is {value!r}, but must be an integer of at least 1")
        for key in ("node_hours", "finish_by_s"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12):
                raise InputError(f"{key} is {value!r}, but must be a positive number")


@dataclass(frozen=True)
class Scaled:
    """What one look at a queue led to.

    Attributes
    ----------
    jobs
        Those that were launched, or would have been.
    summary
        What was done, in one line.
    explanation
        The numbers, a line each.
    stopped
        Why nothing is launched until told; "" normally.
    drained
        Whether there is nothing more to come.
    """

    jobs: Sequence[Job]
    summary: str
    explanation: Sequence[str] = ()
    stopped: str = ""
    drained: bool = False


def autoscale(
    queue: QueueLike,
    profile: str | None = None,
    *,
    dry_run: bool = False,
    reset: bool = False,
    limits: Limits | None = None,
    leaving: int | None = None,
    config: Config | None = None,
    **options: Any,
) -> Scaled:
    """Launch what a queue lacks, once.

    Parameters
    ----------
    profile
        A profile of the configuration; None is its default one.
    dry_run
        Change nothing.
    reset
        Forget the jobs that failed before.
    leaving
        Number of a job that is about to end: what it has left does not count.
    options
        More for `fsqdo.launch.launch`: script, func, timeout, batchqueue, batchopts, …

    Raises
    ------
    InputError, ConfigError
        When no shape is permitted that can run a task, or the configuration is wrong.
    BatchError
        When a job could not be submitted; its record keeps the error.
    StorageError
        When the queue cannot be read or written.

    Notes
    -----
    Take the lock; do the pass; count; launch; let go of the lock. A kill leaves the lock, which nobody heeds after ten
    minutes, and what `launch` leaves.
    """
    chosen = (config or load_config()).profile(profile)
    limited = limits or Limits()
    if reset and not dry_run:
        forgive(queue.store)
    if dry_run:
        return _scale(queue, chosen, limited, leaving, config, True, options, 0 if not reset else next_number(queue.store))
    with one_at_a_time(queue.store) as held:
        if not held:
            return Scaled((), "another autoscaler is at work on this queue: nothing done")
        Passes(queue.store).run()  # what dead workers hold, and retries that are due, are work
        return _scale(queue, chosen, limited, leaving, config, False, options, 0)


def _scale(
    queue: QueueLike,
    profile: Profile,
    limits: Limits,
    leaving: int | None,
    config: Config | None,
    dry_run: bool,
    options: dict[str, Any],
    forgiven: int,
) -> Scaled:
    found = jobs(queue)
    demand = gather(queue, leaving, found)
    said = demand.lines()
    count = demand.missing_tasks
    if not count:
        drained = not demand.ready and not demand.running and _nothing_waits(queue.store)
        return Scaled((), f"nothing to launch: {_why_nothing(demand, drained)}", said, drained=drained)
    failed = failures(queue.store, found, max(forgiven, forgiven_up_to(queue.store)))
    if failed:
        why = f"the last {len(failed)} jobs failed: " + "; ".join(failed)
        hint = f"correct the cause, then `fsqdo autoscale {queue.name} --reset`, or launch one by hand that works"
        return Scaled((), f"stopped: {why}; {hint}", [*said, why], stopped=why)
    permitted, notes = permit(profile, limits, demand, found, leaving)
    said += notes
    if permitted.max_jobs < 1 or permitted.max_slots == 0:
        return Scaled((), f"nothing to launch: {notes[-1]}", said)
    choice = choose(demand.tasks, count, permitted, _forecast(profile, options))
    said += choice.lines()
    nodes, walltime_s, number = choice.best.shape
    words = {} if walltime_s is None else {"walltime": format_walltime(walltime_s)}
    least = min(task.cores for task in demand.tasks)
    more = ({"nodes": nodes} if nodes > 1 else {}) | ({"cores_per_worker": least} if least > 1 else {})
    slots = nodes * _slots(choice, permitted, least, count, profile)
    all_options = {"pack": True, "jobs": number, **words, **more, **options}
    launched = launch(queue, slots, profile=profile.name, dry_run=dry_run, config=config, **all_options)
    said += [launched.plan, *launched.notes]
    return Scaled(launched, f"{'would launch' if dry_run else 'launched'} {launched.plan}", said)


def _slots(choice: Choice, permitted: Permitted, least: int, count: int, profile: Profile) -> int:
    """Slots of each node: as many as its cores for the smallest task, since workers pack tasks by their cores."""
    per_node = max(choice.best.slots_per_node, permitted.cores_per_node // least)
    if permitted.mem_per_node_mb:
        per_node = choice.best.slots_per_node
    if permitted.max_slots is not None:
        per_node = min(per_node, permitted.max_slots)
    return max(1, min(per_node, count) if profile.system == "local" else per_node)


def _why_nothing(demand: Demand, drained: bool) -> str:
    if drained:
        return "the queue is drained"
    if demand.paused:
        return "the queue is paused"
    return "those there are suffice" if demand.ready else "no task is ready"


def _nothing_waits(store: Store) -> bool:
    """Whether no waiting task can become ready any more."""
    waiting = sum(entry.name.size for entry in store.entries(State.WAITING))
    return not waiting or waiting == sum(entry.name.size for entry in blocked(store))


# ---------------------------------------------------------------- limits
def permit(
    profile: Profile, limits: Limits, demand: Demand, found: Sequence[Job] = (), leaving: int | None = None
) -> tuple[Permitted, list[str]]:
    """What the profile and the user permit now, and in words what was assumed or is used up."""
    here = len(os.sched_getaffinity(0))
    notes = []
    cores = profile.cores_per_node or here
    if not profile.cores_per_node and profile.system != "local":
        notes.append(f"profile {profile.name} has no cores_per_node: {here} are assumed, as on this machine")
    there = [job for job in found if job.number != leaving and job.profile == profile.name and _counts(job)]
    most = limits.most
    walltime_s = None if limits.walltime is None else parse_walltime(limits.walltime)
    if profile.system == "local":
        used = sum(job.slots for job in there) * min((task.cores for task in demand.tasks), default=1)
        free = max(0, cores - used)
        notes.append(f"{free} of this machine's {cores} cores are free of other jobs of this queue")
        jobs_left, most = 1, free if most is None else min(free, most)
        longest = None if limits.max_walltime is None else parse_walltime(limits.max_walltime)
        nodes = 1
    else:
        jobs_left, longest, nodes = _batch_limits(profile, limits, len(there), notes)
    if walltime_s is not None:
        longest = walltime_s if longest is None else min(longest, walltime_s)
    permitted = Permitted(
        cores_per_node=cores,
        max_nodes=nodes,
        max_walltime_s=longest,
        max_jobs=max(0, jobs_left),
        max_slots=most,
        mem_per_node_mb=profile.mem_per_node_mb or 0,
        nodes=() if limits.nodes is None else (limits.nodes,),
        walltimes_s=() if walltime_s is None else (walltime_s,),
        area_s=None if limits.node_hours is None else limits.node_hours * 3600,
        finish_by_s=limits.finish_by_s,
    )
    return permitted, notes


def _batch_limits(profile: Profile, limits: Limits, there: int, notes: list[str]) -> tuple[int, int, int]:
    """Jobs that may still be submitted, the longest walltime, the most nodes of a job, on a batch system."""
    longest = profile.max_walltime_s
    if longest is None:
        longest = ASSUMED_WALLTIME_S
        notes.append(f"profile {profile.name} has no max_walltime: {longest // 3600} h are assumed")
    if limits.max_walltime is not None:
        longest = min(longest, parse_walltime(limits.max_walltime))
    nodes = profile.max_nodes or limits.nodes or 1
    if profile.max_nodes is None and limits.nodes is None:
        notes.append(f"profile {profile.name} has no max_nodes: 1 node a job is assumed")
    if limits.max_nodes is not None:
        nodes = min(nodes, limits.max_nodes)
    most = profile.max_jobs
    if most is None and limits.max_jobs is None:
        most = ASSUMED_JOBS
        notes.append(f"profile {profile.name} has no max_jobs: {most} at once are assumed")
    allowed = min(limit for limit in (most, limits.max_jobs) if limit is not None)
    if there:
        notes.append(f"{there} jobs of profile {profile.name} are there already, {allowed} are permitted at once")
    return allowed - there, longest, nodes


def _counts(job: Job) -> bool:
    return job.state in (JobState.QUEUED, JobState.RUNNING) or (job.state is JobState.UNKNOWN and job.batch_id is not None)


# ---------------------------------------------------------------- the start, forecast
def _forecast(profile: Profile, options: dict[str, Any]) -> Forecast | None:
    """Ask `sbatch --test-only` when a job would start; None where there is no such thing."""
    if profile.system != "slurm":
        return None
    words = [f"--account={profile.account}"] if profile.account else []
    partition = options.get("batchqueue") or profile.queue
    words += [f"--partition={partition}"] if partition else []
    words += [f"--constraint={profile.constraint}"] if profile.constraint else []
    given = options.get("batchopts") or ()
    for text in (*profile.directives, *((given,) if isinstance(given, str) else given)):
        words += shlex.split(text)
    silent = False

    def ask(nodes: int, walltime_s: int) -> float | None:
        nonlocal silent
        if silent:
            return None
        minutes = -(-walltime_s // 60)
        command = ["sbatch", "--test-only", f"--nodes={nodes}", f"--time={minutes}", *words, "--wrap=true"]
        try:
            wait_s = parse_test_only(run(command, FORECAST_S).stderr, time.time())
        except BatchError as error:
            _log.info("no forecast: %s", error)
            wait_s = None
        silent = wait_s is None  # once it does not tell, it is not asked again
        return wait_s

    return ask


# ---------------------------------------------------------------- again and again
def watch(
    look: Callable[[], Scaled], report: Callable[[Scaled], None], complain: Callable[[str], None], wait: Callable[[], bool]
) -> None:
    """Look again and again, until the queue is drained or `wait` says that it is enough.

    Parameters
    ----------
    look
        One `autoscale`. That a job is refused, or the file system in trouble, is said, and it goes on.
    report, complain
        Called with what came of it, or with what went wrong, if that is not the same as the time before.
    wait
        Waits for the interval; True: end.
    """
    last = ""
    while True:
        try:
            scaled = look()
        except (BatchError, StorageError) as error:
            if str(error) != last:
                complain(str(error))
            last = str(error)
        else:
            if scaled.summary != last or scaled.jobs:
                report(scaled)
            last = scaled.summary
            if scaled.drained:
                return
        if wait():
            return


def may_chain(why: str) -> bool:
    """Whether a worker that ended so leaves work for another job: its time was over, or what is left did not fit into it."""
    return any(words in why for words in _CHAINS)


def own_job(queue: QueueLike) -> Job | None:
    """The job of the queue that this process runs in; None when it runs in none."""
    number = job_number(os.environ, queue.store.directory)
    return None if number is None else next((job for job in jobs(queue) if str(job.number) == number), None)
