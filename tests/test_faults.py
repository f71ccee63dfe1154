"""Every fault at every call of every move: afterwards, healed, no task is lost, none is twice, none runs again that was done.

A scenario is run once for each of its calls to the operating system and each way in which that call can go wrong: an error,
done but answered with an error, half a write, a listing without names, a full disk or a dead server from then on, the
process killed before or after. Then the tree is healed as any user would (`recover --force`, `promote`, run what is
pending), and judged by `checker`, which shares no code with fsqdo.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsqdo import upkeep
from fsqdo.errors import FsqdoError
from fsqdo.queue import Queue
from fsqdo.queue import create as create_queue
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from tests.checker import read_queue
from tests.faults import Call, Injector, Mode, World, every_fault
from tests.scenarios import (
    User,
    check,
    graph,
    heal,
    new_queue,
    small_packs,
    started,
    unpublished,
    with_all_states,
    with_dead,
    with_ended,
    with_packs,
    with_three,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of four tasks."""
    small_packs(monkeypatch)


@pytest.fixture
def world_dir(fast_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scenarios are played; FSQDO_DIR points to the root that each of them uses."""
    monkeypatch.setenv("FSQDO_DIR", str(fast_dir / "work"))
    return fast_dir


def play(
    world_dir: Path,
    prepare: Callable[[World], None],
    scenario: Callable[[World], None],
    more: Callable[[World], Iterator[str]] = lambda world: iter(()),
    modes: Callable[[Call, Mode], bool] = lambda call, mode: True,
) -> None:
    """Play a scenario with every fault; fail with what went wrong."""

    def check_all(world: World) -> Iterator[str]:
        yield from check(world)
        yield from more(world)

    outcome = every_fault(world_dir, prepare, scenario, heal, check_all, modes)
    assert not outcome.problems, str(outcome)
    assert outcome.calls > 1


# ---------------------------------------------------------------- adding
def add(world: World) -> None:
    with User(world) as user:
        world.told.ack([user.q.add("d")])
        world.told.ack([user.q.add({"x": 1}, priority=-4)])


def test_add(world_dir: Path) -> None:
    play(world_dir, with_three, add)


def test_add_paranoid(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with_three(world, durability="paranoid")

    play(world_dir, prepare, add, modes=lambda call, mode: mode.kind in ("fail", "lie", "die after"))


def test_add_with_requirements(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            world.told.ack([user.q.add("e", requires=[1, 3])])
            world.told.ack([user.q.add("f", requires=1)])
            world.told.ack([user.q.add("g", after=2)])
            world.told.ack([user.q.add("h", requires=2)])

    play(world_dir, with_ended, scenario)


def all_or_nothing(count: int, before: int) -> Callable[[World], Iterator[str]]:
    """A load of so many tasks in a queue that had so many: all or none of them are there; all, if it was acknowledged."""

    def more(world: World) -> Iterator[str]:
        found = len(read_queue(world.queue_dir()).places) - before
        if found not in (0, count):
            yield f"{found} of the {count} tasks of the load are there"

    return more


def test_load_loose(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            world.told.ack(user.q.add_multiple(["d", {"e": 1}, "f"]))

    play(world_dir, with_three, scenario, all_or_nothing(3, 3))


def test_load_packed(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            world.told.ack(user.q.add_multiple(["x"] * 9))

    play(world_dir, with_three, scenario, all_or_nothing(9, 3))


def test_load_waiting(world_dir: Path) -> None:
    """One requirement that is open, one that is met, one that failed."""

    def scenario(world: World) -> None:
        with User(world) as user:
            world.told.ack(user.q.add_multiple(["x"] * 5, requires=[1, 3]))

    play(world_dir, with_ended, scenario, all_or_nothing(5, 4))


def test_load_graph(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            world.told.ack(user.q.add_multiple(graph()))

    play(world_dir, with_ended, scenario, all_or_nothing(5, 4))


@pytest.mark.parametrize("tasks", [graph, lambda: ["x"] * 9], ids=["graph", "packed"])
def test_roll_forward(world_dir: Path, tasks: Callable[[], list[Any]]) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            user.q.promote()

    play(world_dir, unpublished(tasks), scenario)


# ---------------------------------------------------------------- working
def work(*states: str, close: bool = True) -> Callable[[World], None]:
    """Take a task for each of these states."""

    def scenario(world: World) -> None:
        with User(world) as user:
            for state in states:
                user.run_one(state)
            if close:
                user.q.close()

    return scenario


def test_open_and_claim(world_dir: Path) -> None:
    play(world_dir, with_packs, work("Succeeded", "Succeeded"))


def test_open_all_packs(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            while user.run_one() is not None:
                pass
            user.q.close()

    play(world_dir, with_packs, scenario, modes=lambda call, mode: mode.kind in ("lie", "die before", "die after", "blind"))


def test_claim_and_succeed(world_dir: Path) -> None:
    play(world_dir, with_three, work("Succeeded", "Succeeded", "Succeeded", "Succeeded"))


def test_claim_and_fail(world_dir: Path) -> None:
    def more(world: World) -> Iterator[str]:
        report = read_queue(world.queue_dir())
        full = world.error is None and world.extra["mode"].errno in (errno.ENOSPC, errno.EDQUOT)
        for task_id in () if full else report.ids("failed"):  # a story that does not fit on a full disk is left out
            if not os.path.exists(world.queue_dir() + "/" + report.places[task_id][0].path.replace(".json", ".txt")):
                yield f"failed task {task_id} has no story"

    play(world_dir, with_three, work("Failed", "Killed"), more)


def test_claim_and_retry(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with_three(world, max_retries=2)

    play(world_dir, prepare, work("Failed", "Failed", "Failed"))


def test_claim_and_retry_later(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with_three(world, max_retries=1, retry_delay_s=3600.0)

    play(world_dir, prepare, work("Failed", "Failed"))


def test_claim_and_give_back(world_dir: Path) -> None:
    play(world_dir, with_three, work("Pending", "Pending"))


def test_leave_with_a_task_in_hand(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            user.q.get()
            user.q.get()
            user.q.close()

    play(world_dir, with_three, scenario)


def test_paranoid_work(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with_three(world, durability="paranoid")

    play(
        world_dir,
        prepare,
        work("Succeeded", "Failed"),
        modes=lambda call, mode: mode.kind in ("lie", "die before", "die after"),
    )


def test_finish_with_dependents(world_dir: Path) -> None:
    """1 is required by a loose task, by a pack, and by one that requires another, too."""

    def prepare(world: World) -> None:
        with new_queue(world) as user:
            world.told.ack([user.q.add("a", priority=1), user.q.add("b")])
            world.told.ack([user.q.add("c", requires=1), user.q.add("d", requires=[1, 2]), user.q.add("e", after=1)])
            world.told.ack(user.q.add_multiple(["x"] * 5, requires=1))

    play(world_dir, prepare, work("Succeeded"))


def test_fail_with_dependents(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with new_queue(world) as user:
            world.told.ack([user.q.add("a", priority=1), user.q.add("b", after=1), user.q.add("c", requires=1)])

    play(world_dir, prepare, work("Failed"))


def test_promote_by_hand(world_dir: Path) -> None:
    """Somebody moved the requirement to succeeded/ by hand, so nobody looked; and a retry is due."""

    def prepare(world: World) -> None:
        with new_queue(world) as user:
            world.told.ack([user.q.add("a"), user.q.add("b", requires=1), user.q.add("c", requires=[1, 2]), user.q.add("d")])
            world.told.ack(user.q.add_multiple(["x"] * 4, requires=1))
        base = Path(world.queue_dir())
        (base / "succeeded/000000").mkdir()
        (base / "pending/0/000000/000000001.json").rename(base / "succeeded/000000/000000001@hand.json")
        (base / "waiting/until/1000000000").mkdir(parents=True)
        (base / "pending/0/000000/000000004.json").rename(base / "waiting/until/1000000000/000000004.f1.json")

    def scenario(world: World) -> None:
        with User(world) as user:
            user.q.promote()

    play(world_dir, prepare, scenario)


# ---------------------------------------------------------------- the dead
def not_killed_in_vain(world: World) -> Iterator[str]:
    report = read_queue(world.queue_dir())
    if report.state(6) != "killed":
        yield f"task 6 was to be killed and is {report.state(6)}"


def recover(world: World) -> None:
    with User(world) as user:
        user.q.recover(force=True)


def test_recover(world_dir: Path) -> None:
    play(world_dir, with_dead, recover, not_killed_in_vain)


def test_recover_what_a_recovery_left(world_dir: Path) -> None:
    """The dead worker's directory is under recovering/ already, and under running/ again: the dead one came back."""

    def prepare(world: World) -> None:
        with_dead(world)
        base = Path(world.queue_dir())
        (base / "running/host-1-dead").rename(base / "recovering/host-1-dead")
        (base / "running/host-1-dead").mkdir()
        (base / "pending/0/000000/000000007.json").rename(base / "running/host-1-dead/000000007.json")
        (base / "running/host-2-empty").mkdir()

    play(
        world_dir,
        prepare,
        recover,
        not_killed_in_vain,
        modes=lambda call, mode: mode.kind in ("fail", "lie", "die before", "die after"),
    )


def torn_claim(world: World) -> None:
    """GlusterFS, a client killed in a rename: the task is under both names, the old one and that of the dead worker."""
    with_three(world)
    base = Path(world.queue_dir())
    (base / "running/host-1-dead").mkdir()
    os.link(base / "pending/0/000000/000000001.json", base / "running/host-1-dead/000000001.json")


def torn_claims(world: World) -> None:
    """The same, and the second holder is dead, too."""
    torn_claim(world)
    base = Path(world.queue_dir())
    (base / "running/host-2-dead").mkdir()
    (base / "pending/0/000000/000000001.json").rename(base / "running/host-2-dead/000000001.json")


def torn_finish(world: World) -> None:
    """Killed in the rename of a finish: in succeeded/ and still with its worker; the journal knows."""
    with_three(world)
    base = Path(world.queue_dir())
    (base / "running/host-1-dead").mkdir()
    (base / "succeeded/000000").mkdir()
    (base / "pending/0/000000/000000001.json").rename(base / "running/host-1-dead/000000001.json")
    to = "succeeded/000000/000000001@host-1-dead.json"
    os.link(base / "running/host-1-dead/000000001.json", base / to)
    line = json.dumps({"name": "000000001", "outcome": "succeeded", "to": to}, separators=(",", ":"))
    (base / "outcomes/host-1-dead.jsonl").write_text(line + "\n")
    world.told.note("1 is Succeeded")


def torn_publish(world: World) -> None:
    """Killed in a rename of publishing: a marker and a loose task are in place and still under publish/."""
    unpublished(lambda: ["x"] * 9)(world)
    base = Path(world.queue_dir())
    publish = base / "loads/000000005-000000013/publish"
    for path in sorted(publish.rglob("*.pack")):
        target = base / path.relative_to(publish)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)


@pytest.mark.parametrize("torn", [torn_claim, torn_claims, torn_finish, torn_publish])
def test_files_under_two_names(world_dir: Path, torn: Callable[[World], None]) -> None:
    play(world_dir, torn, recover)


def test_recover_too_often(world_dir: Path) -> None:
    def prepare(world: World) -> None:
        with_three(world, max_interruptions=1)
        base = Path(world.queue_dir())
        (base / "running/host-1-dead").mkdir()
        (base / "pending/0/000000/000000001.json").rename(base / "running/host-1-dead/000000001.i1.json")

    def more(world: World) -> Iterator[str]:
        state = read_queue(world.queue_dir()).state(1)
        if state != "failed":
            yield f"the task that kills its workers is {state}"

    play(world_dir, prepare, recover, more)


def test_finish_of_a_fenced_worker(world_dir: Path) -> None:
    """Declared dead while it works, it sets a state: that changes nothing."""

    def scenario(world: World) -> None:
        with User(world) as late, User(world) as other:
            task = late.q.get()
            if task is None:
                return
            started(world, str(task.entry.name))
            other.q.recover(force=True)
            try:
                task.set_state("Failed")
            except FsqdoError:
                pass
            other.run_one()

    play(world_dir, with_three, scenario)


# ---------------------------------------------------------------- verbs on many tasks
def verb(act: Callable[[Queue], object]) -> Callable[[World], None]:
    """A process that uses one verb and ends in good order."""

    def scenario(world: World) -> None:
        with User(world) as user:
            act(user.q)
            user.q.close()

    return scenario


VERBS: dict[str, Callable[[Queue], object]] = {
    "retry": lambda q: q.retry(),
    "retry_killed": lambda q: q.retry(state=["Failed", "Killed"]),
    "rerun": lambda q: q.rerun(),
    "rerun_some": lambda q: q.rerun(id=[1, 3]),
    "reprioritize": lambda q: q.reprioritize(50),
    "reprioritize_part": lambda q: q.reprioritize(-50, id="9-10"),
    "kill_part": lambda q: q.kill(id=[6, 9, 10]),
    "kill_pending": lambda q: q.kill(state="Pending"),
    "kill_waiting": lambda q: q.kill(state="Waiting"),
}


@pytest.mark.parametrize("name", VERBS)
def test_verbs(world_dir: Path, name: str) -> None:
    play(world_dir, with_all_states, verb(VERBS[name]))


def test_kill_is_kept(world_dir: Path) -> None:
    """What `kill` has said is killed does not run afterwards, running or not."""

    def scenario(world: World) -> None:
        with User(world) as user, User(world) as other:
            task = other.q.get()
            if task is not None:
                started(world, str(task.entry.name))
            if user.q.kill(id=[1, 2, 3]) == 3:
                world.told.note("killed")

    def more(world: World) -> Iterator[str]:
        if "killed" in world.told.notes and read_queue(world.queue_dir()).counts()["killed"] != 3:
            yield f"three tasks were killed, and now: {read_queue(world.queue_dir()).counts()}"

    play(world_dir, with_three, scenario, more)


def test_configure_pause_resume(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            user.q.configure(max_retries=3)
            user.q.pause()
            user.q.resume()

    def more(world: World) -> Iterator[str]:
        with open(world.queue_dir() + "/queue.json") as file:
            if json.load(file)["max_retries"] not in (0, 3):
                yield "settings that nobody made"

    def unpaused(world: World) -> None:
        Path(world.queue_dir(), "PAUSED").unlink(missing_ok=True)
        heal(world)

    outcome = every_fault(world_dir, with_three, scenario, unpaused, lambda world: [*check(world), *more(world)])
    assert not outcome.problems, str(outcome)


# ---------------------------------------------------------------- queues as a whole
def test_create(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        create_queue("q", max_retries=1)
        world.told.note("made")

    def heal_create(world: World) -> None:
        if not os.path.exists(world.queue_dir()):
            if "made" in world.told.notes:
                world.told.note("WRONG: the queue was made and is not there")
            create_queue("q", max_retries=1)
        heal(world)

    outcome = every_fault(world_dir, lambda world: None, scenario, heal_create, check)
    assert not outcome.problems, str(outcome)


def test_delete(world_dir: Path) -> None:
    def scenario(world: World) -> None:
        with User(world) as user:
            user.q.delete()
        world.told.note("deleted")

    def heal_delete(world: World) -> None:
        if os.path.exists(world.queue_dir()):
            heal(world)

    def check_delete(world: World) -> Iterator[str]:
        if os.path.exists(world.queue_dir()):
            if "deleted" in world.told.notes:
                yield "the queue was deleted and is there"
            yield from check(world)

    outcome = every_fault(world_dir, with_three, scenario, heal_delete, check_delete)
    assert not outcome.problems, str(outcome)


# ---------------------------------------------------------------- the worker itself
def test_worker(world_dir: Path) -> None:
    """The real loop over a pack, a failing task, a retry, and tasks that wait for others."""

    def prepare(world: World) -> None:
        with new_queue(world, max_retries=1) as user:
            world.told.ack(user.q.add_multiple(["x"] * 5))
            world.told.ack(
                [
                    user.q.add("fail", max_retries=0),
                    user.q.add("fail"),
                    user.q.add("y", requires=[1, 5]),
                    user.q.add("z", after=6),
                ]
            )

    def scenario(world: World) -> None:
        def act(task: object) -> None:
            if task == "fail":
                raise ValueError(task)

        with User(world) as user:
            user.q.do(act, report=lambda text: None, timeout=0)

    def modes(call: Call, mode: Mode) -> bool:
        return mode.kind in ("lie", "die before", "die after", "blind", "torn", "short") or (
            mode.kind == "fail" and call.n % 3 == 0
        )

    play(world_dir, prepare, scenario, modes=modes)


def test_the_pass(world_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What idle workers do: roll forward, promote, recover, all at once."""

    def prepare(world: World) -> None:
        unpublished(graph)(world)
        base = Path(world.queue_dir())
        (base / "recovering/host-1-dead").mkdir()
        (base / "pending/0/000000/000000003.json").rename(base / "recovering/host-1-dead/000000003.json")

    def scenario(world: World) -> None:
        with User(world) as user:
            upkeep.Passes(user.q.store).run()

    play(world_dir, prepare, scenario)


def test_the_toolkit_finds_mistakes(world_dir: Path) -> None:
    """A finish that unlinks and writes anew, instead of one rename, is found by the suite."""

    def scenario(world: World) -> None:
        store = Store(world.queue_dir())
        content = store.read("pending/0/000000/000000001.json") or b""
        store.unlink("pending/0/000000/000000001.json")
        store.write("succeeded/000000/000000001@x.json", content, make=True)

    outcome = every_fault(world_dir, with_three, scenario, heal, check)
    assert any("task 1 is lost" in problem for problem in outcome.problems)
    assert any("die" in problem for problem in outcome.problems)


def test_the_injector_counts_every_call(world_dir: Path) -> None:
    world = World(str(world_dir / "work"), None)  # type: ignore[arg-type]
    with Injector().installed() as injector:
        create(world.queue_dir(), Settings())
    assert {"mkdir", "rename", "open", "write", "fsync", "close", "listdir"} <= {call.name for call in injector.calls}
