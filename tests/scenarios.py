"""Queues in every kind of trouble, how anybody heals them, and what must be true afterwards.

Used by the fault suite, the races and the state machine.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from fsqdo import load, packs, worker
from fsqdo.errors import FsqdoError
from fsqdo.inputs import NewTask
from fsqdo.names import parse_task
from fsqdo.queue import Queue
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from tests.checker import Report, read_queue
from tests.faults import World


def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of four tasks, so that a few calls are a whole load; no waiting."""
    for module in (load, packs):
        monkeypatch.setattr(module, "PACK_SIZE", 4)
    monkeypatch.setattr(load, "LOOSE_LOAD", 4)
    monkeypatch.setattr(load, "_PENDING_RUN", 3)
    monkeypatch.setattr(load, "_WAITING_RUN", 3)
    monkeypatch.setattr(worker, "_TROUBLE_MOST_S", 0.0)


# ---------------------------------------------------------------- using a queue as a user does
class User:
    """A process that uses the queue of a world; leaving the block is the end of the process, in no good order."""

    def __init__(self, world: World) -> None:
        random.seed(1)
        self.world = world
        self.q = Queue(Store(world.queue_dir()))

    def __enter__(self) -> User:  # noqa: PYI034  (Self is younger than Python 3.10)
        return self

    def __exit__(self, *_: object) -> None:
        discard(self.q)

    def run_one(self, state: str = "Succeeded") -> int | None:
        """Take a task, note that it ran, set its state; returns its id."""
        task = self.q.get()
        if task is None:
            return None
        started(self.world, str(task.entry.name))
        task.set_state(state)
        self.world.told.note(f"{task.id} is {state}")
        return int(task.id)


def discard(queue: Queue) -> None:
    """What the end of a process without a goodbye leaves of a queue: its files are closed, its thread is gone."""
    holder, queue._held = queue._held, None
    if holder is None:
        return
    atexit.unregister(holder.close)
    member = holder._member
    if member is not None:
        member.abandon()
        member._heart.join()
        member.journal._file.close()


def journaled(directory: str) -> list[dict[str, Any]]:
    """Every outcome that is in any journal now."""
    found = []
    for name in os.listdir(f"{directory}/outcomes"):
        with open(f"{directory}/outcomes/{name}", "rb") as file:
            for line in file:
                try:
                    raw = json.loads(line)
                except ValueError:
                    continue
                if "name" in raw:  # the first line says who the worker is
                    found.append(raw)
    return found


def started(world: World, key: str) -> None:
    """Note the start of an attempt; one whose outcome stands in a journal must not be started."""
    name = parse_task(key + ".json")
    assert name is not None
    for outcome in journaled(world.queue_dir()):
        other = parse_task(outcome["name"] + ".json")
        if other is None or other.id != name.id:
            continue
        # What a worker journals after it was declared dead does not count, and is not known in time.
        late = world.extra.get("zombies", False)
        if outcome["name"] == key or (outcome["outcome"] == "succeeded" and other.r == name.r and not late):
            world.told.note(f"WRONG: {key} was started, although a journal knows that {outcome['name']} {outcome['outcome']}")
    world.told.run(key)


@contextmanager
def later() -> Iterator[None]:
    """Every retry is due."""
    real, time.time = time.time, lambda: 2e9
    try:
        yield
    finally:
        time.time = real


def heal(world: World) -> None:
    """What anybody does after trouble: recover, promote, run what is pending."""
    with User(world) as user:
        for _ in range(2):
            user.q.recover(force=True)
            with later():
                user.q.promote()
        while user.run_one() is not None:
            pass
        user.q.promote()
        while user.run_one() is not None:
            pass
        user.q.close()


def check(world: World) -> Iterator[str]:
    """What must be true after `heal`, whatever happened before."""
    report = read_queue(world.queue_dir())
    acknowledged = world.told.acknowledged
    yield from report.problems(acknowledged, healed=True)
    for first, last in report.loaded:
        missing = set(range(first, last + 1)) - set(report.places)
        if missing:
            yield f"the load {first}-{last} is not whole: {sorted(missing)} are missing"
    for state in ("pending", "running"):
        if report.ids(state):
            yield f"{report.ids(state)} are still {state}"
    for task_id in report.ids("waiting"):
        if not waits_for_failed(report, task_id):
            yield f"task {task_id} still waits: {report.places[task_id]}"
    for key in sorted({key for key in world.told.runs if world.told.runs.count(key) > 1}):
        yield f"the attempt {key} was started twice"
    yield from broken_promises(world, report)


def broken_promises(world: World, report: Report) -> Iterator[str]:
    """What was noted as wrong on the way, and states that were told and are not so."""
    last_said: dict[int, str] = {}
    for note in world.told.notes:
        if note.startswith("WRONG"):
            yield note
        elif " is " in note:
            number, _, state = note.partition(" is ")
            last_said[int(number)] = state
    for task_id, state in last_said.items():
        wanted = {"Succeeded": "succeeded", "Failed": "failed", "Killed": "killed"}.get(state)
        if wanted is not None and report.state(task_id) != wanted:
            yield f"task {task_id} was {state} and is {report.state(task_id)}"


def waits_for_failed(report: Report, task_id: int) -> bool:
    """Whether a waiting task is filed under one that failed, was killed, or waits itself."""
    requirement = int(report.places[task_id][0].path.split("/")[2])
    state = report.state(requirement)
    return state in ("failed", "killed") or (state == "waiting" and waits_for_failed(report, requirement))


def new_queue(world: World, **settings: Any) -> User:
    """A queue with these settings, and somebody who uses it."""
    create(world.queue_dir(), Settings(**{"retry_delay_s": 0.0, **settings}))
    return User(world)


# ---------------------------------------------------------------- queues to begin with
def with_three(world: World, **settings: Any) -> None:
    """Three loose tasks."""
    with new_queue(world, **settings) as user:
        world.told.ack([user.q.add("a"), user.q.add("b"), user.q.add("c", priority=3)])


def with_ended(world: World) -> None:
    """1 succeeded, 2 failed, 3 is pending, 4 waits for 3."""
    with new_queue(world) as user:
        world.told.ack([user.q.add("a", priority=9), user.q.add("b", priority=8), user.q.add("c")])
        user.run_one()
        user.run_one("Failed")
        world.told.ack([user.q.add("d", requires=3)])
        user.q.close()


def graph() -> list[NewTask]:
    """Two steps that a merge requires, a clean-up after it, and one of another priority."""
    return [
        NewTask("one", name="one"),
        NewTask("two", name="two", requires=[3]),
        NewTask("merge", name="merge", requires=["one", "two", 1]),
        NewTask("clean", after=["merge"], priority=7),
        NewTask("urgent", priority=100),
    ]


def unpublished(tasks: Callable[[], list[Any]]) -> Callable[[World], None]:
    """A committed load of which nothing is published: its loader was killed right after the commit."""

    def prepare(world: World) -> None:
        with_ended(world)
        try:
            with User(world) as user, patch.object(load, "publish", side_effect=FsqdoError("killed")):
                user.q.add_multiple(tasks())
        except FsqdoError:
            world.told.ack(range(5, 5 + len(tasks())))

    return prepare


def with_packs(world: World, **settings: Any) -> None:
    """A packed load of nine tasks: two packs and one loose."""
    with new_queue(world, **settings) as user:
        world.told.ack(user.q.add_multiple(["x"] * 9))


def with_dead(world: World) -> None:
    """A dead worker with a task in every half-finished state."""
    with new_queue(world, max_retries=1) as user:
        world.told.ack(user.q.add(name) for name in "abcdefg")
        world.told.ack(user.q.add_multiple(["x"] * 12))
        world.told.ack([user.q.add("w", requires=2), user.q.add("w", after=3)])
    base, dead = Path(world.queue_dir()), "host-1-dead"
    home = base / "running" / dead
    home.mkdir()
    (home / "worker.json").write_text(json.dumps({"worker": dead, "host": "elsewhere", "pid": 1}))
    lines = []
    # 1 was claimed; 2 to 5 have their outcome in the journal; 6 is to be killed; 7 is left alone.
    for number, outcome, to in (
        (1, "", ""),
        (2, "succeeded", f"succeeded/000000/000000002@{dead}.json"),
        (3, "failed", f"failed/000000/000000003.f1@{dead}.json"),
        (4, "retry", "pending/0/000000/000000004.f1.json"),
        (5, "interrupted", "pending/0/000000/000000005.s1.json"),
        (6, "", ""),
    ):
        (base / f"pending/0/000000/{number:09d}.json").rename(home / f"{number:09d}.json")
        if outcome:
            lines.append(json.dumps({"name": f"{number:09d}", "outcome": outcome, "to": to}, separators=(",", ":")))
    (home / "000000006.kill").write_text("")
    (base / f"outcomes/{dead}.jsonl").write_text("\n".join(lines) + '\n{"name":"0000000')
    # Three packs: one that is being opened, one whose opening is being undone, one of which only the marker was taken.
    for first, extra, suffix in ((8, ["000000008.json"], ""), (12, ["000000013.json"], ".drop"), (16, [], "")):
        pack = f"{first:09d}-{first + 3:09d}"
        opening = home / f"{pack}@0{suffix}"
        opening.mkdir()
        (base / f"pending/0/{pack}.pack").rename(opening / f"{pack}.pack")
        for name in extra:
            (opening / name).write_text('{"id":')
    (home / "core.1234").write_text("somebody's")
    world.told.note("2 is Succeeded")
    world.told.note("3 is Failed")


def with_all_states(world: World) -> None:
    """1, 2 succeeded, 3 failed, 4 killed, 5 and 6 wait for 3, 7 is pending; a pack of four is pending, one waits."""
    with new_queue(world) as user:
        world.told.ack([user.q.add("a", priority=4), user.q.add("b", requires=1, priority=3), user.q.add("c", priority=2)])
        user.run_one()
        user.run_one()
        user.run_one("Failed")
        world.told.ack([user.q.add("d")])
        user.q.kill(id=4)
        world.told.ack([user.q.add("e", requires=3), user.q.add("f", requires=[3, 5]), user.q.add("g")])
        world.told.ack(user.q.add_multiple(["x"] * 5))
        world.told.ack(user.q.add_multiple(["y"] * 5, requires=3))
        user.q.close()
    # What the verbs do is not against what was said before.
    Path(world.told.path).write_text("".join(f"ack {i}\n" for i in world.told.acknowledged))
