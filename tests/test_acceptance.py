"""What the queue is for, at full size: 32 workers at once, 20,000 tasks, workers killed and workers stopped.

Two detectors look at it, and neither uses fsqdo's own reader: `checker` reads the tree and the journals, and every attempt
tells its start to the test by a line in a named pipe. The moments at which workers are killed and stopped are drawn from a
seed and counted in starts, so nothing here waits for a clock.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fsqdo
from fsqdo.recovery import drain
from tests.checker import Report, read_queue

CHECKOUT = Path(__file__).resolve().parent.parent
WORKERS = 32
TASKS = 20_000
KILLED = 5
STOPPED = 5
HANG_S = 400
# One write of less than PIPE_BUF, so lines never mix. `1<>` opens without waiting, even when nobody reads any more.
COMMAND = 'echo "$FSQDO_TASK_ID $FSQDO_ATTEMPT" 1<>"$STARTS"'
END = b"end\n"


class Crew:
    """The workers, as processes of the installed program."""

    def __init__(self, queue: fsqdo.Queue, starts: Path, logs: Path) -> None:
        self._queue = queue
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "STARTS": str(starts)}
        self._log = (logs / "workers.log").open("wb")
        words = [sys.executable, "-m", "fsqdo", "do", queue.name]
        self.processes = [
            subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
            for _ in range(WORKERS)
        ]
        self._spared = list(self.processes)

    def pick(self, rng: random.Random) -> tuple[subprocess.Popen[bytes], str]:
        """One that nothing was done to yet and that is at work, and its name as a worker."""
        names = {int(name.split("-")[-2]): name for name in os.listdir(f"{self._queue.directory}/running")}
        process = rng.choice([process for process in self._spared if process.pid in names])
        self._spared.remove(process)
        return process, names[process.pid]

    def end(self) -> None:
        """Kill whoever is left."""
        for process in self.processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        self._log.close()


class Starts:
    """What the attempts say of their starts: lines of a named pipe, in the order in which they came."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)  # also a writer, so that it never ends by itself
        self._rest = b""
        self.count: Counter[tuple[int, int]] = Counter()
        self.ended = False

    def read(self) -> None:
        """Wait for a piece of it, and take it."""
        *lines, self._rest = (self._rest + os.read(self._fd, 1 << 16)).split(b"\n")
        for line in lines:
            if line + b"\n" == END:
                self.ended = True
            else:
                task_id, attempt = line.split()
                self.count[int(task_id), int(attempt)] += 1

    def end(self) -> None:
        """Add the last line."""
        os.write(self._fd, END)

    def late(self) -> None:
        """Take what came after the last line, from attempts whose workers are dead."""
        os.set_blocking(self._fd, False)
        with suppress(BlockingIOError):
            while True:
                self.read()

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def starts(tmp_path: Path) -> Iterator[Starts]:
    found = Starts(tmp_path / "starts")
    yield found
    found.close()


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    queue = fsqdo.create("q")
    ids = queue.add_multiple([COMMAND] * TASKS)
    assert ids == list(range(1, TASKS + 1))
    return queue


@pytest.fixture
def crew(queue: fsqdo.Queue, starts: Starts, tmp_path: Path) -> Iterator[Crew]:
    found = Crew(queue, tmp_path / "starts", tmp_path)
    yield found
    found.end()


def kill_one(queue: fsqdo.Queue, crew: Crew, rng: random.Random) -> int:
    """Kill a worker and recover it; how many tasks went back."""
    process, name = crew.pick(rng)
    process.kill()
    process.wait()
    done = {recovery.worker: recovery for recovery in queue.recover()}
    assert set(done) <= {name}, done  # the others live; and the pass of one of them may have been faster
    assert name not in os.listdir(f"{queue.directory}/running")
    return sum(recovery.tasks for recovery in done.values())


def stop_one(queue: fsqdo.Queue, crew: Crew, rng: random.Random) -> tuple[subprocess.Popen[bytes], int]:
    """Stop a worker and take away what it holds, as `recover --force` would do with all."""
    process, name = crew.pick(rng)
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    returned = drain(queue.store, name)
    assert name not in os.listdir(f"{queue.directory}/running")
    return process, returned


def work(queue: fsqdo.Queue, crew: Crew, starts: Starts, rng: random.Random) -> int:
    """Let them work until nothing is left, and disturb them; how many tasks were taken away and given back."""
    moments = sorted(rng.sample(range(WORKERS * 4, TASKS * 3 // 4), KILLED + STOPPED))
    kinds = ["kill"] * KILLED + ["stop"] * STOPPED
    rng.shuffle(kinds)
    plan = list(zip(moments, kinds, strict=True))
    asleep: list[tuple[int, subprocess.Popen[bytes]]] = []
    returned = 0
    threading.Thread(target=_when_all_have_ended, args=(crew, starts), daemon=True).start()
    while not starts.ended:
        starts.read()
        started = starts.count.total()
        while plan and started >= plan[0][0]:
            if plan.pop(0)[1] == "kill":
                returned += kill_one(queue, crew, rng)
            else:
                process, number = stop_one(queue, crew, rng)
                returned += number
                asleep.append((started + rng.randrange(200, 2000), process))
        while asleep and started >= min(asleep)[0]:
            asleep.sort(key=lambda pair: pair[0])
            asleep.pop(0)[1].send_signal(signal.SIGCONT)
    assert not plan
    assert not asleep
    starts.late()
    return returned


def _when_all_have_ended(crew: Crew, starts: Starts) -> None:
    with suppress(subprocess.TimeoutExpired):  # what hangs shows in what is missing
        for process in crew.processes:
            process.wait(timeout=HANG_S)
    starts.end()


def interruptions(key: str) -> int:
    """How often a task was interrupted, by its name."""
    return sum(int(number) for number in re.findall(r"[is](\d+)", key))


def outcomes_that_count(report: Report) -> Counter[str]:
    """How many outcomes each succeeded task has under its own name, in whatever journal."""
    keys = {places[0].key for places in report.places.values()}
    return Counter(raw["name"] for _, raw in report.outcomes if raw["outcome"] == "succeeded" and raw["name"] in keys)


def test_workers_killed_and_stopped(queue: fsqdo.Queue, crew: Crew, starts: Starts, tmp_path: Path) -> None:
    returned = work(queue, crew, starts, random.Random(20_000))
    codes = Counter(process.returncode for process in crew.processes)
    assert codes == {0: WORKERS - KILLED, -signal.SIGKILL: KILLED}, (tmp_path / "workers.log").read_text()

    report = read_queue(queue.directory)
    assert report.problems(range(1, TASKS + 1), healed=True) == []
    assert report.counts() == {"waiting": 0, "pending": 0, "running": 0, "succeeded": TASKS, "failed": 0, "killed": 0}

    # One outcome counts for each: under its last name, in the journal of the worker that its file names.
    assert outcomes_that_count(report) == Counter({places[0].key: 1 for places in report.places.values()})
    by_worker = {(worker, raw["name"]) for worker, raw in report.outcomes if raw["outcome"] == "succeeded"}
    for places in report.places.values():
        holder = places[0].path.rpartition("@")[2].removesuffix(".json")
        assert (holder, places[0].key) in by_worker

    # Every attempt there was, by the names: the one that counts, and those before it, which were interrupted.
    last = {task_id: interruptions(places[0].key) + 1 for task_id, places in report.places.items()}
    interrupted = sum(last.values()) - TASKS
    assert interrupted >= returned
    assert interrupted >= 1
    starts_of = defaultdict(int, starts.count)
    assert {key: n for key, n in starts_of.items() if n != 1} == {}, "an attempt was started twice"
    assert [task_id for task_id, attempt in last.items() if starts_of[task_id, attempt] != 1] == []
    assert [key for key in starts.count if key[1] > last[key[0]]] == []
    # A worker that was killed between its claim and the start leaves an interrupted attempt that never was one.
    never = sum(starts_of[task_id, attempt] == 0 for task_id, n in last.items() for attempt in range(1, n))
    assert starts.count.total() == TASKS + interrupted - never
    assert interrupted - never >= 1
