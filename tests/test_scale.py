"""What many tasks and many requirements cost: calls that grow with the work and not with the queue, and bounded memory.

Counted at the seam, with sizes that differ by a factor: the same on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo.finals import Finals
from fsqdo.ids import IdSet
from fsqdo.requirements import blocked
from fsqdo.store.system import System
from fsqdo.task import State
from tests.checker import read_queue
from tests.test_calls import counted, nothing

# What a worker does beside its tasks.
AROUND = 150


@pytest.fixture
def queue(fast_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsqdo.Queue]:
    monkeypatch.setenv("FSQDO_DIR", str(fast_dir))
    yield (made := fsqdo.create("q", pack=False))
    made.close()


def load_lines(queue: fsqdo.Queue, *rows: dict[str, Any]) -> range:
    """Load tasks with options of their own, as `fsqdo load --json` does."""
    return queue.loadfile(BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows)), json=True)


def chain(queue: fsqdo.Queue, length: int) -> range:
    """Tasks of which each requires the one before it."""
    return load_lines(
        queue, *({"task": n, "name": f"n{n}", **({"requires": [f"n{n - 1}"]} if n else {})} for n in range(length))
    )


def pairs(queue: fsqdo.Queue, number: int) -> range:
    """Pairs of tasks of which the second requires the first."""
    rows = ([{"task": n, "name": f"a{n}"}, {"task": n, "requires": [f"a{n}"]}] for n in range(number))
    return load_lines(queue, *(row for pair in rows for row in pair))


def drain(queue: fsqdo.Queue, seam: System, tasks: int) -> Counter[str]:
    """Work until nothing is left; the calls that took."""
    with counted(seam) as calls:
        assert queue.do(func=nothing).succeeded == tasks
    return Counter(calls)


def all_succeeded(queue: fsqdo.Queue, tasks: int) -> None:
    """Each task stands in the tree once, by a reader that shares no code with fsqdo."""
    report = read_queue(queue.directory)
    assert report.problems() == []
    assert {state: count for state, count in report.counts().items() if count} == {"succeeded": tasks}


def grown(few: Counter[str], many: Counter[str], more: int) -> dict[str, float]:
    """Calls of each kind for each of so many more."""
    return {name: (many[name] - few[name]) / more for name in many}


# ---------------------------------------------------------------- a million and one that requires them all
def test_one_that_requires_them_all(queue: fsqdo.Queue, seam: System) -> None:
    """Adding it, saying why it waits, and finishing what it does not watch cost the same however many there are."""
    costs = []
    for number in (3000, 12_000):
        first = queue.add_multiple(range(number))[0]
        ids = range(first, first + number)
        with counted(seam) as calls:
            waiting = queue.add("all", requires=ids)
            assert queue.explain(waiting)["why"] == [
                f"it requires {number} of {number} tasks still to succeed: {', '.join(map(str, ids[:5]))}, …"
            ]
        done = drain(queue, seam, number + 1)
        assert done["rename"] <= 2 * number + AROUND, done
        costs.append((len(calls), done))
    (few, few_done), (many, many_done) = costs
    # What has succeeded is loose here: nothing of it is listed for one that requires others.
    assert many <= few + 4, costs
    assert grown(few_done, many_done, 9000)["listdir"] <= 0.04  # slices of packs, and looks for many at once
    all_succeeded(queue, 15_002)


def test_explain_of_very_many_lists_what_has_ended_and_reads_nothing(queue: fsqdo.Queue, seam: System) -> None:
    number, ended = 200_000, 3000
    queue.add_multiple(range(number))
    queue.do(func=nothing, max_tasks=ended)
    waiting = queue.add("all", requires=range(1, number + 1), after=[7, number])
    with counted(seam) as calls:
        why = queue.explain(waiting)["why"]
    assert why[0].startswith(f"it requires {number - ended} of {number} tasks still to succeed: {ended + 1}, ")
    assert why[1] == f"1 of the 2 tasks it is to run after have not ended: {number}"
    assert Counter(calls)["listdir"] <= 25, calls
    assert Counter(calls)["open"] <= 2, calls


def test_what_is_packed_is_known_by_name(queue: fsqdo.Queue, seam: System) -> None:
    queue.add_multiple(range(4000))
    queue.do(func=nothing)
    assert queue.pack() == 3999
    with counted(seam) as calls:
        assert Finals(queue.store).missing(IdSet([(1, 4000)]), ended=False, most=5) == (0, [])
    assert Counter(calls) == {"listdir": 2}  # succeeded/, and the one shard that is loose
    fsqdo.connect("q").rerun(id=[5, 2002])
    found = Finals(queue.store).missing(IdSet([(1, 4000)]), ended=False, most=5)
    assert found == (2, [5, 2002])


def test_finals_look_again_when_a_shard_is_packed_meanwhile(queue: fsqdo.Queue) -> None:
    queue.add_multiple(range(1999))
    queue.do(func=nothing)
    finals = Finals(queue.store)
    assert finals.any(State.SUCCEEDED)
    assert queue.pack() == 1999
    assert finals.succeeded(1500) and finals.succeeded(5)


# ---------------------------------------------------------------- a thousand times a thousand
def test_each_of_many_requires_many(queue: fsqdo.Queue, seam: System) -> None:
    """Different requirements, the same last one: they are filed and promoted in a few looks at what has ended."""
    costs = []
    for number in (100, 400):
        ids = queue.add_multiple(range(number))
        wanted = [[*ids[n % 7 :: 2], ids[-1]] for n in range(number)]
        with counted(seam) as calls:
            queue.add_multiple(range(number), requires=wanted)
        costs.append((Counter(calls), drain(queue, seam, 2 * number)))
    (few_added, few), (many_added, many) = costs
    assert grown(few_added, many_added, 300)["rename"] == 0, costs  # they are put in place together
    assert many_added["listdir"] <= few_added["listdir"] + 2, costs
    each = grown(few, many, 600)
    assert 2.5 <= each["rename"] <= 2.6, each
    assert each["listdir"] <= 0.2, each
    all_succeeded(queue, 1000)


def test_what_is_filed_anew_while_its_next_requirement_ends(queue: fsqdo.Queue, seam: System) -> None:
    """The second look, made after filing, sees what ended between the first and the filing."""
    first, second = queue.add_multiple(range(2))
    third = queue.add("both", requires=[first, second])
    held = [queue.get(), queue.get()]
    assert held[0] is not None and held[1] is not None and (held[0].id, held[1].id) == (first, second)
    other = fsqdo.connect("q")
    rename = System.rename

    def ending_first(src: str, dst: str) -> None:
        if "/waiting/" in dst and dst.endswith("000000003.r1.json"):
            seam.rename = rename  # type: ignore[method-assign]
            held[0].set_state("Succeeded")  # it looks for watchers now, and sees none
        rename(src, dst)

    seam.rename = ending_first  # type: ignore[method-assign, assignment]
    held[1].set_state("Succeeded")
    assert other.task(third).state is State.PENDING


# ---------------------------------------------------------------- a chain, and pairs
def test_a_chain_is_linear(queue: fsqdo.Queue, seam: System) -> None:
    costs = []
    for length in (100, 400):
        with counted(seam) as calls:
            chain(queue, length)
        costs.append((Counter(calls), drain(queue, seam, length)))
    (few_added, few), (many_added, many) = costs
    # The file, its directory, and the sync of that; one rename puts all in place that wait for tasks of a shard.
    assert {name: round(count, 1) for name, count in grown(few_added, many_added, 300).items() if count > 0.05} == {
        "mkdir": 1.0, "open": 2.0,
    }  # fmt: skip
    each = grown(few, many, 300)
    # It moves from waiting to pending, and is found there by listing pending/, its priority and its bundle.
    assert each["rename"] <= 3.05 and each["rmdir"] <= 1.05, each
    assert each["listdir"] <= 4.1 and each["mkdir"] <= 0.1, each
    assert sum(each.values()) <= 10.5, each


def test_pairs_are_linear(queue: fsqdo.Queue, seam: System) -> None:
    costs = []
    for number in (250, 1000):
        with counted(seam) as calls:
            pairs(queue, number)
        costs.append((Counter(calls), drain(queue, seam, 2 * number)))
    (few_added, few), (many_added, many) = costs
    added = grown(few_added, many_added, 750)
    assert added["mkdir"] <= 1.1 and added["rename"] <= 0.1 and added["listdir"] <= 0.1, added
    each = grown(few, many, 750)
    assert each["rename"] <= 5.1 and each["listdir"] <= 2.2 and each["rmdir"] <= 1.1, each


def test_looks_at_a_queue_in_which_many_wait(queue: fsqdo.Queue, seam: System) -> None:
    """Pairs in another load than the one that is looked at, so that its directories are many."""
    pairs(queue, 600)
    with counted(seam) as calls:
        assert queue.explain(1100)["why"] == ["it requires 1 of 1 tasks still to succeed: 1099"]
        assert queue.task(1099).state is State.PENDING
        assert list(blocked(queue.store)) == [] and queue.tasks(blocked=True) == []
        assert queue.promote() == 0
    assert len(calls) <= 70, Counter(calls)
    queue.kill(id=[1, 1101])
    with counted(seam) as calls:
        assert [task.id for task in queue.tasks(blocked=True)] == [2, 1102]
    assert len(calls) <= 20, Counter(calls)


@pytest.mark.parametrize("tidied", [False, True])
def test_how_old_many_successes_are_reads_a_journal_a_few_times(queue: fsqdo.Queue, seam: System, tidied: bool) -> None:
    tasks = 300
    queue.add_multiple(range(tasks))
    drain(queue, seam, tasks)
    if tidied:
        assert queue.tidy()["journals"] == 1
    opened: list[str] = []

    def noted(path: str, flags: int, *mode: int) -> int:
        opened.append(os.path.basename(path).partition(".")[2])
        return System.open(path, flags, *mode)

    seam.open = noted  # type: ignore[method-assign]
    assert len(queue.tasks(state="Succeeded", older_than_s=0.0)) == tasks
    assert opened.count("jsonl") <= 10
    assert queue.tasks(state="Succeeded", older_than_s=3600.0) == []


def test_blocked_ones_down_a_chain(queue: fsqdo.Queue, seam: System) -> None:
    chain(queue, 300)
    queue.kill(id=3)
    assert sorted(entry.name.first for entry in blocked(queue.store)) == list(range(4, 301))
    assert queue.status()["blocked"] == 297


def test_many_singles_under_one_requirement(queue: fsqdo.Queue) -> None:
    """Tasks with requirements of their own under the same last one go into a directory for each thousand."""
    first, second = queue.add_multiple(range(2))
    queue.add_multiple(range(2997), requires=[[second, *([first] * (n % 2))] for n in range(2997)])
    directory = Path(queue.directory, "waiting", "000000", "000000002")
    assert sorted(len(list(part.iterdir())) for part in directory.iterdir()) == [997, 1000, 1000]
    assert queue.status()["ntasks"]["Waiting"] == 2997
    assert queue.do(func=nothing).succeeded == 2999
    assert not directory.exists()


# ---------------------------------------------------------------- rerun
def test_rerun_of_pairs_waits_anew(queue: fsqdo.Queue, seam: System) -> None:
    costs = []
    for number in (200, 800):
        ids = pairs(queue, number)
        queue.do(func=nothing)
        with counted(seam) as calls:
            assert queue.rerun(id=range(ids[0], ids[-1] + 1)) == 2 * number
        assert queue.status()["ntasks"]["Waiting"] == number
        assert queue.do(func=nothing).succeeded == 2 * number
        costs.append(Counter(calls))
    each = grown(*costs, 600)
    assert each["listdir"] <= 1.6 and each["open"] <= 2.1, each
    all_succeeded(queue, 2000)


# ---------------------------------------------------------------- memory
SCRIPT = """
import resource, sys, fsqdo
queue = fsqdo.connect("q")
{}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(what: str) -> int:
    """Peak memory of a process that does this with the queue."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(what)], check=True, capture_output=True, timeout=120, text=True)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    "what",
    [
        "sum(1 for task in queue.iter_tasks())",
        "queue.rerun(); queue.do(func=lambda task: None)",
        "queue.pack(); queue.unpack()",
        "queue.explain(queue.add('all', requires=range(1, queue.store.next_id())))",
    ],
)
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="ru_maxrss is in other units elsewhere")
def test_memory_does_not_grow_with_the_queue(queue: fsqdo.Queue, what: str) -> None:
    peaks = []
    for more in (2000, 6000):
        queue.add_multiple(range(more))
        queue.do(func=nothing)
        peaks.append(peak_kib(what))
    few, many = peaks
    assert many - few <= 1500, peaks  # KiB for 6000 tasks more: 250 bytes each
