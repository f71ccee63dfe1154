"""Slices: a worker makes loose what it uses soon; the rest of the pack stays packed beside it, under two markers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import claims
from fsqdo.claims import Claimer
from fsqdo.errors import StorageError, TaskError
from fsqdo.finals import Finals
from fsqdo.holder import Holder
from fsqdo.ids import ids_in
from fsqdo.member import Member
from fsqdo.names import parse_marker
from fsqdo.packs import open_pack
from fsqdo.recovery import recover
from fsqdo.settings import Settings
from fsqdo.store import Entry, Store, create
from fsqdo.store.system import System
from fsqdo.task import State
from tests.checker import read_queue
from tests.faults import World, interrupt_once
from tests.scenarios import User, small_packs, with_packs
from tests.test_faults import play, world_dir  # noqa: F401
from tests.test_races import fork, race, recover_dead, take, use, with_one

TASKS = 9
FIRST = "000000001-000000004"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of four tasks, of which one is made loose at a time."""
    small_packs(monkeypatch)
    monkeypatch.setattr(claims, "_SLICE_LEAST", 1)
    monkeypatch.setattr(claims, "_SLICE_S", 0.0)


@pytest.fixture
def queue(root: Path) -> Iterator[fsqdo.Queue]:
    """Nine tasks: two packs and one loose."""
    queue = fsqdo.create("Q")
    queue.add_multiple(list(range(TASKS)))
    yield queue
    queue.close()


@pytest.fixture
def member(queue: fsqdo.Queue) -> Iterator[Member]:
    member = Member(queue.store, slots=1)
    yield member
    member.leave()


def marker_in(store: Store, directory: str, file: str) -> Entry:
    name = parse_marker(file)
    assert name is not None and file in store.names(directory)
    return Entry(State.PENDING, directory, file, name)


def sliced(queue: fsqdo.Queue, member: Member, slice_: int | None = 1) -> str:
    """Open the first pack in a slice; its bundle."""
    bundle = open_pack(queue.store, member.name, marker_in(queue.store, "pending/0", f"{FIRST}.pack"), 0, slice_)
    assert bundle == f"pending/0/{FIRST}"
    return bundle


def sound(queue: fsqdo.Queue, **state: int) -> None:
    """Both readers find every task once, and none but in these states."""
    report = read_queue(queue.directory)
    assert report.problems(range(1, TASKS + 1)) == []
    assert {key: value for key, value in report.counts().items() if value} == state
    assert {str(s).lower(): n for s, n in queue.store.counts().items() if n} == state
    assert sorted(row.id for row in queue.tasks()) == list(range(1, TASKS + 1))


def left_in_pending(queue: fsqdo.Queue) -> list[str]:
    return [str(path) for path in Path(queue.directory, "pending").rglob("*")]


# ---------------------------------------------------------------- what a slice leaves
@pytest.mark.parametrize(
    ("slice_", "left"),
    [
        (1, ["000000001.json", "000000002-000000003.pack", "000000004-000000004.pack"]),
        (2, ["000000001.json", "000000002.json", "000000003-000000003.pack", "000000004-000000004.pack"]),
        (3, ["000000001.json", "000000002.json", "000000003.json", "000000004-000000004.pack"]),
        (4, [f"{n:09d}.json" for n in range(1, 5)]),
        (99, [f"{n:09d}.json" for n in range(1, 5)]),
        (None, [f"{n:09d}.json" for n in range(1, 5)]),
    ],
)
def test_the_rest_stays_packed_in_two_halves(queue: fsqdo.Queue, member: Member, slice_: int | None, left: list[str]) -> None:
    bundle = sliced(queue, member, slice_)
    assert queue.store.names(bundle) == left
    contents = {queue.store.read(f"{bundle}/{name}") for name in left if name.endswith(".pack")}
    assert contents <= {b"000000001-000000009/000000001-000000004.jsonl\n"}
    sound(queue, pending=TASKS)


def test_what_is_in_the_hands_of_the_opener_counts_once(queue: fsqdo.Queue, member: Member, seam: System) -> None:
    """Before the publishing rename the marker counts, after it the loose tasks and the two halves; never both, never none."""
    looked: list[str] = []

    def rename(source: str, target: str) -> None:
        if source.startswith(queue.store.path(member.directory)):
            looked.append(target)
            sound(queue, pending=TASKS)
        System.rename(source, target)
        if looked:
            sound(queue, pending=TASKS)  # the spent marker is still there

    seam.rename = rename  # type: ignore[method-assign]
    sliced(queue, member)
    assert looked == [queue.store.path(f"pending/0/{FIRST}")]
    sound(queue, pending=TASKS)
    assert queue.status()["ntasks"]["Pending"] == TASKS


def test_a_half_is_opened_as_a_pack_is(queue: fsqdo.Queue, member: Member) -> None:
    bundle = sliced(queue, member)
    half = marker_in(queue.store, bundle, "000000002-000000003.pack")
    assert open_pack(queue.store, member.name, half, 0, 1) == "pending/0/000000002-000000003"
    assert queue.store.names("pending/0/000000002-000000003") == ["000000002.json", "000000003-000000003.pack"]
    assert open_pack(queue.store, member.name, half, 0, 1) is None
    sound(queue, pending=TASKS)


def test_nothing_is_left_of_slices_when_all_is_done(queue: fsqdo.Queue) -> None:
    got: list[int] = []
    queue.do(func=got.append)
    assert sorted(got) == list(range(TASKS))
    assert left_in_pending(queue) == []
    sound(queue, succeeded=TASKS)


def test_a_spent_marker_whose_opener_died_goes_with_its_bundle(queue: fsqdo.Queue, member: Member, seam: System) -> None:
    def unlink(path: str) -> None:
        raise OSError(5, "died", path)

    seam.unlink = unlink  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        sliced(queue, member)
    del seam.unlink
    assert f"{FIRST}.pack" in queue.store.names(f"pending/0/{FIRST}")
    sound(queue, pending=TASKS)
    queue.do(func=lambda task: None)
    assert left_in_pending(queue) == []


def test_a_faster_worker_takes_larger_slices(queue: fsqdo.Queue, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slots times a few at least; what it used up in half a minute, where that is more."""
    monkeypatch.setattr(claims, "_SLICE_LEAST", 4)
    monkeypatch.setattr(claims, "_SLICE_S", 30.0)
    now = [100.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    claimer = Claimer(queue.store, member.name, slots=3)
    now[0] += 10
    assert claimer._slice() == 12
    claimer._claimed = 50
    now[0] += 10
    assert claimer._slice() == 150
    now[0] += 10
    assert claimer._slice() == 12, "what counts is the rate since the last opening"


# ---------------------------------------------------------------- verbs
def test_who_made_a_task_loose_does_not_read_it_again(queue: fsqdo.Queue, member: Member, seam: System) -> None:
    """One call with a path less a task; what another one made loose is read."""
    other = Member(queue.store, slots=1)
    opener, guest = Claimer(queue.store, member.name, slots=3), Claimer(queue.store, other.name)
    first = opener.claim()
    opened: list[str] = []
    seam.open = lambda path, *args: opened.append(path) or os.open(path, *args)  # type: ignore[method-assign,func-returns-value]
    second, third = opener.claim(), guest.claim()
    del seam.open
    assert first is not None and second is not None and third is not None
    assert [first.name.id, second.name.id, third.name.id] == [1, 2, 3]
    assert opened == [queue.store.path(f"running/{other.name}/{third.file}")]
    for owner, claim in ((member, first), (member, second), (other, third)):
        content = queue.store.read(f"{owner.directory}/{claim.file}")
        assert content is not None and content.strip() == claim.content.strip() != b""
    other.leave()
    sound(queue, pending=7, running=2)


def test_another_priority_moves_a_half_as_it_is(queue: fsqdo.Queue, member: Member) -> None:
    bundle = sliced(queue, member)
    assert queue.reprioritize(7, id="1-3") == 3
    assert queue.store.names(bundle) == ["000000004-000000004.pack"]
    assert queue.store.names("pending/7") == ["000000", "000000002-000000003.r1p7.pack"]
    sound(queue, pending=TASKS)
    got: list[int] = []
    queue.do(func=got.append)
    assert sorted(got[:3]) == [0, 1, 2] and sorted(got) == list(range(TASKS))
    assert left_in_pending(queue) == []


def test_kill_and_rerun_of_what_is_in_a_half(queue: fsqdo.Queue, member: Member) -> None:
    sliced(queue, member)
    assert queue.kill(id="2-3") == 2
    assert queue.kill(id=4) == 1
    sound(queue, pending=6, killed=3)
    assert queue.retry() == 0 and queue.rerun(id="2-4") == 3
    sound(queue, pending=TASKS)
    queue.do(func=lambda task: None)
    sound(queue, succeeded=TASKS)


@pytest.mark.parametrize("verb", ["kill", "kill a part", "reprioritize"])
def test_a_verb_that_loses_a_pack_to_an_opener_goes_on_with_the_pieces(
    queue: fsqdo.Queue, member: Member, seam: System, verb: str
) -> None:
    """A worker opens the marker after the verb has listed it, and before the verb's rename."""
    opened: list[str] = []

    def rename(source: str, target: str) -> None:
        if source.endswith(f"/pending/0/{FIRST}.pack") and not opened:
            opened.append(source)
            sliced(queue, member)
        System.rename(source, target)

    seam.rename = rename  # type: ignore[method-assign]
    if verb == "reprioritize":
        assert queue.reprioritize(7, id="1-4") == 4
        assert {row.priority for row in queue.tasks(id="1-4")} == {7}
    elif verb == "kill":
        assert queue.kill(id="1-4") == 4
    else:
        assert queue.kill(id=[1, 3, 4]) == 3
    assert opened
    sound(queue, **{"reprioritize": {"pending": 9}, "kill": {"pending": 5, "killed": 4}}.get(verb, {"pending": 6, "killed": 3}))


def test_a_waiting_pack_in_the_hands_of_another_verb_waits_still(queue: fsqdo.Queue, seam: System) -> None:
    """A kill that finds the pack taken waits for what becomes of it: it is not pending meanwhile, and not gone."""
    requirement = queue.add("true")
    waiting = queue.add_multiple(["true"] * 20, requires=[requirement])
    other, killed, seen = fsqdo.connect("Q"), list[int](), dict[str, Any]()

    def rename(source: str, target: str) -> None:
        System.rename(source, target)
        if f"@0w{requirement}/" in target and target.endswith(".pack"):
            seen.update(other.status()["ntasks"], waits_for=other.show(waiting[1])["waits_for"])
            seam.sleep = publish  # type: ignore[method-assign]
            killed.append(other.kill(id=waiting[1]))

    def publish(seconds: float) -> None:
        """While the other waits: the one who has the pack is declared dead, and it is put back."""
        del seam.sleep, seam.rename
        assert len(fsqdo.connect("Q").recover(force=True)) == 1

    seam.rename = rename  # type: ignore[method-assign]
    assert queue.kill(id=waiting[0]) == 1
    other.close()
    assert killed == [1]
    assert (seen["Waiting"], seen["Pending"], seen["waits_for"]) == (20, TASKS + 1, requirement)
    assert {task.id for task in queue.tasks(state="Killed")} == {waiting[0], waiting[1]}


@pytest.mark.parametrize("verb", ["kill", "reprioritize", "rerun"])
def test_a_pack_that_a_dead_one_was_opening_is_told_of(queue: fsqdo.Queue, seam: System, verb: str) -> None:
    """Its tasks are where they were, and no verb has them before it is recovered: that is no `0 tasks`."""
    if verb == "rerun":
        queue.kill(state="Pending")
    dead = Member(queue.store, slots=1)
    suffix, file = ("k", f"{FIRST}.r1") if verb == "rerun" else ("", FIRST)
    Path(queue.directory, "running", dead.name, f"{file}@0{suffix}").mkdir()
    Path(queue.directory, "killed/000000" if verb == "rerun" else "pending/0", f"{file}.pack").rename(
        Path(queue.directory, "running", dead.name, f"{file}@0{suffix}", f"{file}.pack")
    )
    act = {"kill": queue.kill, "rerun": queue.rerun, "reprioritize": lambda **ids: queue.reprioritize(5, **ids)}[verb]
    seam.sleep = lambda seconds: None  # type: ignore[method-assign]
    assert act(id="2-3,5", dry_run=True) == 3
    with pytest.raises(TaskError, match="opening the pack of task 2-3, and has not come to an end; 1 other task"):
        act(id="2-3,5")
    dead.abandon()
    queue.recover(force=True)
    assert act(id="2-3") == 2


def test_opening_a_pack_by_hand_leaves_its_tasks_in_the_priority_where_it_was(queue: fsqdo.Queue) -> None:
    Path(queue.directory, "pending/100").mkdir()
    Path(queue.directory, f"pending/0/{FIRST}.pack").rename(Path(queue.directory, f"pending/100/{FIRST}.pack"))
    assert queue.kill(id=2) == 1
    assert queue.store.names("pending/100") == [FIRST]
    sound(queue, pending=TASKS - 1, killed=1)


# ---------------------------------------------------------------- faults
def test_openings_undone_are_no_interruptions(queue: fsqdo.Queue, member: Member, seam: System) -> None:
    """None of the tasks has run: a disk that was full for an hour must not use up how often their worker may die."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(28, "full")

    claimer = Claimer(queue.store, member.name)
    seam.write = write  # type: ignore[method-assign]
    for _ in range(queue.store.settings.max_interruptions + 2):
        with pytest.raises(StorageError):
            claimer.claim()
    del seam.write
    names = [entry.name for entry in queue.store.entries(State.PENDING)]
    assert {name.i for name in names} == {0}
    sound(queue, pending=TASKS)
    assert queue.store.names(member.directory) == ["worker.json"]


@pytest.mark.parametrize("state", ["pending", "killed"])
@pytest.mark.parametrize("call", ["rename", "open"])
def test_a_verb_that_is_interrupted_gives_its_pack_back(queue: fsqdo.Queue, seam: System, state: str, call: str) -> None:
    """^C in an interpreter: the process goes on, and so nobody would ever recover what it has opened half."""
    if state == "killed":
        queue.kill(state="Pending")
    interrupt_once(seam, call, "@0")
    with pytest.raises(KeyboardInterrupt):
        queue.kill(id=2) if state == "pending" else queue.rerun(id=2)
    assert not list(Path(queue.directory, "running").rglob("*@*"))
    sound(queue, **{state: TASKS})


def test_an_opening_whose_publishing_fails_goes_back_at_once(queue: fsqdo.Queue, seam: System) -> None:
    """A process that takes single tasks never looks into its own directory: what it cannot publish must not stay there."""
    refused: list[str] = []

    def rename(source: str, target: str) -> None:
        if target == queue.store.path(f"pending/0/{FIRST}") and not refused:
            refused.append(target)
            raise OSError(13, "refused", source)
        System.rename(source, target)

    holder = Holder(queue.store)
    seam.rename = rename  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        holder.get(0.0)
    assert f"{FIRST}.r1.pack" in queue.store.names("pending/0")
    sound(queue, pending=TASKS)
    holder.close()


def take_two(world: World) -> None:
    with User(world) as user:
        user.run_one()
        user.run_one()
        user.q.close()


def pieces_are_gone(world: World) -> Iterator[str]:
    left = [str(path) for path in Path(world.queue_dir(), "pending").rglob("*.*")]
    if left:
        yield f"still in pending: {left}"


def test_every_fault_while_opening_in_slices(world_dir: Path) -> None:  # noqa: F811
    play(world_dir, with_packs, take_two, pieces_are_gone)


# ---------------------------------------------------------------- races
def opened_once(world: World) -> None:
    """The first pack has been opened in a slice."""
    with_packs(world)
    with User(world) as user:
        store = user.q.store
        member = Member(store, slots=1)
        open_pack(store, member.name, marker_in(store, "pending/0", f"{FIRST}.pack"), 0, 1)
        member.leave()


RACES: dict[str, tuple[Any, Any, Any]] = {
    "slice, slice": (with_packs, take(times=2), take(times=2)),
    "slice of a half, the same": (opened_once, take(times=3), take(times=3)),
    "slice, recover": (with_packs, take(times=2), recover_dead),
    "halves, reprioritize": (opened_once, take(times=2), use(lambda q: q.reprioritize(7))),
    "halves, kill": (opened_once, take(times=2), use(lambda q: q.kill(id="2-4"))),
}


@pytest.mark.parametrize("name", RACES)
def test_races(fast_dir: Path, name: str) -> None:
    race(fast_dir, *RACES[name])


def _work(directory: str, log: Path, number: int) -> None:
    queue = fsqdo.Queue(Store(directory))
    with open(log / str(number), "a", encoding="utf-8") as file:

        def run(task: int) -> None:
            file.write(f"{task}\n")
            file.flush()

        while queue.store.counts()[State.PENDING]:
            queue.do(func=run)
    queue.close()


def test_many_workers_run_every_task_once(fast_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsqdo.load.PACK_SIZE", 64)
    monkeypatch.setattr("fsqdo.packs.PACK_SIZE", 64)
    monkeypatch.setattr(claims, "_SLICE_LEAST", 2)
    store = create(str(fast_dir / "q"), Settings(pack=False))
    queue = fsqdo.Queue(store)
    queue.add_multiple(list(range(640)))
    queue.close()
    log = fast_dir / "log"
    log.mkdir()
    children = [fork(lambda n=n: _work(store.directory, log, n)) for n in range(8)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    assert recover(store) == []
    ran = sorted(int(line) for path in log.iterdir() for line in path.read_text().splitlines())
    assert ran == list(range(640))
    report = read_queue(store.directory)
    assert report.problems(range(1, 641), healed=True) == [] and report.counts()["succeeded"] == 640
    assert list(Path(store.directory, "pending").rglob("*.*")) == []


# ---------------------------------------------------------------- what this worker cannot run
def test_a_worker_for_which_nothing_fits_opens_one_slice(root: Path) -> None:
    """It judges the other packs as they are: to open them all would make a file of every task."""
    queue = fsqdo.create("Q")
    queue.add_multiple(["true"] * 41, cores=64)
    summary = queue.do(slots=1, cores=2, report=lambda text: None)
    assert summary.why.startswith("41 tasks are left to other workers (task 1: it needs 64 cores")
    loose = {path.name for path in Path(queue.directory, "pending").rglob("*.json")}
    assert loose == {"000000001.json", "000000041.json"}
    assert queue.status()["ntasks"]["Pending"] == 41


def test_what_fits_in_a_pack_is_found_behind_what_does_not(root: Path) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(fsqdo.NewTask("true", cores=1 if number % 7 == 6 else 64) for number in range(21))
    assert queue.do(slots=1, cores=2, report=lambda text: None).succeeded == 3


# ---------------------------------------------------------------- killed packs
def killed_files(queue: fsqdo.Queue) -> list[str]:
    return queue.store.names("killed/000000")


def test_packs_are_killed_and_rerun_as_they_are(queue: fsqdo.Queue, seam: System) -> None:
    opened: list[str] = []

    def opening(path: str, flags: int, *mode: int) -> int:
        opened.extend([path] if flags & os.O_CREAT and path.endswith(".json") else [])
        return System.open(path, flags, *mode)

    seam.open = opening  # type: ignore[method-assign]
    assert queue.kill(state="Pending") == TASKS
    assert killed_files(queue) == [f"{FIRST}.r1.pack", "000000005-000000008.r1.pack", "000000009.r1.json"]
    sound(queue, killed=TASKS)
    assert [task.id for task in queue.tasks(state="Killed")] == list(range(1, TASKS + 1))
    assert queue.show(2)["state"] == "Killed"
    assert queue.rerun(dry_run=True) == TASKS
    assert queue.rerun() == TASKS
    assert killed_files(queue) == [] and f"{FIRST}.r2.pack" in queue.store.names("pending/0")
    assert opened == []
    sound(queue, pending=TASKS)
    assert queue.do(func=lambda task: None).succeeded == TASKS


def test_a_part_of_a_killed_pack(queue: fsqdo.Queue) -> None:
    """It is opened where it is, and what is not meant stays killed."""
    queue.kill(state="Pending")
    assert queue.rerun(id="2-3") == 2
    assert killed_files(queue) == [f"{FIRST}.r1", "000000005-000000008.r1.pack", "000000009.r1.json"]
    sound(queue, killed=TASKS - 2, pending=2)
    assert sorted(task.id for task in queue.tasks(state="Killed")) == [1, 4, 5, 6, 7, 8, 9]
    assert queue.rerun() == TASKS - 2
    assert killed_files(queue) == []
    sound(queue, pending=TASKS)


def test_what_ran_again_meanwhile_is_not_set_back_twice(queue: fsqdo.Queue, seam: System) -> None:
    """A worker is done with what was set back first while a rerun of many is still at the rest."""
    ran: list[int] = []
    other = fsqdo.connect("Q")

    def rename(source: str, target: str) -> None:
        System.rename(source, target)
        if target.endswith("000000005-000000008.r2.pack"):  # the last pack; 9 is still to be moved
            del seam.rename
            other.do(func=ran.append, report=lambda text: None)

    queue.kill(state="Pending")
    seam.rename = rename  # type: ignore[method-assign]
    assert queue.rerun() == TASKS
    assert ran == list(range(TASKS - 1))
    sound(queue, succeeded=TASKS - 1, pending=1)


def test_what_waited_for_a_killed_pack(queue: fsqdo.Queue) -> None:
    after, requires = queue.add("true", after=[3]), queue.add("true", requires=[3])
    queue.kill(id="1-9")
    assert queue.task(after).state is State.PENDING
    assert [task.id for task in queue.tasks(blocked=True)] == [requires]
    queue.rerun(id=3)
    assert list(queue.tasks(blocked=True)) == []


def left_with_its_spent_marker(queue: fsqdo.Queue, seam: System) -> None:
    """Kill all; somebody opens a killed pack, publishes it, sets 2 and 3 back, and was not able to unlink the spent marker."""

    def unlink(path: str) -> None:
        if not path.endswith(f"{FIRST}.r1.pack"):
            System.unlink(path)

    queue.kill(state="Pending")
    seam.unlink = unlink  # type: ignore[method-assign]
    assert queue.rerun(id="2-3") == 2
    assert f"{FIRST}.r1.pack" in queue.store.names(f"killed/000000/{FIRST}.r1")
    del seam.unlink


def test_a_spent_marker_of_killed_tasks_says_nothing(queue: fsqdo.Queue, seam: System) -> None:
    """Else what was set back would count as ended, and what is to run after it would run before it."""
    left_with_its_spent_marker(queue, seam)
    sound(queue, killed=TASKS - 2, pending=2)
    assert list(ids_in(0, Finals(queue.store).bits(State.KILLED, 0))) == [1, 4, 5, 6, 7, 8, 9]
    assert queue.task(queue.add("true", after=[2])).state is State.WAITING


def killed_packs(world: World) -> None:
    with_packs(world)
    with User(world) as user:
        user.q.kill(state="Pending")
        user.q.close()


def rerun_some(world: World) -> None:
    with User(world) as user:
        user.q.rerun(id="2-6")
        user.q.close()


def kill_all(world: World) -> None:
    with User(world) as user:
        user.q.kill(state="Pending")
        user.q.close()


def test_every_fault_while_packs_are_killed(world_dir: Path) -> None:  # noqa: F811
    play(world_dir, with_packs, kill_all)


def test_every_fault_while_a_part_of_killed_packs_is_set_back(world_dir: Path) -> None:  # noqa: F811
    play(world_dir, killed_packs, rerun_some)


def waiting_pack(world: World) -> None:
    """Twenty tasks that wait for one, of which one is to run after the first of them."""
    with_one(world)
    with User(world) as user:
        world.told.ack(user.q.add_multiple(["x"] * 20, requires=[1]))
        world.told.ack([user.q.add("after", after=[2])])


KILLED_RACES: dict[str, tuple[Any, Any, Any]] = {
    "kill, claims": (with_packs, kill_all, take(times=2)),
    "parts of one": (killed_packs, use(lambda q: q.rerun(id="1-2")), use(lambda q: q.rerun(id="3-4"))),
    "a part, all": (killed_packs, use(lambda q: q.rerun(id="2")), use(lambda q: q.rerun())),
    "all, claims": (killed_packs, use(lambda q: q.rerun()), take(times=2)),
    "tidy, a part": (killed_packs, use(lambda q: q.tidy()), use(lambda q: q.rerun(id="1-2"))),
    "parts that wait": (waiting_pack, use(lambda q: q.kill(id=2)), use(lambda q: q.kill(id=3))),
    "a part that waits, finish": (waiting_pack, use(lambda q: q.kill(id=2)), take()),
}


@pytest.mark.parametrize("name", KILLED_RACES)
def test_races_of_killed_packs(fast_dir: Path, name: str) -> None:
    race(fast_dir, *KILLED_RACES[name])
