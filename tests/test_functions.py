"""Functions in forked children: results, failures, what a task finds and what it leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsqdo.errors import InputError
from fsqdo.functions import FunctionRun, FunctionSlot, load_function
from fsqdo.runner import BusyError, Ended

HANG_S = 30.0

MODULE = """
    import os, signal, subprocess, sys, time

    class Thing:
        @staticmethod
        def method(task): return ["method", task]

    class Odd(BaseException):
        def __str__(self): raise RuntimeError("no text")

    number = 5
    calls = 0

    def same(task): return task

    def count(task):
        global calls
        calls += 1
        return [calls, os.getpid()]

    def act(task):
        kind = task["do"]
        if kind == "say":
            print("out", task["text"])
            print("err", file=sys.stderr)
            os.system("echo child")
        elif kind == "raise": raise ValueError("it is\\nwrong")
        elif kind == "odd": raise Odd
        elif kind == "exit": sys.exit(task.get("code"))
        elif kind == "_exit": print("last words"); os._exit(task["code"])
        elif kind == "die": os.kill(os.getpid(), task["signal"])
        elif kind == "hang":
            print("ready")
            while True: signal.pause()
        elif kind == "graceful":
            def answer(number, frame): raise KeyError("stopped")
            signal.signal(signal.SIGTERM, answer)
            print("ready")
            while True: signal.pause()
        elif kind == "object": return object()
        elif kind == "nan": return float("nan")
        elif kind == "env": return [os.environ.get(name) for name in task["names"]]
        elif kind == "spoil":
            os.environ["A"] = "spoilt"
            os.environ.pop("B")
            os.chdir("/")
        elif kind == "cwd": return [os.getcwd(), os.environ.get("PWD")]
        elif kind == "burn":
            end = time.process_time() + 0.05
            while time.process_time() < end: pass
        elif kind == "process":
            return [os.getsid(0) == os.getpid() == os.getpgrp(), os.readlink("/proc/self/fd/0"), sys.stdin.read(),
                    signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, list(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]
        elif kind == "pipes": return [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                                      if os.path.lexists(f"/proc/self/fd/{fd}")]
        elif kind == "fork":
            if os.fork() == 0:
                return "the copy"
            os.wait()
            return "the one"
        elif kind == "leave": return subprocess.Popen(["sleep", "1000"]).pid
        elif kind == "close": os.closerange(3, 100); signal.pause()
        elif kind == "large": return "x" * task["size"]
        elif kind == "bytes": sys.stdout.buffer.write(b"raw\\xff\\n")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module above, importable from the current directory only."""
    name = "functions_under_test"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    for loaded in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[loaded]


class Bench:
    """A slot with its log."""

    def __init__(self, directory: Path, function: str) -> None:
        self.path = directory / "slot.log"
        self.log_fd = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.slot = FunctionSlot(load_function(function))

    def start(self, task: Any, env: dict[str, str] | None = None, cwd: str | None = None) -> FunctionRun:
        return self.slot.start(task, self.log_fd, env, cwd)

    def run(self, task: Any, env: dict[str, str] | None = None, cwd: str | None = None) -> Ended:
        return until_ended(self.start(task, env, cwd))

    def log(self) -> str:
        return self.path.read_text(errors="replace")

    def until_ready(self) -> None:
        deadline, pause = time.monotonic() + HANG_S, select.poll()
        while "ready" not in self.log():
            assert time.monotonic() < deadline
            pause.poll(1)

    def close(self) -> None:
        self.slot.close()
        os.close(self.log_fd)


def until_ended(run: FunctionRun) -> Ended:
    """Wait as a worker does: on the pipe, and on the end of the process (asked for every few milliseconds here)."""
    deadline = time.monotonic() + HANG_S
    while (ended := run.poll()) is None:
        assert time.monotonic() < deadline, "the function did not end"
        pause = select.poll()
        if run.wait_fd is not None:
            pause.register(run.wait_fd, select.POLLIN)
        pause.poll(5)
    assert run.wait_fd is None
    return ended


def until_gone(pid: int) -> None:
    """Wait until a process has ended. It may stay a zombie where nobody waits for orphans."""
    deadline, pause = time.monotonic() + HANG_S, select.poll()
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        assert time.monotonic() < deadline
        pause.poll(1)


@pytest.fixture
def act(tmp_path: Path, module: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, f"{module}:act")
    yield bench
    bench.close()


# --- importing


def test_the_current_directory_is_searched(module: str) -> None:
    assert load_function(f"{module}:same")(5) == 5
    assert load_function(f"{module}:Thing.method")(5) == ["method", 5]
    assert load_function("json:dumps") is json.dumps


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("same", "does not name a function"),
        (":same", "does not name a function"),
        ("{}:", "does not name a function"),
        ("{}:nothing", "has no nothing"),
        ("{}:Thing.nothing", r"has no Thing\.nothing"),
        ("{}:number", "is not a function but int"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("json.nothing:f", r"there is no module json\.nothing"),
        ("{}.sub:f", "there is no module"),
    ],
)
def test_what_is_no_function(module: str, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_function(spec.format(module))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_dependency", "cannot be imported: No module named 'no_such_dependency'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("def f(:", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit"),
    ],
)
def test_a_module_that_fails(module: str, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / f"{module}_broken.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_function(f"{module}_broken:f")


# --- how it ended


@pytest.mark.parametrize("task", [None, 0, "", "text ü\n\0\ud800", [1, [2.5]], {"a": {"b": None}}, True, "x" * 300_000])
def test_tasks_and_results_are_json_values(module: str, tmp_path: Path, task: Any) -> None:
    bench = Bench(tmp_path, f"{module}:same")
    ended = bench.run(task)
    assert (ended.exit_code, ended.signal, ended.result, ended.error, ended.reason) == (0, None, task, None, None)
    assert ended.succeeded
    assert ended.max_rss_kb > 1000
    bench.close()


def test_a_large_result(act: Bench) -> None:
    assert act.run({"do": "large", "size": 3_000_000}).result == "x" * 3_000_000


def test_the_child_is_kept(module: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"{module}:count")
    first, second = bench.run(None), bench.run(None)
    assert first.result[0] == 1
    assert second.result == [2, first.result[1]]
    run = bench.start(None)
    assert run.pid == first.result[1] != os.getpid()
    until_ended(run)
    bench.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(run.pid, 0)


def test_another_log_means_another_child(module: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"{module}:count")
    first = bench.run(None)
    other = os.open(tmp_path / "other.log", os.O_CREAT | os.O_WRONLY)
    second = until_ended(bench.slot.start(None, other))
    assert first.result[1] != second.result[1]
    os.close(other)
    bench.close()


def test_an_exception(act: Bench) -> None:
    ended = act.run({"do": "raise"})
    assert (ended.exit_code, ended.signal, ended.result, ended.reason) == (1, None, None, "ValueError: it is wrong")
    assert ended.error is not None
    lines = ended.error.splitlines()
    assert lines[0].startswith("Traceback")
    assert "functions_under_test.py" in lines[1]  # not the runner's own lines
    assert ended.error in act.log()
    ended = act.run({"do": "odd"})
    assert (ended.exit_code, ended.reason) == (1, "Odd: (it has no text)")
    assert act.run({"do": "cwd"}).succeeded


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        (None, 0, None),
        (0, 0, None),
        (3, 3, None),
        (True, 1, None),
        (256, 0, None),
        (-1, 255, None),
        (143, None, 15),
        ("why", 1, None),
    ],
)
def test_sys_exit(act: Bench, code: Any, exit_code: int | None, number: int | None) -> None:
    ended = act.run({"do": "exit", "code": code})
    assert (ended.exit_code, ended.signal, ended.error) == (exit_code, number, None)
    assert act.log() == ("why\n" if code == "why" else "")


@pytest.mark.parametrize(("code", "exit_code", "number"), [(0, 0, None), (9, 9, None), (137, None, 9)])
def test_exit_without_leave(act: Bench, code: int, exit_code: int | None, number: int | None) -> None:
    first = act.start({"do": "_exit", "code": code})
    ended = until_ended(first)
    assert (ended.exit_code, ended.signal) == (exit_code, number)
    assert act.log() == "last words\n"
    second = act.start({"do": "cwd"})
    assert until_ended(second).succeeded
    assert second.pid != first.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_death_by_a_signal(act: Bench, number: int) -> None:
    ended = act.run({"do": "die", "signal": number})
    assert (ended.exit_code, ended.signal, ended.result) == (None, number, None)
    assert act.run({"do": "cwd"}).succeeded


@pytest.mark.parametrize(("stop", "number"), [("terminate", 15), ("kill", 9)])
def test_terminate_and_kill(act: Bench, stop: str, number: int) -> None:
    run = act.start({"do": "hang"})
    assert run.poll() is None
    act.until_ready()
    getattr(run, stop)()
    ended = until_ended(run)
    assert (ended.exit_code, ended.signal) == (None, number)
    getattr(run, stop)()  # too late: nobody is hit
    assert act.run({"do": "cwd"}).succeeded


def test_terminate_before_the_child_has_settled(act: Bench) -> None:
    run = act.start({"do": "hang"})
    run.terminate()
    assert until_ended(run).signal == signal.SIGTERM


def test_a_child_that_was_told_to_end_gets_no_other_task(act: Bench) -> None:
    run = act.start({"do": "graceful"})
    act.until_ready()
    run.terminate()
    ended = until_ended(run)
    assert (ended.exit_code, ended.reason) == (1, "KeyError: 'stopped'")
    second = act.start({"do": "cwd"})
    assert until_ended(second).succeeded
    assert second.pid != run.pid


def test_a_child_that_died_between_two_tasks(act: Bench) -> None:
    first = act.start({"do": "cwd"})
    until_ended(first)
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    second = act.start({"do": "cwd"})
    assert until_ended(second).succeeded
    assert second.pid != first.pid


def test_a_slot_closed_at_work(act: Bench) -> None:
    run = act.start({"do": "hang"})
    act.slot.close()
    assert until_ended(run).signal == signal.SIGKILL
    run.kill()


def test_a_function_that_closes_every_descriptor(act: Bench) -> None:
    assert until_ended(act.start({"do": "close"})).signal == signal.SIGKILL
    assert act.run({"do": "cwd"}).succeeded


@pytest.mark.parametrize("kind", ["object", "nan"])
def test_a_result_without_json_form_is_a_success(act: Bench, kind: str) -> None:
    ended = act.run({"do": kind})
    assert (ended.exit_code, ended.result, ended.error) == (0, None, None)
    assert ended.reason is not None and "not kept" in ended.reason
    assert "its result is not kept" in act.log()


def test_a_function_that_forks_answers_once(act: Bench) -> None:
    assert act.run({"do": "fork"}).result == "the one"
    assert act.run({"do": "cwd"}).succeeded


# --- what it finds and leaves


def test_output_goes_to_the_log_at_once_and_in_order(act: Bench) -> None:
    act.run({"do": "say", "text": "ü\ud800"})
    act.run({"do": "bytes"})
    assert act.log() == "out ü\\ud800\nerr\nchild\nraw\ufffd\n"


def test_environment_is_each_task_s_own(act: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B", "worker's")
    ask = {"do": "env", "names": ["A", "B", "C"]}
    assert act.run(ask).result == [None, "worker's", None]
    assert act.run(ask, {"A": "1", "B": "2"}).result == ["1", "2", None]
    assert act.run(ask, {"A": "1", "C": "3"}).result == ["1", "worker's", "3"]
    act.run({"do": "spoil"}, {"A": "1", "B": "2"})
    assert act.run(ask, {"A": "1", "B": "2"}).result == ["1", "2", None]
    assert act.run(ask).result == [None, "worker's", None]


def test_directory_is_each_task_s_own(act: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    home = str(tmp_path)
    assert act.run({"do": "cwd"}).result[0] == home
    assert act.run({"do": "cwd"}, cwd=str(other)).result == [str(other), str(other)]
    assert act.run({"do": "cwd"}).result[0] == home
    act.run({"do": "spoil"}, {"B": "2"})
    assert act.run({"do": "cwd"}).result[0] == home
    ended = act.run({"do": "cwd"}, cwd=str(tmp_path / "missing"))
    assert (ended.exit_code, ended.signal) == (None, None)
    assert ended.reason == f"the directory {tmp_path / 'missing'} it is to run in does not exist"
    assert act.run({"do": "cwd"}, cwd="other").result[0] == str(other)


def test_session_stdin_and_signals(act: Bench) -> None:
    old = signal.signal(signal.SIGTERM, lambda number, frame: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert act.run({"do": "process"}).result == [True, "/dev/null", "", True, []]
    finally:
        signal.signal(signal.SIGTERM, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_slots_do_not_hold_each_other_s_pipes(module: str, tmp_path: Path) -> None:
    one, two = Bench(tmp_path, f"{module}:act"), Bench(tmp_path, f"{module}:act")
    one.run({"do": "cwd"})
    assert one.slot._child is not None
    pipes = {os.readlink(f"/proc/self/fd/{fd}") for fd in one.slot._child._fds}
    assert pipes <= set(one.run({"do": "pipes"}).result)
    assert not pipes & set(two.run({"do": "pipes"}).result)
    one.close()
    two.close()


def test_children_end_with_a_worker_that_was_killed(module: str, tmp_path: Path) -> None:
    program = f"""
import os, select
from fsqdo.functions import FunctionSlot, load_function
function = load_function("{module}:count")
slots = [FunctionSlot(function) for _ in range(2)]
runs = [slot.start(None, 2) for slot in slots]
for run in runs:
    select.select([run.wait_fd], [], [])
    assert run.poll().succeeded
print(*[run.pid for run in runs], flush=True)
os.kill(os.getpid(), 9)
"""
    path = os.path.dirname(os.path.dirname(os.path.abspath(load_function.__code__.co_filename)))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, check=False, timeout=HANG_S)
    assert done.returncode == -9
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        until_gone(pid)


def test_what_a_function_leaves_behind_dies_with_its_child(act: Bench) -> None:
    pid = act.run({"do": "leave"}).result
    assert act.run({"do": "cwd"}).succeeded
    os.kill(pid, 0)
    act.slot.close()
    until_gone(pid)


def test_cpu_seconds_are_each_task_s_own(act: Bench) -> None:
    assert 0.045 < act.run({"do": "burn"}).cpu_s < 0.5
    assert act.run({"do": "cwd"}).cpu_s < 0.045
    ended = act.run({"do": "_exit", "code": 1})
    assert ended.cpu_s < 0.045


def test_no_process_to_be_had(act: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BusyError, match="no process could be started"):
        act.start(None)
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
