"""`explain` says why a task is where it is, and changes nothing; `status` says that pending tasks fit no worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo.cli import main
from fsqdo.liveness import describe_self
from tests.test_allocation import BATCH_VARIABLES
from tests.test_resources import write_journal


@pytest.fixture(autouse=True)
def no_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may run in a batch job themselves."""
    for name in list(os.environ):
        if name.startswith(BATCH_VARIABLES):
            monkeypatch.delenv(name)


@pytest.fixture
def queue(root: Path) -> Iterator[fsqdo.Queue]:
    yield (made := fsqdo.create("Blat"))
    made.close()


def add_worker(queue: fsqdo.Queue, name: str = "w-1-x", **said: Any) -> Path:
    """A worker that this process plays: it is alive as long as this test."""
    directory = Path(queue.directory, "running", name)
    directory.mkdir()
    whole = {"cores": 4, "gpus": 1, "mem_mb": 1000, "nodes": 1, "slots": 4, **said}
    (directory / "worker.json").write_text(json.dumps(describe_self(name, **whole)))
    return directory


def tree(queue: fsqdo.Queue) -> list[str]:
    """Every path in a queue, but for what observers note."""
    return sorted(str(path) for path in Path(queue.directory).rglob("*") if "observed" not in path.parts)


def why(queue: fsqdo.Queue, task_id: int) -> list[str]:
    """What `explain` says; it must change nothing."""
    before = tree(queue)
    found: list[str] = queue.explain(task_id)["why"]
    assert tree(queue) == before
    return found


def test_pending_without_a_worker(queue: fsqdo.Queue) -> None:
    task = queue.add("true")
    queue.pause()
    assert why(queue, task) == [
        "the queue is paused: `fsqdo resume` lets workers claim again",
        "no worker is there: start one with `fsqdo launch` or `fsqdo do`",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cores": 5}, "no worker fits: it needs 5 cores and this worker has 4 (w-1-x)"),
        ({"gpus": 2}, "no worker fits: it needs 2 gpus and this worker has 1 (w-1-x)"),
        ({"mem_mb": 1001}, "no worker fits: it needs 1001 MiB of memory and this worker has 1000 (w-1-x)"),
        ({"nodes": 2}, "no worker fits: it needs 2 nodes and this worker has 1 (w-1-x)"),
        ({"cores": 4}, "1 of 1 workers can run it; priority 0"),
        ({"priority": 3}, "1 of 1 workers can run it; priority 3"),
    ],
)
def test_pending_with_a_worker(queue: fsqdo.Queue, options: dict[str, int], said: str) -> None:
    add_worker(queue)
    assert why(queue, queue.add("true", **options)) == [said]


def test_the_reasons_of_many_workers(queue: fsqdo.Queue) -> None:
    task = queue.add("true", cores=8)
    for i in range(3):
        add_worker(queue, f"small-{i}-x")
    add_worker(queue, "tiny-1-x", cores=1)
    assert why(queue, task) == [
        (
            "no worker fits: it needs 8 cores and this worker has 4 (small-0-x and 2 more); "
            "it needs 8 cores and this worker has 1 (tiny-1-x)"
        )
    ]
    add_worker(queue, "big-1-x", cores=8)
    assert why(queue, task) == ["1 of 5 workers can run it; priority 0"]


def test_a_worker_that_drains_or_ends_soon(queue: fsqdo.Queue) -> None:
    queue.configure(time_request_s=3600)
    task = queue.add("true")
    directory = add_worker(queue, deadline=int(time.time() + 600))
    (said,) = why(queue, task)
    assert said.startswith("no worker fits: it asks for 3.6e+03 s and this worker has ")
    (directory / "worker.json").unlink()
    directory.rmdir()
    (add_worker(queue) / "DRAIN").touch()
    assert why(queue, task) == ["the workers that fit it are told to drain, and claim no more"]


def test_what_was_learnt_counts(queue: fsqdo.Queue) -> None:
    queue.configure(time_request="auto")
    write_journal(queue.store, "a-1-x", [900.0] * 30)
    add_worker(queue, deadline=int(time.time() + 600))
    (said,) = why(queue, queue.add("true"))
    assert said.startswith("no worker fits: it asks for 900 s and this worker has ")


def test_what_is_no_worker_counts_for_nothing(queue: fsqdo.Queue) -> None:
    """A dead one, one whose file is torn, one of another make."""
    task = queue.add("true")
    directory = add_worker(queue, "dead-1-x")
    said = json.loads((directory / "worker.json").read_text())
    (directory / "worker.json").write_text(json.dumps({**said, "pid": 2**22 + 1}))
    (add_worker(queue, "torn-1-x") / "worker.json").write_text('{"cores":')
    assert why(queue, task) == ["no worker is there: start one with `fsqdo launch` or `fsqdo do`"]
    (add_worker(queue, "other-1-x") / "worker.json").write_text('{"cores": 2, "gpus": "many", "deadline": "late"}')
    assert why(queue, task) == ["1 of 1 workers can run it; priority 0"]


def test_waiting(queue: fsqdo.Queue) -> None:
    ids = queue.add_multiple(["true"] * 9 + ["exit 3"])
    task = queue.add("true", requires=ids, after=ids[:2])
    assert why(queue, task) == [
        "it requires 10 of 10 tasks still to succeed: 1, 2, 3, 4, 5, …",
        "2 of the 2 tasks it is to run after have not ended: 1, 2",
    ]
    queue.do(report=lambda text: None)
    assert why(queue, task) == [
        "it requires 1 of 10 tasks still to succeed: 10",
        "blocked: 10 failed or was killed; `fsqdo retry` or `rerun` those to go on",
    ]


def test_blocked_through_others(queue: fsqdo.Queue) -> None:
    """It is among those that `tasks --blocked` lists, and says so, although nothing that it requires itself has failed."""
    first = queue.add("true")
    second = queue.add("true", requires=first)
    third = queue.add("true", requires=second)
    assert why(queue, third) == [f"it requires 1 of 1 tasks still to succeed: {second}"]
    queue.kill(id=first)
    assert [task.id for task in queue.tasks(blocked=True)] == [second, third]
    assert why(queue, second)[-1] == f"blocked: {first} failed or was killed; `fsqdo retry` or `rerun` those to go on"
    assert (
        why(queue, third)[-1]
        == "blocked: what it requires waits in the end for 1, which failed or was killed; `fsqdo retry` it"
    )


def test_waiting_for_a_retry(queue: fsqdo.Queue) -> None:
    queue.configure(retry_delay_s=600, max_retries=1)
    task = queue.add("exit 3")
    queue.do(timeout=0, report=lambda text: None)
    said, now = why(queue, task)
    assert 300 < float(said.split(" ")[7]) <= 601
    source, target = now.split(" ")[5:7]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)
    assert queue.task(task).state == "Pending"


def test_running_and_ended(queue: fsqdo.Queue) -> None:
    task = queue.add("exit 3")
    held = queue.get()
    assert held is not None
    (said,) = why(queue, task)
    assert said.startswith("worker ") and "which is alive" in said
    held.set_state("Pending")
    queue.do(report=lambda text: None)
    (said,) = why(queue, task)
    assert said.endswith(": exit code 3")
    never = queue.add("true")
    queue.kill(id=never)
    assert why(queue, never) == ["it was killed before an attempt of it ended", BACK.format(queue.name, never)]


BACK = "`fsqdo retry {} --state Killed {}` puts it back to pending"


def test_killed_after_attempts(queue: fsqdo.Queue) -> None:
    """One that ran when it was killed, and one that was to be tried again."""
    queue.add("true")
    held = queue.get()
    assert held is not None
    held.set_state("Killed", message="enough of it")
    how, back = why(queue, 1)
    assert how.startswith("its last attempt ended 20") and how.endswith(": enough of it") and back == BACK.format(queue.name, 1)
    task = queue.add("exit 3", max_retries=1)
    queue.do(timeout=0, report=lambda text: None)
    queue.kill(id=task)
    how, back = why(queue, task)
    assert how.startswith("it was killed afterwards; its last attempt ended 20") and how.endswith(": exit code 3")


def test_the_command(queue: fsqdo.Queue, capsys: pytest.CaptureFixture[str]) -> None:
    add_worker(queue)
    queue.add("true", cores=9)
    assert main(["explain", "Blat", "1"]) == 0
    assert capsys.readouterr().out == "task 1 is Pending\n  no worker fits: it needs 9 cores and this worker has 4 (w-1-x)\n"
    assert main(["explain", "Blat", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "Pending"
    assert main(["explain", "Blat", "2"]) == 1
    assert "has no task 2" in capsys.readouterr().err


def test_status_says_that_no_worker_fits(queue: fsqdo.Queue) -> None:
    queue.add_multiple(["true"] * 3, cores=9)
    queue.add("true")
    queue.add_multiple(["true"] * 1500, gpus=2)
    assert "fit no worker" not in str(queue)
    add_worker(queue)
    assert "Pending    1504  (99 of the first 100 fit no worker)\n" in str(queue)
    add_worker(queue, "big-1-x", cores=9)
    assert "Pending    1504  (96 of the first 100 fit no worker)\n" in str(queue)
    add_worker(queue, "bigger-1-x", cores=9, gpus=2)
    assert "Pending    1504\n" in str(queue)


@pytest.mark.parametrize("markers", ["as they were", "torn", "of another file", "of no file"])
def test_status_looks_at_opened_packs_and_at_single_tasks(queue: fsqdo.Queue, markers: str) -> None:
    queue.add_multiple(["true"] * 1990, gpus=2)
    done = queue.do(func=lambda task: None, max_tasks=5, gpus=2, report=lambda text: None)
    assert done.succeeded == 5  # it opened a slice of the first pack; the rest stays beside it as markers
    for number in range(40):
        queue.add("true", gpus=number % 2, priority=1)
    beside = sorted(Path(queue.directory, "pending/0/000000001-000000999").glob("*.pack"))
    loads = Path(queue.directory, "loads/000000001-000001990")
    other = {"torn": "", "of another file": f"{loads.name}/000001000-000001990.jsonl", "of no file": "../queue.json"}
    for marker in beside if markers in other else ():
        marker.write_text(other[markers])
    assert beside
    add_worker(queue, gpus=0)
    assert "(80 of the first 100 fit no worker)" in str(queue)
    add_worker(queue, "many-1-x", gpus=1)
    assert "(60 of the first 100 fit no worker)" in str(queue)
    queue.configure(time_request_s=60)
    assert "(60 of the first 100 fit no worker)" in str(queue)
    for name in ("w-1-x", "many-1-x"):
        shutil.rmtree(f"{queue.directory}/running/{name}")
        add_worker(queue, name, gpus=2, deadline=1.0)
    assert "(100 of the first 100 fit no worker)" in str(queue)


def test_a_real_worker_says_what_it_has(queue: fsqdo.Queue, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    queue.add(f"echo now > {tmp_path}/begun; read line < {tmp_path}/go")
    queue.add("true", gpus=3)
    words = ["do", "Blat", "-j", "2", "--cores", "3", "--gpus", "2", "--mem", "500", "--runtime", "1h", "--grace", "5", "--pin"]
    process = subprocess.Popen([sys.executable, "-m", "fsqdo", *words], stderr=subprocess.DEVNULL)
    try:
        (tmp_path / "begun").read_text()
        (worker,) = queue.workers()
        assert {key: worker[key] for key in ("slots", "cores", "gpus", "mem_mb", "nodes")} == {
            "slots": 2, "cores": 3, "gpus": 2, "mem_mb": 500, "nodes": 1,
        }  # fmt: skip
        assert why(queue, 2) == [f"no worker fits: it needs 3 gpus and this worker has 2 ({worker['name']})"]
    finally:
        (tmp_path / "go").write_text("\n")
        assert process.wait(60) == 0
