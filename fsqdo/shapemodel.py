"""What batch jobs of a shape, nodes x walltime x how many, would do with tasks: what they cost, and when all is done. Pure.

The model stands in `docs/shape.md` with its formulas, what it assumes, and what it gains; the names here are those there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from fsqdo.demand import TaskTime
from fsqdo.walltime import format_walltime

START_S = 10.0
GRACE_S = 10.0
WALLTIMES_S = tuple(60 * minutes for minutes in (5, 10, 15, 30, 60, 120, 240, 480, 720, 1440, 2880, 5760, 10080))
# The prior for the wait in the batch system's queue; docs/shape.md says what it claims and what not.
WAIT_FIRST_S, WAIT_SHARE, WAIT_NEXT = 30.0, 0.05, 0.02
_CLASSES = 200
_SLOTS, _MANY, _MOST_TASKS = 20, 200, 4096


class Shape(NamedTuple):
    """Jobs of so many nodes each, for so long; a walltime of None is no limit."""

    nodes: int
    walltime_s: int | None
    jobs: int

    def __str__(self) -> str:
        jobs = "1 job" if self.jobs == 1 else f"{self.jobs} jobs"
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{jobs} of {nodes} x {'no limit' if self.walltime_s is None else format_walltime(self.walltime_s)}"


@dataclass(frozen=True)
class Permitted:
    """What the profile and the user permit.

    Attributes
    ----------
    cores_per_node, mem_per_node_mb
        Of a node, for tasks; 0 MiB is not known.
    max_nodes, max_walltime_s
        Of one job; None: jobs need no walltime.
    max_jobs
        How many more there may be.
    max_slots
        Tasks at once at most, in all new jobs together.
    nodes, walltimes_s
        The only ones allowed; empty: powers of two and `WALLTIMES_S`, each with its maximum.
    area_s
        Node seconds that may be charged.
    finish_by_s
        In so many seconds all should be done.
    start_s, grace_s
        What of a job is lost before its first task, and kept free at its end.
    """

    cores_per_node: int
    max_nodes: int = 1
    max_walltime_s: int | None = None
    max_jobs: int = 1
    max_slots: int | None = None
    mem_per_node_mb: int = 0
    nodes: tuple[int, ...] = ()
    walltimes_s: tuple[int, ...] = ()
    area_s: float | None = None
    finish_by_s: float | None = None
    start_s: float = START_S
    grace_s: float = GRACE_S

    def node_counts(self) -> list[int]:
        """The numbers of nodes of one job."""
        if self.nodes:
            return [count for count in self.nodes if count <= self.max_nodes]
        powers = [1 << at for at in range(self.max_nodes.bit_length())]
        return sorted({*powers, self.max_nodes})

    def walltimes(self) -> list[int | None]:
        """The walltimes, rising; [None] where none is needed."""
        if self.max_walltime_s is None:
            return [*self.walltimes_s] or [None]
        ladder = self.walltimes_s or (*WALLTIMES_S, self.max_walltime_s)
        return [*sorted({limit for limit in ladder if limit <= self.max_walltime_s})]


@dataclass(frozen=True)
class Estimate:
    """What a shape is expected to do.

    Attributes
    ----------
    slots_per_node
        Tasks at once on a node.
    fits
        Share of the tasks that fit into its walltime at all.
    waste_s
        Seconds of a slot in which no task runs that ends before the deadline, when there are more tasks than time.
    rounds
        How often such jobs are needed one after the other.
    wait_s
        Until the last job of a round starts.
    finish_s
        Until all that fits is done, from now.
    charged_s, useful_s
        Node seconds in all, and those in which tasks run.
    """

    shape: Shape
    slots_per_node: int
    fits: float
    waste_s: float
    rounds: int
    wait_s: float
    finish_s: float
    charged_s: float
    useful_s: float

    @property
    def efficiency(self) -> float:
        """Useful of charged node seconds."""
        return self.useful_s / self.charged_s

    def __str__(self) -> str:
        text = (
            f"{self.shape}: {100 * self.efficiency:.0f} % of {self.charged_s / 3600:.3g} node hours useful, "
            f"done in {span_text(self.finish_s)} ({span_text(self.wait_s)} of it waiting for the start"
        )
        text += f", {self.rounds} rounds)" if self.rounds > 1 else ")"
        if self.shape.walltime_s is not None:
            text += f"; {span_text(self.waste_s)} lost in a slot that meets its deadline"
        return text if self.fits >= 1 else f"{text}; {100 * (1 - self.fits):.0f} % of the tasks do not fit"


# ---------------------------------------------------------------- the model
def slots_per_node(tasks: Sequence[TaskTime], permitted: Permitted) -> int:
    """Tasks of the mean size that fit on a node at once; at least 1."""
    cores = sum(task.cores for task in tasks) / len(tasks)
    slots = int(permitted.cores_per_node // cores)
    memory = sum(task.mem_mb for task in tasks) / len(tasks)
    if memory and permitted.mem_per_node_mb:
        slots = min(slots, int(permitted.mem_per_node_mb // memory))
    if permitted.max_slots is not None:
        slots = min(slots, permitted.max_slots)
    return max(1, slots)


def prior_wait_s(nodes: int, walltime_s: int | None, jobs: int) -> float:
    """The wait assumed where nobody forecasts it: longer for longer jobs; for more nodes and jobs, less than in proportion."""
    if walltime_s is None:
        return 0.0
    return (WAIT_FIRST_S + WAIT_SHARE * walltime_s * math.sqrt(nodes)) * (1 + WAIT_NEXT * (jobs - 1))


def estimate_shape(
    classes: Sequence[TaskTime],
    count: int,
    shape: Shape,
    permitted: Permitted,
    wait_s: Callable[[int, int | None, int], float] = prior_wait_s,
) -> Estimate | None:
    """What a shape is expected to do with `count` tasks like these; None when no task fits into it."""
    nodes, walltime_s, jobs = shape
    per_node = slots_per_node(classes, permitted)
    usable_s = math.inf if walltime_s is None else walltime_s - permitted.start_s - permitted.grace_s
    fit = tuple(task for task in classes if task.seconds <= usable_s)
    if not fit:
        return None
    mean = sum(task.seconds for task in fit) / len(fit)
    number = count * len(fit) / len(classes)
    per_slot = math.inf if walltime_s is None else filled_s(fit, usable_s)
    todo = number * mean
    filled = 0  # rounds that run to their deadline
    # The last task of any slot may be the longest. To be wrong here is dear: that one runs in a round of its own.
    if _end_s(fit, number, jobs * nodes * per_node, math.inf) > usable_s:
        capacity = jobs * nodes * per_node * per_slot
        filled = max(1, math.ceil(todo / capacity) - 1)
    left = max(todo - filled * jobs * nodes * per_node * per_slot, mean) if filled else todo
    waste = 0.0 if walltime_s is None else usable_s - per_slot
    last = min(jobs, math.ceil(left / (per_slot * nodes * per_node))) if filled else jobs
    slots = last * nodes * per_node
    ends = min(_end_s(fit, left / mean, slots, slots), usable_s)
    job_ends = min(_end_s(fit, left / mean, slots, nodes * per_node), usable_s)
    wait = wait_s(nodes, walltime_s, jobs)
    finish = filled * (wait + (walltime_s or 0)) + wait_s(nodes, walltime_s, last) + permitted.start_s + ends
    charged = filled * jobs * nodes * (walltime_s or 0) + last * nodes * (permitted.start_s + job_ends)
    useful = todo / per_node
    return Estimate(shape, per_node, len(fit) / len(classes), waste, filled + 1, wait, finish, max(charged, useful), useful)


def _end_s(tasks: tuple[TaskTime, ...], number: float, slots: int, together: float) -> float:
    """When the last of `together` slots is done, of `slots` that share the tasks; seconds from the start."""
    mean, longest, mean_left = _moments(tasks)
    if number <= slots:
        return longest
    share = 1.0 if together == math.inf else together / (together + 1)
    return max(longest, number * mean / slots - mean_left + _left_quantile_s(tasks, share))


@lru_cache(maxsize=128)
def _moments(tasks: tuple[TaskTime, ...]) -> tuple[float, float, float]:
    """Mean and longest time, and what is left in the mean of the tasks that run at some moment."""
    seconds = [task.seconds for task in tasks]
    total = sum(seconds)
    return total / len(seconds), max(seconds), sum(s * s for s in seconds) / (2 * total)


@lru_cache(maxsize=1024)
def _left_quantile_s(tasks: tuple[TaskTime, ...], share: float) -> float:
    """Quantile of what is left of the tasks that run at some moment: a long task is met in proportion to its length."""
    seconds = [task.seconds for task in tasks]
    total = sum(seconds)
    low, high = 0.0, max(seconds)
    for _ in range(30):
        middle = (low + high) / 2
        if sum(min(s, middle) for s in seconds) < share * total:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=128)
def filled_s(tasks: tuple[TaskTime, ...], usable_s: float, longest_first: bool = False) -> float:
    """Seconds of a slot in which tasks run to their end, in the mean over slots that are filled until their deadlines.

    Slot after slot is filled as workers do it: the first task in order whose request fits into what is left, any task where
    none is known; one that meets the deadline is lost and runs again. The order is a fixed random one of the sample, repeated
    until it fills some slots; or the longest first, which for times known beforehand is what packs best (first fit decreasing).
    """
    total = sum(task.seconds for task in tasks)
    mean = total / len(tasks)
    if usable_s > _MANY * mean:  # so many tasks in a slot that only the last one counts
        lost = mean if all(task.requested for task in tasks) else sum(task.seconds**2 for task in tasks) / (2 * total)
        return usable_s - lost
    repeats = max(1, min(round(_SLOTS * usable_s / total), _MOST_TASKS // len(tasks)))
    pending = [task for task in tasks for _ in range(repeats)]
    random.Random(len(pending)).shuffle(pending)
    if longest_first:
        pending.sort(key=lambda task: -task.seconds)
    slots, done = 0.0, total * repeats
    while pending:
        room = usable_s
        while (at := next((i for i, task in enumerate(pending) if _may_start(task, room)), None)) is not None:
            if pending[at].seconds > room:
                if at:
                    pending.insert(0, pending.pop(at))
                break
            room -= pending.pop(at).seconds
        slots += 1.0 if pending else (usable_s - room) / usable_s  # nothing was left that the last one could have had
    return done / slots


def _may_start(task: TaskTime, room_s: float) -> bool:
    return room_s > 0 and (not task.requested or task.seconds <= room_s)


def representatives(tasks: Sequence[TaskTime]) -> list[TaskTime]:
    """At most 200 tasks that stand for all: means of equal shares, by their lengths; the longest stays as it is."""
    ordered = sorted(tasks, key=lambda task: task.seconds)
    if len(ordered) <= _CLASSES:
        return ordered
    found = []
    for at in range(_CLASSES):
        share = ordered[at * len(ordered) // _CLASSES : (at + 1) * len(ordered) // _CLASSES]
        seconds = sum(task.seconds for task in share) / len(share)
        found.append(replace(share[len(share) // 2], seconds=seconds))
    found[-1] = replace(found[-1], seconds=ordered[-1].seconds)
    return found


def span_text(seconds: float) -> str:
    """A span of time, for people."""
    return f"{seconds:.1f} s" if seconds < 60 else format_walltime(round(seconds))
