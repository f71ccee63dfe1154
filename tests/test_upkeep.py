"""The pass: who does it, where many could."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fsqdo
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


def _held(queue: fsqdo.Queue, for_s: float) -> Path:
    lock = Path(queue.directory, "locks/pass")
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("")
    then = time.time() - for_s
    os.utime(lock, (then, then))
    return lock


def test_the_pass_is_done_once_and_the_lock_given_back(queue: fsqdo.Queue) -> None:
    assert Passes(queue.store).run() is True
    assert queue.status()["ntasks"]["Pending"] == 1
    assert not Path(queue.directory, "locks/pass").exists()


def test_while_one_is_at_it_the_others_are_not(queue: fsqdo.Queue) -> None:
    _held(queue, for_s=1)
    passes = Passes(queue.store)
    assert [passes.run() for _ in range(5)] == [False] * 5
    assert queue.status()["ntasks"]["Waiting"] == 1


@pytest.mark.parametrize("for_s", [60.0, -60.0])
def test_held_for_too_long_or_by_another_clock_it_keeps_nobody(queue: fsqdo.Queue, for_s: float) -> None:
    lock = _held(queue, for_s)
    assert Passes(queue.store).run() is True
    assert queue.status()["ntasks"]["Pending"] == 1
    assert not lock.exists()  # what a dead one left does not stay


def test_who_is_refused_loads_no_library(queue: fsqdo.Queue) -> None:
    _held(queue, for_s=1)
    pass_ = "Passes(fsqdo.connect('Q').store).run()"
    code = f"import fsqdo, sys; from fsqdo.upkeep import Passes; {pass_}; print('filelock' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
