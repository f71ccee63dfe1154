"""Where tasks are short a worker claims the next ones while these run: none is kept from others for long, none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fsqdo
from tests.checker import read_queue

SHORT = 40
LONG, NEXT = f"{SHORT + 1:09d}.json", f"{SHORT + 2:09d}.json"
HANG_S = 60


@contextmanager
def worker(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the queue Blat."""
    process = subprocess.Popen([sys.executable, "-m", "fsqdo", "do", "Blat", *options], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + HANG_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[fsqdo.Queue]:
    """Forty short tasks, one that goes on until `go` is opened, forty short ones."""
    queue = fsqdo.create("Blat")
    os.mkfifo(tmp_path / "go")
    long = f"touch {tmp_path}/begun; read line < {tmp_path}/go"
    queue.add_multiple([*["true"] * SHORT, long, *["true"] * SHORT])
    yield queue
    queue.close()


def running(queue: fsqdo.Queue) -> list[str]:
    """The files of the tasks that workers hold."""
    return sorted(path.name for path in Path(queue.directory).glob("running/*/0*.json"))


def test_what_is_held_goes_back_when_a_long_task_runs(queue: fsqdo.Queue, tmp_path: Path) -> None:
    with worker() as process:
        until((tmp_path / "begun").exists)
        until(lambda: running(queue) == [LONG, NEXT])
        until(lambda: running(queue) == [LONG])
        returned = list(Path(queue.directory).glob("pending/0/*/*.r1.json"))
        assert [path.name for path in returned] == [f"{SHORT + 2:09d}.r1.json"]
        (tmp_path / "go").write_text("go\n")
        assert process.wait(HANG_S) == 0
    assert queue.status()["ntasks"]["Succeeded"] == 2 * SHORT + 1
    assert not list(read_queue(queue.directory).problems(range(1, 2 * SHORT + 2)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_what_is_held_goes_back_when_the_worker_is_stopped(queue: fsqdo.Queue, tmp_path: Path, number: int) -> None:
    with worker() as process:
        until((tmp_path / "begun").exists)
        until(lambda: running(queue) == [LONG, NEXT])
        process.send_signal(number)
        process.wait(HANG_S)
    assert running(queue) == []
    names = sorted(path.name for path in Path(queue.directory).glob("pending/0/*/*.json"))[:2]
    assert names == [f"{SHORT + 1:09d}.s1.json", f"{SHORT + 2:09d}.r1.json"]  # only what ran was stopped
    assert not list(read_queue(queue.directory).problems(range(1, 2 * SHORT + 2)))


def test_a_killed_worker_s_are_recovered(queue: fsqdo.Queue, tmp_path: Path) -> None:
    with worker() as process:
        until((tmp_path / "begun").exists)
        until(lambda: running(queue) == [LONG, NEXT])
        process.kill()
        process.wait()
    queue.recover()
    assert running(queue) == []
    assert queue.status()["ntasks"] == queue.status()["ntasks"] | {"Succeeded": SHORT, "Pending": SHORT + 1, "Running": 0}


def test_never_more_than_it_may_start(queue: fsqdo.Queue) -> None:
    with worker("--max-tasks", str(SHORT - 10), "-j", "3") as process:
        assert process.wait(HANG_S) == 0
    assert queue.status()["ntasks"]["Succeeded"] == SHORT - 10
    pending = list(Path(queue.directory).glob("pending/0/*/*.json"))
    assert len(pending) == SHORT + 11 and not [path for path in pending if ".r" in path.name]


def test_a_pause_sends_them_back(queue: fsqdo.Queue, tmp_path: Path) -> None:
    with worker("-j", "2") as process:
        until((tmp_path / "begun").exists)
        queue.pause()
        until(lambda: running(queue) == [LONG])
        (tmp_path / "go").write_text("go\n")
        until(lambda: running(queue) == [])
        queue.resume()
        assert process.wait(HANG_S) == 0
    assert queue.status()["ntasks"]["Succeeded"] == 2 * SHORT + 1


def test_a_queue_that_is_deleted_under_its_worker(root: Path) -> None:
    """It says so, and not that others run its tasks: nobody does."""
    queue = fsqdo.create("q")
    queue.add_multiple(range(5))
    said: list[str] = []

    def delete(task: object) -> None:
        queue.delete()

    assert queue.do(func=delete, report=said.append).why == "the queue was deleted"
    assert any("the queue was deleted" in line for line in said), said
    assert not any("others run them" in line for line in said), said
