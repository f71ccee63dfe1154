"""The figures of `bench`, and what they mean in words. Pure: what was measured comes in, sentences go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import floor, log10
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What operations took that one process did one after the other.

    Attributes
    ----------
    count, seconds
        How many were done, and in which time.
    each_us
        The mean, in microseconds: of what was done one by one, the median.
    cut_short
        The time was over before all were done.
    """

    count: int
    seconds: float
    each_us: float
    cut_short: bool = False


@dataclass(frozen=True)
class Herd:
    """What processes did at once: each again and again the same operation.

    Attributes
    ----------
    count, per_s
        Operations in all, and their rate; None where too few were done to tell.
    median_us, p90_us, p99_us, longest_us
        What one of them took its process, in microseconds.
    """

    processes: int
    count: int
    per_s: float | None
    median_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    longest_us: float | None = None
    cut_short: bool = False


@dataclass(frozen=True)
class Report:
    """All that was measured.

    Attributes
    ----------
    create, synced_create, list_name
        The file system: a file of 200 bytes; the same synced, renamed, and its directory synced; a name in a listing.
    load, add, count
        fsqdo: a task of a large load; a task added by itself; a loose task in `status`.
    renames, work
        By number of processes: pairs of renames; tasks claimed and finished by workers whose function does nothing.
    """

    directory: str
    file_system: str
    machine: str
    processors: int
    fsqdo: str
    python: str
    measured_at: str
    create: Figure
    synced_create: Figure
    list_name: Figure
    load: Figure
    add: Figure
    count: Figure
    renames: list[Herd] = field(default_factory=list)
    work: list[Herd] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain objects, with the words."""
        return {**asdict(self), "words": words(self)}


# ---------------------------------------------------------------- from instants
def each(ended: Sequence[float], wanted: int, parts: int = 1) -> Figure:
    """The figure of what was done one by one, each in so many parts; `ended` begins with the start."""
    took = sorted(b - a for a, b in pairwise(ended))
    seconds = ended[-1] - ended[0]
    return Figure(len(took) * parts, round(seconds, 4), rounded(_part(took, 0.5) / max(parts, 1) * 1e6), len(took) < wanted)


def herd(instants: Sequence[Sequence[float]], wanted: float) -> Herd:
    """The figures of processes from the instants at which each of them ended (or began) an operation.

    The rate is that from the first instant to the last of them all, whoever came late; what a process did before its first is
    in no figure.
    """
    count = sum(map(len, instants))
    cut_short = count < wanted < float("inf")
    ends = [each for each in instants if each]
    span_s = max((each[-1] for each in ends), default=0.0) - min((each[0] for each in ends), default=0.0)
    took = sorted(b - a for each in ends for a, b in pairwise(each))
    if not took or span_s <= 0:
        return Herd(len(instants), count, None, cut_short=cut_short)
    usual, p90, p99, longest = (rounded(_part(took, part) * 1e6) for part in (0.5, 0.9, 0.99, 1.0))
    return Herd(len(instants), count, rounded((count - 1) / span_s), usual, p90, p99, longest, cut_short)


def _part(values: Sequence[float], part: float) -> float:
    """A quantile of sorted values."""
    return values[min(int(len(values) * part), len(values) - 1)] if values else 0.0


def rounded(value: float) -> float:
    """Four digits say all that is known."""
    return float(f"{value:.4g}")


# ---------------------------------------------------------------- words
def words(report: Report) -> list[str]:
    """What the figures mean for those who want to use queues here, a sentence each."""
    said = [_many(herd) for herd in report.work[-1:]]
    said += _fewer_are_better(report.work)
    said += _who_limits(report)
    for alone in (herd for herd in report.work if herd.processes == 1 and herd.median_us and herd.p99_us):
        usual, rare = span(alone.median_us or 0), span(alone.p99_us or 0)
        said.append(f"one worker alone spends {usual} on a task beside running it; one time in 100 more than {rare}")
    said.append(
        f"a million tasks are loaded in about {span(report.load.each_us * 1e6)}; "
        f"added one by one, each takes {span(report.add.each_us)}"
    )
    said.append(f"`fsqdo status` of a queue with 100000 tasks that are files takes about {span(report.count.each_us * 1e5)}")
    cut = [name for name in ("create", "synced_create", "load", "add") if getattr(report, name).cut_short]
    cut += [f"work by {herd.processes}" for herd in report.work if herd.cut_short]
    if cut:
        said.append(f"this file system is slow, or busy: not all was done in the time there was ({', '.join(cut)})")
    return said


def _many(most: Herd) -> str:
    who = "one worker" if most.processes == 1 else f"{most.processes} workers"
    if not most.per_s:
        return f"{who} finished {most.count} tasks in the time there was: too few to tell a rate"
    shortest_s = rounded_up(most.processes / most.per_s)
    return f"about {about(most.per_s)} tasks/s with {who}: fine for tasks longer than {span(shortest_s * 1e6)}"


def _fewer_are_better(work: Sequence[Herd]) -> list[str]:
    """Where many workers do less than fewer of them."""
    best = max(work, key=lambda herd: herd.per_s or 0.0)
    last = work[-1].per_s
    if not last or not best.per_s or best.per_s < 1.3 * last:
        return []
    return [f"{best.processes} at once do most here, about {about(best.per_s)} tasks/s"]


def _who_limits(report: Report) -> list[str]:
    """Whether workers on other machines would come on top."""
    if not report.work or not report.renames or report.work[-1].processes <= report.processors:
        return []
    able, done = report.renames[-1].per_s, report.work[-1].per_s
    if not able or not done:
        return []
    number = f"{report.processors} processors" if report.processors > 1 else "one processor"
    where = f"the {number} of this machine"
    if able > 2 * done:
        were = "were" if report.processors > 1 else "was"
        return [f"{where} {were} the limit: the file system renames for {about(able)} tasks/s, so other machines add to that"]
    return [f"the file system was the limit: it renames for {about(able)} tasks/s at most, however many machines work"]


def about(value: float) -> str:
    """A number as one says it: 912.3 -> 900, 1234 -> 1200, 12345 -> 12000."""
    if value <= 0:
        return "0"
    unit = 10 ** floor(log10(value))
    digits = 0 if value / unit >= 5 else 1
    return f"{round(value / unit, digits) * unit:.12g}"


def rounded_up(value: float) -> float:
    """The next of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is not less."""
    unit = 10.0 ** floor(log10(value))
    return next(float(f"{step * unit:.3g}") for step in (1, 2, 5, 10) if step * unit >= value * 0.9999)


def span(microseconds: float) -> str:
    """A span of time as one says it: `80 us`, `2.5 ms`, `0.1 s`, `3 min`."""
    if microseconds >= 120e6:
        return f"{about(microseconds / 60e6)} min"
    for least, unit, name in ((0.05e6, 1e6, "s"), (1e3, 1e3, "ms"), (0.0, 1.0, "us")):
        if microseconds >= least:
            return f"{about(microseconds / unit)} {name}"
    return "0 us"
