"""What a queue needs: the arithmetic, the sample, what jobs and workers there are count for, and a real queue's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsqdo
from fsqdo.batch import JobState
from fsqdo.demand import (
    DEFAULT_TASK_S,
    FORGOTTEN_S,
    SAMPLE,
    UNLIMITED_S,
    Demand,
    Supply,
    TaskTime,
    expected,
    gather,
    spread,
    supplies,
    unix_time,
)
from fsqdo.jobs import Job
from fsqdo.journal import durations, tail
from fsqdo.store.system import System
from fsqdo.taskoptions import Options

JOB = Job(
    number=3, system="local", profile="local", batch_id="7", state=JobState.RUNNING, submitted_at="2026-01-01T00:00:00Z",
    slots=4, command=(), script_path="", log_path="",
)  # fmt: skip
SUBMITTED = 1767225600.0


# ---------------------------------------------------------------- the arithmetic
def test_work_less_what_is_there_is_missing() -> None:
    demand = Demand(100, running=10, tasks=(TaskTime(30.0), TaskTime(90.0, cores=2)), supplies=(Supply("job 1", 4, 600.0),))
    assert (demand.task_s, demand.task_core_s) == (60.0, 105.0)
    assert (demand.work_core_s, demand.supplied_core_s) == (105 * 105, 2400)
    assert demand.missing_tasks == 83  # 8625 core s of 105 each are 82.1
    said = "\n".join(demand.lines())
    for number in ("100 tasks", "running: 10", "105 core s", "11025 core s", "4 cores x 600 s = 2400", "83 tasks"):
        assert number in said


def test_nothing_is_missing_when_paused_or_when_there_is_enough() -> None:
    assert Demand(100, paused=True).missing_tasks == 0 and Demand(100, paused=True).work_core_s == 0
    assert Demand(100, supplies=(Supply("job 1", 100, 60.0),)).missing_tasks == 0
    assert Demand(100, supplies=(Supply("job 1", 100, 59.0),)).missing_tasks == 2
    assert Demand(0).missing_tasks == 0
    assert Demand(5, running=100).missing_tasks == 5  # what runs already needs nobody new


# ---------------------------------------------------------------- the sample
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 20))
def test_the_sample_is_even_and_the_count_exact(sizes: list[int], most: int) -> None:
    items = list(enumerate(sizes))
    total, picked = spread(items, lambda item: item[1], most)
    assert total == sum(sizes)
    assert len(picked) == min(total, most) or (total > most and most // 2 <= len(picked) <= most)
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    places = [starts[item[0]] + at for item, at in picked]
    assert all(0 <= at < item[1] for item, at in picked)
    assert places == sorted(set(places))
    if total <= most:
        assert places == list(range(total))


def test_own_request_then_the_queues_then_what_was_measured_then_a_default() -> None:
    own, none = Options(time_request_s=5.0, cores=2, mem_mb=10), Options()
    assert expected([own], 9.0, [1.0]) == ((TaskTime(5.0, True, 2, 10),), "their time requests")
    assert expected([none], 9.0, [1.0]) == ((TaskTime(9.0, True),), "the queue's time request")
    tasks, words = expected([none] * 4, "auto", [4.0, 2.0])
    assert [t.seconds for t in tasks] == [2.0, 2.0, 4.0, 4.0] and not tasks[0].requested and "2 that succeeded" in words
    tasks, words = expected([own, none], None, [])
    assert [t.seconds for t in tasks] == [5.0, DEFAULT_TASK_S]
    assert "1 of 2" in words and "60 s is assumed" in words
    assert expected([], None, [])[0] == (TaskTime(DEFAULT_TASK_S),)


@given(st.lists(st.floats(0.5, 1e4), min_size=1, max_size=50), st.integers(100, 300))
def test_what_was_measured_keeps_its_mean(seen: list[float], count: int) -> None:
    tasks, _ = expected([Options()] * count, None, seen)
    assert len(tasks) == count
    mean = sum(t.seconds for t in tasks) / count
    assert abs(mean - sum(seen) / len(seen)) <= max(seen) * 0.51 * min(1, len(seen) / count)


# ---------------------------------------------------------------- jobs and workers
def one(job: Job, *rows: dict[str, Any], now: float = SUBMITTED, leaving: int | None = None) -> list[tuple[int, float]]:
    return [(s.cores, s.seconds) for s in supplies([job], rows, now, 2, leaving)]


def test_jobs_count_for_their_cores_and_the_time_they_have() -> None:
    assert one(JOB) == [(8, UNLIMITED_S)]
    assert one(replace(JOB, state=JobState.QUEUED)) == [(8, UNLIMITED_S)]
    assert one(replace(JOB, state=JobState.ENDED)) == []
    assert one(JOB, leaving=3) == []
    worker = {"name": "w", "job": "3", "alive": True, "slots": 4, "deadline": SUBMITTED + 100}
    assert one(JOB, worker) == [(8, 100.0)]
    assert one(JOB, worker, now=SUBMITTED + 200) == [(8, 0.0)]
    assert one(JOB, {**worker, "alive": False}) == [(8, UNLIMITED_S)]


def test_a_walltime_and_an_array_in_the_record_count() -> None:
    job = replace(JOB)
    for name, value in (("walltime_s", 7200), ("array", 5)):
        object.__setattr__(job, name, value)
    assert one(job) == [(40, 7200.0)]


def test_an_unknown_job_counts_for_a_while_and_one_without_an_id_does_not() -> None:
    unknown = replace(JOB, state=JobState.UNKNOWN)
    assert one(unknown) == [(8, UNLIMITED_S)]
    assert one(unknown, now=SUBMITTED + UNLIMITED_S + FORGOTTEN_S + 1) == []
    assert one(replace(unknown, batch_id=None)) == []
    assert one(replace(unknown, batch_id=None), {"name": "w", "job": "3", "alive": None, "slots": 1}) == [(8, UNLIMITED_S)]


def test_workers_of_no_job_count_unless_they_are_dead() -> None:
    rows = [
        {"name": "a", "job": None, "alive": True, "slots": 3, "deadline": SUBMITTED + 50},
        {"name": "b", "job": None, "alive": None, "slots": 1},
        {"name": "c", "job": None, "alive": False, "slots": 9},
        {"name": "d", "job": "99", "alive": True, "slots": 1},
    ]
    assert [(s.label, s.cores, s.seconds) for s in supplies([], rows, SUBMITTED, leaving=99)] == [
        ("worker a", 3, 50.0),
        ("worker b", 1, UNLIMITED_S),
    ]


def test_instants() -> None:
    assert unix_time("2026-01-01T00:00:00Z") == SUBMITTED
    assert unix_time(None) is None and unix_time("yesterday") is None


# ---------------------------------------------------------------- a real queue
def test_only_pending_tasks_count(root: Path) -> None:
    queue = fsqdo.create("q", time_request_s=10)
    first = queue.add("true")
    queue.add("true", requires=first)
    queue.add("true", cores=3, time_request_s=40)
    found = gather(queue)
    assert (found.ready, found.running, found.paused) == (2, 0, False)
    assert found.tasks == (TaskTime(10.0, True), TaskTime(40.0, True, 3))
    queue.pause()
    assert gather(queue).missing_tasks == 0
    queue.resume()
    task = queue.get()
    assert task is not None and (gather(queue).ready, gather(queue).running) == (1, 1)
    queue.close()


def test_a_task_that_runs_is_held_by_a_worker_that_counts(root: Path) -> None:
    queue = fsqdo.create("q")
    queue.add_multiple(["true"] * 3)
    assert gather(queue).missing_tasks == 3
    task = queue.get()
    assert task is not None
    (supply,) = gather(queue).supplies
    assert supply.cores == 1 and supply.seconds == UNLIMITED_S and gather(queue).missing_tasks == 0
    queue.close()


def test_many_tasks_are_counted_by_names_and_few_read(root: Path, seam: System) -> None:
    queue = fsqdo.create("q")
    queue.add_multiple([f"true {n}" for n in range(25_000)], time_request_s=2.0)
    queue.add_multiple([f"true {n}" for n in range(25_000)], time_request_s=4.0)
    opened, real = [], seam.open

    def counting(path: str, *more: Any) -> int:
        opened.append(path)
        return real(path, *more)

    seam.open = counting  # type: ignore[method-assign]
    found = gather(queue)
    assert found.ready == 50_000 and len(found.tasks) <= SAMPLE and found.task_s == pytest.approx(3.0, rel=0.05)
    assert len([path for path in opened if path.endswith((".json", ".jsonl", ".pack"))]) <= 2 * 50 + 5  # each pack once


def test_what_succeeded_is_measured(root: Path) -> None:
    queue = fsqdo.create("q")
    queue.add_multiple(["true", "false", "sleep 0.2"])
    queue.do(slots=3, report=lambda text: None)
    seen = sorted(durations(queue.store))
    assert len(seen) == 2 and seen[0] < 0.2 <= seen[1]
    queue.add("true")
    found = gather(queue)
    assert "2 that succeeded" in found.known_by and found.task_s in seen


def test_the_end_of_a_long_journal_is_enough(root: Path) -> None:
    queue = fsqdo.create("q")
    lines = [json.dumps({"name": f"{n:09d}", "outcome": "succeeded", "to": "x", "elapsed_s": float(n)}) for n in range(1000)]
    text = json.dumps({"worker": "h-1-a"}) + "\n" + "".join(line.replace(": ", ":") + "\n" for line in lines) + '{"name":"torn'
    Path(queue.directory, "outcomes", "h-1-a.jsonl").write_text(text)
    last = tail(queue.store, "h-1-a", 1000)
    assert 5 < len(last) < 30 and [o.elapsed_s for o in last] == [float(n) for n in range(1000 - len(last), 1000)]
    assert tail(queue.store, "nobody", 1000) == []
    assert len(tail(queue.store, "h-1-a", 10**7)) == 1000


def test_a_sample_that_cannot_be_read_is_left_out(root: Path) -> None:
    queue = fsqdo.create("q")
    queue.add_multiple(["true"] * 25_000, time_request_s=7.0)
    (load,) = Path(queue.directory, "loads").iterdir()
    for pack in load.glob("*.jsonl"):
        pack.unlink()
    found = gather(queue)
    assert found.ready == 25_000 and found.tasks == (TaskTime(DEFAULT_TASK_S),)


def test_asking_changes_nothing_but_what_was_observed(root: Path) -> None:
    queue = fsqdo.create("q")
    queue.add_multiple(["true"] * 5)
    before = sorted(str(path) for path in Path(queue.directory).rglob("*"))
    gather(queue)
    after = sorted(str(path) for path in Path(queue.directory).rglob("*"))
    assert [path for path in after if "/observed" not in path] == [path for path in before if "/observed" not in path]
