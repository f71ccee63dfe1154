"""The file system gives one wrong answer (not there, not listed, not written whole), or the host hides what it knows."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import liveness, merged, recovery
from fsqdo.liveness import DEADLINE_GRACE_S, LEASE_S, Observer
from fsqdo.names import NOTES_STARTS
from fsqdo.store.system import System
from fsqdo.upkeep import Passes
from tests.checker import read_queue
from tests.test_failure_policy import start, until

__all__ = ["start"]  # a fixture
HANG_S = 60


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """An empty queue."""
    return fsqdo.create("Q")


def quiet(text: str) -> None:
    """Nobody reads it."""


def error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def counts(queue: fsqdo.Queue) -> dict[str, int]:
    return {state: number for state, number in queue.status()["ntasks"].items() if number}


def files(queue: fsqdo.Queue, *tops: str) -> list[str]:
    found = [path for top in tops for path in Path(queue.directory, top).rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(queue.directory)) for path in found)


def not_there(seam: System, part: str, number: int, times: int = 1) -> None:
    """The next opens for reading of what has this in its path say that it is not there."""
    left = [times]

    def open_(path: str, flags: int, *more: int) -> int:
        if part in path and not flags & os.O_CREAT and left[0]:
            left[0] -= 1
            raise error(number, path)
        return os.open(path, flags, *more)

    seam.open = open_  # type: ignore[method-assign]


# ---------------------------------------------------------------- one open that finds nothing
@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
class TestOneOpen:
    """Each of these lost a task, its requirement, its priority, or the rest of the queue."""

    def test_of_what_was_claimed(self, queue: fsqdo.Queue, seam: System, number: int) -> None:
        queue.add("good")
        not_there(seam, "/000000001.json", number)
        task = queue.get()
        assert task is not None and task.task == "good"

    def test_of_what_is_rerun(self, queue: fsqdo.Queue, seam: System, number: int) -> None:
        queue.add(1)
        queue.add(2, requires=[1], priority=7)
        queue.do(func=lambda task: None, report=quiet)
        not_there(seam, "/000000002@", number)
        assert queue.rerun("1-2") == 2
        assert counts(queue) == {"Waiting": 1, "Pending": 1}

    def test_of_a_load(self, queue: fsqdo.Queue, seam: System, number: int) -> None:
        queue.add_multiple(range(1500))
        not_there(seam, "/loads/", number, times=2)
        queue.do(func=lambda task: None, report=quiet)
        assert counts(queue) == {"Succeeded": 1500}

    def test_of_a_retry_that_is_due(self, queue: fsqdo.Queue, seam: System, number: int) -> None:
        queue.add("true", priority=9)
        base = Path(queue.directory)
        (base / "waiting/until/1").mkdir(parents=True)
        (base / "pending/9/000000/000000001.json").rename(base / "waiting/until/1/000000001.f1.json")
        not_there(seam, "/000000001.f1", number)
        queue.promote()
        assert files(queue, "pending") == ["pending/9/000000/000000001.f1.json"]


# ---------------------------------------------------------------- one listing that leaves something out
@pytest.mark.parametrize("how", ["empty", "missing"])
def test_of_what_is_pending_ends_no_worker(queue: fsqdo.Queue, seam: System, how: str) -> None:
    for _ in range(3):
        queue.add("true")
    asked = []

    def listdir(path: str) -> list[str]:
        if path.endswith("/pending"):
            asked.append(path)
            if len(asked) == 1 and how == "missing":
                raise error(errno.ENOENT)
            if len(asked) == 1:
                return []
        return os.listdir(path)

    seam.listdir = listdir  # type: ignore[method-assign]
    assert queue.do(report=quiet).succeeded == 3
    assert len(asked) > 1


def test_of_a_shard_that_is_packed_leaves_no_task_twice(root: Path, seam: System) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(list(range(999)))
    queue.add(0)

    def listdir(path: str) -> list[str]:
        listed = os.listdir(path)
        return [name for name in listed if not name.startswith("000000005")] if ".all." in path else listed

    seam.listdir = listdir  # type: ignore[method-assign]
    queue.do(func=lambda task: None, report=quiet)
    seam.__dict__.clear()
    assert counts(queue) == {"Succeeded": 1000} and len(queue.tasks()) == 1000
    assert queue.unpack() == 999
    assert queue.rerun(5) == 1
    assert [task.state for task in queue.tasks(5)] == ["Pending"]
    assert read_queue(queue.directory).problems(range(1, 1001)) == []


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_of_what_was_merged_keeps_the_only_copy(queue: fsqdo.Queue, seam: System, how: str) -> None:
    queue.add_multiple([1, 2, 3])
    queue.do(func=lambda task: task * 10, report=quiet)
    queue.close()
    queue.tidy()
    merged._known.clear()  # as another process, later
    merged._joined.clear()
    (name,) = os.listdir(Path(queue.directory, "merged"))
    not_there(seam, f"{name}/index.json", errno.ENOENT)
    asked = []

    def listdir(path: str) -> list[str]:
        if path.endswith(f"/{name}"):
            asked.append(path)
            if len(asked) <= 2 and how == "missing":
                raise error(errno.ENOENT)
            if len(asked) <= 2:
                return []
        return os.listdir(path)

    seam.listdir = listdir  # type: ignore[method-assign]
    queue.tidy()
    seam.__dict__.clear()
    merged._known.clear()
    merged._joined.clear()
    assert asked and list(queue.results()) == [(1, 10), (2, 20), (3, 30)]


def test_of_what_failed_keeps_its_story(queue: fsqdo.Queue, seam: System) -> None:
    def boom(task: Any) -> None:
        raise ValueError("the only copy of this traceback")

    queue.add("x")
    queue.do(func=boom, report=quiet)

    def listdir(path: str) -> list[str]:
        return [name for name in os.listdir(path) if not (path.endswith("failed/000000") and name.endswith(".json"))]

    seam.listdir = listdir  # type: ignore[method-assign]
    queue.tidy()
    seam.__dict__.clear()
    assert "the only copy" in queue.show(1)["story"]


# ---------------------------------------------------------------- what cannot be read, or written
@pytest.fixture
def to_be_packed(root: Path) -> fsqdo.Queue:
    """A queue with a shard that has ended, and is loose still."""
    queue = fsqdo.create("Q", pack=False)
    queue.add_multiple(list(range(999)))
    queue.add(0)
    queue.do(func=lambda task: None, report=quiet)
    queue.close()
    queue.configure(pack=True)
    return fsqdo.connect("Q")


def test_an_index_that_cannot_be_read_ends_no_worker(to_be_packed: fsqdo.Queue) -> None:
    queue = to_be_packed
    queue.tidy()
    queue = fsqdo.connect("Q")
    queue.unpack()
    Path(next(Path(queue.directory, "merged").iterdir()), "index.json").write_text('{"workers": {"x')
    merged._known.clear()
    merged._joined.clear()
    queue.add(1)
    said: list[str] = []
    assert queue.do(func=lambda task: None, report=said.append).succeeded == 1
    assert any("index.json cannot be read" in text for text in said)


def test_what_is_unreadable_of_a_dead_worker_ends_nobody(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsqdo import upkeep
    from fsqdo.errors import StorageError

    def recover(store: object) -> None:
        raise StorageError(error(errno.EACCES), "open", "/q/outcomes/w.jsonl")

    monkeypatch.setattr(upkeep, "recover", recover)
    said: list[str] = []
    assert Passes(queue.store, said.append).run() is False
    assert "outcomes/w.jsonl" in said[0]


def test_tidy_on_a_full_disk_removes_the_litter_that_fills_it(to_be_packed: fsqdo.Queue, seam: System) -> None:
    queue = to_be_packed
    litter = Path(queue.directory, "tmp/left")
    litter.mkdir()
    (litter / "spool").write_bytes(b"x" * 1000)
    for path in (litter / "spool", litter):
        os.utime(path, (time.time() - 3 * 86400,) * 2)

    def write(fd: int, data: bytes) -> int:
        if litter.exists():
            raise error(errno.ENOSPC)
        return os.write(fd, data)

    seam.write = write  # type: ignore[method-assign]
    said: list[str] = []
    queue.tidy(report=said.append)
    assert not litter.exists() and "not packed now" in said[0]
    assert queue.tidy()["tasks"] == 999


def test_a_line_that_was_written_twice_is_one_result(queue: fsqdo.Queue, seam: System) -> None:
    queue.add(5)
    written = []

    def write(fd: int, data: bytes) -> int:
        if b'"result"' in data and not written:
            written.append(os.write(fd, data[:-1]))
            raise error(errno.EDQUOT)
        return os.write(fd, data)

    seam.write = write  # type: ignore[method-assign]
    queue.do(func=lambda task: task * 2, report=quiet)
    assert list(queue.results()) == [(1, 10)]


def test_two_delete_a_queue_at_once(root: Path, seam: System) -> None:
    first, second = fsqdo.create("A"), fsqdo.create("B")

    def unlink(path: str) -> None:
        try:
            os.unlink(path)
        except IsADirectoryError:
            seam.__dict__.clear()
            second.delete()  # it removes what is left of the first, too
            raise

    seam.unlink = unlink  # type: ignore[method-assign]
    first.delete()
    assert os.listdir(root) == []


# ---------------------------------------------------------------- who is alive
def test_a_process_that_proc_hides_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted with hidepid: others' processes are not in /proc, but a signal tells that they are there."""
    real = open

    def hidden(path: str, *args: Any, **more: Any) -> Any:
        if path.startswith("/proc/") and "self" not in path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return real(path, *args, **more)

    monkeypatch.setattr(liveness, "open", hidden, raising=False)
    assert liveness.process_start(os.getpid()) == -1
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert liveness.process_start(gone.pid) is None
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError()))
    assert liveness.process_start(1) == -1


def test_no_process_has_such_a_number(queue: fsqdo.Queue) -> None:
    home = Path(queue.directory, "running/here-1-ab")
    home.mkdir()
    (home / "worker.json").write_text(json.dumps(liveness.describe_self("here-1-ab") | {"pid": 10**12}))
    assert [worker["alive"] for worker in queue.workers()] == [False]
    assert len(queue.recover()) == 1


@pytest.fixture
def elsewhere(queue: fsqdo.Queue) -> str:
    """A worker of another host."""
    home = Path(queue.directory, "running/elsewhere-1-ab")
    home.mkdir()
    (home / "worker.json").write_text(json.dumps({"worker": home.name, "host": "elsewhere", "pid": 1, "boot_id": "b"}))
    return home.name


def looks(queue: fsqdo.Queue, worker: str, monkeypatch: pytest.MonkeyPatch, times: list[float]) -> list[bool | None]:
    """What one-shot observers find at these times."""
    found = []
    for at in times:
        monkeypatch.setattr(liveness, "boot_clock", lambda at=at: 1000.0 + at)
        observer = Observer(queue.store)
        found.append(observer.judge(worker).alive)
        observer.save()
    return found


def test_the_first_look_after_an_outage_proves_nothing(
    queue: fsqdo.Queue, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looks(queue, elsewhere, monkeypatch, [0, 100, 1300, 1350, 1419]) == [None] * 5
    assert looks(queue, elsewhere, monkeypatch, [1300 + DEADLINE_GRACE_S]) == [False]


def test_a_worker_that_beats_after_an_outage_lives(queue: fsqdo.Queue, elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(queue, elsewhere, monkeypatch, [0, 1300])
    os.utime(Path(queue.directory, "running", elsewhere, "worker.json"), ns=(1, 1))
    assert looks(queue, elsewhere, monkeypatch, [1430, 1500]) == [None, None]


def test_looks_without_a_pause_prove_it_after_the_lease(
    queue: fsqdo.Queue, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [120.0 * n for n in range(int(LEASE_S / 120) + 2)]
    found = looks(queue, elsewhere, monkeypatch, times)
    assert found == [None if at < LEASE_S else False for at in times]


def test_who_looks_once_an_hour_comes_to_an_end(queue: fsqdo.Queue, elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(queue, elsewhere, monkeypatch, [0, 3600, 7200]) == [None, None, False]


# ---------------------------------------------------------------- what a dead worker held
@pytest.mark.parametrize(("notes", "noted"), [(True, True), (False, True), (True, False)])
def test_what_was_only_held_is_not_to_blame(root: Path, notes: bool, noted: bool) -> None:
    """A task that waits for cores in a worker that another task kills: it never ran. Without a note of the other, who knows."""
    queue = fsqdo.create("Q", max_interruptions=0)
    base, worker = Path(queue.directory), "elsewhere-1-dead"
    for _ in range(2):
        queue.add("true")
    home = base / "running" / worker
    home.mkdir()
    (home / "worker.json").write_text(json.dumps({"worker": worker, **({NOTES_STARTS: True} if notes else {})}))
    for number in (1, 2):
        (base / f"pending/0/000000/00000000{number}.json").rename(home / f"00000000{number}.json")
    line = {"name": "000000001", "outcome": "started", "to": "", "pid": 1}
    (base / f"outcomes/{worker}.jsonl").write_text(json.dumps(line, separators=(",", ":")) + "\n" if noted else "")
    recovery.recover(queue.store, force=True)
    exempt = notes and noted
    assert counts(queue) == ({"Pending": 1, "Failed": 1} if exempt else {"Failed": 2})
    assert files(queue, "pending") == (["pending/0/000000/000000002.s1.json"] if exempt else [])


def test_a_worker_of_commands_notes_their_starts(queue: fsqdo.Queue, tmp_path: Path) -> None:
    queue.add(f"cat {queue.directory}/running/*/worker.json > {tmp_path}/said")
    queue.do(report=quiet)
    assert json.loads((tmp_path / "said").read_text())[NOTES_STARTS] is True
    queue.add(1)
    said: list[Any] = []
    queue.do(func=lambda task: said.extend(Path(queue.directory, "running").glob("*/worker.json")) or said[0].read_text())
    assert NOTES_STARTS not in json.loads(next(iter(queue.results()))[1])


# ---------------------------------------------------------------- orders and ends that cross
@pytest.mark.parametrize("how", ["fails", "signal"])
def test_an_attempt_that_ends_before_its_worker_sees_the_order_is_killed(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    queue = fsqdo.create("Q", max_retries=9, retry_delay_s=0)
    queue.add("echo >> begun; while test ! -e go; do sleep 0.05; done; exit 1", cwd=str(tmp_path))
    worker = start("do", "Q")
    until((tmp_path / "begun").exists)
    (path,) = (path for path in Path(queue.directory, "running").glob("*/000000001.json"))
    path.with_suffix(".kill").touch()
    if how == "fails":
        (tmp_path / "go").touch()
    else:
        worker.terminate()
    worker.wait(HANG_S)
    assert counts(queue) == {"Killed": 1}
    assert (tmp_path / "begun").read_text() == "\n"
    assert files(queue, "running") == []


def test_what_ended_before_a_long_call_may_be_pending_again(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsqdo.recorder._LONG_AGO_S", 0.05)
    queue.add_multiple([1, 2])
    queue.add(3, requires=[1])
    seen: list[Any] = []

    def call(task: Any) -> None:
        seen.append(task)
        if len(seen) == 2:
            other = fsqdo.connect("Q")
            other.promote()
            third = other.get()
            assert third is not None and third.id == 3
            third.set_state("Succeeded")
            time.sleep(0.1)
            assert other.rerun([1, 3]) == 2
            other.close()

    queue.do(func=call, report=quiet, max_tasks=2)
    assert [task.state for task in queue.tasks([1, 3])] == ["Waiting", "Pending"]
