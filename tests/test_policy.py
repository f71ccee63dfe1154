"""What follows from the end of an attempt, as tables: retries, the exit-code protocol, places; how rules are written."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.checks import Check, CheckedRun, well_ended
from fsqdo.errors import FormatError, InputError
from fsqdo.guard import AT_ONCE_S, Guard
from fsqdo.names import TaskName
from fsqdo.outcome import Outcome
from fsqdo.policy import Attempt, begin, decide
from fsqdo.rules import ACTIONS, end_of, numbers_of, read_actions, read_ends, read_percentage
from fsqdo.runner import BusyError, Ended, Run, Spawner, SpawnError
from fsqdo.settings import Settings
from fsqdo.task import Definition
from fsqdo.taskoptions import Options

KILL, BUS, TERM = int(signal.SIGKILL), int(signal.SIGBUS), int(signal.SIGTERM)


def ended(
    settings: dict[str, Any],
    how: dict[str, Any],
    options: dict[str, Any] | None = None,
    name: TaskName | None = None,
    kind: str = "failed",
) -> tuple[Outcome, Attempt]:
    """The outcome of an attempt of task 7 that ended so."""
    attempt = begin(0)
    for key, value in how.items():
        setattr(attempt, key, value)
    name = name or TaskName(7)
    given = Settings(retry_delay_s=0, **settings)
    return decide(name, str(name), Options.of(**(options or {})), given, "w", attempt, kind), attempt


EXIT_75, EXIT_1, KILLED, NOT_STARTED = {"exit_code": 75}, {"exit_code": 1}, {"signal": KILL}, {"reason": "no such directory"}
TIME_UP = {"signal": TERM, "cause": "time_limit", "reason": "time limit of 5 s"}
UNCHECKED = {"cause": "success_check", "reason": "success_check exit code 3"}


@pytest.mark.parametrize(
    ("settings", "options", "how", "outcome"),
    [
        ({}, {}, EXIT_75, "failed"),
        ({"max_retries": 1}, {}, EXIT_75, "retry"),
        ({"max_retries": 1}, {}, NOT_STARTED, "retry"),
        ({"max_retries": 1, "retry_on": [75]}, {}, EXIT_75, "retry"),
        ({"max_retries": 1, "retry_on": ["70-80"]}, {}, EXIT_75, "retry"),
        ({"max_retries": 1, "retry_on": [75]}, {}, EXIT_1, "failed"),
        ({"max_retries": 1, "retry_on": [75]}, {}, NOT_STARTED, "failed"),
        ({"max_retries": 1, "retry_on": ["SIGKILL"]}, {}, KILLED, "retry"),
        ({"max_retries": 1, "retry_on": [137]}, {}, KILLED, "retry"),
        ({"max_retries": 1, "retry_on": [9]}, {}, KILLED, "failed"),
        ({"max_retries": 1, "retry_on": ["SIGTERM"]}, {}, TIME_UP, "failed"),
        ({"max_retries": 1, "retry_on": ["time_limit"]}, {}, TIME_UP, "retry"),
        ({"max_retries": 1, "no_retry_on": ["time_limit"]}, {}, TIME_UP, "failed"),
        ({"max_retries": 1, "retry_on": ["success_check"]}, {}, UNCHECKED, "retry"),
        ({"max_retries": 1, "no_retry_on": ["success_check"]}, {}, UNCHECKED, "failed"),
        ({"max_retries": 1, "no_retry_on": [1]}, {}, EXIT_1, "failed"),
        ({"max_retries": 1, "no_retry_on": [1]}, {}, EXIT_75, "retry"),
        ({"max_retries": 1, "retry_on": ["1-99"], "no_retry_on": [1]}, {}, EXIT_1, "failed"),
        ({"retry_on": [75]}, {}, EXIT_75, "failed"),
        ({"max_retries": 1, "retry_on": [75]}, {"retry_on": [1]}, EXIT_1, "retry"),
        ({"max_retries": 1, "retry_on": [75]}, {"retry_on": [1]}, EXIT_75, "failed"),
        ({"max_retries": 1, "no_retry_on": [1]}, {"no_retry_on": []}, EXIT_1, "retry"),
        ({"max_retries": 1, "retry_on": [75]}, {"retry_on": []}, EXIT_1, "retry"),
        ({}, {"max_retries": 1, "no_retry_on": "SIGKILL,SIGBUS"}, KILLED, "failed"),
        ({}, {"max_retries": 1, "no_retry_on": "SIGKILL,SIGBUS"}, EXIT_1, "retry"),
    ],
)
def test_which_ends_are_retried(settings: dict[str, Any], options: dict[str, Any], how: dict[str, Any], outcome: str) -> None:
    found, _ = ended(settings, how, options)
    assert found.outcome == outcome
    assert found.to.startswith(
        {"retry": "pending/0/000000/000000007.f1.json", "failed": "failed/000000/000000007.f1@w"}[outcome]
    )


@pytest.mark.parametrize(
    ("action", "more", "outcome", "to"),
    [
        ("succeed", {}, "succeeded", "succeeded/000000/000000007@w.json"),
        ("fail", {"max_retries": 3}, "failed", "failed/000000/000000007.f1@w.json"),
        ("fail", {"max_retries": 3, "retry_on": [75]}, "failed", "failed/000000/000000007.f1@w.json"),
        ("retry", {"max_retries": 3, "no_retry_on": [75]}, "retry", "pending/0/000000/000000007.f1.json"),
        ("retry", {}, "failed", "failed/000000/000000007.f1@w.json"),
        ("restart", {}, "interrupted", "pending/0/000000/000000007.i1.json"),
        ("restart", {"interrupted_first": True}, "interrupted", "pending/0/000000007.i1.json"),
        ("restart", {"max_interruptions": 0, "max_retries": 3}, "failed", "failed/000000/000000007.f1@w.json"),
        ("pause", {"max_interruptions": 0}, "interrupted", "pending/0/000000/000000007.s1.json"),
    ],
)
@pytest.mark.parametrize("code", ["75", "70-80", 75])
def test_exit_code_protocol(code: Any, action: str, more: dict[str, Any], outcome: str, to: str) -> None:
    found, attempt = ended({"exit_codes": {code: action}, **more}, EXIT_75)
    assert (found.outcome, found.to, found.exit_code) == (outcome, to, 75)
    assert ("exit code 75" in attempt.pauses) == (action == "pause")
    if action in ("restart", "pause"):
        assert found.reason and found.reason.startswith(f"exit code 75: {action}")
    other, _ = ended({"exit_codes": {code: action}, **more, "max_retries": 0}, EXIT_1)
    assert other.outcome == "failed"


@pytest.mark.parametrize("end", ["SIGKILL", 137, "time_limit", "success_check"])
def test_protocol_of_signals_and_causes(end: Any) -> None:
    how = {"SIGKILL": KILLED, 137: KILLED, "time_limit": TIME_UP, "success_check": UNCHECKED}[end]
    found, _ = ended({"exit_codes": {end: "restart"}}, how)
    assert found.outcome == "interrupted"
    assert ended({"exit_codes": {end: "restart"}}, NOT_STARTED)[0].outcome == "failed"


@pytest.mark.parametrize("kind", ["interrupted", "killed", "succeeded"])
def test_the_protocol_is_for_failures_only(kind: str) -> None:
    found, attempt = ended({"exit_codes": {"1-255": "pause"}}, EXIT_75, kind=kind)
    assert found.outcome == kind and not attempt.pauses


def test_restarts_end_at_max_interruptions() -> None:
    name, kinds = TaskName(7), []
    for _ in range(4):
        outcome, _ = ended({"exit_codes": {"85": "restart"}, "max_interruptions": 3}, {"exit_code": 85}, name=name)
        kinds.append(outcome.outcome)
        name = name._replace(i=name.i + 1)
    assert kinds == ["interrupted"] * 3 + ["failed"]
    assert outcome.reason == "exit code 85: restart, but max_interruptions is 3"


@pytest.mark.parametrize("first", [False, True])
def test_interrupted_first(first: bool) -> None:
    name = TaskName(1234, priority=-5)
    found, _ = ended({"interrupted_first": first}, {}, name=name, kind="interrupted")
    assert found.to == ("pending/-5/000001234.s1m5.json" if first else "pending/-5/000001/000001234.s1m5.json")


# ---------------------------------------------------------------- the check
class Bench:
    """Starts tasks and their checks, with a log."""

    def __init__(self, directory: Path, settings: Settings, check: str) -> None:
        self.log_fd = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.spawner = Spawner()
        self.check = Check(check, self.spawner, well_ended(settings))
        self.pids: list[int] = []

    def start(self, command: str, begin: Callable[[int], Run] | None = None) -> CheckedRun:
        prepared = self.spawner.prepare(command)
        task = self.spawner.start_prepared(prepared, self.log_fd)

        def started(code: int) -> Run:
            return self.check.start(prepared.environ, prepared.cwd, self.log_fd, code)

        run = CheckedRun(task, self.check, begin or started, task.started)
        run.announce = self.pids.append
        return run


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(settings: Settings, check: str) -> Bench:
        made.append(Bench(tmp_path, settings, check))
        return made[-1]

    yield make
    for bench in made:
        os.close(bench.log_fd)


def until_ended(run: CheckedRun) -> Ended:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        ended = run.poll()
        if ended is not None:
            return ended
        time.sleep(0.002)
    raise AssertionError("it did not end")


@pytest.mark.parametrize(
    ("command", "check", "exit_code", "number", "reason"),
    [
        ("true", "true", 0, None, None),
        ("true", "exit 3", None, None, "success_check exit code 3"),
        ("true", "kill -9 $$", None, None, "success_check signal 9"),
        ("true", "no-such-program-at-all", None, None, "success_check exit code 127"),
        ("exit 5", "exit 3", 5, None, None),
        ("kill -9 $$", "exit 3", None, KILL, None),
        ("exit 3", 'test "$FSQDO_EXIT_CODE" = 3', 3, None, None),
        ("kill -15 $$", 'test "$FSQDO_EXIT_CODE" = 143', None, TERM, None),
    ],
)
def test_a_task_and_its_check(
    make_bench: Callable[..., Bench], command: str, check: str, exit_code: int | None, number: int | None, reason: str | None
) -> None:
    bench = make_bench(Settings(exit_codes={"3": "succeed", "SIGTERM": "succeed"}), check)
    run = bench.start(command)
    task = run.pid
    ended = until_ended(run)
    assert (ended.exit_code, ended.signal, ended.reason) == (exit_code, number, reason)
    assert ended.cause == ("success_check" if reason else "")
    checked = reason is not None or "FSQDO_EXIT_CODE" in check or check == "true"
    assert len(bench.pids) == checked and task not in bench.pids


def test_a_check_waits_for_a_machine_that_is_short_of_processes(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Settings(), "true")
    asked = []

    def busy(code: int) -> Run:
        asked.append(code)
        if len(asked) < 3:
            raise BusyError("no process")
        return bench.spawner.start("exit 4", bench.log_fd)

    assert until_ended(bench.start("true", busy)).reason == "success_check exit code 4"
    assert asked == [0, 0, 0]


def test_a_check_that_cannot_start(make_bench: Callable[..., Bench]) -> None:
    def impossible(code: int) -> Run:
        raise SpawnError("no such directory")

    ended = until_ended(make_bench(Settings(), "true").start("true", impossible))
    assert (ended.exit_code, ended.reason, ended.cause) == (None, "success_check no such directory", "success_check")


def test_no_check_begins_after_a_kill(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Settings(), "sleep 1000")
    run = bench.start("true")
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody asked yet
    run.kill()
    ended = until_ended(run)
    assert ended.exit_code is None and ended.cause == "success_check" and not bench.pids


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_stopping_reaches_the_check(make_bench: Callable[..., Bench], how: str) -> None:
    bench = make_bench(Settings(), "exec sleep 1000")
    run = bench.start("true")
    end = time.monotonic() + 60
    while not bench.pids and time.monotonic() < end:
        assert run.poll() is None
        time.sleep(0.002)
    getattr(run, how)()
    assert until_ended(run).reason == f"success_check signal {TERM if how == 'terminate' else KILL}"


# ---------------------------------------------------------------- as people write them
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([75, "SIGBUS", "1-3"], (75, "SIGBUS", "1-3")),
        ("75,SIGBUS, 1-3,", (75, "SIGBUS", "1-3")),
        (["75", 75], (75,)),
        (75, (75,)),
        ((), ()),
        ("", ()),
        (["001-003"], ("1-3",)),
        (["time_limit", "success_check"], ("time_limit", "success_check")),
    ],
)
def test_lists_of_ends(written: Any, read: tuple[Any, ...]) -> None:
    assert read_ends(written, "x") == read == read_ends(list(read), "x")


BAD_ENDS: list[Any] = [
    0, -1, 256, 1.5, True, None,
    "KILL", "sigkill", "SIGNOSUCH", "SIG_DFL", "SIG", "3-1", "0-3", "1-", "-1", "1-2-3", "1-256", "x", "",
    "\u0661", "$(id)", "75\n", b"75", [75], "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("item", BAD_ENDS, ids=lambda item: repr(item)[:20])
def test_what_is_no_end(item: Any) -> None:
    with pytest.raises(InputError, match=r"retry_on has .* written like 75"):
        read_ends([75, item], "retry_on")
    with pytest.raises(InputError):
        read_actions({item if not isinstance(item, list) else "x": "fail"}, "exit_codes")


@pytest.mark.parametrize("value", [{"75": 1}, b"75", 1.5, True, None], ids=repr)
def test_what_is_no_list(value: Any) -> None:
    with pytest.raises(InputError, match="must be a list"):
        read_ends(value, "retry_on")


def test_all_bad_entries_are_named_together() -> None:
    with pytest.raises(InputError, match=r"'KILL', 0, 'x'"):
        read_ends(["KILL", 75, 0, "x"], "retry_on")
    with pytest.raises(InputError, match=r"(?s)'zz'.*'go' for 75.*two actions"):
        read_actions({"success_check": "succeed", "zz": "fail", "75": "go", "1-5": "fail", "3": "retry"}, "exit_codes")
    with pytest.raises(
        InputError, match=r"max_retries.*retry_on.*exit_codes.*time_limit.*max_fails.*health_check.*interrupted_first"
    ):
        Settings().with_changes(
            {
                "max_retries": -1, "retry_on": ["x"], "exit_codes": {"1": "no"}, "time_limit": "3", "max_fails": 0,
                "health_check": " ", "interrupted_first": 1,
            }
        )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("time_limit", "300"),
        ("time_limit", 300),
        ("time_limit", "99%"),
        ("time_limit", "-300%"),
        ("time_limit", "1e3%"),
        ("time_limit", "nan%"),
        ("time_limit", "%"),
        ("time_limit", "9999999%"),
        ("max_fails", 0),
        ("max_fails", True),
        ("max_fails", 1.0),
        ("success_check", ""),
        ("success_check", "a\0b"),
        ("success_check", "\udc80"),
        ("success_check", ["true"]),
        ("health_check", 5),
        ("interrupted_first", "yes"),
        ("interrupted_first", None),
        ("exit_codes", ["75"]),
        ("exit_codes", "75=fail"),
        ("exit_codes", {"75": None}),
        ("exit_codes", {"75": ["fail"]}),
    ],
)
def test_bad_settings_are_refused_when_loaded(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=key):
        Settings().with_changes({key: value})
    text = Settings(extra={key: value}).to_json()
    with pytest.raises(FormatError, match=rf"/q/queue\.json.*{key}"):
        Settings.from_json(text, "/q/queue.json")


@given(
    st.builds(
        Settings,
        time_limit=st.none() | st.integers(100, 1_000_000).map("{}%".format),
        retry_on=st.lists(st.integers(1, 255) | st.sampled_from(["SIGBUS", "3-9", "time_limit"])),
        exit_codes=st.dictionaries(st.integers(1, 255).map(str), st.sampled_from(ACTIONS)),
        success_check=st.none() | st.text(min_size=1).filter(lambda text: text.strip() and text.isascii() and "\0" not in text),
        max_fails=st.none() | st.integers(1),
        interrupted_first=st.booleans(),
    )
)
def test_round_trip_of_settings(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json(), "queue.json") == settings


def test_null_in_the_file_is_nothing() -> None:
    text = b'{"format":1,"retry_on":null,"no_retry_on":null,"exit_codes":null,"time_limit":null,"max_fails":null}'
    assert Settings.from_json(text, "queue.json") == Settings()


def test_round_trip_of_task_options() -> None:
    definition = Definition(1, "x", Options.of(retry_on="75,SIGBUS", no_retry_on=[]))
    assert definition.options.retry_on == (75, "SIGBUS") and definition.options.no_retry_on == ()
    assert Definition.from_json(definition.to_json()) == definition
    assert "retry_on" not in Definition(1, "x").to_json()
    with pytest.raises(InputError, match=r"retry_on has 'x'.*no_retry_on has 0"):
        Options.of(retry_on=["x"], no_retry_on=[0])


@given(st.integers(1, 128))
def test_an_exit_code_is_found_by_itself_and_its_range(code: int) -> None:
    end = end_of(code, None)
    assert end in numbers_of((code,)) & numbers_of((f"{code}-{code}",))
    assert end not in numbers_of((code + 1, "SIGKILL", "time_limit", "success_check"))


@pytest.mark.parametrize(
    ("text", "factor"), [("300%", 3.0), ("100%", 1.0), ("150%", 1.5), ("3", None), (3, None), ("\u0663\u0660%", None)]
)
def test_percentage(text: Any, factor: float | None) -> None:
    assert read_percentage(text) == factor


# ---------------------------------------------------------------- the guard
QUICK, SLOW = 0.1, AT_ONCE_S + 1


@pytest.mark.parametrize(
    ("attempts", "tripped"),
    [
        ([(1, "failed", QUICK), (2, "failed", QUICK)], False),
        ([(1, "failed", QUICK), (2, "retry", QUICK), (3, "failed", QUICK)], True),
        ([(1, "failed", QUICK), (1, "failed", QUICK), (1, "failed", QUICK)], False),
        ([(1, "succeeded", QUICK), (2, "failed", QUICK), (3, "failed", QUICK), (4, "failed", QUICK)], False),
        ([(1, "failed", QUICK), (2, "failed", SLOW), (3, "failed", QUICK), (4, "failed", QUICK)], False),
        ([(1, "failed", QUICK), (2, "killed", QUICK), (3, "interrupted", QUICK), (4, "failed", QUICK)], False),
        ([(1, "failed", QUICK), (2, "interrupted", SLOW), (3, "failed", QUICK), (4, "failed", QUICK)], True),
    ],
)
def test_the_guard(attempts: list[tuple[int, str, float]], tripped: bool) -> None:
    guard = Guard(3)
    for task_id, outcome, elapsed_s in attempts:
        guard.saw(TaskName(task_id), outcome, elapsed_s)
    assert guard.tripped is tripped


@pytest.mark.parametrize("counters", [{"f": 1}, {"r": 1}, {"r": 2, "f": 1}])
def test_what_was_run_before_proves_nothing_about_this_machine(counters: dict[str, int]) -> None:
    """Tasks that are tried again, or were set back by `retry` or `rerun`."""
    guard = Guard(2)
    for task_id in range(1, 9):
        guard.saw(TaskName(task_id, **counters), "failed", QUICK)
    assert not guard.over and not guard.tripped


def test_no_guard() -> None:
    assert Guard(0).over and not Guard(0).tripped
