"""Races, forced: two actors whose calls to the operating system are interleaved at every place, and 32 processes at once.

`Interleaved` runs two actors in two threads of which only one has the baton at any time. It changes hands before a given
call of the first actor, and back before a given call of the second: every pair of places is tried (in CI an even selection of
the pairs; all of them with FSQDO_TEST_PROFILE=soak). No sleeps: a deadline only guards against a hang.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsqdo.errors import FsqdoError
from fsqdo.names import parse_task
from fsqdo.queue import Queue
from fsqdo.recovery import recover
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from fsqdo.store.system import System, fs
from tests.checker import read_queue
from tests.faults import SEAM, Told, World, quick, read_tree, write_tree
from tests.scenarios import (
    User,
    check,
    discard,
    graph,
    heal,
    new_queue,
    small_packs,
    started,
    unpublished,
    with_all_states,
    with_dead,
    with_packs,
    with_three,
)

HANG_S = 60.0
CONFLICTS = frozenset({"rename", "mkdir", "rmdir", "unlink", "listdir", "open"})
PAIRS = 120
Actor = Callable[[World], None]


class Interleaved:
    """Two actors, of which the first is stopped before its call `at`, and the second before its call `back`."""

    def __init__(self, first: Callable[[], None], second: Callable[[], None], at: int, back: int) -> None:
        self._bodies = (first, second)
        self._switch_at = (at, back)
        self.counts = [0, 0]
        self._turn = 0
        self._ended = [False, False]
        self._switched = [False, False]
        self._baton = threading.Condition()
        self._who = threading.local()
        self.problems: list[str] = []

    def run(self) -> None:
        """Run both to their ends."""
        for name in SEAM:
            setattr(fs, name, self._wrapped(name, getattr(System, name)))
        threads = [threading.Thread(target=self._actor, args=(number,)) for number in (0, 1)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(HANG_S)
                if thread.is_alive():
                    self.problems.append("an actor hangs")
        finally:
            fs.__dict__.clear()

    def _actor(self, number: int) -> None:
        self._who.number = number
        self._wait_for_turn(number)
        try:
            self._bodies[number]()
        except FsqdoError:
            pass
        except Exception as error:
            self.problems.append(f"actor {number} raised {error!r}")
        finally:
            with self._baton:
                self._ended[number] = True
                self._turn = 1 - number
                self._baton.notify_all()

    def _wait_for_turn(self, number: int) -> None:
        with self._baton:
            self._baton.wait_for(lambda: self._turn == number or self._ended[1 - number], HANG_S)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = getattr(self._who, "number", None)
            if name == "sleep":
                return None
            if number is not None and name in CONFLICTS:
                self.counts[number] += 1
                if (
                    self.counts[number] == self._switch_at[number]
                    and not self._switched[number]
                    and not self._ended[1 - number]
                ):
                    self._switched[number] = True
                    with self._baton:
                        self._turn = 1 - number
                        self._baton.notify_all()
                    self._wait_for_turn(number)
            return real(*args, **kwargs)

        return call


def race(
    directory: Path, prepare: Actor, first: Actor, second: Actor, more: Callable[[World], Iterator[str]] | None = None
) -> None:
    """Interleave two actors at every pair of places; heal; judge."""
    fresh = World(f"{directory}/fresh", Told(f"{directory}/fresh.told"))
    os.mkdir(fresh.root)
    with quick():
        prepare(fresh)
    tree = read_tree(directory / "fresh")
    told = Path(fresh.told.path).read_bytes()
    lengths = [play_once(directory, tree, told, first, second, 0, 0, more)[side] for side in (0, 1)]
    wrong: list[str] = []
    for at, back in pairs(*lengths):
        result = play_once(directory, tree, told, first, second, at, back, more)
        if result[2]:
            wrong.append(
                f"- first stopped before its call {at}, second before its call {back}:\n    " + "\n    ".join(result[2])
            )
    assert not wrong, f"{len(wrong)} interleavings went wrong:\n" + "\n".join(wrong[:8])


def pairs(first: int, second: int) -> list[tuple[int, int]]:
    """The places at which the baton changes hands; back = 0: the second is not stopped."""
    every = [(at, back) for at in range(1, first + 1) for back in range(second + 1)]
    if os.environ.get("FSQDO_TEST_PROFILE") == "soak" or len(every) <= PAIRS:
        return every
    # All places of the first with the second undivided, and an even choice of the rest.
    whole = [pair for pair in every if pair[1] == 0]
    rest = [pair for pair in every if pair[1] != 0]
    return whole + random.Random(7).sample(rest, max(0, PAIRS - len(whole)))


def play_once(
    directory: Path,
    tree: Any,
    told: bytes,
    first: Actor,
    second: Actor,
    at: int,
    back: int,
    more: Callable[[World], Iterator[str]] | None,
) -> tuple[int, int, list[str]]:
    """One interleaving; the number of calls of each actor, and what is wrong afterwards."""
    import shutil

    work = directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    write_tree(tree, work)
    Path(f"{directory}/work.told").write_bytes(told)
    world = World(str(work), Told(f"{directory}/work.told"), extra={"zombies": True})
    both = Interleaved(lambda: first(world), lambda: second(world), at, back)
    both.run()
    with quick():
        heal(world)
    found = [*both.problems, *check(world), *(more(world) if more else ())]
    return both.counts[0], both.counts[1], found


# ---------------------------------------------------------------- actors
def take(state: str = "Succeeded", times: int = 1, close: bool = True) -> Actor:
    """Take tasks and end them so."""

    def actor(world: World) -> None:
        with User(world) as user:
            for _ in range(times):
                user.run_one(state)
            if close:
                user.q.close()

    return actor


def use(act: Callable[[Queue], object]) -> Actor:
    """Use one verb."""

    def actor(world: World) -> None:
        with User(world) as user:
            act(user.q)
            user.q.close()

    return actor


force_recover = use(lambda q: q.recover(force=True))
promote = use(lambda q: q.promote())


def recover_dead(world: World) -> None:
    """Recover, as any user would; the dead one is proven so by its host being this one."""
    recover(Store(world.queue_dir()), force=True)


def add(**options: Any) -> Actor:
    def actor(world: World) -> None:
        with User(world) as user:
            world.told.ack([user.q.add("new", **options)])

    return actor


def add_many(**options: Any) -> Actor:
    def actor(world: World) -> None:
        with User(world) as user:
            world.told.ack(user.q.add_multiple(["new"] * 5, **options))

    return actor


def with_one(world: World) -> None:
    with new_queue(world) as user:
        world.told.ack([user.q.add("a")])


def with_chain(world: World) -> None:
    """2 and a pack wait for 1; 3 for 1 and 2."""
    with new_queue(world) as user:
        world.told.ack([user.q.add("a"), user.q.add("b", requires=1), user.q.add("c", requires=[1, 2])])
        world.told.ack(user.q.add_multiple(["x"] * 4, requires=1))


def with_finished_requirement(world: World) -> None:
    """1 was moved to succeeded/ by hand, so that nobody has looked for what waits for it."""
    with_chain(world)
    base = Path(world.queue_dir())
    (base / "succeeded/000000").mkdir()
    (base / "pending/0/000000/000000001.json").rename(base / "succeeded/000000/000000001@hand.json")


RACES: dict[str, tuple[Actor, Actor, Actor]] = {
    "claim, claim": (with_one, take(), take()),
    "claim, claim of three": (with_three, take(times=2), take(times=2)),
    "claim, recover": (with_three, take(times=2), force_recover),
    "finish, recover": (with_one, take(), recover_dead),
    "fail, recover": (with_one, take("Failed"), recover_dead),
    "give back, recover": (with_one, take("Pending"), recover_dead),
    "give back, claim": (with_one, take("Pending"), take()),
    "leave, recover": (with_three, use(lambda q: (q.get(), q.get())), recover_dead),
    "recover, recover": (with_dead, recover_dead, recover_dead),
    "recover, claim": (with_dead, recover_dead, take(times=2)),
    "open, open": (with_packs, take(), take()),
    "open, recover": (with_packs, take(), recover_dead),
    "open, reprioritize": (with_packs, take(), use(lambda q: q.reprioritize(7))),
    "open, kill all": (with_packs, take(), use(lambda q: q.kill(id="1-4"))),
    "open waiting, promote": (with_all_states, use(lambda q: q.kill(id=[14])), use(lambda q: (q.retry(), q.promote()))),
    "open, kill a part": (with_packs, take(), use(lambda q: q.kill(id=[2, 3]))),
    "kill, claim": (with_three, use(lambda q: q.kill(id=[1, 2, 3])), take(times=2)),
    "kill, kill": (with_three, use(lambda q: q.kill(id=[1, 2])), use(lambda q: q.kill(id=[2, 3]))),
    "kill, finish with dependents": (with_chain, use(lambda q: q.kill(id=[2])), take()),
    "reprioritize, claim": (with_three, use(lambda q: q.reprioritize(9)), take(times=2)),
    "reprioritize, reprioritize": (with_three, use(lambda q: q.reprioritize(9)), use(lambda q: q.reprioritize(-9))),
    "promote, finish": (with_chain, promote, take()),
    "promote, promote": (with_finished_requirement, promote, promote),
    "promote, add": (with_finished_requirement, promote, add(requires=[1, 2])),
    "finish, add": (with_one, take(), add(requires=1)),
    "finish, load": (with_one, take(), add_many(requires=1)),
    "fail, add after": (with_one, take("Failed"), add(after=1)),
    "add, claim": (with_one, add(), take(times=2)),
    "add, add": (with_one, add(), add(priority=4)),
    "load, load": (with_one, add_many(), add_many(priority=4)),
    "load, roll forward": (with_one, add_many(), promote),
    "roll forward, roll forward": (unpublished(graph), promote, promote),
    "roll forward, claim": (unpublished(lambda: ["x"] * 9), promote, take(times=2)),
    "retry, retry": (with_all_states, use(lambda q: q.retry()), use(lambda q: q.retry())),
    "retry, promote": (with_all_states, use(lambda q: q.retry()), promote),
    "rerun, claim": (with_all_states, use(lambda q: q.rerun()), take(times=2)),
    "rerun, rerun": (with_all_states, use(lambda q: q.rerun()), use(lambda q: q.rerun())),
    "rerun, kill": (with_all_states, use(lambda q: q.rerun()), use(lambda q: q.kill(state=["Pending", "Waiting"]))),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_packs(monkeypatch)


@pytest.mark.parametrize("name", RACES)
def test_races(fast_dir: Path, name: str) -> None:
    race(fast_dir, *RACES[name])


def test_a_claim_is_won_once(fast_dir: Path) -> None:
    """However two claims of one task are interleaved, one process gets it and the other gets nothing."""
    won: list[int] = []

    def actor(world: World) -> None:
        with User(world) as user:
            task = user.q.get()
            if task is not None:
                won.append(task.id)
                started(world, str(task.entry.name))

    def once(world: World) -> Iterator[str]:
        if won != [1]:
            yield f"taken: {won}"
        won.clear()

    race(fast_dir, with_one, actor, actor, once)


def test_a_fenced_finish_changes_nothing(fast_dir: Path) -> None:
    """A task is recovered and done by another while its first worker still finishes it: one of the two outcomes counts."""
    said: list[str] = []

    def late(world: World) -> None:
        with User(world) as user:
            task = user.q.get()
            if task is None:
                return
            started(world, str(task.entry.name))
            try:
                task.set_state("Failed")
                said.append("late")
            except FsqdoError:
                said.append("refused")

    def other(world: World) -> None:
        recover_dead(world)
        with User(world) as user:
            if user.run_one() is not None:
                said.append("other")

    def once(world: World) -> Iterator[str]:
        state = read_queue(world.queue_dir()).state(1)
        if "late" in said and state != "failed":
            yield f"the first worker was told that the task failed, and it {state}"
        if "other" in said and state != "succeeded":
            yield f"the second worker was told that the task succeeded, and it {state}"
        if "late" in said and "other" in said:
            yield f"both were told that their outcome counts: {said}"
        said.clear()

    race(fast_dir, with_one, late, other, once)


def test_the_interleavings_find_mistakes(fast_dir: Path) -> None:
    """Two claims that look first and then copy are found out."""

    def careless(world: World) -> None:
        store = Store(world.queue_dir())
        with User(world) as user:
            source = "pending/0/000000/000000001.json"
            if "000000001.json" in (store.ls("pending/0/000000") or ()):
                content = store.read(source) or b""
                store.unlink(source)
                store.write(f"succeeded/000000/000000001@{id(user)}.json", content, make=True)

    with pytest.raises(AssertionError, match="in 2 places"):
        race(fast_dir, with_one, careless, careless)


# ---------------------------------------------------------------- 32 processes
def stress_worker(directory: str, number: int, log: str) -> None:
    """Take tasks until there are none; note each start in a file of its own before, and each end after."""
    random.seed(number)
    fd = os.open(f"{log}/{number}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    queue = Queue(Store(directory))
    while True:
        task = queue.get()
        if task is None:
            if queue.store.counts()[task_state_pending()] == 0:
                break
            continue
        key = str(task.entry.name)
        os.write(fd, f"start {key}\n".encode())
        dice = random.random()
        if dice < 0.01:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            task.set_state("Pending" if dice < 0.02 else "Succeeded")
            os.write(fd, f"end {key}\n".encode())
        except FsqdoError:
            os.write(fd, f"fenced {key}\n".encode())
    queue.close()


def task_state_pending() -> Any:
    from fsqdo.task import State

    return State.PENDING


def test_stress_with_32_processes(fast_dir: Path) -> None:
    """32 processes on 3,000 tasks, loose and packed, some killed in the middle, with recoveries all the time.

    Judged twice: by the tree (checker), and by what the processes noted of their starts and ends.
    """
    tasks = 3000
    store = create(str(fast_dir / "q"), Settings(max_interruptions=1000))
    queue = Queue(store)
    for low in range(0, tasks, 600):
        queue.add_multiple([f"t{low + n}" for n in range(600)], priority=low % 7)
    discard(queue)
    log = fast_dir / "log"
    log.mkdir()
    children = {fork(lambda n=n: stress_worker(store.directory, n, str(log))): n for n in range(32)}
    killed = 0
    while children:
        pid, status = os.wait()
        number = children.pop(pid)
        if os.WIFSIGNALED(status):
            killed += 1
            recover(store)
            children[fork(lambda n=number + 100 * killed: stress_worker(store.directory, n, str(log)))] = number
        else:
            assert os.waitstatus_to_exitcode(status) == 0
    assert killed > 5
    recover(store)
    queue = Queue(store)
    while (task := queue.get()) is not None:
        (log / "last").open("a").write(f"start {task.entry.name}\nend {task.entry.name}\n")
        task.set_state("Succeeded")
    queue.close()

    report = read_queue(store.directory)
    assert report.problems(range(1, tasks + 1), healed=True) == []
    assert report.counts()["succeeded"] == tasks
    lines = [line for path in log.iterdir() for line in path.read_text().splitlines()]
    starts = [line.partition(" ")[2] for line in lines if line.startswith("start ")]
    assert len(starts) == len(set(starts)), "a name was claimed twice"
    assert not [line for line in lines if line.startswith("fenced")], "nobody alive was declared dead"
    # One start for each task and one more for each interruption: of a killed process, or given back.
    finished = [parse_task(f"{place[0].key}.json") for place in report.places.values()]
    interruptions = sum(name.attempt - 1 for name in finished if name is not None)
    assert len(starts) == tasks + interruptions
    assert interruptions >= killed


def fork(body: Callable[[], None]) -> int:
    """Run body in a forked process; its pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        body()
        status = 0
    finally:
        os._exit(status)
