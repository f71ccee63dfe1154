"""Every example, run as it stands by the programs a user would run it with."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path

import pytest

import fsqdo
from fsqdo.batch import get_system
from fsqdo.config import load_config
from fsqdo.errors import BatchError
from tests import terminal
from tests.checker import read_queue

EXAMPLES = terminal.CHECKOUT / "examples"


class Scratch:
    """A scratch directory in which examples are run, with the queues beside it."""

    def __init__(self, tmp_path: Path) -> None:
        self.cwd = tmp_path / "a scratch directory"
        self.cwd.mkdir()
        self.queues = tmp_path / "queues"
        self.env = terminal.environment(tmp_path / "bin")

    def run(self, program: str, script: str, *arguments: str) -> str:
        """Run an example, which must succeed; what it wrote."""
        code, text = terminal.run([program, str(EXAMPLES / script), *arguments], self.cwd, self.env)
        assert code == 0, text
        return text

    def sound(self, name: str, root: Path | None = None) -> dict[str, int]:
        """The number of tasks by state, once the tree was seen to be sound by a reader that is not fsqdo's own."""
        report = read_queue((root or self.queues) / name)
        assert report.problems(healed=True) == []
        return {state: count for state, count in report.counts().items() if count}


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """A new one."""
    return Scratch(tmp_path)


def test_every_example_is_listed_and_tested() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    listed = set(re.findall(r"^\| \[(\w+)\]\((\w+)\)", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE))
    assert listed == {(name, name) for name in there}
    assert there == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} & there


CONFIGS = {
    "slurm": [("batch", "200"), ("debug", "8"), ("gpu", "8 --gpus-per-worker 1"), ("clean", "8")],
    "perlmutter-like": [
        ("cpu", "512"),
        ("gpu", "16 --gpus-per-worker 1 --cores-per-worker 16"),
        ("debug", "8"),
        ("container", "9"),
    ],
    "pbs": [("workq", "72"), ("express", "8"), ("project", "8")],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config(scratch: Scratch, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files load without a word, and each of their profiles can be launched with, as far as its system is there."""
    path = EXAMPLES / "config" / f"{name}.yaml"
    scratch.env["FSQDO_CONFIG"] = str(path)
    monkeypatch.setenv("FSQDO_CONFIG", str(path))
    config = load_config()
    assert config.sources == (str(path),)
    assert {profile for profile, _ in CONFIGS[name]} == set(config.profiles) - {"local", "base"}
    code, shown = terminal.run("fsqdo config", scratch.cwd, scratch.env)
    assert code == 0 and str(path) in shown
    fsqdo.create("Blat")
    for profile, words in CONFIGS[name]:
        try:
            get_system(config.profiles[profile].system)
        except BatchError:
            pytest.skip(f"this release has no {config.profiles[profile].system}")
        scratch.env["FSQDO_DIR"] = os.environ["FSQDO_DIR"]
        line = f"fsqdo launch Blat {words} --pack --walltime 20:00 --profile {profile} --dry-run"
        code, text = terminal.run(line, scratch.cwd, scratch.env)
        assert code == 0, text
        assert f"profile {profile} ({config.profiles[profile].system})" in text
        assert " do Blat -j " in text


def test_every_configuration_is_tested() -> None:
    assert {path.stem for path in (EXAMPLES / "config").iterdir()} == set(CONFIGS)


def test_priorities(scratch: Scratch) -> None:
    text = scratch.run("sh", "priorities/run.sh")
    assert text.splitlines()[-6:] == ["urgent", "ordinary 3", "ordinary 1", "ordinary 2", "whenever 1", "whenever 2"]
    assert scratch.sound("priorities") == {"succeeded": 6}


def test_objects_with_function(scratch: Scratch) -> None:
    text = scratch.run("python", "objects_with_function/run.py")
    values = dict(re.findall(r"^(\w+) +(-?[0-9.]+)$", text, re.MULTILINE))
    assert {name: float(value) for name, value in values.items()} == pytest.approx(
        {"sin": 2.0, "cos": 0.0, "exp": math.exp(math.pi) - 1, "sqrt": math.pi**1.5 * 2 / 3}, abs=2e-3
    )
    # How Python words the error differs between its versions.
    assert re.search(r"^log   failed: ValueError: .+$", text, re.MULTILINE)
    assert scratch.sound("integrals") == {"succeeded": 4, "failed": 1}


def test_groups_and_merge(scratch: Scratch) -> None:
    text = scratch.run("python", "groups_and_merge/run.py")
    assert "Waiting    1  (1 blocked)\nPending    0\nRunning    0\nSucceeded  23\nFailed     1\n" in text
    assert "blocked: merge 3\n1 task reset to pending\n" in text
    assert text.endswith("largest of each group: 10 30 50 70\n")
    assert scratch.sound("extract") == {"succeeded": 25}


def test_extract(scratch: Scratch) -> None:
    """On this machine with fewer of everything; on a real cluster the whole of it (tests/cluster)."""
    text = scratch.run("sh", "extract/run.sh", "local", "6", "7", "2")
    assert "48 tasks" in text
    assert re.search(r'^readings/\d/\d, line 1: "\d+,\d" is no number$', text, re.MULTILINE)
    assert "6 tasks reset to pending\n" in text
    assert re.search(r"^station 6 \d+\.\d\d lowest .* days 7$", text, re.MULTILINE)
    assert scratch.sound("extract") == {"succeeded": 48}


def test_add_from_task(scratch: Scratch) -> None:
    text = scratch.run("sh", "add_from_task/run.sh")
    assert text.endswith("integral: 0.66667\n")
    done = scratch.sound("refine")
    parts = len(list((scratch.cwd / "parts").iterdir()))
    assert done == {"succeeded": 2 * parts - 1}  # a binary tree, whose leaves are the parts
    assert parts > 10


def test_shell_worker(scratch: Scratch) -> None:
    text = scratch.run("sh", "shell_worker/run.sh")
    assert "Succeeded  9\nFailed     1\n" in text
    assert "nine times 7 is 63\n" in text
    assert "there is no such directory" in text.splitlines()[-1]
    assert scratch.sound("by-hand") == {"succeeded": 9, "failed": 1}
    assert fsqdo.connect("by-hand").workers() == []


def test_shell_worker_beside_another(scratch: Scratch) -> None:
    """What one kind of worker leaves the other takes up: a task that failed in the shell, and what waited for it."""
    q = fsqdo.create("mixed")
    first = q.add("test -e fixed", cwd=scratch.cwd, priority=5)
    q.add("echo second", requires=first)
    quoted = q.add(r'echo "a \\ b" / ' + "'c'")
    assert scratch.run("sh", "shell_worker/worker.sh", q.directory) == ""
    assert q.log(quoted) == b"a \\ b / c\n"
    (scratch.cwd / "fixed").touch()
    q.retry()
    assert scratch.run("sh", "shell_worker/worker.sh", q.directory) == ""
    assert q.promote() == 1
    assert scratch.run("sh", "shell_worker/worker.sh", q.directory) == ""
    assert scratch.sound("mixed") == {"succeeded": 3}
    assert [attempt["exit_code"] for attempt in q.show(first)["attempts"]] == [1, 0]


def test_shell_worker_counts_failures_in_names(scratch: Scratch) -> None:
    q = fsqdo.create("again")
    task_id = q.add("false")
    for expected in ("000000001.f1@", "000000001.r1f1@", "000000001.r1f2@"):
        assert scratch.run("sh", "shell_worker/worker.sh", q.directory) == ""
        (failed,) = Path(q.directory, "failed/000000").glob("*.json")
        assert failed.name.startswith(expected)
        if expected.startswith("000000001.f1"):
            assert q.retry(id=task_id) == 1
        else:
            # By hand, under a name without the worker: the counters stay, and the next failure raises f.
            pending = Path(q.directory, "pending/0/000000")
            pending.mkdir(parents=True, exist_ok=True)
            os.rename(failed, pending / (failed.name.partition("@")[0] + ".json"))


def test_shell_worker_that_was_declared_dead_changes_nothing(scratch: Scratch) -> None:
    q = fsqdo.create("fenced")
    os.mkfifo(scratch.cwd / "started")
    os.mkfifo(scratch.cwd / "go")
    q.add("echo > started; cat go", cwd=scratch.cwd)
    worker = subprocess.Popen(["sh", str(EXAMPLES / "shell_worker/worker.sh"), q.directory], env=scratch.env)
    try:
        (scratch.cwd / "started").read_text()
        assert [found.tasks for found in q.recover(force=True)] == [1]
        (scratch.cwd / "go").write_text("late\n")
        assert worker.wait(terminal.HANG_S) == 1
    finally:
        worker.kill()
        worker.wait()
    (task,) = q.tasks()
    assert (task.state, scratch.sound("fenced")) == (fsqdo.State.PENDING, {"pending": 1})


def test_stdlib_statistics(scratch: Scratch) -> None:
    """The demo, on three packages; json is plain ASCII, the two others are not."""
    work = scratch.cwd / "demo"
    text = scratch.run("sh", "stdlib_statistics/demo.sh", str(work), "json", "urllib", "email")
    assert "UnicodeDecodeError: 'ascii' codec can't decode" in text
    assert "python merge.py json" not in text.partition("--blocked")[2].partition("# What did")[0]
    assert "Waiting    python merge.py urllib\n" in text
    assert "Waiting    python report.py\n" in text
    assert "Failed     python measure.py urllib urllib/parse.py\n" in text
    tasks = [json.loads(line) for line in (work / "tasks.jsonl").read_text("utf-8").splitlines()]
    assert scratch.sound("stdlib", work / "queues") == {"succeeded": len(tasks)}
    report = (work / "report.txt").read_text("utf-8").splitlines()
    assert {line.split()[0] for line in report} == {"package", "json", "urllib", "email", "total"}
    assert int(report[-1].split()[1]) == len(tasks) - 4
