"""The choice of a shape for batch jobs, nodes x walltime x how many, by the model of `shapemodel`. Pure.

`docs/shape.md` says which is taken, and what that gains.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fsqdo.demand import TaskTime
from fsqdo.errors import InputError
from fsqdo.shapemodel import (
    WAIT_NEXT,
    Estimate,
    Permitted,
    Shape,
    estimate_shape,
    filled_s,
    prior_wait_s,
    representatives,
    slots_per_node,
    span_text,
)

# Of shapes whose efficiency differs less than this from the best, the one that is done first is taken.
INDIFFERENT = 0.05
_ASKED = 6
_START = re.compile(r"Job \S+ to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\b")

Forecast = Callable[[int, int], "float | None"]


@dataclass(frozen=True)
class Choice:
    """The shape that was chosen, all that were compared with it, why it is this one, and what the user could do better."""

    best: Estimate
    compared: Sequence[Estimate] = field(repr=False)
    why: str
    hint: str = ""

    def lines(self, others: int = 4) -> list[str]:
        """The choice in words; a line for it and for each of the best others."""
        rest = sorted((e for e in self.compared if e.shape != self.best.shape), key=lambda e: (-e.fits, -e.efficiency))
        seen: dict[tuple[int, int | None], Estimate] = {}
        for estimate in rest:
            seen.setdefault(estimate.shape[:2], estimate)
        shown = [f"not {estimate}" for estimate in list(seen.values())[:others]]
        said = [f"shape: {self.best}", f"it is {self.why}, of {len(self.compared)} compared", *shown]
        return [*said, self.hint] if self.hint else said


# ---------------------------------------------------------------- the choice
def choose(tasks: Sequence[TaskTime], count: int, permitted: Permitted, forecast: Forecast | None = None) -> Choice:
    """The shape to take for `count` tasks.

    Parameters
    ----------
    tasks
        A sample of them.
    forecast
        Seconds until a job of so many nodes and seconds would start, or None where that is not known; asked for a few shapes.

    Returns
    -------
    Choice
        Without a deadline: of the shapes about as efficient as the best one, that which is done first. With one: of those that
        keep it the most efficient; when none does, the one done first.

    Raises
    ------
    InputError
        When nothing permitted can run any of the tasks.
    """
    if count < 1 or not tasks:
        raise InputError("there are no tasks to find a shape for")
    classes = representatives(tasks)
    estimates = list(_estimates(classes, count, permitted, prior_wait_s))
    if not estimates:
        raise InputError(
            f"no permitted shape can run these tasks: {_room(classes, permitted)}",
            "permit more (max_walltime, cores_per_node, the area), or correct the tasks' requests",
        )
    choice = _best(estimates, permitted)
    if forecast is not None:
        choice = _asked(choice, classes, count, permitted, forecast)
    return replace(choice, hint=_hint(choice.best, classes, permitted))


def _hint(best: Estimate, classes: list[TaskTime], permitted: Permitted) -> str:
    """What another order of the tasks would gain, if that is worth a word: a slot is best filled from the longest down."""
    if best.shape.walltime_s is None or best.rounds == 1 or not all(task.requested for task in classes):
        return ""
    usable_s = best.shape.walltime_s - permitted.start_s - permitted.grace_s
    fit = tuple(task for task in classes if task.seconds <= usable_s)
    gain = filled_s(fit, usable_s, True) / filled_s(fit, usable_s) - 1
    if gain < INDIFFERENT:
        return ""
    return f"{100 * gain:.0f} % more would fit into such jobs if the longest tasks came first (--priority)"


def _asked(choice: Choice, classes: list[TaskTime], count: int, permitted: Permitted, forecast: Forecast) -> Choice:
    """Ask for the few shapes that may be chosen, and choose among these again."""
    candidates = sorted(_rivals(choice.compared, permitted), key=lambda e: _rank(e, choice.best))
    waits: dict[tuple[int, int], float | None] = {}
    for estimate in candidates:
        nodes, walltime_s, _ = estimate.shape
        if walltime_s is not None and len(waits) < _ASKED and (nodes, walltime_s) not in waits:
            waits[nodes, walltime_s] = forecast(nodes, walltime_s)
    known = {key: wait for key, wait in waits.items() if wait is not None}
    if not known:
        return choice

    def wait_s(nodes: int, walltime_s: int | None, jobs: int) -> float:
        told = known.get((nodes, walltime_s or 0))
        return prior_wait_s(nodes, walltime_s, jobs) if told is None else told * (1 + WAIT_NEXT * (jobs - 1))

    again = [
        replaced
        for e in choice.compared
        if e.shape[:2] in known and (replaced := estimate_shape(classes, count, e.shape, permitted, wait_s)) is not None
    ]
    found = _best(again, permitted)
    words = f"{found.why} (starts as the batch system forecasts for {len(known)} of them)"
    return replace(found, why=words, compared=choice.compared)


def _rank(estimate: Estimate, best: Estimate) -> tuple[bool, float]:
    return estimate.shape != best.shape, estimate.finish_s


def _rivals(estimates: Sequence[Estimate], permitted: Permitted) -> list[Estimate]:
    """The estimates that may be chosen: which run most tasks, keep within the area, are efficient enough."""
    most = max(e.fits for e in estimates)
    able = [e for e in estimates if e.fits >= most]
    if permitted.area_s is not None:
        able = [e for e in able if e.charged_s <= permitted.area_s] or [min(able, key=lambda e: e.charged_s)]
    if permitted.finish_by_s is not None:
        return [e for e in able if e.finish_s <= permitted.finish_by_s] or able
    limit = max(e.efficiency for e in able) - INDIFFERENT
    return [e for e in able if e.efficiency >= limit]


def _best(estimates: Sequence[Estimate], permitted: Permitted) -> Choice:
    rivals = _rivals(estimates, permitted)
    size = "" if permitted.area_s is None else f" within {permitted.area_s / 3600:.3g} node hours"
    least = min(e.charged_s for e in rivals)
    if permitted.area_s is not None and least > permitted.area_s:
        size = f", though it needs more than {permitted.area_s / 3600:.3g} node hours"
    by_s = permitted.finish_by_s
    if by_s is None:
        best = min(rivals, key=lambda e: (e.finish_s, *_smaller(e)))
        return Choice(best, estimates, f"done first of the {len(rivals)} about as efficient as the best one{size}")
    if min(e.finish_s for e in rivals) > by_s:
        best = min(rivals, key=lambda e: (e.finish_s, *_smaller(e)))
        return Choice(best, estimates, f"done first{size}, since none is done in {span_text(by_s)}")
    best = min(rivals, key=lambda e: (-e.efficiency, e.finish_s, *_smaller(e)))
    return Choice(best, estimates, f"the most efficient of the {len(rivals)} done in {span_text(by_s)}{size}")


def _smaller(estimate: Estimate) -> tuple[int, int, int]:
    nodes, walltime_s, jobs = estimate.shape
    return jobs, nodes, walltime_s or 0


def _estimates(
    classes: list[TaskTime], count: int, permitted: Permitted, wait_s: Callable[[int, int | None, int], float]
) -> Iterator[Estimate]:
    per_node = slots_per_node(classes, permitted)
    for walltime_s in permitted.walltimes():
        for nodes in permitted.node_counts():
            for jobs in _job_counts(count, nodes * per_node, permitted):
                shape = Shape(nodes, walltime_s, jobs)
                if not _within(shape, permitted, per_node):
                    continue
                found = estimate_shape(classes, count, shape, permitted, wait_s)
                if found is not None:
                    yield found


def _job_counts(count: int, slots: int, permitted: Permitted) -> list[int]:
    """Powers of two, the most that are permitted, and one slot a task."""
    most = max(0, min(permitted.max_jobs, -(-count // max(1, slots))))
    return sorted({*(1 << at for at in range(most.bit_length())), most}) if most else []


def _within(shape: Shape, permitted: Permitted, per_node: int) -> bool:
    """Whether a shape keeps the limits that join its parts."""
    slots = shape.jobs * shape.nodes * per_node
    if permitted.max_slots is not None and slots > permitted.max_slots and slots > per_node:
        return False
    area = permitted.area_s
    # What is charged at most, in one round: a job may run to its end.
    return area is None or shape.walltime_s is None or shape.jobs * shape.nodes * shape.walltime_s <= area


def _room(classes: list[TaskTime], permitted: Permitted) -> str:
    shortest = min(task.seconds for task in classes)
    longest = max((w for w in permitted.walltimes() if w is not None), default=0)
    return (
        f"the shortest is expected to need {span_text(shortest)}, a job gives at most {span_text(longest)} "
        f"({permitted.start_s + permitted.grace_s:g} s of it for start and end) on {permitted.cores_per_node} cores, "
        f"{permitted.max_jobs} more jobs are permitted"
    )


# ---------------------------------------------------------------- the forecast
def parse_test_only(text: str, now: float) -> float | None:
    """Seconds until the start that `sbatch --test-only` forecasts, in what it says on stderr; None when it says none.

    The instant there has no zone: it is in this machine's, as Slurm writes it.
    """
    match = _START.search(text)
    if match is None:
        return None
    try:
        return max(0.0, time.mktime(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")) - now)
    except (ValueError, OverflowError):
        return None
