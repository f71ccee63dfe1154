"""Whatever people do with a queue, in whatever order: every task is in exactly one state, and none is lost or run too early."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fsqdo.errors import FsqdoError, InputError, TaskError, TaskNotFoundError
from fsqdo.names import parse_task
from fsqdo.queue import Queue
from fsqdo.rows import Task
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from fsqdo.store.system import fs
from tests.checker import Report, read_queue
from tests.conftest import memory_dir
from tests.faults import Told, World
from tests.scenarios import check, discard, heal, later, small_packs

STATES = ["Waiting", "Pending", "Running", "Succeeded", "Failed", "Killed"]
some = st.lists(st.integers(0, 60), max_size=4)


class QueueMachine(RuleBasedStateMachine):
    """A queue with real files, three users, and people with `mv`."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        small_packs(self.patch)
        fs.sleep = lambda seconds: None  # type: ignore[method-assign]
        self.base = Path(tempfile.mkdtemp(prefix="fsqdo-test-", dir=memory_dir()))
        self.world = World(str(self.base), Told(f"{self.base}.told"))
        self.directory = self.world.queue_dir()
        self.queues: list[Queue] = []
        self.ids: set[int] = set()
        self.requires: dict[int, set[int]] = {}
        self.succeeded_once: set[int] = set()
        self.let_through: set[int] = set()
        self.held: list[tuple[Queue, Task]] = []
        self.stale: list[tuple[Queue, Task]] = []
        self.paused = False

    @initialize(max_retries=st.integers(0, 2), delay_s=st.sampled_from([0.0, 3600.0]))
    def make(self, max_retries: int, delay_s: float) -> None:
        create(self.directory, Settings(max_retries=max_retries, retry_delay_s=delay_s, max_interruptions=50))
        self.queues = [Queue(Store(self.directory)) for _ in range(3)]

    def teardown(self) -> None:
        try:
            if self.queues:
                for queue in self.queues:
                    discard(queue)
                Path(self.directory, "PAUSED").unlink(missing_ok=True)
                self.world.told.ack(self.ids)
                self.world.extra["zombies"] = True
                heal(self.world)
                assert list(check(self.world)) == []
        finally:
            self.patch.undo()
            fs.__dict__.clear()
            shutil.rmtree(self.base, ignore_errors=True)
            Path(self.world.told.path).unlink(missing_ok=True)

    # ------------------------------------------------------------ helpers
    def user(self, number: int) -> Queue:
        return self.queues[number % 3]

    def known(self, wanted: list[int]) -> list[int]:
        """Some ids that there are."""
        there = sorted(self.ids)
        return sorted({there[n % len(there)] for n in wanted}) if there else []

    def report(self) -> Report:
        return read_queue(self.directory)

    def added(self, ids: list[int], requires: list[int]) -> None:
        assert not self.ids & set(ids), "an id was given twice"
        self.ids |= set(ids)
        for task_id in ids:
            self.requires[task_id] = set(requires)

    # ------------------------------------------------------------ rules
    @rule(user=st.integers(0, 2), priority=st.integers(-2, 2), wanted=some)
    def add(self, user: int, priority: int, wanted: list[int]) -> None:
        requires = self.known(wanted)
        self.added([self.user(user).add("x", priority=priority, requires=requires)], requires)

    @rule(user=st.integers(0, 2), count=st.integers(1, 11), priority=st.integers(-2, 2), wanted=some)
    def load(self, user: int, count: int, priority: int, wanted: list[int]) -> None:
        requires = self.known(wanted)
        ids = self.user(user).add_multiple(["x"] * count, priority=priority, requires=requires)
        assert ids == list(range(ids[0], ids[0] + count))
        self.added(ids, requires)

    @rule(user=st.integers(0, 2), wanted=some, bad=st.sampled_from(["", "a\0b", None]))
    def add_bad(self, user: int, wanted: list[int], bad: Any) -> None:
        before = self.report().places.keys()
        with pytest.raises(InputError):
            self.user(user).add_multiple(["x", "x", bad])
        with pytest.raises(InputError):
            self.user(user).add("x", requires=10**6)
        assert self.report().places.keys() == before

    @rule(user=st.integers(0, 2))
    def take(self, user: int) -> None:
        before = self.report()
        task = self.user(user).get()
        if task is None:
            assert self.paused or not self.report().ids("pending")
            return
        assert not self.paused
        assert task.id in before.ids("pending") + before.ids("waiting") + before.ids("running")
        missing = self.requires[task.id] - self.succeeded_once
        assert not missing or task.id in self.let_through, f"task {task.id} runs before {missing}"
        self.held.append((self.user(user), task))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), state=st.sampled_from(["Succeeded", "Failed", "Killed", "Pending", "Succeeded"]))
    def finish(self, which: int, state: str) -> None:
        _, task = self.held.pop(which % len(self.held))
        if state == "Succeeded":
            self.succeeded_once.add(task.id)
        task.set_state(state, err=1 if state == "Failed" else None)
        wanted = {"Failed": ("failed", "pending", "waiting")}.get(state, (state.lower(),))
        assert self.report().state(task.id) in wanted
        with pytest.raises(TaskError):
            task.set_state("Succeeded")

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 9), state=st.sampled_from(["Succeeded", "Failed", "Pending"]))
    def finish_too_late(self, which: int, state: str) -> None:
        """A worker that was declared dead changes nothing any more."""
        _, task = self.stale.pop(which % len(self.stale))
        before = {task_id: [place.path for place in places] for task_id, places in self.report().places.items()}
        try:
            task.set_state(state)
            # Whoever declared it dead gave the task back under the very name that it would get now.
            assert state == "Pending"
        except FsqdoError:
            pass
        assert {task_id: [place.path for place in places] for task_id, places in self.report().places.items()} == before

    @rule(user=st.integers(0, 2))
    def die(self, user: int) -> None:
        """A user's process ends without a goodbye; another one comes."""
        queue = self.user(user)
        self.held = [pair for pair in self.held if pair[0] is not queue]
        discard(queue)
        self.queues[user % 3] = Queue(Store(self.directory))

    @rule(user=st.integers(0, 2))
    def leave(self, user: int) -> None:
        queue = self.user(user)
        self.held = [pair for pair in self.held if pair[0] is not queue]
        queue.close()

    @rule(user=st.integers(0, 2))
    def recover(self, user: int) -> None:
        self.user(user).recover(force=True)
        self.stale += self.held
        self.held = []
        assert self.report().leftovers == []

    @rule(user=st.integers(0, 2), much_later=st.booleans())
    def promote(self, user: int, much_later: bool) -> None:
        if much_later:
            with later():
                self.user(user).promote()
        else:
            self.user(user).promote()

    @rule(user=st.integers(0, 2), wanted=st.none() | some, dry_run=st.booleans())
    def retry(self, user: int, wanted: list[int] | None, dry_run: bool) -> None:
        self.reset("retry", user, wanted, dry_run, ["failed"] if wanted is None else ["failed", "killed"])

    @rule(user=st.integers(0, 2), wanted=st.none() | some, dry_run=st.booleans())
    def rerun(self, user: int, wanted: list[int] | None, dry_run: bool) -> None:
        self.reset("rerun", user, wanted, dry_run, ["succeeded", "failed", "killed"])

    def reset(self, verb: str, user: int, wanted: list[int] | None, dry_run: bool, states: list[str]) -> None:
        select = {} if wanted is None else {"id": self.known(wanted)}
        if wanted is not None and not select["id"]:
            return
        before = self.report()
        meant = {i for state in states for i in before.ids(state)} & (self.ids if wanted is None else set(select["id"]))
        done = getattr(self.user(user), verb)(dry_run=dry_run, **select)
        assert done == len(meant)
        after = self.report()
        for task_id in meant:
            expected = (before.state(task_id),) if dry_run else ("pending", "waiting")
            assert after.state(task_id) in expected

    @rule(user=st.integers(0, 2), wanted=some, dry_run=st.booleans())
    def kill(self, user: int, wanted: list[int], dry_run: bool) -> None:
        ids = self.known(wanted)
        if not ids:
            return
        before = self.report()
        open_ones = {i for i in ids if before.state(i) in ("waiting", "pending")}
        running = {i for i in ids if before.state(i) == "running"}
        assert self.user(user).kill(dry_run=dry_run, id=ids) == len(open_ones | running)
        after = self.report()
        for task_id in open_ones:
            assert after.state(task_id) == (before.state(task_id) if dry_run else "killed")

    @rule(user=st.integers(0, 2), wanted=some, priority=st.integers(-3, 3))
    def reprioritize(self, user: int, wanted: list[int], priority: int) -> None:
        ids = self.known(wanted)
        before = self.report()
        meant = [i for i in ids if before.state(i) in ("waiting", "pending")]
        assert self.user(user).reprioritize(priority, id=ids) == len(meant)
        for task_id in meant:
            assert self.user(user).task(task_id).priority == priority

    @rule(user=st.integers(0, 2), pause=st.booleans())
    def pause_or_resume(self, user: int, pause: bool) -> None:
        (self.user(user).pause if pause else self.user(user).resume)()
        self.paused = pause

    @rule(which=st.integers(0, 200), to=st.sampled_from(["pending/0", "pending/7", "killed", "failed", "succeeded"]))
    def move_by_hand(self, which: int, to: str) -> None:
        """`mv` of a task's file from one state to another, the name as it is."""
        base = Path(self.directory)
        files = sorted(
            p for top in ("waiting", "pending", "succeeded", "failed", "killed") for p in (base / top).rglob("*.json")
        )
        if not files:
            return
        file = files[which % len(files)]
        name = parse_task(file.name)
        assert name is not None
        target = base / to / f"{name.id // 1000:06d}"
        target.mkdir(parents=True, exist_ok=True)
        if (target / file.name).exists():
            return
        file.rename(target / file.name)
        self.let_through.add(name.id)
        if to == "succeeded":
            self.succeeded_once.add(name.id)

    @rule(user=st.integers(0, 2), number=st.sampled_from([0, -1, 10**6]))
    def ask_for_what_there_is_not(self, user: int, number: int) -> None:
        with pytest.raises((TaskNotFoundError, InputError)):
            self.user(user).retry(id=number)
        with pytest.raises((TaskNotFoundError, InputError)):
            self.user(user).task(number)

    # ------------------------------------------------------------ what is always true
    @invariant()
    def each_task_is_in_exactly_one_place(self) -> None:
        if self.queues:
            report = self.report()
            assert report.problems(self.ids) == []
            assert set(report.places) == self.ids
            assert report.paused == self.paused

    @invariant()
    def fsqdo_reads_what_the_checker_reads(self) -> None:
        if self.queues:
            report = self.report()
            status = self.queues[0].status()
            assert status["ntasks"] == {state: len(report.ids(state.lower())) for state in STATES}
            assert status["state"] == ("Paused" if self.paused else "Active")
            rows = self.queues[1].tasks()
            assert sorted((row.id, row.state.directory) for row in rows) == sorted(
                (task_id, places[0].state) for task_id, places in report.places.items()
            )
            assert not any(row.error for row in rows)


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestQueue = QueueMachine.TestCase
