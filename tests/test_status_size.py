"""What a status costs follows what is loose, not how many tasks there are: counted calls, on queues of some thousand tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import fsqdo
from fsqdo.names import parse_entry, parse_shard
from fsqdo.sizes import size_of, size_of_packed
from fsqdo.store.system import System
from tests import big
from tests.checker import read_queue
from tests.test_calls import counted

AROUND = 11  # queue.json, and the directories that every queue has
TOP = 2  # the queue's own directory, whether it is paused; and next-id/, whether all tasks were found
READ = 3  # a worker; a marker and the file of a load that it names, where the first tasks are, all of them


def cost(seam: System, queue: fsqdo.Queue) -> Counter[str]:
    with counted(seam) as calls:
        str(queue)
    return Counter(calls)


@pytest.mark.parametrize("mix", ["pending", "done"])
def test_what_is_packed_is_counted_by_names(root: Path, seam: System, mix: str) -> None:
    make = {"pending": big.pending, "done": big.done}[mix]
    small, large = make("small", 2000), make("large", 6000)
    assert cost(seam, small) == cost(seam, large)
    assert sum(cost(seam, large).values()) <= AROUND
    state = {"pending": "Pending", "done": "Succeeded"}[mix]
    assert large.status()["ntasks"][state] == 6000 and read_queue(large.directory).problems(range(1, 6001)) == []


def test_what_is_loose_is_listed_once(root: Path, seam: System) -> None:
    queue = big.half("half", 8000, workers=3)
    calls = cost(seam, queue)
    report = read_queue(queue.directory)
    assert report.problems(range(1, 8001)) == []
    counts = {str(state): n for state, n in queue.status()["ntasks"].items() if n}
    assert counts == {"Pending": 8000 - 3999 - 3 * 301, "Running": 3, "Succeeded": 3999 + 3 * 300}
    assert counts == {state.capitalize(): n for state, n in report.counts().items() if n}
    directories = len(big.loose_directories(queue))
    # The look at what no worker fits goes by the same listings.
    assert calls["listdir"] == directories + TOP
    assert calls["open"] <= READ
    assert set(calls) <= {"listdir", "open"}


def test_a_list_costs_the_same_for_each_queue(root: Path, seam: System) -> None:
    queues = [big.pending(f"q{number}", 1500) for number in range(4)]

    def calls(names: list[str]) -> int:
        with counted(seam) as found:
            for name in names:
                fsqdo.connect(name).status()
        return len(found)

    assert calls([queue.name for queue in queues]) == 4 * calls(["q0"]) <= 4 * AROUND


# ---------------------------------------------------------------- counting by names
NAMES = [
    "000000001.json", "000000002.f1i2p5.json", "000000003@h-1-a.json", "000000003.r1@h-1.json.json", "000000004@.json",
    "000000004@\u00e4.json", "x.json", "000000001-000000010.pack", "000000001-000000010.i1.pack", "000000011-000000010.pack",
    "000000001-000000010.i1@h.pack", "0-1.pack", "----------------------.pack", "000000007.f1@h.txt", "worker.json",
    "1234567890123456789.json", "000000012.f1f2.json", "000000012.f.json", ".pack", ".json", "000000001.json\n", "DRAIN",
    "000000001-000000010", "000000005@h.pack", "000000001-1000000010.pack", "000000001-000000010.pack.pack",
]  # fmt: skip


@pytest.mark.parametrize("copies", [1, 30])
@pytest.mark.parametrize("spent", ["", "000000001-000000010.pack", "000000001-000000010.i1.pack"])
def test_names_are_counted_as_they_are_read(copies: int, spent: str) -> None:
    usual = ["000000021.json", "000000022.f1@h-1-a.json", "000000001-000000010.pack", "000000031-000000040.i1.pack"]
    for name in [*NAMES, *usual]:
        for others in ([], usual[:1], usual[:2], usual):
            files = [name, *others] * copies
            wanted = sum(entry.size for file in files if file != spent and (entry := parse_entry(file)) is not None)
            assert size_of(files, spent) == wanted, files
    # All at once; a name that can be read in many ways would never come to an end here.
    files = NAMES * copies
    wanted = sum(entry.size for file in files if file != spent and (entry := parse_entry(file)) is not None)
    assert size_of(files, spent) == wanted


def test_packed_shards_are_counted_as_they_are_read() -> None:
    usual = ["000001.p1.n1000.jsonl", "000002.p99.n3.jsonl", "000003", "000004.p5", "000005.p6.all.abc"]
    for name in ("000009.p1.n7.jsonl", "x.jsonl", "000009.p1.nx.jsonl", "000009.p1.n7.jsonl.jsonl", "strange"):
        files = [*usual, name]
        parsed = [(file, parse_shard(file)) for file in files]
        total, rest = size_of_packed(files)
        assert total == sum(entry.tasks for _, entry in parsed if entry is not None and entry.tasks is not None)
        assert [f for f in rest if parse_shard(f)] == [f for f, entry in parsed if entry is not None and entry.tasks is None]
