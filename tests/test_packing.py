"""Packing of finished shards: what a packed queue says, every verb on packed tasks, crashes at every step, races."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import mounts, packing, unpacking, upkeep, worker
from fsqdo.errors import FsqdoError, TaskError, TaskNotFoundError
from fsqdo.finals import Finals
from fsqdo.ids import ids_in
from fsqdo.member import Member
from fsqdo.names import ShardEntry
from fsqdo.recovery import recover
from fsqdo.store import Store
from fsqdo.store.system import System
from fsqdo.task import State
from tests.checker import read_queue
from tests.faults import World, interrupt_once
from tests.scenarios import new_queue
from tests.test_faults import play, world_dir  # noqa: F401

SMALL = range(1, 7)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first shard has ended when its first six ids have."""
    monkeypatch.setattr(packing, "ids_of", lambda shard: SMALL if shard == 0 else range(shard * 1000, shard * 1000 + 1000))


def double(task: Any) -> Any:
    return None if task == "quiet" else {"got": task}


def drained(tasks: list[Any], name: str = "Q") -> fsqdo.Queue:
    queue = fsqdo.create(name, pack=False)
    queue.add_multiple(tasks)
    queue.do(func=double)
    return queue


def forms(queue: fsqdo.Queue) -> list[str]:
    """The names in succeeded/, with numbers and tokens left out."""
    found = []
    for name in os.listdir(f"{queue.directory}/succeeded"):
        shard, dot, rest = name.partition(".p")
        found.append(shard + dot + rest.lstrip("0123456789") if dot else shard)
    return sorted(found)


def sound(queue: fsqdo.Queue, count: int, **state: int) -> None:
    """The other reader finds every task once, and none but in these states."""
    report = read_queue(queue.directory)
    assert report.problems(range(1, count + 1)) == []
    assert {key: value for key, value in report.counts().items() if value} == state
    assert {str(s).lower(): n for s, n in queue.store.counts().items() if n} == state


# ---------------------------------------------------------------- what is packed
def test_a_finished_shard_becomes_one_file(root: Path) -> None:
    queue = drained(list(range(2500)))
    assert forms(queue) == ["000000", "000001", "000002"]
    assert queue.pack(dry_run=True) == 1999 and "tasks" not in queue.tidy(dry_run=True)
    queue.configure(pack=True)
    assert queue.tidy(dry_run=True)["tasks"] == 1999
    assert forms(queue) == ["000000", "000001", "000002"]
    assert queue.pack() == 1999, "the ids 1-1999; those of the third shard are not all used"
    assert forms(queue) == ["000000.p.n999.jsonl", "000001.p.n1000.jsonl", "000002"]
    sound(queue, 2500, succeeded=2500)
    assert queue.pack() == queue.pack(dry_run=True) == 0
    assert queue.unpack("5-1001", dry_run=True) == 1999 and queue.unpack(1000, dry_run=True) == 1000
    assert forms(queue) == ["000000.p.n999.jsonl", "000001.p.n1000.jsonl", "000002"]
    with pytest.raises(TaskNotFoundError, match="has no task 2501"):
        queue.unpack("1-2501")


def test_workers_pack_what_has_ended_and_say_nothing(root: Path) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple([0] * 1100)
    queue.do(func=lambda task: None)
    assert forms(queue) == ["000000.p.n999.jsonl", "000001"]
    sound(queue, 1100, succeeded=1100)


def test_whoever_leaves_a_shard_packs_it_when_it_has_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PACK_S", 0.0)
    monkeypatch.setattr(worker, "_FILL_S", 0.0)
    monkeypatch.setattr(upkeep.Passes, "run", lambda self, shards=0: False)
    queue = fsqdo.create("Q")
    queue.add_multiple([0] * 2500)
    queue.do(func=lambda task: None, max_tasks=1010)
    assert forms(queue) == ["000000.p.n999.jsonl", "000001"]
    queue.do(func=lambda task: None, max_tasks=1010)
    assert forms(queue) == ["000000.p.n999.jsonl", "000001.p.n1000.jsonl", "000002"]
    sound(queue, 2500, succeeded=2020, pending=480)


def test_a_shard_that_others_are_in_is_left_to_them(root: Path) -> None:
    queue = drained([0] * 1000)
    queue.rerun(id=7)
    passes = upkeep.Passes(queue.store)
    queue.configure(pack=True)
    passes.pack_left([0, 1, 5])
    assert forms(queue) == ["000000", "000001"]
    queue.do(func=lambda task: None, max_tasks=1)
    passes.pack_left([0])
    assert forms(queue) == ["000000.p.n999.jsonl", "000001"]


def test_a_packed_line_holds_the_task_and_its_outcome(root: Path, small: None) -> None:
    queue = drained(["quiet", {"x": 1}, 3, 4, 5, 6])
    assert queue.pack() == 6
    (name,) = os.listdir(f"{queue.directory}/succeeded")
    lines = [json.loads(line) for line in Path(queue.directory, "succeeded", name).read_text().splitlines()]
    assert [line["task"]["task"] for line in lines] == ["quiet", {"x": 1}, 3, 4, 5, 6]
    assert all(line["name"] == f"{line['task']['id']:09d}@{queue.show(1)['worker']}" for line in lines)
    assert lines[1]["outcome"]["result"] == {"got": {"x": 1}} and lines[0]["outcome"]["outcome"] == "succeeded"


def test_failures_and_what_was_killed_stay_loose(root: Path, small: None) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(["true", "exit 3", "true", "true", "true", "true"])
    queue.kill(id=6)
    queue.do()
    assert forms(queue) == ["000000.p.n4.jsonl"]
    assert os.listdir(f"{queue.directory}/killed") == os.listdir(f"{queue.directory}/failed") == ["000000"]
    sound(queue, 6, succeeded=4, failed=1, killed=1)


def test_a_shard_with_work_left_is_not_packed(root: Path, small: None) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(["true"] * 5)
    queue.add("true", requires=5)
    queue.do(max_tasks=5)
    assert queue.pack() == 0 and forms(queue) == ["000000"]
    assert queue.store.counts()[State.PENDING] == 1


def test_pack_false_leaves_workers_out_but_not_the_command(root: Path, small: None) -> None:
    queue = drained([1, 2, 3, 4, 5, 6])
    assert forms(queue) == ["000000"]
    assert queue.pack() == 6


def test_what_has_no_outcome_in_a_journal_stays_loose(root: Path, small: None) -> None:
    queue = drained([1, 2, 3, 4, 5, 6])
    (journal,) = Path(queue.directory, "outcomes").iterdir()
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"000000004"' not in line))
    assert queue.pack() == 5
    assert forms(queue) == ["000000", "000000.p.n5.jsonl"]
    sound(queue, 6, succeeded=6)
    journal.unlink()
    assert queue.unpack() == 5 and queue.pack() == 0
    assert forms(queue) == ["000000"], "with no journal at all it is as it was"
    sound(queue, 6, succeeded=6)


def test_files_of_single_tasks_are_read_where_no_load_has_them(root: Path, small: None) -> None:
    queue = fsqdo.create("Q", pack=False)
    for task in SMALL:
        queue.add({"n": task}, priority=7 - task, tags=["t"])
    queue.do(func=double)
    queue.pack()
    row = queue.task(4)
    assert (row.task, row.priority, row.tags, row.state, row.exitcode) == ({"n": 4}, 3, ("t",), "Succeeded", 0)


# ---------------------------------------------------------------- every verb
@pytest.fixture
def packed(root: Path, small: None) -> fsqdo.Queue:
    """Six tasks: the third needed a retry; five and a packed file, 6 failed."""
    queue = fsqdo.create("Q", retry_delay_s=0)
    queue.add_multiple(["echo one", "echo two", "test $FSQDO_ATTEMPT = 2", "echo four", "echo five", "exit 9"], max_retries=1)
    queue.do()
    assert forms(queue) == ["000000.p.n5.jsonl"]
    return queue


def test_commands_read_packed_tasks_as_loose_ones(packed: fsqdo.Queue) -> None:
    assert [row.id for row in packed.tasks(state="Succeeded")] == [1, 2, 3, 4, 5]
    assert [row.id for row in packed.tasks(match="t[wh]o")] == [2]
    assert [row.exitcode for row in packed.tasks()] == [0, 0, 0, 0, 0, 9]
    assert packed.log(2) == b"two\n"
    shown = packed.show(3)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["retry", "succeeded"]
    assert shown["state"] == "Succeeded" and shown["path"].endswith(".n5.jsonl")
    assert packed.status()["ntasks"]["Succeeded"] == 5


def test_requirements_are_met_by_packed_tasks(packed: fsqdo.Queue) -> None:
    packed.add("true", requires="1-5")
    packed.add("true", requires=6)
    assert packed.status()["ntasks"]["Pending"] == 1 and packed.status()["blocked"] == 1


def test_rerun_of_one_packed_task_unpacks_its_shard(packed: fsqdo.Queue) -> None:
    assert packed.rerun(id=3, dry_run=True) == 1 and forms(packed) == ["000000.p.n5.jsonl"]
    assert packed.rerun(id=3) == 1
    assert forms(packed) == ["000000"]
    assert packed.task(3).entry.name.r == 1 and packed.task(3).state == "Pending"
    sound(packed, 6, succeeded=4, pending=1, failed=1)
    packed.do()
    assert forms(packed) == ["000000.p.n5.jsonl"]
    sound(packed, 6, succeeded=5, failed=1)
    assert [attempt["attempt"] if "attempt" in attempt else attempt["name"] for attempt in packed.show(3)["attempts"]] == [
        "000000003", "000000003.f1", "000000003.r1", "000000003.r1f1",
    ]  # fmt: skip


def test_rerun_of_all_takes_packed_and_loose_ones(packed: fsqdo.Queue) -> None:
    packed.add("true", requires="1-6")
    assert packed.rerun() == 6
    sound(packed, 7, pending=6, waiting=1)
    assert packed.rerun() == 0


def test_rerun_selects_among_packed_ones_by_their_words(packed: fsqdo.Queue) -> None:
    assert packed.rerun(match="five") == 1
    sound(packed, 6, succeeded=4, pending=1, failed=1)


def test_results_stand_in_the_packed_file(root: Path, small: None) -> None:
    queue = drained([1, 2, "quiet", 4, 5, 6])
    loose = dict(queue.results())
    queue.pack()
    for journal in Path(queue.directory, "outcomes").iterdir():
        journal.unlink()
    assert dict(queue.results()) == loose == {n: {"got": n} for n in (1, 2, 4, 5, 6)}


def test_unpack_gives_the_files_back_as_they_were(root: Path, small: None) -> None:
    queue = drained([{"x": n} for n in SMALL])
    before = {path.name: path.read_bytes() for path in Path(queue.directory, "succeeded/000000").iterdir()}
    queue.pack()
    assert queue.unpack("2") == 6 and forms(queue) == ["000000"]
    assert {path.name: path.read_bytes() for path in Path(queue.directory, "succeeded/000000").iterdir()} == before
    assert queue.unpack() == 0


@pytest.mark.parametrize("call", ["rename", "open"])
def test_unpack_that_is_interrupted_gives_the_file_back(packed: fsqdo.Queue, seam: System, call: str) -> None:
    before = packed.status()["ntasks"]
    interrupt_once(seam, call, ".unpack/")
    with pytest.raises(KeyboardInterrupt):
        packed.unpack()
    assert not list(Path(packed.directory, "running").rglob("*.unpack*"))
    assert packed.status()["ntasks"] == before
    assert packed.unpack() > 0


def test_what_no_load_has_is_on_disk_before_its_packed_file_goes(root: Path, small: None, seam: System) -> None:
    """A power cut may tear what was not synced; what came from a load is rebuilt from that."""
    queue = fsqdo.create("Q", pack=False)
    for number in range(3):
        queue.add(number)
    queue.add_multiple(range(3))
    queue.store.take_ids(1)
    queue.do(func=double)
    assert queue.pack() == len(SMALL)
    done: list[str] = []

    def fsync(fd: int) -> None:
        System.fsync(fd)
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).partition("@")[0])

    def rename(source: str, target: str) -> None:
        System.rename(source, target)
        done.extend(["published"] if source.endswith(".unpack") else [])

    seam.fsync, seam.rename = fsync, rename  # type: ignore[method-assign]
    assert queue.unpack() == len(SMALL)
    published = done.index("published")
    assert sorted(done[: published - 1]) == ["000000001", "000000002", "000000003"]
    assert done[published - 1].endswith(".unpack")
    sound(queue, 6, succeeded=6)


def test_unpack_leaves_a_file_with_a_bad_line_where_it_is(packed: fsqdo.Queue) -> None:
    (path,) = Path(packed.directory, "succeeded").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"name":"000000003"}\n', *lines[3:]]))
    with pytest.raises(FsqdoError, match="cannot be read"):
        packed.unpack()
    assert forms(packed) == ["000000.p.n5.jsonl"]


# ---------------------------------------------------------------- looks meanwhile
class _EnoughError(Exception):
    """Raised in a test's rename, where a process would be killed."""


def pack_until(queue: fsqdo.Queue, seam: System, renames: int) -> None:
    """Pack, as a process that is killed before its next rename after so many."""
    left = [renames]

    def rename(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _EnoughError
        System.rename(source, target)

    seam.rename = rename  # type: ignore[method-assign]
    with suppress(_EnoughError):
        packing.pack_all(Store(queue.directory))
    del seam.rename


LOOKS: dict[str, Any] = {
    "tasks": lambda q: [task.id for task in q.tasks(state="Succeeded")],
    "results": lambda q: sorted(task_id for task_id, _ in q.results()),
    "rerun": lambda q: list(SMALL)[: q.rerun(dry_run=True)],
    "counts": lambda q: list(SMALL)[: q.store.counts()[State.SUCCEEDED]],
    "finals": lambda q: list(ids_in(0, Finals(q.store).met(0, ended=False))),
}


class Packer:
    """Another process that packs the shard, or begins to, just before one call of a look."""

    def __init__(self, queue: fsqdo.Queue, seam: System, at: int, renames: int) -> None:
        self._queue, self._seam, self._at, self._renames = queue, seam, at, renames
        self._calls = 0
        self.came = False

    def listdir(self, path: str) -> list[str]:
        self._before(path)
        return System.listdir(path)

    def open(self, path: str, flags: int, *mode: int) -> int:
        self._before(path)
        return System.open(path, flags, *mode)

    def _before(self, path: str) -> None:
        self._calls += f"{self._queue.directory}/succeeded" in path
        if self._calls == self._at and not self.came:
            self.came = True
            pack_until(self._queue, self._seam, self._renames)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("goes_on", [1, 2, 9])
@pytest.mark.parametrize("begun", [0, 1, 2, 3])
def test_a_look_while_a_shard_is_packed_finds_all_its_tasks(
    root: Path, small: None, seam: System, look: str, begun: int, goes_on: int
) -> None:
    """Before each call of a look in turn another process packs on, from what one before it has left."""
    for at in count(1):
        queue = drained(list(SMALL), name=f"{at}")
        pack_until(queue, seam, begun)
        packer = Packer(queue, seam, at, goes_on)
        seam.listdir, seam.open = packer.listdir, packer.open  # type: ignore[method-assign]
        found = LOOKS[look](queue)
        del seam.listdir, seam.open
        assert found == list(SMALL), f"packed before call {at}"
        if not packer.came:
            return


# ---------------------------------------------------------------- on a network
def test_a_sealed_shard_is_one_that_would_be_packed(root: Path, small: None) -> None:
    queue = drained(list(SMALL))
    queue.store.take_ids(1)
    assert packing.Packer(queue.store, settle_s=1000.0).run() == 0
    assert queue.pack(dry_run=True) == queue.pack() == len(SMALL)


def test_on_a_network_a_sealed_shard_rests_before_it_is_listed(root: Path, small: None) -> None:
    queue = drained(list(SMALL))
    packer = packing.Packer(queue.store, settle_s=1000)
    assert packer.run() == 0 and forms(queue) == ["000000.p"]
    assert packer.run() == 0 and 990 < packer.resting <= 1000
    sound(queue, 6, succeeded=6)
    other = packing.Packer(queue.store, settle_s=1000)
    assert other.run() == 0, "a process trusts in nothing but its own clock"
    assert packing.Packer(queue.store, settle_s=0).run() == 6


def test_pack_by_hand_says_that_it_waits(root: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = drained(list(SMALL))
    monkeypatch.setattr(packing, "is_ours_alone", lambda store: False)
    said: list[str] = []
    assert queue.pack(wait=False) == 0 and forms(queue) == ["000000.p"]
    monkeypatch.setattr(packing, "SETTLE_S", 0.3)
    assert queue.pack(report=said.append) == 6
    assert len(said) == 1 and "rest for" in said[0]


TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /proc rw - proc proc rw
31 22 0:41 / /home rw - nfs4 server:/home rw
32 22 0:42 / /my\040disk rw shared:7 - xfs /dev/sdb rw
33 22 0:43 / /over rw - ext4 /dev/sdc rw
34 33 0:44 / /over rw - lustre a@tcp:/scratch rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "ext4"), ("/homely", "ext4"), ("/home", "nfs4"), ("/home/me", "nfs4"), ("/my disk/x", "xfs"), ("/over/x", "lustre")],
)
def test_the_file_system_of_a_path(path: str, kind: str, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert mounts.type_of(path, str(table)) == kind
    assert mounts.type_of(path, str(tmp_path / "none")) == ""


# ---------------------------------------------------------------- crashes
def with_ended_shard(world: World) -> None:
    """Six tasks that have succeeded, in a queue whose workers do not pack."""
    with new_queue(world, pack=False) as user:
        world.told.ack(user.q.add_multiple(list(SMALL)))
        for _ in SMALL:
            user.run_one()
        user.q.close()
        world.told.note("ended")


def packed_in_the_end(world: World) -> Iterator[str]:
    """Whatever happened: all have succeeded, and a later pass packs them."""
    for when in ("healed", "packed"):
        report = read_queue(world.queue_dir())
        if report.counts()["succeeded"] != len(SMALL) or report.problems(SMALL):
            yield f"{when}: {report.counts()['succeeded']} of {len(SMALL)} have succeeded; {report.problems(SMALL)}"
        packing.pack_all(Store(world.queue_dir()))
    found = os.listdir(f"{world.queue_dir()}/succeeded")
    if len(found) != 1 or not found[0].endswith(f".n{len(SMALL)}.jsonl"):
        yield f"in the end there are {found}"


def test_every_fault_while_packing(world_dir: Path, small: None) -> None:  # noqa: F811
    def scenario(world: World) -> None:
        packing.pack_all(Store(world.queue_dir()))

    play(world_dir, with_ended_shard, scenario, packed_in_the_end)


def test_every_fault_while_unpacking(world_dir: Path, small: None) -> None:  # noqa: F811
    def prepare(world: World) -> None:
        with_ended_shard(world)
        packing.pack_all(Store(world.queue_dir()))

    def scenario(world: World) -> None:
        store = Store(world.queue_dir())
        member = Member(store, slots=1)
        try:
            for parsed, _ in list(store.shards(State.SUCCEEDED)):
                unpacking.unpack(store, member.name, parsed)
        finally:
            member.leave()

    play(world_dir, prepare, scenario, packed_in_the_end)


def test_what_a_dead_unpacker_held_is_put_back(packed: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch, seam: System) -> None:
    store = packed.store
    member = Member(store, slots=1)
    monkeypatch.setattr(unpacking, "_write_loose", lambda *args: (_ for _ in ()).throw(_EnoughError))
    ((parsed, _),) = list(store.shards(State.SUCCEEDED))
    with pytest.raises(_EnoughError):
        unpacking.unpack(store, member.name, parsed)
    assert forms(packed) == [] and [row.id for row in packed.tasks(state="Succeeded")] == [1, 2, 3, 4, 5]
    sound(packed, 6, succeeded=5, failed=1)
    seam.sleep = lambda seconds: None  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="if who does it has died, `fsqdo recover` first"):
        packed.rerun(id=3)
    recover(store, force=True)
    member.abandon()
    assert forms(packed) == ["000000.p.n5.jsonl"]
    sound(packed, 6, succeeded=5, failed=1)


def test_an_unpacker_that_was_declared_dead_publishes_nothing(packed: fsqdo.Queue, seam: System) -> None:
    """Its packed file is taken from it before it reads it; its last rename reaches the directory all the same, as on NFS."""
    store = packed.store
    member = Member(store, slots=1)
    own = f"{packed.directory}/running/{member.name}/"
    fenced: list[str] = []

    def rename(source: str, target: str) -> None:
        if source.startswith(own) and not os.path.exists(source):
            source = source.replace("/running/", "/recovering/")  # through the old handle
        System.rename(source, target)
        if target.startswith(own) and not fenced:
            fenced.append(target)
            System.rename(own, own.replace("/running/", "/recovering/"))

    ((parsed, _),) = list(store.shards(State.SUCCEEDED))
    seam.rename = rename  # type: ignore[method-assign]
    with pytest.raises(FsqdoError, match="is gone"):
        unpacking.unpack(store, member.name, parsed)
    del seam.rename
    sound(packed, 6, succeeded=5, failed=1)
    recover(store, force=True)
    member.abandon()
    assert forms(packed) == ["000000.p.n5.jsonl"]
    sound(packed, 6, succeeded=5, failed=1)


# ---------------------------------------------------------------- races
def _race(what: str, start: Any) -> None:
    packing.ids_of = lambda shard: SMALL if shard == 0 else range(shard * 1000, shard * 1000 + 1000)
    queue = fsqdo.connect("Q")
    start.wait(10)
    if what == "pack":
        for _ in range(10):
            queue.pack()
    elif what == "rerun":
        for task_id in (2, 5, 2):
            queue.rerun(id=task_id)
    else:
        for _ in range(10):
            queue.do(func=lambda task: None)
    queue.close()


@pytest.mark.parametrize("crew", [["pack", "pack", "pack"], ["pack", "pack", "rerun", "rerun", "work"]])
def test_packers_and_reruns_at_once(root: Path, small: None, crew: list[str]) -> None:
    queue = drained(list(SMALL))
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        start = context.Event()
        children = [context.Process(target=_race, args=(what, start)) for what in crew]
        for child in children:
            child.start()
        start.set()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * len(crew)
        queue.do(func=lambda task: None)
        sound(queue, 6, succeeded=6)
    queue.pack()
    assert forms(queue) == ["000000.p.n6.jsonl"]


def test_a_packer_beside_one_who_takes_a_shard_apart(root: Path, small: None, seam: System) -> None:
    """The plain shard is there, so what is unpacked goes into it file by file; in the middle of that a pass packs the rest."""
    queue = drained(list(SMALL))
    (journal,) = Path(queue.directory, "outcomes").iterdir()
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"000000004"' not in line))
    assert queue.pack() == 5 and forms(queue) == ["000000", "000000.p.n5.jsonl"]
    out: list[tuple[str, str]] = []
    said: list[str] = []

    def rename(source: str, target: str) -> None:
        if not out and target.startswith(f"{queue.directory}/succeeded/000000/"):
            out.append((source, target))
            packing.Packer(queue.store, settle_s=0).run()
            if "out" in said:
                return
        elif out and ".all." in target and not said:
            said.append("decides")  # it has listed the shard; now the first task goes out, and then it decides
            with suppress(FileNotFoundError):
                System.rename(*out[0])
                said.append("out")
        System.rename(source, target)

    seam.rename = rename  # type: ignore[method-assign]
    queue.unpack()
    assert said[:1] == ["decides"]
    sound(queue, 6, succeeded=6)
    assert queue.rerun() == 6
    sound(queue, 6, pending=6)


def test_what_finishes_late_beside_a_decided_shard_is_kept(root: Path, small: None) -> None:
    queue = drained(list(SMALL))
    store = queue.store
    packer = packing.Packer(store, settle_s=1000)
    packer.run()
    ((sealed, name),) = list(store.shards(State.SUCCEEDED))
    late = Path(queue.directory, "succeeded", name, "000000006@late.json")
    for path in late.parent.glob("000000006@*"):
        path.rename(late)  # its worker's journal is not known: it is left out
    assert packing.Packer(store, settle_s=0).run() == 5
    assert forms(queue) == ["000000", "000000.p.n5.jsonl"] and isinstance(sealed, ShardEntry)
    sound(queue, 6, succeeded=6)
