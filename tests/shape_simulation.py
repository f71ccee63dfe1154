"""What the shapes that `fsqdo.shape` chooses gain against fixed ones, in a simulated batch system.

Nothing of the model is used here but its choice: jobs wait in a queue, start, and their slots take the first task in order
that fits before the deadline, one event after the other. `python -m tests.shape_simulation` prints
the table that stands in docs/shape.md, always the same.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fsqdo.demand import SAMPLE, TaskTime, spread
from fsqdo.shape import choose
from fsqdo.shapemodel import GRACE_S, START_S, Permitted, Shape, prior_wait_s, slots_per_node

CORES = 16
PERMITTED = Permitted(cores_per_node=CORES, max_nodes=8, max_walltime_s=86400, max_jobs=16)
MOST_ROUNDS = 60
RECORDED = Path(__file__).with_name("shape_recorded.txt")
RECORDED_TIMES = 1800


@dataclass(frozen=True)
class Task:
    """How long it takes, and whether the worker knows that beforehand."""

    seconds: float
    known: bool


@dataclass
class Result:
    """What a policy came to: hours until all is done, node hours charged and useful, jobs, tasks left for ever."""

    finish_h: float = 0.0
    charged_h: float = 0.0
    useful_h: float = 0.0
    jobs: int = 0
    left: int = 0

    @property
    def efficiency(self) -> float:
        return self.useful_h / self.charged_h if self.charged_h else 0.0


Policy = Callable[[list[Task]], Shape]
Wait = Callable[[int, int, random.Random], float]


# ---------------------------------------------------------------- the workloads
def workloads(count: int = 3000) -> dict[str, list[Task]]:
    """Tasks by the name of their distribution, the same in every run."""
    chance = random.Random(7)
    heavy = [Task(min(chance.lognormvariate(math.log(120), 1.5), 40000.0), True) for _ in range(count)]
    two = [Task(chance.uniform(3000, 4200) if chance.random() < 0.2 else chance.uniform(20, 60), True) for _ in range(count)]
    recorded = [Task(float(line) * RECORDED_TIMES, False) for line in RECORDED.read_text().split()]
    return {
        "constant 700 s, known": [Task(700.0, True)] * count,
        "lognormal, known": heavy,
        "lognormal, unknown": [Task(task.seconds, False) for task in heavy],
        "bimodal, known": two,
        "recorded, unknown": (recorded * (count // len(recorded) + 1))[:count],
    }


# ---------------------------------------------------------------- the batch system
def quiet(nodes: int, walltime_s: int, chance: random.Random) -> float:
    """An empty machine: everything starts in a minute or two."""
    return chance.uniform(30, 120)


def busy(nodes: int, walltime_s: int, chance: random.Random) -> float:
    """A full machine: four times the waits that `fsqdo.shape` assumes, and they scatter by a factor of two."""
    return 4 * prior_wait_s(nodes, walltime_s, 1) * chance.lognormvariate(0, 0.7)


def work(tasks: list[Task], shape: Shape, starts: list[float]) -> tuple[list[Task], list[float], float]:
    """Run one round of jobs: the tasks that are left, when each job ended, and the seconds that were useful."""
    usable = (shape.walltime_s or 0) - START_S - GRACE_S
    pending = list(tasks)
    order = [(start + START_S, job, slot) for job, start in enumerate(starts) for slot in range(shape.nodes * CORES)]
    heapq.heapify(order)
    ends = [start + START_S for start in starts]
    useful = 0.0
    back: list[Task] = []
    while order:
        now, job, slot = heapq.heappop(order)
        ends[job] = max(ends[job], now)
        room = starts[job] + START_S + usable - now
        at = next((i for i, task in enumerate(pending) if not task.known or task.seconds <= room), None)
        if at is None or room <= 0:
            continue  # nothing fits any more; the slot stays idle until its job ends
        task = pending.pop(at)
        if task.seconds <= room:
            useful += task.seconds
            heapq.heappush(order, (now + task.seconds, job, slot))
        else:  # interrupted at the deadline: it runs again from its beginning
            back.append(task)
            ends[job] = max(ends[job], now + room)
    return back + pending, ends, useful


def run(tasks: list[Task], policy: Policy, wait: Wait) -> Result:
    """Round after round until nothing is left, or a round did nothing."""
    chance = random.Random(11)
    result, now, left = Result(), 0.0, list(tasks)
    for _ in range(MOST_ROUNDS):
        if not left:
            break
        shape = policy(left)
        starts = sorted(now + wait(shape.nodes, shape.walltime_s or 0, chance) for _ in range(shape.jobs))
        rest, ends, useful = work(left, shape, starts)
        result.jobs += shape.jobs
        result.charged_h += shape.nodes * sum(end - start for start, end in zip(starts, ends, strict=True)) / 3600
        result.useful_h += useful / CORES / 3600
        now = max(ends)
        if len(rest) == len(left):
            break
        left = rest
    result.finish_h, result.left = now / 3600, len(left)
    return result


# ---------------------------------------------------------------- the policies
def chosen(left: list[Task]) -> Shape:
    """What `fsqdo autoscale` takes: it sees a sample."""
    _, picked = spread(left, lambda _: 1, SAMPLE)
    sample = [TaskTime(task.seconds, task.known) for task, _ in picked]
    return choose(sample, len(left), PERMITTED).best.shape


def fixed(nodes: int, walltime_s: int) -> Policy:
    """Always these jobs, as many as have the node time that is needed."""

    def shape(left: list[Task]) -> Shape:
        seconds = sum(task.seconds for task in left)
        jobs = math.ceil(seconds / (nodes * CORES * walltime_s))
        return Shape(nodes, walltime_s, min(max(1, jobs), PERMITTED.max_jobs))

    return shape


POLICIES: dict[str, Policy] = {
    "chosen": chosen,
    "1 node x 30 min": fixed(1, 1800),
    "1 node x 4 h": fixed(1, 14400),
    "1 node x 24 h": fixed(1, 86400),
    "8 nodes x 30 min": fixed(8, 1800),
    "8 nodes x 4 h": fixed(8, 14400),
}


def table(count: int = 3000) -> Iterator[str]:
    """The lines of the table."""
    yield "| workload | shape | finish, quiet (h) | finish, busy (h) | node hours | useful | jobs | never run |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for name, tasks in workloads(count).items():
        for words, policy in POLICIES.items():
            fast, slow = run(tasks, policy, quiet), run(tasks, policy, busy)
            yield (
                f"| {name} | {words} | {fast.finish_h:.1f} | {slow.finish_h:.1f} | {fast.charged_h:.1f} "
                f"| {100 * fast.efficiency:.0f} % | {fast.jobs} | {fast.left or '-'} |"
            )


def main() -> None:
    """Print the table."""
    assert slots_per_node([TaskTime(1.0)], PERMITTED) == CORES
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
