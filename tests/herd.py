"""A herd: hundreds or a thousand worker processes on one queue, and what they ask of the file system beyond their work.

`python -m tests.herd [--workers N] [--tasks N] [--task-s SECONDS] [--stagger S]`.

The workers are forked from one process, so that a thousand of them fit into the memory of one machine. Each counts its calls
at the store's seam and notes when it claimed. A task that is claimed from a pack costs three calls with a path (made loose,
claimed, finished); all others are counted as waste: lost races, listings, what others made loose and is read, opening and
closing of bundles.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import fsqdo
from fsqdo.claims import Claim, Claimer
from fsqdo.store.system import System, fs
from fsqdo.worker import Worker
from fsqdo.workeroptions import WorkerOptions

WITH_PATHS = ("rename", "mkdir", "rmdir", "unlink", "listdir", "open", "lstat", "utime")


@dataclass
class Herd:
    """What the workers did.

    Attributes
    ----------
    claims
        When each task was claimed, in seconds since the start of the first worker, and its id; sorted.
    calls
        Calls with a path at the seam, by name, until each worker's last claim; `lost` are those that found their file gone.
    """

    claims: list[tuple[float, int]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def ids(self) -> list[int]:
        """The tasks, in the order in which they were claimed."""
        return [task_id for _, task_id in self.claims]

    @property
    def median_s(self) -> float:
        """When half of the tasks were claimed."""
        return median(when for when, _ in self.claims)

    @property
    def lost_per_claim(self) -> float:
        """Renames and opens that found their file gone, for each claim."""
        return self.calls["lost"] / len(self.ids)

    @property
    def wasted_per_claim(self) -> float:
        """All calls with a path that are none of the work itself, for each claim."""
        names = {name: count for name, count in self.calls.items() if name != "lost"}
        return sum(names.values()) / len(self.ids) - WORK

    @property
    def last_over_median(self) -> float:
        """When the last task was claimed, against when half of them were."""
        return self.claims[-1][0] / self.median_s


WORK = 3  # made loose, claimed, finished


def run(queue: fsqdo.Queue, workers: int, task_s: float = 0.0, stagger_s: float = 0.0) -> Herd:
    """Start so many workers at once, and wait for them."""
    notes = Path(tempfile.mkdtemp(prefix="herd-"))
    began = time.monotonic()
    children = []
    for _ in range(workers):
        with warnings.catch_warnings():  # of threads that pytest may have: the child only runs a worker and leaves by _exit
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _work(queue, notes, began, task_s, stagger_s)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    if failed:
        raise RuntimeError(f"{len(failed)} of {workers} workers failed")
    herd = Herd()
    for note in notes.iterdir():
        said = json.loads(note.read_text())
        herd.claims += map(tuple, said["claims"])
        herd.calls.update(said["calls"])
        note.unlink()
    notes.rmdir()
    herd.claims.sort()
    return herd


def _work(queue: fsqdo.Queue, notes: Path, began: float, task_s: float, stagger_s: float) -> None:
    """One worker: counts, and leaves its counts in `notes`."""
    calls: Counter[str] = Counter()
    until_claim: Counter[str] = Counter()
    claims: list[tuple[float, int]] = []
    _count(calls)
    claim = Claimer.claim

    def noted(self: Claimer, *args: Any) -> Claim | None:
        if not claims:
            calls.clear()  # what it cost to become a worker
        found = claim(self, *args)
        if found is not None:
            claims.append((time.monotonic() - began, found.name.id))
            until_claim.update(calls)  # what follows the last claim is the end of the queue, not of the herd
            calls.clear()
        return found

    Claimer.claim = noted  # type: ignore[method-assign]
    options = WorkerOptions(
        func=lambda task: time.sleep(task_s) if task_s else None, stagger_s=stagger_s, report=lambda text: None
    )
    Worker(queue.store, options).run()
    (notes / str(os.getpid())).write_text(json.dumps({"claims": claims, "calls": until_claim}))


def _count(calls: Counter[str]) -> None:
    def counted(name: str) -> Any:
        call = getattr(System, name)

        def note(*args: Any, **more: Any) -> Any:
            calls[name] += 1
            try:
                return call(*args, **more)
            except FileNotFoundError:
                calls["lost"] += name in ("rename", "open")
                raise

        return note

    for name in WITH_PATHS:
        setattr(fs, name, counted(name))


def main(arguments: list[str] | None = None) -> int:
    """Run a herd and print what it did, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.herd", description="Many workers on one queue.")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--task-s", type=float, default=0.0, help="seconds that each task sleeps")
    parser.add_argument("--stagger", type=float, default=0.0, help="each worker waits at random up to so long")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="herd-", dir="build" if Path("build").is_dir() else None) as root:
        os.environ["FSQDO_DIR"] = root
        queue = fsqdo.create("herd", pack=False)
        queue.add_multiple(range(options.tasks))
        began = time.monotonic()
        herd = run(queue, options.workers, options.task_s, options.stagger)
        seconds = time.monotonic() - began
        counts = queue.status()["ntasks"]
        if counts["Succeeded"] != options.tasks or len(set(herd.ids)) != options.tasks:
            raise RuntimeError(f"not every task was done once: {counts}")
    print(
        json.dumps(
            {
                "workers": options.workers,
                "tasks": options.tasks,
                "task_s": options.task_s,
                "seconds": round(seconds, 2),
                "claims": len(herd.ids),
                "lost_per_claim": round(herd.lost_per_claim, 3),
                "wasted_per_claim": round(herd.wasted_per_claim, 3),
                "median_claim_s": round(herd.median_s, 3),
                "last_claim_s": round(herd.claims[-1][0], 3),
                "last_over_median": round(herd.last_over_median, 2),
                "calls": dict(herd.calls.most_common()),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
