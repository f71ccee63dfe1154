"""The pass: who does it, where many could."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fsqdo
from fsqdo import upkeep
from fsqdo.store.system import System
from fsqdo.upkeep import Passes

OTHERS = ("alpha-1-aaaaaa", "beta-2-bbbbbb")


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """Two workers, and a task that waits for nothing any more: its requirement was moved by hand."""
    queue = fsqdo.create("Q")
    queue.add("true")
    queue.add("true", requires=1)
    top = Path(queue.directory)
    (top / "succeeded/000000").mkdir(parents=True)
    (pending,) = (top / "pending").rglob("000000001.json")
    pending.rename(top / "succeeded/000000/000000001.json")
    for name in OTHERS:
        (top / "running" / name).mkdir(parents=True)
    return queue


def _held(queue: fsqdo.Queue, by: str = "1\nelsewhere\n") -> Path:
    """The lock in somebody's hands, of another host unless it is said."""
    lock = Path(queue.directory, "locks/pass")
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(by)
    return lock


def _held_by_a_dead_one(queue: fsqdo.Queue) -> Path:
    """The lock of a process of this host that was killed while it did the pass."""
    code = "import os, sys; from filelock import SoftFileLock; lock = SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(9)"
    lock = Path(queue.directory, "locks/pass")
    assert subprocess.run([sys.executable, "-c", code, lock], check=False).returncode == 9
    assert lock.exists()
    return lock


def test_the_pass_is_done_once_and_the_lock_given_back(queue: fsqdo.Queue) -> None:
    assert Passes(queue.store).run() is True
    assert queue.status()["ntasks"]["Pending"] == 1
    assert not Path(queue.directory, "locks/pass").exists()


def test_while_one_is_at_it_the_others_are_not(queue: fsqdo.Queue) -> None:
    _held(queue)
    passes = Passes(queue.store)
    assert [passes.run() for _ in range(5)] == [False] * 5
    assert queue.status()["ntasks"]["Waiting"] == 1


@pytest.mark.parametrize("age_s", [86400, -86400])
def test_no_clock_of_a_file_server_counts(queue: fsqdo.Queue, age_s: int) -> None:
    then = time.time() - age_s
    os.utime(_held(queue), (then, then))
    passes = Passes(queue.store)
    assert [passes.run(), passes.run()] == [False, False]


def test_whoever_sees_the_same_lock_again_stays(queue: fsqdo.Queue) -> None:
    """It may be a dead one's; another one says that its holder was alive and did the pass."""
    lock = _held(queue)
    passes = Passes(queue.store)
    found = []
    for again in (False, True, True, False):
        if not again:
            os.utime(lock, (1000 + len(found),) * 2)
        passes.run()
        found.append((passes.held_up, passes.more_to_come()))
    assert found == [(False, False), (True, True), (True, True), (False, False)]
    lock.unlink()
    assert passes.run() is True and not passes.held_up


def test_seen_for_too_long_a_lock_keeps_nobody(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = _held(queue)
    passes = Passes(queue.store)
    monkeypatch.setattr(upkeep, "_ASK_S", 0.0)
    assert [passes.run(), passes.run()] == [False, False]  # the library cannot tell either
    monkeypatch.setattr(upkeep, "_HELD_S", 0.0)
    assert passes.run() is True
    assert queue.status()["ntasks"]["Pending"] == 1
    assert not lock.exists()


def test_one_that_cannot_be_removed_keeps_nobody_either(
    queue: fsqdo.Queue, seam: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = _held(queue)

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(upkeep, "_HELD_S", 0.0)
    monkeypatch.setattr(upkeep, "_ASK_S", 0.0)
    seam.unlink = refuse  # type: ignore[method-assign]
    passes = Passes(queue.store)
    assert passes.run() is True and not passes.held_up and lock.exists()


def test_a_worker_does_the_pass_after_one_that_was_killed_in_it(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not leave before: what only a pass finds would wait for the next worker."""
    lock = _held_by_a_dead_one(queue)
    monkeypatch.setattr(upkeep, "_ASK_S", 0.3)
    assert queue.do(func=lambda task: None).succeeded == 1
    assert queue.status()["ntasks"]["Waiting"] == 0
    assert not lock.exists()


def test_who_is_refused_loads_no_library(queue: fsqdo.Queue) -> None:
    _held(queue)
    code = (
        "import fsqdo, sys; from fsqdo.upkeep import Passes; p = Passes(fsqdo.connect('Q').store); p.run(); p.run(); "
        "print('filelock' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
