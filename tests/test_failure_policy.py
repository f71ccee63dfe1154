"""The failure policy through the installed program and real workers: every setting, bad values, stops within a check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import limits
from fsqdo.errors import StorageError
from fsqdo.failures import Failures, failed_since_resume
from fsqdo.journal import read, workers
from fsqdo.names import TaskName
from fsqdo.outcome import Outcome
from fsqdo.policy import begin, decide
from fsqdo.runner import Spawner
from fsqdo.slots import Slot
from fsqdo.task import State
from fsqdo.taskoptions import Options
from fsqdo.walltime import parse_walltime
from fsqdo.workeroptions import WorkerOptions
from tests.test_cli import PROGRAM, _environment, ok, refused, run

HANG_S = 60


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that will be so; what it is."""
    end = time.monotonic() + HANG_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the program and let it run; whatever is left is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, *map(str, words)], env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def outcomes(queue: fsqdo.Queue) -> list[Outcome]:
    """How attempts ended, by all journals, by task and then in order."""
    found = [outcome for worker in workers(queue.store) for outcome in read(queue.store, worker)]
    return sorted((o for o in found if o.outcome != "started"), key=lambda o: (int(o.name[:9]), o.ended_at or ""))


def counts(queue: fsqdo.Queue) -> dict[str, int]:
    return {state: n for state, n in queue.status()["ntasks"].items() if n}


def create(*options: object) -> fsqdo.Queue:
    ok("create", "Q", "--retry-delay", "0", *options)
    return fsqdo.connect("Q")


# ---------------------------------------------------------------- retries and the protocol
def test_retry_on_and_no_retry_on(root: Path) -> None:
    queue = create("--max-retries", 2, "--retry-on", "75,SIGKILL", "--no-retry-on", "9")
    for command in ("exit 75", "kill -9 $$", "exit 9", "exit 1"):
        queue.add(command)
    ok("add", "Q", "exit 1", "--retry-on", "1-3", "--max-retries", 1)
    ok("add", "Q", "exit 75", "--no-retry-on", "75")
    ok("do", "Q", "--bad-node-after", 0)
    attempts = {task.id: sum(int(o.name[:9]) == task.id for o in outcomes(queue)) for task in queue.tasks()}
    assert attempts == {1: 3, 2: 3, 3: 1, 4: 1, 5: 2, 6: 1}
    assert counts(queue) == {"Failed": 6}


def test_exit_codes_mean_what_the_queue_says(root: Path, tmp_path: Path) -> None:
    queue = create("--max-retries", 1, "--exit-codes", "3=succeed", "--exit-codes", "4=fail", "--exit-codes", "85,86=restart")
    assert queue.settings.exit_codes == {"3": "succeed", "4": "fail", "85": "restart", "86": "restart"}
    once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; exit 85; }}"
    for command in ("exit 3", "exit 4", once, "exit 86", "exit 5"):
        queue.add(command)
    ok("do", "Q")
    states = {task.id: task.state for task in queue.tasks()}
    assert states == {1: State.SUCCEEDED, 2: State.FAILED, 3: State.SUCCEEDED, 4: State.FAILED, 5: State.FAILED}
    by_task = {n: [o.outcome for o in outcomes(queue) if int(o.name[:9]) == n] for n in states}
    assert by_task == {
        1: ["succeeded"],
        2: ["failed"],
        3: ["interrupted", "succeeded"],
        4: ["interrupted"] * 5 + ["retry", "failed"][1:],
        5: ["retry", "failed"],
    }
    assert "max_interruptions is 5" in queue.show(4)["story"]


def test_a_task_pauses_the_queue_and_everybody_can_see_why(root: Path) -> None:
    queue = create("--exit-codes", "99=pause")
    queue.add('test "$FSQDO_ATTEMPT" -gt 1 || { echo no licence; exit 99; }')
    queue.add("true")
    said = run("do", "Q", "--timeout", 0)
    assert said.returncode == 0 and "the queue is paused: task 1 asked for it by exit code 99" in said.stderr
    assert counts(queue) == {"Pending": 2}
    reason = "task 1 asked for it by exit code 99 ("
    assert ok("status", "Q").startswith(f"Q is Paused: {reason}")
    assert json.loads(ok("status", "Q", "--json"))["reason"].startswith(reason)
    assert f"paused: {reason}" in ok("list")
    assert json.loads(ok("list", "--json"))["reason"].startswith(reason)
    ok("resume", "Q")
    ok("do", "Q")
    assert counts(queue) == {"Succeeded": 2} and "reason" not in queue.status()


def test_reasons_of_a_pause(root: Path) -> None:
    queue = create()
    paused = Path(queue.directory, "PAUSED")
    paused.touch()
    assert ok("status", "Q").splitlines()[0] == "Q is Paused"
    assert "reason" not in json.loads(ok("status", "Q", "--json"))
    ok("pause", "Q", "--reason", "not in its place of the first")
    assert ok("status", "Q").splitlines()[0] == "Q is Paused"
    ok("resume", "Q")
    ok("pause", "Q", "--reason", "two\nlines")
    ok("pause", "Q", "--reason", "later")
    assert ok("status", "Q").splitlines()[0] == "Q is Paused: two lines"
    paused.write_bytes(b"\x1b[31m\xff by hand\nmore\n")
    line = ok("status", "Q").splitlines()[0]
    assert line.startswith("Q is Paused: ") and line.endswith("by hand") and "\x1b" not in line
    assert "\x1b" not in ok("list") and "by hand" in ok("list")
    paused.unlink()
    assert ok("status", "Q").splitlines()[0] == "Q is Active"


# ---------------------------------------------------------------- success_check
def test_success_check(root: Path, tmp_path: Path) -> None:
    check = 'echo "check $FSQDO_TASK_ID $FSQDO_EXIT_CODE $FSQDO_SLOT $COLOUR in $PWD"; test -e out.$FSQDO_TASK_ID || exit 3'
    queue = create("--success-check", check, "--exit-codes", "7=succeed")
    queue.add("echo task; touch out.1", cwd=str(tmp_path), env={"COLOUR": "red"})
    queue.add("true", cwd=str(tmp_path))
    queue.add("exit 1; # not checked", cwd=str(tmp_path))
    queue.add("touch out.4; exit 7", cwd=str(tmp_path))
    ok("do", "Q")
    assert [task.state for task in queue.tasks()] == [State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.FAILED]
    assert queue.log(1).decode() == f"task\ncheck 1 0 0 red in {tmp_path}\n"
    assert queue.log(3) == b"" and b"check 4 7 0" in queue.log(4)
    failed = queue.show(2)["attempts"][-1]
    assert failed["reason"] == "success_check exit code 3" and "exit_code" not in failed
    assert queue.show(2)["story"].startswith("task 2 failed: success_check exit code 3\n")
    assert not [task.id for task in queue.tasks(exitcode=0) if task.state is State.FAILED]


def test_a_check_that_dies_or_cannot_start(root: Path, tmp_path: Path) -> None:
    queue = create("--success-check", "kill -9 $$")
    queue.add("true")
    queue.add('rmdir "$PWD"', cwd=str(tmp_path / "gone"))
    (tmp_path / "gone").mkdir()
    ok("do", "Q")
    assert queue.show(1)["attempts"][-1]["reason"] == "success_check signal 9"
    # The directory counts as there for a second after it was last used: then the check itself may still run.
    assert queue.show(2)["attempts"][-1]["reason"].startswith("success_check ")


def fine(task: Any) -> Any:
    """A function that a worker calls by its name."""
    print("function", task)
    return {"got": task}


@pytest.mark.parametrize("func", [fine, "tests.test_failure_policy:fine"])
@pytest.mark.parametrize("check", ["exit 0", "exit 4"])
def test_success_check_of_functions(root: Path, func: Any, check: str) -> None:
    queue = fsqdo.create("F", success_check=f"echo checked; {check}")
    queue.add({"x": 1})
    queue.add({"x": 2})
    summary = queue.do(func=func, report=lambda text: None)
    good = check == "exit 0"
    assert (summary.succeeded, summary.failed) == ((2, 0) if good else (0, 2))
    assert b"checked\n" in queue.log(1) and b"checked\n" in queue.log(2)
    assert list(queue.results()) == ([(1, {"got": {"x": 1}}), (2, {"got": {"x": 2}})] if good else [])


LONG_CHECK = "touch began.$FSQDO_TASK_ID; exec sleep 1000"


def began(directory: Path, task_id: int) -> Callable[[], bool]:
    return (directory / f"began.{task_id}").exists


def test_the_time_limit_covers_the_check(root: Path, tmp_path: Path) -> None:
    queue = create("--success-check", LONG_CHECK, "--time-limit", 1, "--max-retries", 1, "--no-retry-on", "time_limit")
    queue.add("true", cwd=str(tmp_path))
    ok("do", "Q")
    last = queue.show(1)["attempts"][-1]
    assert (last["outcome"], last["reason"]) == ("failed", "time limit of 1 s")
    assert 1 <= last["elapsed_s"] < HANG_S


def session_of(marker: str) -> list[int]:
    """Processes that have this in their environment."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if marker.encode() in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def test_a_kill_during_the_check(root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    queue = create("--success-check", LONG_CHECK)
    queue.add("true", cwd=str(tmp_path), env={"MARK": "kill-in-check"})
    worker = start("do", "Q")
    until(began(tmp_path, 1))
    ok("kill", "Q", 1)
    worker.wait(HANG_S)
    assert counts(queue) == {"Killed": 1} and not session_of("MARK=kill-in-check")


def test_a_stop_signal_during_the_check(root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    queue = create("--success-check", LONG_CHECK)
    queue.add("true", cwd=str(tmp_path), env={"MARK": "stop-in-check"})
    worker = start("do", "Q")
    until(began(tmp_path, 1))
    worker.send_signal(signal.SIGTERM)
    worker.wait(HANG_S)
    assert counts(queue) == {"Pending": 1} and not session_of("MARK=stop-in-check")
    assert [o.outcome for o in outcomes(queue)] == ["interrupted"]


def test_a_worker_killed_during_the_check(root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Its check is ended by whoever recovers, and the task runs again."""
    queue = create("--success-check", LONG_CHECK)
    queue.add("true", cwd=str(tmp_path), env={"MARK": "dead-in-check"})
    worker = start("do", "Q")
    until(began(tmp_path, 1))
    worker.kill()
    worker.wait(HANG_S)
    ok("recover", "Q")
    until(lambda: not session_of("MARK=dead-in-check"))
    assert counts(queue) == {"Pending": 1} and outcomes(queue) == []


# ---------------------------------------------------------------- programs that exit with 0 when they are told to stop
GRACEFUL = "trap 'echo saved; exit 0' TERM; touch began.$FSQDO_TASK_ID; sleep 1000 & wait"


@pytest.mark.parametrize("how", ["limit", "kill", "signal", "runtime"])
def test_a_checkpoint_at_sigterm_is_no_success(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    queue = create()
    queue.add(GRACEFUL, cwd=str(tmp_path), time_limit_s=1 if how == "limit" else None)
    after = queue.add("true", requires=[1])
    worker = start("do", "Q", *(("--runtime", 3) if how == "runtime" else ()))
    until(began(tmp_path, 1))
    if how == "kill":
        ok("kill", "Q", 1)
    elif how == "signal":
        worker.send_signal(signal.SIGTERM)
    worker.wait(HANG_S)
    state = {"limit": "Failed", "kill": "Killed"}.get(how, "Pending")
    assert counts(queue) == {state: 1, "Waiting": 1}
    (outcome,) = outcomes(queue)
    assert (outcome.outcome, outcome.exit_code) == ({"Failed": "failed", "Killed": "killed"}.get(state, "interrupted"), 0)
    assert outcome.reason and queue.log(1) == b"saved\n"
    assert queue.task(after).state == "Waiting"


def test_kill_of_what_runs_kills_nothing_that_begins_later(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    queue = create()
    queue.add_multiple(["touch began.$FSQDO_TASK_ID; exec sleep 1000"] * 2 + ["sleep 0.3"] * 6, cwd=str(tmp_path))
    queue.add("trap '' TERM; touch began.$FSQDO_TASK_ID; while test ! -e go; do sleep 0.1; done", cwd=str(tmp_path))
    for task_id in (1, 2):
        queue.reprioritize(5, task_id)
    worker = start("do", "Q", "-j", 2)
    until(lambda: len(queue.tasks(state="Running")) == 2)
    done = run("kill", "Q", "--state", "Running", "--wait", 60)
    assert done.stdout == "2 tasks killed\n" and "of 2 that ran 2 are killed" in done.stderr
    until(began(tmp_path, 9))
    done = run("kill", "Q", 9)
    assert done.stdout == "1 task killed\n" and "1 of them runs: stopped within seconds" in done.stderr
    done = run("kill", "Q", 9, "--wait", 0.1)
    assert done.stdout == "0 tasks killed\n" and "of 1 that ran 0 are killed, 1 still runs" in done.stderr
    (tmp_path / "go").touch()
    worker.wait(HANG_S)
    assert counts(queue) == {"Killed": 2, "Succeeded": 7}  # the last one had ended before it was stopped


@pytest.mark.parametrize("how", ["limit", "signal"])
def test_what_was_stopped_is_not_checked(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    queue = create("--success-check", f"touch {tmp_path}/checked")
    queue.add(GRACEFUL, cwd=str(tmp_path), time_limit_s=1 if how == "limit" else None)
    worker = start("do", "Q")
    until(began(tmp_path, 1))
    if how == "signal":
        worker.send_signal(signal.SIGTERM)
    worker.wait(HANG_S)
    assert counts(queue) == ({"Failed": 1} if how == "limit" else {"Pending": 1})
    assert not (tmp_path / "checked").exists()


def test_why_a_check_failed_is_not_hidden_by_a_result_that_is_not_kept(root: Path) -> None:
    queue = create("--success-check", "exit 3")
    queue.add(1)
    queue.do(func=lambda task: object(), report=lambda text: None)
    assert queue.show(1)["attempts"][-1]["reason"] == "success_check exit code 3"


@pytest.mark.parametrize("first", ["worker", "task"])
def test_a_signal_to_worker_and_tasks_alike_interrupts_them(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], first: str
) -> None:
    """Preemption, scancel, a job's walltime: whoever is told first, and whatever it exits with."""
    queue = create()
    queue.add("touch began.1; exec sleep 1000", cwd=str(tmp_path))
    queue.add(GRACEFUL.replace("$FSQDO_TASK_ID", "2"), cwd=str(tmp_path))
    worker = start("do", "Q", "-j", 2)
    until(began(tmp_path, 1))
    until(began(tmp_path, 2))
    notes = [read_pid(line) for path in Path(queue.directory, "outcomes").iterdir() for line in path.read_text().splitlines()]
    groups = [pid for pid in notes if pid]
    assert len(groups) == 2
    if first == "worker":
        worker.send_signal(signal.SIGTERM)
    for pid in groups:
        os.killpg(pid, signal.SIGTERM)
    if first == "task":
        worker.send_signal(signal.SIGTERM)
    worker.wait(HANG_S)
    if first == "worker":
        assert counts(queue) == {"Pending": 2}
    else:  # what ends before its worker knows of anything has ended as it has
        assert counts(queue).get("Failed", 0) <= 1


def read_pid(line: str) -> int:
    """The process in a note that an attempt began."""
    raw = json.loads(line)
    return raw["pid"] if raw.get("outcome") == "started" else 0


def test_what_has_ended_by_itself_was_not_stopped(root: Path, tmp_path: Path) -> None:
    """The worker was asleep over it: SIGSTOP, a slow file system."""
    log = tmp_path / "log"
    log.touch()
    with log.open("ab") as file:
        run = Spawner().start("exit 0", file.fileno(), {}, None)
        until(lambda: os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None)
        slot = Slot(0)
        slot.run = run
        slot.stop("failed", "time limit", 1.0)
        found = until(slot.poll)
    assert found[1] == "succeeded" and found[0].reason is None


# ---------------------------------------------------------------- time_limit in percent
def test_a_limit_relative_to_the_median(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLOOR_S", 0.5)
    monkeypatch.setattr(limits, "EARLY_S", 0.0)
    monkeypatch.setattr("fsqdo.worker.SCAN_S", 0.05)
    queue = fsqdo.create("Q", time_limit="400%")
    queue.add("exec sleep 1000")  # it runs already when the limit becomes known
    queue.add_multiple(["sleep 0.02"] * limits.LEAST_SAMPLES)
    queue.add("exec sleep 1000", time_limit_s=0.7)
    began_at = time.monotonic()
    summary = queue.do(slots=2, report=lambda text: None)
    assert (summary.succeeded, summary.failed) == (limits.LEAST_SAMPLES, 2)
    reasons = {task.id: queue.show(task.id)["attempts"][-1]["reason"] for task in queue.tasks(state="failed")}
    assert reasons == {1: "time limit of 0.5 s (400% of the median, at least 0.5 s)", 12: "time limit of 0.7 s"}
    assert time.monotonic() - began_at < HANG_S


def test_how_the_relative_limit_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = fsqdo.create("Q", time_limit="200%")

    def journal(worker: str, times: list[float]) -> None:
        lines = ['{"worker":"first line"}', '{"name":"000000001","outcome":"failed","to":"x","elapsed_s":9999}']
        lines += [
            json.dumps({"name": "000000001", "outcome": "succeeded", "to": "x", "elapsed_s": t}, separators=(",", ":"))
            for t in times
        ]
        text = "\n".join([*lines, '{"name":"0000000'])
        Path(queue.directory, "outcomes", f"{worker}.jsonl").write_text(text)

    options = Options()
    journal("a-1-a", [60.0] * 5)
    assert limits.Limits(queue.store).of(options) == limits.NEVER
    journal("b-1-b", [100.0] * 3 + [90.0] * 3)
    known = limits.Limits(queue.store)
    assert known.of(options) == 2 * 90.0
    journal("b-1-b", [1000.0] * 100)
    assert known.of(options) == 180.0, "it is looked up rarely"
    journal("b-1-b", [0.01] * 100)
    assert limits.Limits(queue.store).of(options) == limits.FLOOR_S
    assert limits.Limits(queue.store).of(Options(time_limit_s=7)) == 7
    queue.configure(time_limit_s=5.0)
    assert limits.Limits(queue.store).of(options) == 5.0, "the lower one counts"


# ---------------------------------------------------------------- max_fails
def test_max_fails_of_a_worker(root: Path) -> None:
    queue = create("--max-retries", 1)
    queue.add_multiple(["true", *["exit 1"] * 8])
    said = run("do", "Q", "--max-fails", 3, "--bad-node-after", 0)
    assert said.returncode == 1 and "3 of its tasks failed (--max-fails 3)" in said.stderr
    found = counts(queue)
    assert found["Failed"] == 3 and queue.status()["state"] == "Active"
    assert sum(found.values()) == 9


def test_max_fails_pauses_the_queue_for_all_workers(root: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    queue = create("--max-fails", 4)
    queue.add_multiple(["true"] * 3 + ["exit 1"] * 40)
    crew = [start("do", "Q", "--timeout", 1, "--bad-node-after", 0) for _ in range(3)]
    for worker in crew:
        assert worker.wait(HANG_S) == 0
    failed = counts(queue)["Failed"]
    # Each worker may have had one at work when the queue was paused, and one or two more between its own looks.
    assert 4 <= failed <= 20, failed
    assert " tasks failed (max_fails is 4)" in ok("status", "Q").splitlines()[0]
    assert failed_since_resume(queue.store) == failed
    ok("resume", "Q")
    assert failed_since_resume(queue.store) == 0
    ok("do", "Q", "--timeout", 0, "--bad-node-after", 0)
    assert "tasks failed (max_fails is 4)" in queue.status()["reason"]
    assert failed + 4 <= counts(queue)["Failed"] <= failed + 8


def test_a_failure_after_a_retry_counts_anew(root: Path) -> None:
    queue = create("--max-fails", 2)
    queue.add_multiple(["exit 1"] * 2)
    ok("do", "Q", "--timeout", 0)
    assert queue.status()["state"] == "Paused"
    ok("resume", "Q")
    ok("retry", "Q")
    assert failed_since_resume(queue.store) == 0
    ok("do", "Q", "--timeout", 0)
    assert queue.status()["reason"].startswith("2 tasks failed")


def test_what_a_program_takes_itself_counts_too(root: Path) -> None:
    queue = fsqdo.create("Q", max_fails=1)
    queue.add("x")
    queue.add("y")
    task = queue.get()
    assert task is not None
    task.set_state("Failed", err=3)
    assert queue.status()["reason"].startswith("1 tasks failed") and queue.get() is None
    queue.close()


def test_a_pause_of_the_user_keeps_its_reason(root: Path) -> None:
    queue = create("--max-fails", 1)
    queue.pause("dinner")
    assert not queue.store.pause("1 tasks failed")
    assert queue.status()["reason"] == "dinner"


def test_a_pause_that_could_not_be_written_is_due_still(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = fsqdo.create("Q", max_fails=1, exit_codes={"99": "pause"})
    said: list[str] = []
    failures = Failures(queue.store, WorkerOptions(), said.append)
    attempt = begin(0)
    attempt.exit_code = 99
    outcome = decide(TaskName(3), "000000003", Options(), queue.settings, "w", attempt, "failed")
    failures.saw(TaskName(3), outcome, attempt)
    assert failures.due

    def full(reason: str = "") -> bool:
        raise StorageError(OSError(28, "No space left on device"), "write", "PAUSED")

    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "pause", full)
        with pytest.raises(StorageError):
            failures.act("w")
    assert failures.due and queue.status()["state"] == "Active"
    assert failures.act("w") and not failures.due
    assert queue.status()["reason"].startswith("task 3 asked for it by exit code 99")
    assert said == ["the queue is paused: task 3 asked for it by exit code 99"]


# ---------------------------------------------------------------- health_check
def test_health_check(root: Path) -> None:
    queue = create("--health-check", "echo looking; echo $FSQDO_QUEUE: no scratch; exit 3")
    queue.add("true")
    said = run("do", "Q")
    assert said.returncode == 1
    assert "this worker ends without a claim: health_check exit code 3: Q: no scratch" in said.stderr
    assert counts(queue) == {"Pending": 1} and outcomes(queue) == []
    assert "health_check exit code 3: Q: no scratch" in ok("status", "Q")
    assert "health_check exit code 3" in json.loads(ok("status", "Q", "--json"))["trouble"][0]
    assert "health_check exit code 3" in run("workers", "Q").stderr
    ok("do", "Q", "--health-check", "true")  # the worker's own comes in place of the queue's
    assert counts(queue) == {"Succeeded": 1}
    ok("resume", "Q")
    assert "health_check" not in ok("status", "Q")


def test_health_check_runs_once_and_before_the_first_claim(root: Path, tmp_path: Path) -> None:
    queue = create("--health-check", f"echo checked >> {tmp_path}/order")
    queue.add_multiple([f"echo task >> {tmp_path}/order"] * 3)
    ok("do", "Q")
    assert (tmp_path / "order").read_text().split() == ["checked", "task", "task", "task"]


def test_a_worker_stopped_during_its_health_check(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    queue = create("--health-check", f"touch {tmp_path}/began.0; exec sleep 1000")
    queue.add("true")
    worker = start("do", "Q")
    until(began(tmp_path, 0))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(HANG_S) == 0
    assert counts(queue) == {"Pending": 1} and "trouble" not in queue.status()
    assert os.listdir(f"{queue.directory}/running") == []


def test_a_health_check_that_hangs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsqdo.health.LIMIT_S", 0.3)
    queue = fsqdo.create("Q", health_check="exec sleep 1000")
    queue.add("true")
    summary = queue.do(report=lambda text: None)
    assert summary.trouble and summary.why == "health_check did not end within 0.3 s"
    assert counts(queue) == {"Pending": 1}


# ---------------------------------------------------------------- the guard against bad nodes
def test_the_guard_with_one_worker_says_that_nobody_is_left(root: Path) -> None:
    queue = create()
    queue.add_multiple(["exit 1"] * 12)
    said = run("do", "Q")
    assert said.returncode == 1
    assert "its first 5 tasks (1, 2, 3, 4, 5) all failed within 3 s: this machine may be bad" in said.stderr
    assert "it was the only worker: nobody works on this queue now" in said.stderr
    assert counts(queue) == {"Failed": 5, "Pending": 7}
    assert "it was the only worker" in ok("status", "Q")
    assert "it was the only worker" in json.loads(ok("status", "Q", "--json"))["trouble"][0]
    ok("resume", "Q")
    assert "trouble" not in ok("status", "Q")
    ok("do", "Q", "--bad-node-after", 0)
    assert counts(queue) == {"Failed": 12}


def test_the_guard_with_two_workers_leaves_the_tasks_to_the_other(
    root: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One machine has no program; what it failed is retried, and succeeds on the other."""
    queue = create("--max-retries", 1)
    command = (
        f'test -n "$GOOD" || exit 127; test -n "$FIRST" || exit 0; touch {tmp_path}/at-work; '
        f"until test -e {tmp_path}/go; do sleep 0.01; done"
    )
    queue.add(command, env={"FIRST": "1"})
    monkeypatch.setenv("GOOD", "yes")
    good = start("do", "Q")
    until((tmp_path / "at-work").exists)
    queue.add_multiple([command] * 10)
    monkeypatch.delenv("GOOD")
    bad = run("do", "Q", "--bad-node-after", 3)
    assert bad.returncode == 1 and "its first 3 tasks (2, 3, 4) all failed" in bad.stderr
    assert "only worker" not in bad.stderr
    (tmp_path / "go").touch()
    assert good.wait(HANG_S) == 0
    assert counts(queue) == {"Succeeded": 11}
    assert len(queue.status()["trouble"]) == 1 and "only worker" not in queue.status()["trouble"][0]


def test_the_guard_is_not_for_functions_of_ones_own_program(root: Path) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple(range(8))

    def broken(task: Any) -> None:
        raise ValueError(task)

    assert queue.do(func=broken, report=lambda text: None).failed == 8


# ---------------------------------------------------------------- interrupted_first
@pytest.mark.parametrize("first", [True, False])
def test_interrupted_tasks_run_first(root: Path, tmp_path: Path, first: bool) -> None:
    queue = fsqdo.create("Q", interrupted_first=first, exit_codes={"85": "restart"})
    command = f'echo "$FSQDO_TASK_ID" >> {tmp_path}/order; test "$FSQDO_ATTEMPT" -gt 1 || exit'
    queue.add_multiple([f"{command} 1"] * 2 + [f"{command} 85", "true"], max_retries=0)
    queue.do(max_tasks=3, report=lambda text: None)
    queue.retry()
    assert counts(queue) == {"Pending": 4}
    (tmp_path / "order").unlink()
    queue.do(report=lambda text: None)
    order = [int(line) for line in (tmp_path / "order").read_text().split()]
    assert order == ([3, 1, 2] if first else [1, 2, 3])
    assert [task.id for task in queue.tasks(state="succeeded")] == [3, 4]


def test_a_worker_at_work_turns_to_interrupted_tasks(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fsqdo.claims.LOOK_S", 0.0)
    queue = fsqdo.create("Q", interrupted_first=True, exit_codes={"85": "restart"})
    command = f'echo "$FSQDO_TASK_ID" >> {tmp_path}/order; test "$FSQDO_TASK_ID$FSQDO_ATTEMPT" != 21 || exit 85; sleep 0.06'
    queue.add_multiple([command] * 6)
    queue.do(report=lambda text: None)
    order = [int(line) for line in (tmp_path / "order").read_text().split()]
    assert order == [1, 2, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--retry-on", "KILL"], "'KILL'"),
        (["--retry-on", "0"], "'0'"),
        (["--no-retry-on", "1;rm"], "'1;rm'"),
        (["--exit-codes", "85"], "CODE=ACTION"),
        (["--exit-codes", "85=again"], "succeed, fail, retry, restart, pause"),
        (["--exit-codes", "zz=fail"], "'zz'"),
        (["--exit-codes", "85=fail", "--exit-codes", "85=retry"], "85"),
        (["--exit-codes", "80-90=fail", "--exit-codes", "85=retry"], "two actions"),
        (["--time-limit", "50%"], "at least 100"),
        (["--time-limit", "x%"], "at least 100"),
        (["--max-fails", "0"], "max_fails"),
        (["--success-check", ""], "success_check"),
        (["--health-check", " "], "health_check"),
    ],
)
def test_bad_settings_make_no_queue(root: Path, words: list[str], said: str) -> None:
    assert said in refused(2, "create", "Q", *words)
    assert not (root / "Q").exists()


@pytest.mark.parametrize("words", [["--max-fails", "0"], ["--health-check", " "], ["--bad-node-after", "-1"]])
def test_bad_options_of_a_worker(root: Path, words: list[str]) -> None:
    create()
    assert words[0].removeprefix("--").replace("-", "_") in refused(2, "do", "Q", *words)


def test_all_settings_from_the_command_line(root: Path) -> None:
    hostile = "echo \"$(id)\" 'x' \\ ; # {a} %s \n next"
    queue = create(
        "--time-limit", "1h", "--time-limit", "300%", "--success-check", hostile, "--health-check", hostile, "--max-fails", 7,
        "--interrupted-first", "--max-interruptions", 0, "--retry-on", "1,SIGBUS", "--no-retry-on", "2-4",
    )  # fmt: skip
    found = queue.settings
    assert (found.time_limit_s, found.time_limit, found.max_fails) == (parse_walltime("60"), "300%", 7)
    assert (found.success_check, found.health_check, found.interrupted_first) == (hostile, hostile, True)
    assert (found.retry_on, found.no_retry_on, found.max_interruptions) == ((1, "SIGBUS"), ("2-4",), 0)


def test_hostile_reasons_and_names_stay_text(root: Path) -> None:
    """What a task writes, and what a check says, ends up in one line of a report and in no shell."""
    create("--health-check", "printf 'bad \\033[31m$(touch pwned) `id`\\n'; exit 1")
    said = run("do", "Q")
    assert said.returncode == 1 and not Path("pwned").exists()
    assert "\x1b" not in ok("status", "Q") and "$(touch pwned) `id`" in ok("status", "Q")
    assert "\x1b" not in run("workers", "Q").stderr


def test_this_python() -> None:
    """The programs above are those of this checkout."""
    code = "import fsqdo; print(fsqdo.__file__)"
    said = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True).stdout
    assert said.strip() == fsqdo.__file__
