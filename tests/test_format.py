"""Format 1, as docs/format.md has it: a golden tree, a worker that knows only that page, other programs' journals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import fsqdo
from fsqdo.recovery import recover
from tests.checker import read_queue
from tests.test_cli import ok

HANG_S = 120
WORKER = re.compile(r"[A-Za-z0-9_.-]+-[0-9]+-[0-9a-f]{6,}")

# A change of this is a change of the format: docs/format.md, an old reader (tests/other_worker.py) and a word in the CHANGELOG.
GOLDEN = """
failed/000000/000000002.f1@WORKER.json
failed/000000/000000002.f1@WORKER.txt
killed/000000/000000005.r1.json
loads/000000001-000000003/000000001-000000003.jsonl
loads/000000009-000001208/000000009-000000999.jsonl
loads/000000009-000001208/000001000-000001208.jsonl
logs/WORKER/0.log
next-id/000001209.TOKEN
outcomes/WORKER.jsonl
pending/-3/000000/000000006.r1m3.json
pending/0/000000/000000004.r2.json
pending/0/000000009-000000999.pack
pending/0/000001000-000001208.pack
queue.json
succeeded/000000/000000001@WORKER.json
succeeded/000000/000000003@WORKER.json
waiting/000000/000000002/000000008.json
waiting/000000/000000006/000000007.json
"""


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """An empty queue."""
    return fsqdo.create("Q", pack=False)


def files(queue: fsqdo.Queue) -> str:
    """The files of a queue, with what is different each time made the same."""
    base = Path(queue.directory)
    found = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file() and not path.name.startswith("."))
    text = "\n".join(name for name in found if not name.startswith(("locks/", "observed/")))
    return re.sub(r"(next-id/[0-9]+)\.\w+", r"\1.TOKEN", WORKER.sub("WORKER", text))


def test_the_golden_tree(queue: fsqdo.Queue, tmp_path: Path) -> None:
    (tmp_path / "three").write_text("true 1\nexit 3\ntrue 3\n")
    ok("load", "Q", tmp_path / "three")
    ok("do", "Q")
    for _ in range(4):
        queue.add("true")
    queue.add("true", requires=[2])
    queue.kill(id=[4, 5])
    queue.rerun(id=4)
    queue.reprioritize(-3, id=6)
    path = Path(queue.directory, "pending/0/000000/000000007.json")
    assert json.loads(path.read_text())["task"] == "true"
    queue.kill(id=7)
    (next(Path(queue.directory, "killed/000000").glob("000000007*"))).unlink()
    queue.add_multiple(["true"] * 1200)
    Path(queue.directory, "waiting/000000/000000006").mkdir(parents=True)
    Path(queue.directory, "waiting/000000/000000006/000000007.json").write_text('{"id":7,"task":"true","requires":["6"]}\n')
    assert files(queue) == GOLDEN.strip()
    marker = Path(queue.directory, "pending/0/000001000-000001208.pack")
    assert marker.read_text() == "000000009-000001208/000001000-000001208.jsonl\n"


def test_what_stands_in_the_files(queue: fsqdo.Queue) -> None:
    queue.add("exit 3", requires=[], priority=4, max_retries=0, env={"A": "b"}, cwd="/")
    queue.do(report=lambda text: None)
    base = Path(queue.directory)
    task = json.loads(next(base.glob("failed/000000/*.json")).read_text())
    assert task.pop("created_at")
    assert task == {"id": 1, "task": "exit 3", "priority": 4, "max_retries": 0, "env": {"A": "b"}, "cwd": "/"}
    first, started, ended = map(json.loads, next(base.glob("outcomes/*.jsonl")).read_text().splitlines())
    assert first["worker"] == ended["to"].partition("@")[2].removesuffix(".json")
    assert {key: started[key] for key in ("name", "outcome", "to", "log")} == {
        "name": "000000001",
        "outcome": "started",
        "to": "",
        "log": [0, 0, -1],
    }
    assert (ended["name"], ended["outcome"], ended["exit_code"], ended["slot"]) == ("000000001", "failed", 3, 0)
    assert ended["to"].startswith("failed/000000/000000001.f1@")
    settings = json.loads((base / "queue.json").read_text())
    assert (settings["format"], settings["name"], settings["pack"]) == (1, "Q", False)


def test_a_worker_that_knows_only_the_document(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """Beside fsqdo's own: packs, requirements, retries, failures; every task once, and all that is asked of it can be told."""
    count = 1500
    commands = ["exit 3" if n % 100 == 99 else f"echo {n}" for n in range(count)]
    queue.add_multiple(commands)
    more = [queue.add("echo after", requires=[n]) for n in (1, 5, 601, 1401)]
    more.append(queue.add("echo fan", requires="1-90"))
    blocked = queue.add("echo never", requires=[100])
    flaky = queue.add("test -e seen || { touch seen; exit 1; }", max_retries=2, cwd=str(tmp_path))
    words = [sys.executable, "-m", "tests.other_worker", queue.directory]
    others = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    own = subprocess.Popen([sys.executable, "-m", "fsqdo", "do", "Q"], stderr=subprocess.DEVNULL)
    ran = [int(other.communicate(timeout=HANG_S)[0]) for other in others]
    own.wait(HANG_S)
    queue.do(report=lambda text: None)
    assert min(ran) > 0
    report = read_queue(queue.directory)
    assert report.problems(range(1, flaky + 1)) == []
    counts = {state: number for state, number in report.counts().items() if number}
    assert counts == {"succeeded": count - 15 + len(more) + 1, "failed": 15, "waiting": 1}
    assert queue.task(blocked).state == "Waiting"
    last = queue.show(flaky)["attempts"]
    assert [attempt["outcome"] for attempt in last] == ["retry", "succeeded"]
    assert len(queue.tasks(exitcode=3)) == 15
    for task in queue.tasks(state="Succeeded"):
        assert task.outcome is not None and task.outcome.outcome == "succeeded"
    assert queue.log(1) == b"0\n"
    assert queue.pack(wait=False) == 990  # their lines are good enough to be packed
    assert read_queue(queue.directory).problems(range(1, flaky + 1)) == []


# ---------------------------------------------------------------- journals of other programs
DEAD = "elsewhere-1-dead"


def _with_line(queue: fsqdo.Queue, line: str, name: str = "000000001") -> None:
    """Task 1 in the directory of a worker that has died, and a line in its journal."""
    queue.add("true")
    base = Path(queue.directory)
    home = base / "running" / DEAD
    home.mkdir()
    (base / "pending/0/000000/000000001.json").rename(home / f"{name}.json")
    (base / f"outcomes/{DEAD}.jsonl").write_text(json.dumps({"worker": DEAD}) + "\n" + line + "\n")


TO = f"succeeded/000000/000000001@{DEAD}.json"
WRITTEN: list[Callable[[dict[str, object]], str]] = [
    lambda line: json.dumps(line, separators=(",", ":")),
    json.dumps,
    lambda line: json.dumps(dict(reversed(line.items()))),
    lambda line: json.dumps({**line, "note": {"nested": [1]}}),
    lambda line: "  " + json.dumps(line) + " ",
    lambda line: json.dumps({"pid": 3, **line}, separators=(",", ":")),
    lambda line: json.dumps(line).replace("000000001", "00000000\\u0031", 1),
]


@pytest.mark.parametrize("write", WRITTEN)
def test_a_journal_is_json_however_it_is_written(queue: fsqdo.Queue, write: Callable[[dict[str, object]], str]) -> None:
    line = {"name": "000000001", "outcome": "succeeded", "to": TO, "exit_code": 0, "result": 5}
    _with_line(queue, write(line))
    recover(queue.store, force=True)
    assert queue.task(1).state == "Succeeded"
    assert queue.show(1)["attempts"][-1]["outcome"] == "succeeded"
    assert list(queue.results()) == [(1, 5)]
    assert queue.tasks(exitcode=0)[0].id == 1


@pytest.mark.parametrize(
    "line",
    [
        {"name": "000000001", "pid": 1, "outcome": "started", "to": ""},
        {"name": "000000001", "outcome": "paused", "to": TO},
        {"name": "000000001", "outcome": "retry", "to": "succeeded/000000/000000001.json"},
        {"name": "000000001", "outcome": "interrupted", "to": "waiting/until/1/000000001.json"},
        {"name": "000000001", "outcome": "succeeded", "to": None},
        {"name": 1, "outcome": "succeeded", "to": TO},
        {"name": "000000001", "outcome": "succeeded"},
        {"event": "note", "name": "caf\ud83d", "outcome": "failed", "to": ""},
        {"outcome": "succeeded", "name": "0" * 30, "to": TO},
    ],
)
def test_what_is_no_end_sends_nothing_anywhere(queue: fsqdo.Queue, line: dict[str, object]) -> None:
    _with_line(queue, json.dumps(line, separators=(",", ":")))
    recover(queue.store, force=True)
    assert [task.state for task in queue.tasks()] == ["Pending"]


@pytest.mark.parametrize(
    "odd",
    [
        {"log": [0, 0, float("inf")]},
        {"log": "x"},
        {"elapsed_s": "1.5", "started_at": 5, "ended_at": [1]},
        {"signal": "9", "slot": None, "cpu_s": float("nan")},
        {"reason": 7, "exit_code": "0", "max_rss_kb": 10**30},
    ],
)
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_what_is_not_what_it_should_be_is_left_out(queue: fsqdo.Queue, odd: dict[str, object], outcome: str) -> None:
    to = TO if outcome == "succeeded" else TO.replace("succeeded/", "failed/").replace("1@", "1.f1@")
    _with_line(queue, json.dumps({"outcome": outcome, "name": "000000001", "to": to, **odd}))
    recover(queue.store, force=True)
    assert queue.task(1).state == outcome.capitalize()
    queue.show(1)
    queue.explain(1)
    assert queue.tasks(exitcode=99) == [] and queue.log(1) == b""
    queue.retry()


@pytest.mark.parametrize(
    "to",
    [
        "../escaped.json",
        "queue.json",
        "logs/x.json",
        "succeeded/000000",
        "succeeded/000000/000000002@w.json",
        "succeeded/000001/000000001@w.json",
        "succeeded/../../000000001@w.json",
        "failed/000000/000000001.f1@w.json",
        "/tmp/000000001.json",
        "",
        "pending/0/000000/000000001.s1.json",
    ],
)
def test_no_line_sends_a_task_where_it_does_not_belong(queue: fsqdo.Queue, to: str) -> None:
    _with_line(queue, json.dumps({"name": "000000001", "outcome": "succeeded", "to": to}))
    before = Path(queue.directory, "queue.json").read_text()
    recover(queue.store, force=True)
    assert Path(queue.directory, TO).exists()
    assert Path(queue.directory, "queue.json").read_text() == before


def test_attempts_are_in_the_order_of_their_counters(queue: fsqdo.Queue) -> None:
    """Twelve of them within a second, and whatever the clocks of the hosts say."""
    queue.add("echo $FSQDO_ATTEMPT; exit 1", max_retries=11)
    queue.store.write_settings(replace(queue.store.settings, retry_delay_s=0))
    queue.do(report=lambda text: None)
    assert queue.log(1) == b"12\n"
    assert [queue.log(1, attempt) for attempt in range(1, 13)] == [b"%d\n" % n for n in range(1, 13)]
    journal = next(Path(queue.directory, "outcomes").iterdir())
    journal.write_text(journal.read_text().replace('"name":"000000001.f11"', '"started_at":"1999","name":"000000001.f11"'))
    assert queue.log(1) == b"12\n"
