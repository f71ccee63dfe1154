"""Wrong answers of the file system, other people's hands in the tree, and what comes of them: no task is lost, none doubled."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import load, names, packs
from fsqdo.claims import Claimer
from fsqdo.cli import main
from fsqdo.errors import FormatError, InputError, QueueNotFoundError, StorageError, TaskError, TaskNotFoundError
from fsqdo.failures import Failures
from fsqdo.member import Member
from fsqdo.mounts import is_ours_alone
from fsqdo.packing import Packer
from fsqdo.recovery import recover
from fsqdo.store import Store
from fsqdo.store.system import System
from fsqdo.task import Definition
from fsqdo.upkeep import Passes
from fsqdo.workeroptions import WorkerOptions


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """An empty queue."""
    return fsqdo.create("Q")


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _files(queue: fsqdo.Queue, *tops: str) -> list[str]:
    found = [path for top in tops for path in Path(queue.directory, top).rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(queue.directory)) for path in found)


def _nothing(task: object) -> None:
    """The function of tasks that do nothing."""


def _counts(queue: fsqdo.Queue) -> dict[str, int]:
    return {state: number for state, number in queue.status()["ntasks"].items() if number}


# ---------------------------------------------------------------- a rename that did not happen
def _refusing(seam: System, where: str, number: int) -> None:
    """Have renames away from `tmp/` to somewhere refused, without being done."""

    def rename(src: str, dst: str) -> None:
        if "/Q/tmp/" in src and where in dst:
            raise _error(number)
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    seam.sleep = lambda seconds: None  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOENT, errno.EIO, errno.ENOTCONN])
@pytest.mark.parametrize("many", [False, True])
def test_what_was_not_added_is_not_acknowledged(queue: fsqdo.Queue, seam: System, number: int, many: bool) -> None:
    _refusing(seam, "/pending/" if not many else "/loads/", number)
    with pytest.raises(StorageError):
        queue.add_multiple(["a", "b"]) if many else queue.add("a")
    seam.__dict__.clear()
    assert _files(queue, "pending", "tmp", "loads") == []


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ENOENT, errno.EIO])
def test_a_listing_that_leaves_the_name_out_proves_no_move(queue: fsqdo.Queue, seam: System, number: int) -> None:
    """GlusterFS with a dead brick: the name is not listed, and nothing has moved."""
    _refusing(seam, "/pending/", number)
    seam.listdir = lambda path: [name for name in os.listdir(path) if name != "000000001.json"]  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        queue.add("a")


def test_journals_stay_where_what_was_merged_is_not_in_place(queue: fsqdo.Queue, seam: System) -> None:
    for _ in range(3):
        queue.add("true")
        queue.do(report=lambda text: None)
    journals = _files(queue, "outcomes")
    _refusing(seam, "/merged/", errno.ESTALE)
    with pytest.raises(StorageError):
        queue.tidy()
    assert _files(queue, "outcomes") == journals
    assert len(journals) == 3


def test_a_rename_that_was_done_and_went_on_is_believed(queue: fsqdo.Queue, seam: System) -> None:
    """Its reply was lost, and a worker has claimed the task before anybody looked."""

    def rename(src: str, dst: str) -> None:
        os.rename(src, dst)
        if "/Q/tmp/" in src:
            os.rename(dst, f"{queue.directory}/attic/taken")
            raise _error(errno.EIO)

    seam.rename = rename  # type: ignore[method-assign]
    assert queue.add("a") == 1


# ---------------------------------------------------------------- other answers that are wrong
def test_one_wrong_listing_of_the_queue_ends_no_worker(queue: fsqdo.Queue, seam: System) -> None:
    queue.add("true")
    asked = []

    def listdir(path: str) -> list[str]:
        if path == queue.directory:
            asked.append(path)
            if len(asked) == 1:
                raise _error(errno.ENOENT)
        return os.listdir(path)

    seam.listdir = listdir  # type: ignore[method-assign]
    assert not queue.store.paused()
    assert len(asked) == 2
    assert queue.do(report=lambda text: None).succeeded == 1


def test_one_wrong_listing_of_its_directory_fences_no_worker(queue: fsqdo.Queue, seam: System) -> None:
    queue.add("true")
    member = Member(queue.store)
    claimer = Claimer(queue.store, member.name)
    asked = []

    def rename(src: str, dst: str) -> None:
        if "/running/" in dst:
            os.rename(src, f"{queue.directory}/attic/lost")  # somebody else was first
        os.rename(src, dst)

    def listdir(path: str) -> list[str]:
        if path.endswith(member.directory):
            asked.append(path)
            if len(asked) == 2:  # the first one is that of `move`
                raise _error(errno.ENOENT)
        return os.listdir(path)

    seam.rename, seam.listdir = rename, listdir  # type: ignore[method-assign]
    assert claimer.claim() is None
    assert len(asked) == 3
    member.leave()


def test_a_load_is_not_given_up_for_a_listing_that_left_it_out(queue: fsqdo.Queue, seam: System) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "publish", lambda store, name: set())
        queue.add_multiple([fsqdo.NewTask("a", priority=1), fsqdo.NewTask("b")])
    known: set[str] = set()
    seam.listdir = lambda path: [] if path.endswith("/publish/pending") else os.listdir(path)  # type: ignore[method-assign]
    packs.roll_forward(queue.store, known)
    seam.__dict__.clear()
    assert known == set()
    packs.roll_forward(queue.store, known)
    assert _counts(queue) == {"Pending": 2}
    assert known == {"000000001-000000002"}


def test_a_pack_whose_load_cannot_be_read_keeps_waiting(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(["one", "two"])
    queue.add_multiple(["true"] * 1500, requires=[1, 2], priority=7)
    waiting = _files(queue, "waiting")
    top = Path(queue.directory)
    (top / "succeeded/000000").mkdir(parents=True)
    (second,) = (top / "pending").rglob("000000002.json")
    second.rename(top / "succeeded/000000/000000002.json")

    def no_load(path: str, flags: int, mode: int = 0o777) -> int:
        if "/loads/" in path:
            raise _error(errno.ENOENT)
        return os.open(path, flags, mode)

    seam.open = no_load  # type: ignore[method-assign]
    queue.promote()
    assert _files(queue, "waiting") == waiting
    seam.__dict__.clear()
    queue.promote()
    assert all(path.startswith("waiting/000000/000000001/") for path in _files(queue, "waiting"))
    assert _counts(queue) == {"Waiting": 1500, "Pending": 1, "Succeeded": 1}


def test_a_claim_that_cannot_be_read_goes_back(queue: fsqdo.Queue, seam: System) -> None:
    queue.add("true")

    def unreadable(path: str, flags: int, mode: int = 0o777) -> int:
        if "/running/" in path and path.endswith("000000001.json"):
            raise _error(errno.EIO)
        return os.open(path, flags, mode)

    seam.open = unreadable  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        queue.get()
    seam.__dict__.clear()
    task = queue.get()
    assert task is not None
    assert task.id == 1
    task.set_state("Succeeded")


def test_the_lock_of_the_pass_may_fail_to_close(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import SoftFileLock

    def release(self: SoftFileLock) -> None:
        raise _error(errno.EDQUOT)

    for name in ("alpha-1-aaaaaa", "beta-2-bbbbbb"):
        Path(queue.directory, "running", name).mkdir()
    monkeypatch.setattr(SoftFileLock, "release", release)
    assert Passes(queue.store).run() is False


@pytest.mark.parametrize("many", [False, True])
def test_paranoid_says_what_is_in_the_queue_all_the_same(root: Path, seam: System, many: bool) -> None:
    queue = fsqdo.create("Q", durability="paranoid")
    renamed = []

    def rename(src: str, dst: str) -> None:
        os.rename(src, dst)
        renamed.extend([dst] if "/pending/" in dst or "/loads/" in dst else [])

    def fsync(fd: int) -> None:
        if renamed:
            raise _error(errno.EIO)
        os.fsync(fd)

    seam.rename, seam.fsync = rename, fsync  # type: ignore[method-assign]
    with pytest.raises(StorageError) as caught:
        queue.add_multiple(["a", "b"]) if many else queue.add("a")
    assert "in the queue all the same" in caught.value.hint
    seam.__dict__.clear()
    queue.promote()
    assert _counts(queue) == {"Pending": 2 if many else 1}


def test_paranoid_is_content_when_the_task_has_moved_on(root: Path, seam: System) -> None:
    queue = fsqdo.create("Q", durability="paranoid")

    def rename(src: str, dst: str) -> None:
        os.rename(src, dst)
        if "/pending/" in dst:  # a worker claims it, and removes the directory
            os.rename(dst, f"{queue.directory}/attic/claimed")
            os.rmdir(os.path.dirname(dst))

    seam.rename = rename  # type: ignore[method-assign]
    assert queue.add("a") == 1


# ---------------------------------------------------------------- other people's hands
def test_a_file_among_the_workers_keeps_nobody_from_recovery(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["a", "b"])
    top = Path(queue.directory)
    (pending,) = (top / "pending").rglob("000000001.json")
    pending.rename(top / "running/000000001.json")
    dead = top / "running/host-1-dead"
    dead.mkdir()
    (pending,) = (top / "pending").rglob("000000002.json")
    pending.rename(dead / "000000002.json")
    assert [recovery.worker for recovery in queue.recover(force=True)] == ["host-1-dead"]
    assert _files(queue, "running", "recovering", "attic") == ["running/000000001.json"]
    assert _counts(queue) == {"Pending": 1}


def test_a_file_in_the_place_of_a_bundle_keeps_nobody_from_the_others(queue: fsqdo.Queue) -> None:
    queue.add("true", priority=3)
    queue.add("true")
    top = Path(queue.directory)
    (pending,) = (top / "pending/3").rglob("*.json")
    pending.rename(top / "moved")
    pending.parent.rmdir()
    (top / "moved").rename(pending.parent)
    assert queue.do(report=lambda text: None).succeeded == 1


def test_what_cannot_be_read_of_one_worker_keeps_nobody_from_the_others(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["a", "b"])
    top = Path(queue.directory)
    for worker, task in (("alpha-1-dead", "000000001.json"), ("beta-2-dead", "000000002.json")):
        (top / "running" / worker).mkdir()
        (pending,) = (top / "pending").rglob(task)
        pending.rename(top / "running" / worker / task)
    (top / "outcomes/beta-2-dead.jsonl").write_text("{}\n")
    (top / "merged/000001.abc").mkdir(parents=True)
    (top / "merged/000001.abc/index.json").write_text("no JSON")
    with pytest.raises(FormatError, match=r"index\.json"):
        recover(queue.store, force=True)
    assert _counts(queue) == {"Pending": 1, "Running": 1}
    said: list[str] = []
    assert Passes(queue.store, said.append).run() is False
    assert "index.json" in said[0]


def test_a_snapshot_by_hard_links_costs_no_task(queue: fsqdo.Queue, root: Path) -> None:
    queue.add("a")
    top = Path(queue.directory)
    dead = top / "running/host-1-dead"
    dead.mkdir()
    (pending,) = (top / "pending").rglob("*.json")
    pending.rename(dead / pending.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "publish", lambda store, name: set())
        queue.add_multiple([fsqdo.NewTask("b", priority=1), fsqdo.NewTask("c", requires=[1])])
    subprocess.run(["cp", "-al", queue.directory, root / "snapshot"], check=True)
    queue.recover(force=True)
    queue.promote()
    assert _counts(queue) == {"Pending": 2, "Waiting": 1}
    assert _files(queue, "attic") == []


def test_one_of_two_names_in_the_queue_goes(queue: fsqdo.Queue) -> None:
    queue.add("a")
    top = Path(queue.directory)
    dead = top / "running/host-1-dead"
    dead.mkdir()
    (pending,) = (top / "pending").rglob("*.json")
    os.link(pending, dead / pending.name)
    queue.recover(force=True)
    assert _counts(queue) == {"Pending": 1}
    assert _files(queue, "running", "recovering") == []


@pytest.mark.parametrize("change", ["keys in another order", "another id", "no JSON"])
def test_an_edited_line_of_a_load_kills_no_worker(queue: fsqdo.Queue, change: str) -> None:
    queue.add_multiple(["true"] * 1500)
    queue.add("true", priority=-1)
    path = Path(queue.directory, "loads/000000001-000001500/000000001-000000999.jsonl")
    lines = path.read_text().splitlines()
    lines[4] = {
        "keys in another order": json.dumps(json.loads(lines[4]), sort_keys=True).replace('{"', '{ "'),
        "another id": lines[4].replace('"id":5,', '"id":999999,'),
        "no JSON": "[",
    }[change]
    path.write_text("\n".join(lines) + "\n")
    said: list[str] = []
    summary = queue.do(func=_nothing, report=said.append)
    readable = change == "keys in another order"
    left = 1501 - summary.succeeded
    assert (left == 0) is readable
    assert _counts(queue) == {"Succeeded": summary.succeeded, **({"Pending": left} if left else {})}
    assert readable or any("for task 5" in text for text in said)


def test_of_a_key_that_is_there_twice_the_last_one_counts_every_time() -> None:
    for text in ('{"id":1,"task":"a","task" :"b"}', '{"id":1,"task":"a","t\\u0061sk":"b"}', '{"id":1,"task":"b","x":1}'):
        assert [Definition.from_json(text).task for _ in range(2)] == ["b", "b"]


def test_a_queue_that_another_host_has_used_is_not_ours_alone(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local disk that is exported: its clients remember names that have gone."""
    monkeypatch.setattr("fsqdo.mounts.is_local", lambda path: True)
    queue.add("true")
    queue.do(report=lambda text: None)
    assert is_ours_alone(queue.store)
    assert Packer(queue.store).settle_s == 0
    Path(queue.directory, "outcomes/elsewhere-1-abcdef.jsonl").touch()
    assert not is_ours_alone(queue.store)
    assert Packer(queue.store).settle_s > 60


# ---------------------------------------------------------------- verbs beside workers
def test_rerun_of_a_shard_that_is_packed_meanwhile(root: Path, seam: System) -> None:
    queue = fsqdo.create("Q", pack=False)
    queue.add_multiple(["true"] * 999)
    queue.add("true")
    queue.do(func=_nothing, report=lambda text: None)
    packed: list[int] = []

    def rename(src: str, dst: str) -> None:
        if "/succeeded/000000/" in src and not packed:
            packed.append(0)
            packed[0] = Packer(Store(queue.directory), settle_s=0).run()
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    assert queue.rerun(id="1-10") == 10
    assert packed == [999]
    assert _counts(queue) == {"Succeeded": 990, "Pending": 10}


def test_what_is_rerun_is_not_promoted_before_what_it_requires(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(["first"] * 2)
    queue.add_multiple(["then"] * 2000, requires=[1])
    queue.kill(id="3-2002")
    queue.do(func=_nothing, report=lambda text: None)
    passes = []

    def rename(src: str, dst: str) -> None:
        if "/succeeded/" in src and not passes:  # the requirement is about to be set back: another's pass comes before it
            passes.append(fsqdo.connect("Q").promote())
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    assert queue.rerun() == 2002
    assert passes == [0]
    assert _counts(queue) == {"Pending": 2, "Waiting": 2000}


@pytest.mark.parametrize("verb", ["kill", "reprioritize", "rerun"])
def test_verbs_reach_what_its_loader_left_in_the_middle(queue: fsqdo.Queue, verb: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "publish", lambda store, name: set())
        queue.add_multiple(["true"] * 5)
    with pytest.raises(TaskNotFoundError) as caught:
        queue.task(3)
    assert "fsqdo promote Q" in caught.value.hint
    change: Callable[[], int] = {
        "kill": lambda: queue.kill(id="1-5"),
        "reprioritize": lambda: queue.reprioritize(4, id="1-5"),
        "rerun": lambda: queue.rerun(id="1-5"),
    }[verb]
    assert change() == (0 if verb == "rerun" else 5)
    assert _counts(queue) == {"Killed" if verb == "kill" else "Pending": 5}


@pytest.mark.parametrize("later", [0, 2])
def test_status_tells_of_what_its_loader_left_in_the_middle(queue: fsqdo.Queue, later: int) -> None:
    """Who sees fewer tasks than he loaded would load them again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "publish", lambda store, name: set())
        queue.add_multiple(["true"] * 5)
    for _ in range(later):
        queue.add_multiple(["true"] * 2)
    assert queue.status()["unpublished"] == "1-5"
    assert "tasks 1-5 are not all in their places" in str(queue) and "fsqdo promote Q" in str(queue)
    queue.promote()
    assert "unpublished" not in queue.status() and "places" not in str(queue)
    assert _counts(queue) == {"Pending": 5 + 2 * later}


def test_retry_leaves_what_was_killed(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["false", "true"])
    queue.kill(id=2)
    queue.do(report=lambda text: None)
    assert queue.retry(id="1-2", dry_run=True) == 1
    assert queue.retry(id=2, state="Killed") == 1


def test_kill_of_what_a_worker_holds_and_has_not_begun(queue: fsqdo.Queue, root: Path) -> None:
    queue.add("while [ ! -e go ]; do sleep 0.05; done", cores=1, priority=9, cwd=str(root))
    queue.add("touch ran", cores=2, cwd=str(root))
    worker = threading.Thread(target=lambda: fsqdo.connect("Q").do(slots=2, cores=2, report=lambda text: None))
    worker.start()
    try:
        until = time.monotonic() + 20
        while len([path for path in _files(queue, "running") if path.endswith("0.json") or "/00000000" in path]) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert queue.kill(id=2) == 1
    finally:
        (root / "go").touch()
        worker.join()
    assert _counts(queue) == {"Succeeded": 1, "Killed": 1}
    assert not (root / "ran").exists()
    assert _files(queue, "running") == []


def test_a_forked_child_leaves_the_tasks_of_its_parent_alone(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["a", "b"])
    code = (
        "import os, sys, fsqdo\n"
        "q = fsqdo.connect('Q')\n"
        "task = q.get()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    other = q.get()\n"
        "    other.set_state('Succeeded')\n"
        "    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "print(task.id, fsqdo.connect('Q').get(timeout=0))\n"
        "task.set_state('Succeeded')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 None\n"
    assert _counts(queue) == {"Succeeded": 2}


def test_what_runs_is_in_the_journal_before_the_next_claim(queue: fsqdo.Queue, seam: System) -> None:
    """Who recovers after a kill during a claim, which may hang for long, must know which processes to end."""
    queue.add_multiple(["sleep 0.2", "true"])
    journals: list[str] = []

    def rename(src: str, dst: str) -> None:
        if "/running/" in dst and dst.endswith("000000002.json"):
            journals.extend(path.read_text() for path in Path(queue.directory, "outcomes").iterdir())
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    queue.do(slots=2, report=lambda text: None)
    assert len(journals) == 1
    assert '{"name":"000000001","outcome":"started"' in journals[0]


# ---------------------------------------------------------------- packed files that were damaged
@pytest.fixture
def packed(queue: fsqdo.Queue) -> Path:
    """The packed file of a thousand tasks; its queue is Q."""
    queue.add_multiple(["true"] * 2100)
    queue.do(func=_nothing, report=lambda text: None)
    queue.pack()
    (path,) = Path(queue.directory, "succeeded").glob("000001.p*.n1000.jsonl")
    return path


@pytest.mark.parametrize("damage", ["short", "a line"])
def test_a_damaged_packed_file_is_told_of_and_loses_nothing_more(
    queue: fsqdo.Queue, packed: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = packed.read_bytes().split(b"\n")
    lines = [*lines[:700], b""] if damage == "short" else [*lines[:4], b'{"name":"garb', *lines[5:]]
    packed.write_bytes(b"\n".join(lines))
    for _ in range(2):
        assert main(["rerun", "Q", "1001", "--force"]) == 1
        assert "succeeded/000001.p*.n1000.jsonl" in capsys.readouterr().err
        (there,) = packed.parent.glob("000001.p*.n1000.jsonl")
        assert there.read_bytes() == b"\n".join(lines)
    assert queue.status()["ntasks"]["Succeeded"] == 2100
    assert main(["tasks", "Q", "--ids"]) == 1
    out, err = capsys.readouterr()
    assert len(out.split()) == (2100 - 300 if damage == "short" else 2099)
    assert str(there) in err
    lost = 1999 if damage == "short" else 1004
    assert main(["show", "Q", str(lost)]) == 1
    assert str(there) in capsys.readouterr().err


# ---------------------------------------------------------------- a full disk
def test_a_queue_is_paused_even_where_its_reason_does_not_fit(queue: fsqdo.Queue, seam: System) -> None:
    def write(fd: int, data: bytes) -> int:
        if data:
            raise _error(errno.ENOSPC)
        return 0

    seam.write = write  # type: ignore[method-assign]
    queue.pause("the disk is full")
    seam.__dict__.clear()
    assert queue.status()["state"] == "Paused"


def test_kill_on_a_full_disk_says_how_many(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(["true"] * 5)
    task = queue.get()
    assert task is not None

    def no_inodes(path: str, flags: int, mode: int = 0o777) -> int:
        if path.endswith(".kill"):
            raise _error(errno.ENOSPC)
        return os.open(path, flags, mode)

    seam.open = no_inodes  # type: ignore[method-assign]
    with pytest.raises(StorageError) as caught:
        fsqdo.connect("Q").kill(match=".")
    assert "4 tasks were moved" in caught.value.hint


def test_failures_that_were_recorded_late_count(root: Path) -> None:
    queue = fsqdo.create("Q", max_fails=3)
    failures = Failures(queue.store, WorkerOptions(), lambda text: None)
    assert not failures.due
    failures.saw_late()
    assert failures.due


# ---------------------------------------------------------------- the pass, and what is said
def test_workers_of_a_crowd_that_has_gone_do_not_delay_the_pass(queue: fsqdo.Queue) -> None:
    for n in range(50):
        Path(queue.directory, "running", f"node{n}-1-dead").mkdir()
    passes = [Passes(queue.store) for _ in range(3)]
    assert [each.due() for each in passes] == [False, False, False]  # asked for the first time
    assert all(each.due() for each in passes)
    passes[0].run()  # takes and leaves the lock
    assert [each.due() for each in passes] == [False, False, False]
    assert all(each.due() for each in passes)


def test_explain_names_the_end_of_the_chain(queue: fsqdo.Queue) -> None:
    queue.add("false")
    for n in range(1, 30):
        queue.add("true", requires=n)
    queue.do(report=lambda text: None)
    (why,) = [text for text in queue.explain(25)["why"] if text.startswith("blocked")]
    assert "waits in the end for 1, which failed or was killed" in why


def test_unpack_takes_ids_as_other_verbs_do(queue: fsqdo.Queue, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unpack", "Q", "--dry-run", "17", "1000-1001"]) == 0
    assert capsys.readouterr().out == "1999 tasks would be unpacked\n"


def test_names_of_workers_tell_their_host() -> None:
    assert names.new_worker_name().startswith(f"{names.own_host()}-{os.getpid()}-")


def test_a_bench_of_a_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "file").touch()
    assert main(["bench", str(root / "file")]) == 1
    assert "is not a directory" in capsys.readouterr().err


# ---------------------------------------------------------------- what a hostile user tried
def test_a_name_behind_which_nothing_is_keeps_no_worker(queue: fsqdo.Queue) -> None:
    """As in a listing that is stale for ever: it is passed over, and the other bundles come."""
    queue.add("true")
    queue.add_multiple(["true"])
    pending = Path(queue.directory, "pending/0/000000")
    (pending / "000000053.json").symlink_to("/nonexistent/x")
    assert queue.do(report=lambda text: None).succeeded == 2


def test_an_unreadable_file_keeps_no_worker_from_the_others(queue: fsqdo.Queue) -> None:
    queue.add("true")
    queue.add_multiple(["true", "true"])
    Path(queue.directory, "pending/0/000000/000000052.json").mkdir()
    said: list[str] = []
    summary = queue.do(report=said.append)
    assert summary.succeeded == 3
    assert "1 task is left to other workers" in summary.why
    assert "000000052.json: Is a directory" in summary.why
    assert sum("task 52 is left where it is" in text for text in said) == 1


def test_an_unreadable_file_keeps_nobody_from_listing_and_killing_the_others(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["one", "two"])
    (bundle,) = Path(queue.directory, "pending/0").iterdir()
    (bundle / "000000000.json").mkdir()
    rows = queue.tasks()
    assert [(row.id, bool(row.error)) for row in rows] == [(0, True), (1, False), (2, False)]
    assert queue.kill(match="o") == 2


def test_a_task_that_did_not_start_has_no_output_of_another(queue: fsqdo.Queue) -> None:
    queue.add("echo of the first one")
    queue.add({"a": 1})
    queue.do(report=lambda text: None)
    assert queue.log(1) == b"of the first one\n"
    assert queue.log(2) == b""
    (story,) = Path(queue.directory, "failed").rglob("*.txt")
    assert "of the first one" not in story.read_text()


def test_ids_come_first_and_none_are_none(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["false"] * 3)
    assert queue.reprioritize(5, []) == queue.kill([]) == 0
    assert queue.reprioritize(5, [1]) == 1
    queue.do(report=lambda text: None)
    assert queue.retry([]) == queue.rerun([]) == 0
    assert queue.retry([1, 2]) == 2
    assert queue.rerun("3", dry_run=True) == 1
    with pytest.raises(TypeError):
        queue.retry([3], True)  # type: ignore[misc]


@pytest.mark.parametrize("err", ["x", 1.5, True])
def test_only_an_exit_code_is_one(queue: fsqdo.Queue, err: object) -> None:
    queue.add("true")
    task = queue.get()
    assert task is not None
    with pytest.raises(InputError, match="must be an exit code"):
        task.set_state("Failed", err=err)  # type: ignore[arg-type]
    task.set_state("Failed", err=7)
    assert queue.task(1).exitcode == 7


@pytest.mark.parametrize("script", ["", "  ", "a\0b"])
def test_a_script_that_is_none_is_refused(script: str) -> None:
    with pytest.raises(InputError, match="script is"):
        WorkerOptions(script=script)


@pytest.mark.parametrize("key", ["slots", "gpus"])
def test_more_than_any_machine_has_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"{key} is 100000000, but must be at most"):
        WorkerOptions(**{key: 100_000_000})  # type: ignore[arg-type]


def test_a_signal_is_found_by_its_exit_code(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["exit 137", "kill -9 $$", "exit 9"])
    queue.do(report=lambda text: None)
    assert [task.id for task in queue.tasks(exitcode=137)] == [1, 2]
    assert [task.id for task in queue.tasks(exitcode=9)] == [3]


def test_nothing_requires_the_task_before_the_first(queue: fsqdo.Queue) -> None:
    queue.add("true")
    for add in (lambda: queue.add("true", requires=[0]), lambda: queue.add_multiple(["true"], requires=[0, 1])):
        with pytest.raises(InputError, match="required task 0 does not exist"):
            add()


def test_a_deleted_queue_is_not_an_empty_one(queue: fsqdo.Queue) -> None:
    queue.add("true")
    fsqdo.connect("Q").delete()
    asked: list[Callable[[], object]] = [
        queue.tasks,
        lambda: list(queue.results()),
        queue.workers,
        queue.retry,
        lambda: queue.kill(match="."),
        lambda: queue.add("true"),
        lambda: queue.task(1),
    ]
    for ask in asked:
        with pytest.raises(QueueNotFoundError):
            ask()


@pytest.mark.parametrize("tasks", ["abc", b"abc", {"a": 1}])
def test_one_task_is_no_list(queue: fsqdo.Queue, tasks: object) -> None:
    with pytest.raises(InputError, match="is one task"):
        queue.add_multiple(tasks)  # type: ignore[arg-type]


def test_limits_of_any_size(queue: fsqdo.Queue) -> None:
    queue.add("true")
    assert len(queue.tasks(limit=10**20)) == 1
    with pytest.raises(InputError, match="must not be negative"):
        queue.tasks(limit=-1)


def test_a_worker_to_which_nobody_listens_goes_on(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["false"] * 4)
    done = subprocess.run(
        ["sh", "-c", '"$0" -m fsqdo do Q 2>&1 | true; sleep 0.1', sys.executable], check=False, env=dict(os.environ)
    )
    assert done.returncode == 0
    until = time.monotonic() + 20
    while _counts(queue) != {"Failed": 4} and time.monotonic() < until:
        time.sleep(0.05)
    assert _counts(queue) == {"Failed": 4}
    assert all(len(queue.show(n)["attempts"]) == 1 for n in range(1, 5))


# ---------------------------------------------------------------- moved by hand to where it is in no state
MISPLACED = [
    ("pending/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("pending/000000001.f1@w.json", "pending/0/000000/000000001.r1f1.json"),
    ("waiting/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("waiting/000000/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("waiting/until/000000001.f1.json", "pending/0/000000/000000001.r1f1.json"),
]
DEEPLY_MISPLACED = [
    ("failed/000000001.f1@w.json", "failed/000000/000000001.f1@w.json"),
    ("killed/000000001.r1.json", "killed/000000/000000001.r1.json"),
    ("succeeded/000000001@w.json", "succeeded/000000/000000001@w.json"),
    ("succeeded/000001/000000001@w.json", "succeeded/000000/000000001@w.json"),
    ("pending/5/000001/000000001.json", "pending/5/000000/000000001.r1.json"),
    ("pending/000000/000000001.f1@w.json", "pending/0/000000/000000001.r1f1.json"),
    ("pending/0/failed/000000/000000001.f1@w.json", "pending/0/000000/000000001.r1f1.json"),
    ("pending/0/000000/000000/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("pending/high/000000/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("waiting/000000/000001234/000000001.json", "pending/0/000000/000000001.r1.json"),
    ("running/000000001.json", "pending/0/000000/000000001.r1.json"),
]


@pytest.mark.parametrize(("wrong", "right"), MISPLACED + DEEPLY_MISPLACED)
@pytest.mark.parametrize("promote", [False, True])
def test_a_task_that_was_moved_to_no_state_is_put_right(queue: fsqdo.Queue, wrong: str, right: str, promote: bool) -> None:
    queue.add("a")
    path = Path(queue.directory, wrong)
    path.parent.mkdir(exist_ok=True, parents=True)
    Path(queue.directory, "pending/0/000000/000000001.json").rename(path)
    said: list[str] = []
    if promote or (wrong, right) in DEEPLY_MISPLACED:
        assert queue.promote() == 1
    else:
        assert Passes(queue.store, said.append).run() is True
        assert len(said) == 1 and wrong in said[0] and right in said[0]
    assert _files(queue, "pending", "waiting", "running", "succeeded", "failed", "killed") == [right]
    assert queue.promote() == 0


def test_a_misplaced_task_waits_for_what_it_requires(queue: fsqdo.Queue) -> None:
    queue.add("a")
    queue.add("b", requires=[1])
    Path(queue.directory, "waiting/000000/000000001/000000002.json").rename(f"{queue.directory}/waiting/000000002.json")
    queue.promote()
    assert _files(queue, "waiting") == ["waiting/000000/000000001/000000002.r1.json"]


@pytest.mark.parametrize(
    "file", ["pending/5", "pending/0/000000", "pending/-3/000000001-000000002", "pending/0/high/5", "waiting/000000"]
)
def test_a_file_under_the_name_of_a_directory_that_was_not_there(queue: fsqdo.Queue, file: str) -> None:
    queue.add("a")
    found = Path(queue.directory, "pending/0/000000/000000001.json")
    aside = found.rename(f"{queue.directory}/aside")
    found.parent.rmdir()
    path = Path(queue.directory, file)
    path.parent.mkdir(exist_ok=True, parents=True)
    aside.rename(path)
    assert queue.promote() == 1
    assert _files(queue, "pending", "waiting") == ["pending/0/000000/000000001.r1.json"]


@pytest.mark.parametrize("name", ["000000001.json~", "000000001.json.orig", "notes", "7.bak", "000000"])
def test_a_copy_of_a_task_is_no_second_one(queue: fsqdo.Queue, name: str) -> None:
    queue.add("a")
    path = Path(queue.directory, "pending/0/000000/000000001.json")
    Path(queue.directory, "pending/0/000000" if name != "000000" else "failed", name).write_bytes(path.read_bytes())
    assert queue.promote() == 0
    assert _counts(queue) == {"Pending": 1}


def test_a_name_that_is_lost_is_followed_by_one_that_no_journal_knows(queue: fsqdo.Queue) -> None:
    queue.add("exit 3")
    queue.do(report=lambda text: None)
    queue.retry(1)
    queue.do(report=lambda text: None)
    (failed,) = Path(queue.directory, "failed/000000").glob("*.json")
    assert failed.name.startswith("000000001.r1f1@")
    failed.rename(Path(queue.directory, "pending/000000"))
    assert queue.promote() == 1
    assert _files(queue, "pending") == ["pending/0/000000/000000001.r2.json"]


@pytest.mark.parametrize("state", ["succeeded", "failed", "killed"])
def test_a_file_under_the_name_of_a_shard_that_was_not_there(queue: fsqdo.Queue, state: str) -> None:
    """It is in the way of all tasks of that shard."""
    queue.add("a")
    Path(queue.directory, "pending/0/000000/000000001.json").rename(f"{queue.directory}/{state}/000000")
    assert queue.promote() == 1
    assert _files(queue, state) == [f"{state}/000000/000000001.json"]


def test_a_directory_that_was_moved_is_put_right_with_all_that_is_in_it(queue: fsqdo.Queue) -> None:
    for _ in range(5):
        queue.add("exit 1")
    queue.do(report=lambda text: None)
    Path(queue.directory, "failed/000000").rename(f"{queue.directory}/pending/000000")  # "retry all"
    assert queue.promote() == 5
    assert _counts(queue) == {"Pending": 5}


def test_promote_leaves_what_is_in_its_place(root: Path) -> None:
    queue = fsqdo.create("Q", max_retries=1, retry_delay_s=1000)
    queue.add_multiple(["exit 0"] * 1200)
    queue.add_multiple(["exit 1", "true"], requires=[5])
    queue.kill(id="3-9")
    queue.reprioritize(4, id="100-300")
    queue.do(report=lambda text: None, max_tasks=30)
    queue.get()
    before = _files(queue, "pending", "waiting", "running", "succeeded", "failed", "killed")
    assert queue.promote() == 0
    assert _files(queue, "pending", "waiting", "running", "succeeded", "failed", "killed") == before


def test_a_file_of_somebody_else_under_such_a_name_stays(queue: fsqdo.Queue) -> None:
    for number, text in enumerate(("", "notes\n", "[]\n", '{"id":"x"}\n', '{"id":true}\n', '{"id":0}\n')):
        Path(queue.directory, f"pending/{number}").write_text(text)
    assert queue.promote() == 0
    assert len(_files(queue, "pending")) == 6


# ---------------------------------------------------------------- counters
def test_stops_in_good_order_do_not_count_when_the_worker_dies(root: Path) -> None:
    queue = fsqdo.create("Q", max_interruptions=1)
    queue.add("a")
    home = Path(queue.directory, "running/elsewhere-1-dead")
    home.mkdir()
    for before, after in (("s9", "pending/0/000000/000000001.i1s9.json"), ("i1s9", "failed/000000/000000001.f1i1s9@")):
        task = next(Path(queue.directory, "pending/0/000000").iterdir())
        home.mkdir(exist_ok=True)
        task.rename(home / f"000000001.{before}.json")
        queue.recover(force=True)
        assert [file for file in _files(queue, "pending", "failed") if file.endswith(".json") and file.startswith(after)]


def test_a_killed_task_that_is_moved_back_is_not_taken_for_killed_again(queue: fsqdo.Queue) -> None:
    """Not even where the same worker claims it, and dies: its name is another one."""
    queue.add("a")
    home = Path(queue.directory, "running/elsewhere-1-dead")
    home.mkdir()
    Path(queue.directory, "pending/0/000000/000000001.json").rename(home / "000000001.json")
    (home / "000000001.kill").touch()
    queue.recover(force=True)
    assert _files(queue, "killed") == ["killed/000000/000000001.r1.json"]


# ---------------------------------------------------------------- what is told
def test_an_edit_that_cannot_be_read_is_told_of_and_kept(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["echo original", "true"])
    (path,) = Path(queue.directory, "pending").rglob("000000001.json")
    edited = path.read_text().replace("echo original", 'echo "edited"')
    path.write_text(edited)
    said: list[str] = []
    queue.do(report=said.append)
    assert queue.log(1) == b"original\n"
    (told,) = [text for text in said if text.startswith("task 1 runs as it was loaded")]
    assert Path(queue.directory, told.rpartition(" ")[2]).read_text() == edited


def test_a_torn_file_is_mended_without_a_word(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["echo original", "true"])
    (path,) = Path(queue.directory, "pending").rglob("000000001.json")
    path.write_bytes(path.read_bytes()[:10])
    said: list[str] = []
    queue.do(report=said.append)
    assert queue.log(1) == b"original\n"
    assert said == [] and _files(queue, "attic") == []


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_result_that_cannot_be_kept_is_told_of(queue: fsqdo.Queue, value: object) -> None:
    queue.add_multiple([1, 2, 3])
    said: list[str] = []
    queue.do(func=lambda task: {"v": value} if task < 3 else 5, report=said.append)
    assert len([text for text in said if "its result is not kept" in text]) == 1
    assert [queue.show(n)["attempts"][0].get("reason", "")[:22] for n in (1, 2, 3)] == ["its result is not kept"] * 2 + [""]
    assert list(queue.results()) == [(3, 5)]


def test_an_object_without_a_script_fails_with_what_to_do(queue: fsqdo.Queue) -> None:
    queue.add({"a": 1})
    queue.do(report=lambda text: None)
    assert "script" in queue.explain(1)["why"][0]


def test_a_task_that_is_gone_is_told_of(queue: fsqdo.Queue) -> None:
    first, _ = queue.add_multiple(["a", "b"])
    (path,) = Path(queue.directory, "pending").rglob("000000001.json")
    path.unlink()
    with pytest.raises(TaskNotFoundError) as caught:
        queue.task(first)
    assert "its file was removed" in caught.value.hint and "load is not all" not in caught.value.hint


@pytest.mark.parametrize("func", [5, ["x"], b"module:function"])
def test_what_is_no_function_runs_no_command(queue: fsqdo.Queue, tmp_path: Path, func: Any) -> None:
    queue.add(f"touch {tmp_path}/ran")
    with pytest.raises(InputError, match="must be a function"):
        queue.do(func=func)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_selection_is_named(queue: fsqdo.Queue) -> None:
    for call in (queue.tasks, queue.retry, queue.kill):
        with pytest.raises(InputError, match="not selected by 'exit_code'") as caught:
            call(exit_code=3)  # type: ignore[operator]
        assert "exitcode" in caught.value.hint


def test_tasks_takes_ids_first(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["a", "b", "c"])
    assert [task.id for task in queue.tasks([1, 3])] == [task.id for task in queue.iter_tasks("1,3")] == [1, 3]


def test_a_load_from_a_closed_standard_input(root: Path) -> None:
    words = [sys.executable, "-m", "fsqdo", "load", "Q", "-"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("fsqdo: standard input is closed")


def test_show_gives_a_story_its_lines(queue: fsqdo.Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.add("echo one; echo two; exit 3")
    queue.do(report=lambda text: None)
    assert main(["show", "Q", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("story:")
    assert lines[at + 1] == "  task 1 failed: exit code 3" and "    one" in lines[at:] and "    two" in lines[at:]


def test_jobs_that_started_no_worker_are_told_of(queue: fsqdo.Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.add({"a": 1})
    assert main(["launch", "Q", "2", "--func", "nomodule:x", "--wait"]) == 1
    said = capsys.readouterr().err
    assert "without a worker" in said
    assert "there is no module nomodule" in Path(said.rpartition(": ")[2].split(" ")[0]).read_text()


def test_a_copy_of_a_queue_cancels_no_jobs_of_the_original(queue: fsqdo.Queue, root: Path) -> None:
    queue.add("sleep 1000")
    queue.launch(1)
    copy = root / "copy"
    subprocess.run(["cp", "-a", queue.directory, copy], check=True)
    other = fsqdo.connect("copy")
    for numbers in (None, [1]):
        with pytest.raises(InputError, match="was launched for"):
            other.cancel_jobs(numbers)
    (root / "Q").rename(root / "renamed")
    (copy).rename(root / "Q")
    assert [job.number for job in fsqdo.connect("renamed").jobs()] == [1]
    (root / "Q").rename(root / "copy")
    assert [job.number for job in fsqdo.connect("renamed").cancel_jobs()] == [1]


# ---------------------------------------------------------------- states set from outside
@pytest.mark.parametrize("before", ["Pending", "Waiting", "Failed", "Killed", "packed"])
@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_the_state_of_a_task_that_nobody_runs_is_set_by_its_id(root: Path, before: str, state: str) -> None:
    queue = fsqdo.create("Q", max_retries=3)
    task = 700
    if before == "packed":
        queue.add_multiple(["true"] * 1500)
    else:
        queue.add_multiple(["exit 3"] * 700, max_retries=0)
        if before == "Waiting":
            task = queue.add("true", requires=[1])
    after = queue.add("true", requires=[task])
    if before == "Failed":
        queue.reprioritize(5, task)
        queue.do(report=lambda text: None, max_tasks=1)
    elif before == "Killed":
        queue.kill(task)
    queue.set_state(task, state, err=4, message="by hand")
    found = queue.task(task)
    assert (found.state, found.exitcode) == (state, 4 if state == "Failed" else 0)
    assert found.outcome is not None and found.outcome.reason == "by hand"
    assert len(queue.tasks(task)) == 1
    assert queue.task(after).state == ("Pending" if state == "Succeeded" else "Waiting")
    assert ("blocked" in queue.explain(after)["why"][-1]) == (state == "Failed")
    stories = [file for file in _files(queue, "failed") if file.endswith(".txt")]
    assert len(stories) == (state == "Failed")


def test_a_task_that_was_taken_is_set_by_its_id(queue: fsqdo.Queue) -> None:
    queue.add("a")
    taken = queue.get()
    assert taken is not None
    queue.set_state(taken.id, "Failed", err=5, message="no good")
    found = queue.task(1)
    assert (found.state, found.exitcode) == ("Failed", 5)
    with pytest.raises(TaskError):
        taken.set_state("Succeeded")
    queue.set_state(1, "Pending")
    assert queue.task(1).state == "Pending"


def test_a_task_that_somebody_runs_is_not_set_from_outside(queue: fsqdo.Queue) -> None:
    queue.add("a")
    other = fsqdo.connect("Q")
    assert other.get() is not None
    for state in ("Succeeded", "Failed", "Pending"):
        with pytest.raises(TaskError, match="is Running"):
            queue.set_state(1, state)
    with pytest.raises(InputError):
        queue.set_state(1, "Running")
    with pytest.raises(TaskNotFoundError):
        queue.set_state(7, "Succeeded")


def test_a_refused_state_leaves_the_task_where_it_is(queue: fsqdo.Queue) -> None:
    queue.add("exit 3")
    queue.do(report=lambda text: None)
    before = _files(queue, "failed")
    with pytest.raises(InputError, match="must be an exit code"):
        queue.set_state(1, "Succeeded", err="3")  # type: ignore[arg-type]
    assert _files(queue, "failed") == before and queue.task(1).state == "Failed"


@pytest.mark.parametrize("err", [3, 4, 75])
def test_a_state_that_is_set_is_not_made_another_by_exit_codes(root: Path, err: int) -> None:
    queue = fsqdo.create("Q", exit_codes={"75": "restart", "3": "succeed", "4": "pause"}, max_retries=2)
    queue.add("a")
    queue.set_state(1, "Failed", err=err)
    assert (queue.task(1).state, queue.status()["state"]) == ("Failed", "Active")


def test_who_was_declared_dead_sets_states_again(queue: fsqdo.Queue) -> None:
    for _ in range(3):
        queue.add("a")
    queue.set_state(1, "Failed")
    fsqdo.connect("Q").recover(force=True)
    queue.set_state(2, "Succeeded")
    queue.set_state(3, "Killed")
    assert _counts(queue) == {"Succeeded": 1, "Failed": 1, "Killed": 1}


def test_a_state_that_somebody_else_is_faster_to_change(queue: fsqdo.Queue, seam: System) -> None:
    """The outcome is in the journal by then; it is that of no attempt."""
    queue.add("a")
    taken: list[int] = []

    def rename(src: str, dst: str) -> None:
        if "/succeeded/" in dst and not taken:
            taken.append(1)
            os.rename(src, f"{queue.directory}/killed/000000001.r1.json")
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    with pytest.raises((TaskError, TaskNotFoundError)):
        queue.set_state(1, "Succeeded")
    seam.__dict__.clear()
    queue.promote()
    assert queue.task(1).state == "Killed"
    assert queue.show(1)["attempts"][-1]["outcome"] == "interrupted"


def test_a_state_that_could_not_be_set_is_not_set_later(queue: fsqdo.Queue, seam: System) -> None:
    queue.add("a")
    queue.kill(1)

    def rename(src: str, dst: str) -> None:
        if "/succeeded/" in dst:
            raise _error(errno.EDQUOT)
        os.rename(src, dst)

    seam.rename = rename  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        queue.set_state(1, "Succeeded")
    seam.__dict__.clear()
    assert queue.task(1).state == "Killed"
    queue.rerun(1)
    assert queue.get() is not None
    queue.close()
    assert queue.task(1).state == "Pending"


def test_a_task_that_cannot_be_read_can_be_set(queue: fsqdo.Queue) -> None:
    queue.add("a")
    Path(queue.directory, "pending/0/000000/000000001.json").write_text("torn")
    queue.set_state(1, "Failed", message="it cannot be read")
    assert _counts(queue) == {"Failed": 1}


def test_states_that_are_set_count_towards_max_fails(root: Path) -> None:
    queue = fsqdo.create("Q", max_fails=1)
    queue.add("a")
    queue.set_state(1, "Failed")
    assert queue.status()["state"] == "Paused"


def test_threads_share_a_queue(root: Path) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(["true"] * 600)
    seen: list[int] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            while (task := queue.get()) is not None:
                seen.append(task.id)
                task.set_state("Succeeded")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    queue.close()
    assert errors == [] and sorted(seen) == list(range(1, 601))
    assert _counts(queue) == {"Succeeded": 600}
    assert os.listdir(Path(queue.directory, "running")) == []


def test_a_queue_and_its_rows_can_be_pickled(queue: fsqdo.Queue) -> None:
    queue.add("a")
    taken = queue.get()
    assert taken is not None
    assert pickle.loads(pickle.dumps(queue)).task(1).state == "Running"
    with pytest.raises(TaskError):
        pickle.loads(pickle.dumps(taken)).set_state("Succeeded")
    taken.set_state("Succeeded")


# ---------------------------------------------------------------- copies
def test_a_copied_directory_is_no_second_set_of_tasks(queue: fsqdo.Queue) -> None:
    for _ in range(3):
        queue.add("exit 1")
    queue.do(report=lambda text: None)
    base = Path(queue.directory)
    shutil.copytree(base / "failed/000000", base / "failed/000000.bak")
    shutil.copytree(base / "failed", base / "pending/0.bak")
    queue.retry()
    assert queue.promote() == 0
    assert _counts(queue) == {"Pending": 3}


def test_a_story_goes_with_its_task(queue: fsqdo.Queue) -> None:
    queue.add("exit 1")
    queue.do(report=lambda text: None)
    base = Path(queue.directory)
    (base / "failed/000000").rename(base / "failed/wrong")
    assert queue.promote() == 1
    assert "exit code 1" in queue.show(1)["story"]


# ---------------------------------------------------------------- functions of this process
def _run(text: str) -> subprocess.CompletedProcess[str]:
    program = "import os, sys, time, signal, multiprocessing, fsqdo\nq = fsqdo.connect('Q', create_ok=True)\n" + text
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_function_may_use_a_pool(queue: fsqdo.Queue) -> None:
    queue.add_multiple(list(range(12)))
    done = _run(
        "def f(n):\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        return sum(pool.map(abs, [-n, -n]))\n"
        "q.do(func=f)\n"
    )
    assert done.returncode == 0 and "Interrupted" not in done.stderr, done.stderr
    assert dict(queue.results()) == {n + 1: 2 * n for n in range(12)}


def test_a_copy_that_a_function_forks_has_no_say(queue: fsqdo.Queue) -> None:
    queue.add_multiple([1, 2, 3])
    done = _run(
        "def f(n):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        return 'copy'\n"
        "    os.waitpid(pid, 0)\n"
        "    return 'parent'\n"
        "q.do(func=f)\n"
        "print('end')\n"
    )
    assert done.stdout == "end\n", done.stderr
    assert [result for _, result in queue.results()] == ["parent"] * 3


def test_a_worker_in_a_function_passes_signals_on(queue: fsqdo.Queue) -> None:
    queue.add_multiple([1, 2, 3])
    done = _run(
        "def g(n):\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\n"
        "def f(n):\n"
        "    inner = fsqdo.connect('inner', create_ok=True); inner.add(1); inner.do(func=g)\n"
        "q.do(func=f)\n"
    )
    assert done.returncode == 0, done.stderr
    assert _counts(queue) == {"Pending": 3}
    assert _counts(fsqdo.connect("inner")) == {"Pending": 1}


def test_a_worker_in_a_function_leaves_its_time_limit(queue: fsqdo.Queue) -> None:
    queue.add(1, time_limit_s=1)
    done = _run(
        "def f(n):\n"
        "    inner = fsqdo.connect('inner', create_ok=True)\n"
        "    inner.add(1, time_limit_s=60); inner.add(1)\n"
        "    inner.do(func=lambda n: None); time.sleep(30)\n"
        "q.do(func=f)\n"
    )
    assert done.returncode == 0, done.stderr
    assert _counts(queue) == {"Failed": 1} and "time limit" in queue.explain(1)["why"][0]


@pytest.mark.parametrize(
    ("text", "state", "code"), [("sys.exit(0)", "Succeeded", 0), ("sys.exit(7)", "Failed", 7), ("1/0", "Failed", 1)]
)
def test_how_a_function_ends_is_told_by_an_exit_code(queue: fsqdo.Queue, text: str, state: str, code: int) -> None:
    queue.add(1)
    queue.do(func=lambda task: exec(text, {"sys": sys}), report=lambda text: None)
    assert (queue.task(1).state, queue.task(1).exitcode) == (state, code)
    assert len(queue.tasks(exitcode=code)) == 1


def test_a_function_has_the_environment_and_the_directory_of_its_task(queue: fsqdo.Queue, tmp_path: Path) -> None:
    before = (dict(os.environ), os.getcwd())
    queue.add(1, env={"OWN": "x"}, cwd=str(tmp_path))
    queue.add(2)
    queue.do(func=lambda task: [os.environ.get("OWN"), os.getcwd()], report=lambda text: None)
    assert dict(queue.results()) == {1: ["x", str(tmp_path)], 2: [None, before[1]]}
    assert (dict(os.environ), os.getcwd()) == before


def test_limits_of_functions_in_a_thread_are_told_of(queue: fsqdo.Queue) -> None:
    queue.add(1, time_limit_s=0.1)
    queue.add(2, time_limit_s=0.1)
    said: list[str] = []
    thread = threading.Thread(target=lambda: queue.do(func=lambda task: time.sleep(0.2), report=said.append))
    thread.start()
    thread.join(60)
    assert len([text for text in said if "time limits have no effect here" in text]) == 1


# ---------------------------------------------------------------- what is not there any more
def test_a_damaged_packed_file_is_no_end_of_the_tasks(queue: fsqdo.Queue) -> None:
    queue.add_multiple(list(range(1200)))
    queue.do(func=lambda task: task, report=lambda text: None)
    queue.close()
    (packed,) = Path(queue.directory, "succeeded").glob("*.jsonl")
    packed.write_bytes(packed.read_bytes()[:5000])
    for look in (
        lambda q: list(q.results()),
        lambda q: q.rerun(dry_run=True),
        lambda q: q.loadfile(io.BytesIO(b"1\n"), dedupe=True),
    ):
        with pytest.raises(TaskError, match="tasks that can be read, and its name says"):
            look(fsqdo.connect("Q"))
    with pytest.warns(UserWarning, match="tasks are missing"):
        fsqdo.connect("Q").tasks()


@pytest.mark.parametrize(
    "verb", ["recover", "promote", "pack", "unpack", "tidy", "resume", "drain", "jobs", "cancel_jobs", "status", "retry"]
)
def test_a_queue_that_was_deleted_has_no_verbs(queue: fsqdo.Queue, verb: str) -> None:
    fsqdo.connect("Q").delete()
    with pytest.raises(QueueNotFoundError):
        getattr(queue, verb)()
    with pytest.raises(QueueNotFoundError):
        queue.add_multiple([1, 2])
    with pytest.raises(QueueNotFoundError):
        queue.launch(1)


def test_text_is_matched_as_it_is(queue: fsqdo.Queue) -> None:
    queue.add({"city": "Zürich"})
    assert [task.id for task in queue.tasks(match="Zürich")] == [1]
