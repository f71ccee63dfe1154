"""The budget of metadata calls: what each verb asks of the file system, counted.

On a parallel file system every call with a path is a round trip to a metadata server, and there are few of those. The counts
are the same on every machine, so a test can guard them. They are taken twice: at the seam, and by strace of whole processes,
which also sees what goes past the seam.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo.store.system import System

TASKS = 3000
BUDGET = 6
WITH_PATHS = ("rename", "mkdir", "rmdir", "unlink", "listdir", "open", "lstat", "utime")
# What a worker does beside its tasks, in runs as short as these: join, open the slices of each of a few packs and settle at
# them, look at pending/ once a second, one pass when there is nothing left, leave.
AROUND = 250
PER_SECOND = 20
CHECKOUT = Path(__file__).resolve().parent.parent


@contextmanager
def counted(seam: System) -> Iterator[list[str]]:
    """Collect the names of the calls with paths that the store makes."""
    found: list[str] = []

    def listening(name: str) -> Any:
        call = getattr(System, name)

        def note(*args: Any, **more: Any) -> Any:
            found.append(name)
            return call(*args, **more)

        return note

    for name in WITH_PATHS:
        setattr(seam, name, listening(name))
    try:
        yield found
    finally:
        for name in WITH_PATHS:
            delattr(seam, name)


def nothing(task: object) -> None:
    """The task of these tests."""


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """Its finished shards stay loose: what packing costs is counted by itself."""
    return fsqdo.create("q", pack=False)


def each_task_costs(calls: list[str], tasks: int, seconds: float = 0.0) -> dict[str, int]:
    """The calls that every task causes; what comes on top is bounded here."""
    counts = Counter(calls)
    each = {name: count // tasks for name, count in counts.items() if count >= tasks}
    around = len(calls) - tasks * sum(each.values())
    assert around <= AROUND + PER_SECOND * seconds, counts
    return each


# ---------------------------------------------------------------- at the seam
def test_a_function_task_from_marker_to_succeeded(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(range(TASKS))
    began = time.monotonic()
    with counted(seam) as calls:
        assert queue.do(func=nothing).succeeded == TASKS
    # create the loose file, claim, finish; the look for those who wait is one for many, and nobody reads what he has written
    assert each_task_costs(calls, TASKS, time.monotonic() - began) == {"rename": 2, "open": 1}
    assert len(calls) <= BUDGET * TASKS


def test_a_loose_function_task(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(range(1000))
    began = time.monotonic()
    with counted(seam) as calls:
        assert queue.do(func=nothing).succeeded == 1000
    assert each_task_costs(calls, 1000, time.monotonic() - began) == {"rename": 2, "open": 1}


def test_a_link_of_a_chain(queue: fsqdo.Queue, seam: System) -> None:
    """Who frees a task claims it without a listing of pending/, and does not read it again."""
    rows = ({"task": n, "name": f"n{n}", "requires": [f"n{n - 1}"][: min(n, 1)]} for n in range(1000))
    queue.loadfile(BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows)), json=True)
    began = time.monotonic()
    with counted(seam) as calls:
        assert queue.do(func=nothing).succeeded == 1000
    # Beyond a task that waits for nothing: look who waits, move it (read here and not at the claim), remove the directory.
    each = Counter({"rename": 3, "open": 1, "listdir": 1, "rmdir": 1})
    assert not Counter(calls) - Counter({name: 1000 * count for name, count in each.items()}) - around(time.monotonic() - began)


def around(seconds: float) -> Counter[str]:
    """What a short run may cost beside its tasks, whatever the calls."""
    return Counter(dict.fromkeys(WITH_PATHS, 40 + int(PER_SECOND * seconds)))


def test_a_command(queue: fsqdo.Queue, seam: System) -> None:
    """Its log stays open and its outcome goes to the journal, so it costs no more than a function."""
    queue.add_multiple(["test 1"] * 200)
    began = time.monotonic()
    with counted(seam) as calls:
        assert queue.do().succeeded == 200
    assert each_task_costs(calls, 200, time.monotonic() - began) == {"rename": 2, "open": 1}


def test_a_failure_costs_its_story_more(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(["exit 3"] * 100)
    with counted(seam) as calls:
        assert queue.do(bad_node_after=0, report=lambda text: None).failed == 100
    counts = Counter(calls)
    assert (counts["rename"] // 100, counts["open"] // 100) == (2, 2), counts


def test_claim_and_finish(queue: fsqdo.Queue, seam: System) -> None:
    """Taken apart, by a process that holds single tasks: `get` also asks whether the queue is paused."""
    queue.add_multiple(range(3))
    first = queue.get()  # joins, and settles at the bundle
    assert first is not None
    first.set_state("Succeeded")
    with counted(seam) as calls:
        task = queue.get()
        assert task is not None
    assert calls[:3] == ["listdir", "rename", "open"]
    assert len(calls) <= 4
    with counted(seam) as calls:
        task.set_state("Succeeded")
    assert calls == ["rename", "listdir"]
    queue.close()


def test_a_single_add(queue: fsqdo.Queue, seam: System) -> None:
    queue.add("analyze first.dat")
    with counted(seam) as calls:
        queue.add("analyze second.dat")
    # look at next-id, take it, write, publish, sync the directory
    assert calls == ["listdir", "rename", "open", "rename", "open"]


def test_a_load_costs_its_packs_and_not_its_tasks(queue: fsqdo.Queue, seam: System) -> None:
    def calls_of(tasks: int) -> int:
        with counted(seam) as calls:
            queue.add_multiple(range(tasks))
        return len(calls)

    few, many = calls_of(3000), calls_of(23_000)
    assert (many - few) / 20 <= 3  # a pack: the file, its marker, and the marker's move
    assert few <= 45


def test_a_load_that_waits(queue: fsqdo.Queue, seam: System) -> None:
    """Its requirements are looked at once, and it moves on as markers."""
    first = queue.add("analyze first.dat")
    with counted(seam) as calls:
        queue.add_multiple(range(4998), requires=[first])
    assert len(calls) <= 60, Counter(calls)
    task = queue.get()
    assert task is not None
    with counted(seam) as calls:
        task.set_state("Succeeded")
    queue.close()
    assert Counter(calls)["rename"] <= 7, calls  # the task and five markers; one more for a directory to be made
    assert len(calls) <= 30, Counter(calls)


def test_packing_costs_an_unlink_a_task(root: Path, seam: System) -> None:
    queue = fsqdo.create("q", pack=False)
    queue.add_multiple(range(5000))
    queue.do(func=nothing)
    with counted(seam) as calls:
        assert queue.pack() == 4999  # the last shard has ids that nobody has yet
    counts = Counter(calls)
    assert counts.pop("unlink") == 4999
    assert counts.total() <= 25 * 5, counts


def test_a_worker_without_work(queue: fsqdo.Queue, seam: System) -> None:
    """What a start costs that finds nothing, whatever the queue has done before."""
    queue.add_multiple(range(5000))
    queue.do(func=nothing)
    with counted(seam) as calls:
        queue.do(func=nothing)
    assert len(calls) <= 34, calls


def test_status_lists_directories_and_reads_nothing(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(range(5000))
    with counted(seam) as calls:
        queue.status()
    assert set(calls) == {"listdir"}
    assert len(calls) <= 15, calls


# ---------------------------------------------------------------- by strace
def _can_trace() -> bool:
    """Some containers have strace and forbid it."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    done = subprocess.run([strace, "-o", "/dev/null", "true"], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


needs_strace = pytest.mark.skipif(not _can_trace(), reason="needs strace, and leave to use it")


def paths_asked(queue: fsqdo.Queue, tmp_path: Path, *words: str) -> Counter[str]:
    """Run a process (its children not) under strace; its system calls with a path in the queue, by name."""
    trace = tmp_path / "trace"
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = ["strace", "-e", "trace=%file", "-s", "4096", "-o", str(trace), *words]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=env)
    found: Counter[str] = Counter()
    inside = re.compile(rf'(\w+)\(.*"{re.escape(queue.directory)}(?:/[^"]*)?"')
    with trace.open(errors="replace") as lines:
        for line in lines:
            match = inside.match(line)
            if match:
                found[match[1]] += 1
    return found


def check_trace(counts: Counter[str], tasks: int, limit: int) -> None:
    """No more than `limit` calls a task; and not so few that the trace cannot be right."""
    total = sum(counts.values())
    assert counts["rename"] + counts["renameat"] + counts["renameat2"] >= 2 * tasks, counts
    assert total <= limit * tasks + AROUND + PER_SECOND * 30, counts
    assert total <= BUDGET * tasks, counts


@needs_strace
def test_traced_function_tasks(queue: fsqdo.Queue, tmp_path: Path) -> None:
    queue.add_multiple(range(TASKS))
    script = "import fsqdo; print(fsqdo.connect('q').do(func=lambda task: None))"
    counts = paths_asked(queue, tmp_path, sys.executable, "-c", script)
    assert queue.status()["ntasks"]["Succeeded"] == TASKS
    check_trace(counts, TASKS, limit=4)


@needs_strace
def test_traced_worker_with_a_function_by_name(queue: fsqdo.Queue, tmp_path: Path) -> None:
    queue.add_multiple(range(TASKS))
    words = [sys.executable, "-m", "fsqdo", "do", "q", "-j", "2", "--func", "tests.test_calls:nothing"]
    counts = paths_asked(queue, tmp_path, *words)
    assert queue.status()["ntasks"]["Succeeded"] == TASKS
    check_trace(counts, TASKS, limit=4)


@needs_strace
def test_traced_worker_with_commands(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """The commands themselves, and their execution, are not counted: they are no calls in the queue."""
    tasks = 1500
    queue.add_multiple(["test 1"] * tasks)
    counts = paths_asked(queue, tmp_path, sys.executable, "-m", "fsqdo", "do", "q", "-j", "2")
    assert queue.status()["ntasks"]["Succeeded"] == tasks
    check_trace(counts, tasks, limit=4)
