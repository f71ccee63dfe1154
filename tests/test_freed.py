"""Who frees a task knows where to claim it: it does so without a listing, and in the order in which others would."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import fsqdo
from fsqdo.claims import Claimer
from fsqdo.member import Member
from fsqdo.names import TaskName
from fsqdo.requirements import Freed, ended
from fsqdo.store.system import System
from tests.checker import read_queue
from tests.test_calls import counted


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    return fsqdo.create("Blat")


def order_of(queue: fsqdo.Queue) -> list[object]:
    """The tasks as one worker comes to them."""
    found: list[object] = []
    queue.do(func=found.append, report=lambda text: None)
    return found


@pytest.mark.parametrize(
    ("priority", "wanted"),
    [
        (0, ["first", "middle", "last", "freed"]),
        (5, ["first", "freed", "middle", "last"]),
        (9, ["first", "freed", "middle", "last"]),
    ],
)
def test_it_overtakes_nothing_of_higher_priority(queue: fsqdo.Queue, priority: int, wanted: list[str]) -> None:
    first = queue.add("first", priority=5)
    queue.add("freed", priority=priority, requires=first)
    queue.add("middle", priority=1)
    queue.add("last", priority=1)
    assert order_of(queue) == wanted


@pytest.mark.parametrize("size", [1, 30_000])
def test_many_at_once_run_once_each(queue: fsqdo.Queue, size: int) -> None:
    """More than are offered, some of them too long to be kept in memory, in two shards and of two priorities."""
    first = queue.add(0)
    text = "x" * size
    ids = [queue.add([n, text], requires=first, priority=n % 2) for n in range(150)]
    queue.store.take_ids(1000)
    ids += [queue.add([n, text], requires=first, priority=n % 2) for n in range(150, 160)]
    found = order_of(queue)
    assert sorted(task[0] for task in found[1:] if isinstance(task, list)) == list(range(160))
    assert read_queue(queue.directory).problems([first, *ids]) == []


def offered(queue: fsqdo.Queue, member: Member) -> tuple[Claimer, list[Freed]]:
    """A claimer that has used up what it listed, and what its task then freed: two tasks."""
    first = queue.add("first")
    for word in ("second", "third"):
        queue.add(word, requires=first)
    claimer = Claimer(queue.store, member.name, judge=None)
    claim = claimer.claim()
    assert claim is not None and claim.name == TaskName(1)
    assert queue.store.move(f"{member.directory}/{claim.file}", f"succeeded/000000/000000001@{member.name}.json")
    freed: list[Freed] = []
    assert ended(queue.store, 1, True, freed) == 2
    return claimer, freed


def test_it_is_claimed_without_a_listing(queue: fsqdo.Queue, seam: System) -> None:
    member = Member(queue.store, slots=1)
    claimer, freed = offered(queue, member)
    assert [task.name.id for task in freed] == [2, 3]
    assert all(Path(queue.directory, task.directory, task.name.file).read_bytes() == task.content for task in freed)
    claimer.offer(freed)
    with counted(seam) as calls:
        found = [claimer.claim(), claimer.claim()]
    assert [claim.name.id for claim in found if claim is not None] == [2, 3]
    assert set(calls) == {"rename"}
    member.leave()


def test_what_is_long_is_read_when_it_is_claimed(queue: fsqdo.Queue) -> None:
    member = Member(queue.store, slots=1)
    claimer, freed = offered(queue, member)
    claimer.offer([task._replace(content=b"") for task in freed])
    found = [claimer.claim(), claimer.claim()]
    assert [claim.content for claim in found if claim is not None] == [task.content for task in freed]
    member.leave()


def test_a_lost_race_for_it_is_one_as_any_other(queue: fsqdo.Queue) -> None:
    member = Member(queue.store, slots=1)
    claimer, freed = offered(queue, member)
    claimer.offer(freed)
    other = queue.get()  # another worker listed it, and was first
    assert other is not None and other.id == 2
    claim = claimer.claim()
    assert claim is not None and claim.name.id == 3
    assert claimer.claim() is None
    other.set_state("Succeeded")
    queue.close()
    member.leave()


def test_what_is_not_for_this_worker_is_left(queue: fsqdo.Queue) -> None:
    first = queue.add("first")
    queue.add("large", requires=first, cores=9)
    queue.add("small", requires=first)
    done = queue.do(func=lambda task: None, timeout=0, report=lambda text: None)
    assert done.succeeded == 2
    assert queue.task(2).state is fsqdo.State.PENDING


@pytest.mark.parametrize("how", ["function", "command"])
def test_a_directory_that_cannot_be_removed_keeps_nobody(queue: fsqdo.Queue, seam: System, how: str) -> None:
    """It is removed after the next claim, and what stays of it is the pass's."""
    first = queue.add("true", name="first")
    for _ in range(3):
        first = queue.add("true", requires=first)

    refused: list[str] = []

    def refuse(path: str) -> None:
        if "/waiting/" in path and len(refused) < 3:
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        System.rmdir(path)

    seam.rmdir = refuse  # type: ignore[method-assign]
    summary = queue.do(func=lambda task: None) if how == "function" else queue.do()
    del seam.rmdir
    assert (summary.succeeded, len(refused)) == (4, 3)
    assert not list(queue.store.watched())
