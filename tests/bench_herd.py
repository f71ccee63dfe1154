"""Many workers on one queue, and a million tasks from the load to a tidy queue: sections of docs/benchmarks.md.

A thousand processes on a machine with a few processors wait for these most of the time, so the seconds say little; what one
loses to others, and how evenly the tasks are given out, carries over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from statistics import median

from tests import herd
from tests.bench import Bench
from tests.bench_peers import Section, figure

WORKERS = 1000
SHORT = 100_000
SHORT_MOST = 1_000_000
BUSY = 50_000
LONG_S = 10.0
DRAINERS = 50
DRAINED = 1_000_000
URGENT = 100
PEAK, LEFT, ENTRIES = 60_000, 5000, 1001


# ---------------------------------------------------------------- a thousand workers
def crowd(shared: Bench) -> Iterator[Section]:
    """A thousand workers at once: on as many long tasks, and on many short ones; and who comes first."""
    yield _crowd(shared, "crowd", "A thousand workers", ((WORKERS, LONG_S), (SHORT, 0.0)))
    yield _urgent(shared)


def million_crowd(shared: Bench) -> Iterator[Section]:
    """A thousand workers at once, on a million short tasks."""
    yield _crowd(shared, "million-crowd", "A thousand workers and a million tasks", ((SHORT_MOST, 0.0),))


def _crowd(shared: Bench, name: str, title: str, runs: Sequence[tuple[int, float]]) -> Section:
    rows, data = [], []
    for tasks, task_s in runs:
        queue = shared.queue()
        queue.add_multiple(range(tasks))
        shared.settle()
        did = herd.run(queue, WORKERS, task_s)
        if len(set(did.ids)) != tasks or len(did.ids) != tasks:
            raise RuntimeError(f"{len(did.ids)} claims of {tasks} tasks")
        data.append(
            {
                "tasks": tasks,
                "task_s": task_s,
                "lost": did.lost_per_claim,
                "median_s": did.median_s,
                "last_s": did.claims[-1][0],
                "calls": dict(did.calls),
            }
        )
        what = f"{tasks:,} tasks of {task_s:g} s" if task_s else f"{tasks:,} tasks that do nothing"
        cells = [figure(did.lost_per_claim), "≤ 0.5", figure(did.median_s), figure(did.claims[-1][0])]
        rows.append([what, *cells, figure(did.last_over_median), "≤ 3"])
    return Section(
        name,
        title,
        f"{WORKERS} workers, all started at once, on one queue; they pack what has ended. How often a call found that another "
        "was first, for each claim; when half of the tasks were claimed and when the last was, in seconds from the start of "
        "the first worker.",
        ["", "lost races a claim", "limit", "half at, s", "last at, s", "last / half", "limit"],
        rows,
        data=data,
    )


def _urgent(shared: Bench) -> Section:
    """How soon tasks of a higher priority are claimed that are added while many workers run."""
    queue = shared.queue(pack=False)
    queue.add_multiple(range(BUSY))
    note = shared.fresh() / "added"
    adder = os.fork()
    if adder == 0:
        try:
            while queue.status()["ntasks"]["Succeeded"] < BUSY // 10:
                time.sleep(0.2)
            began = time.monotonic()
            queue.add_multiple(range(URGENT), priority=5)
            note.write_text(f"{began} {time.monotonic()}")
        finally:
            os._exit(0)
    began = time.monotonic()
    did = herd.run(queue, DRAINERS)
    os.waitpid(adder, 0)
    called, added = map(float, note.read_text().split())
    waits = [max(0.0, began + when - added) for when, task_id in did.claims if task_id > BUSY]
    text = (
        f"{URGENT} tasks of a higher priority, added while {DRAINERS} workers run {BUSY:,} tasks that do nothing: seconds "
        "of the call that adds them, which has to share the processors with all these workers, and from its end until they "
        "are claimed. Each worker looks once a second."
    )
    spans = [added - called, min(waits), median(waits), max(waits)]
    row = [f"{len(waits)} tasks", *map(figure, spans)]
    data = {"call_s": spans[0], "waits_s": waits}
    return Section(
        "urgent", "Highest priority first", text, ["", "the call, s", "first, s", "half, s", "last, s"], [row], data=data
    )


# ---------------------------------------------------------------- a million tasks
class Inodes:
    """How many inodes of the file system a directory is on were taken since this was made."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._before = self._used()
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _used(self) -> int:
        found = os.statvfs(self._directory)
        return found.f_files - found.f_ffree

    def now(self) -> int:
        """So many at this moment."""
        return self._used() - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self.now())

    def begin(self) -> None:
        """Look for the peak from now on."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()


def million(shared: Bench) -> Iterator[Section]:
    """A million tasks are loaded, drained by many workers, packed, tidied."""
    inodes = Inodes(str(shared.directory))
    queue = shared.queue()
    queue.add_multiple(f"analyze --input data/{number:09d}.dat" for number in range(DRAINED))
    loaded = inodes.now()
    began = time.monotonic()
    inodes.begin()
    herd.run(queue, DRAINERS)
    inodes.end()
    seconds = time.monotonic() - began
    if queue.status()["ntasks"]["Succeeded"] != DRAINED:
        raise RuntimeError(f"not all tasks succeeded: {queue.status()}")
    ended = inodes.now()
    queue.pack(wait=False)
    queue.tidy()
    most = max(len(names) + len(files) for _, names, files in os.walk(queue.directory))
    rows = [
        ["inodes after the load", f"{loaded:,}", "< 3,000"],
        [f"inodes at the peak, {DRAINERS} workers", f"{inodes.peak:,}", f"< {PEAK:,}"],
        ["inodes when all has ended", f"{ended:,}", ""],
        ["inodes after `tidy`", f"{inodes.now():,}", f"< {LEFT:,}"],
        ["entries of the largest directory", f"{most:,}", f"about {ENTRIES - 1:,}"],
        ["microseconds a task", figure(seconds / DRAINED * 1e6), ""],
    ]
    yield Section(
        "million",
        "A million tasks and their files",
        f"{DRAINED:,} tasks that do nothing, loaded at once, run by {DRAINERS} workers that pack what has ended, then tidied.",
        ["", "", "wanted"],
        rows,
        data={
            "loaded": loaded,
            "peak": inodes.peak,
            "ended": ended,
            "tidied": inodes.now(),
            "entries": most,
            "seconds": seconds,
        },
    )


SECTIONS = {"crowd": crowd, "million-crowd": million_crowd, "million": million}
