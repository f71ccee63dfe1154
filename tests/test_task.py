"""Definitions, options and outcomes: what is written is read, what fsqdo does not know survives, hostile values are refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsqdo.errors import FsqdoError, InputError, TaskError
from fsqdo.ids import IdSet
from fsqdo.outcome import Outcome, success_line
from fsqdo.task import Definition, State, encode_task
from fsqdo.taskoptions import OPTION_NAMES, Options
from fsqdo.texts import encode_json, utc_now

plain_texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=30)
commands = plain_texts.filter(lambda text: not text.isspace())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
objects = json_values.filter(lambda value: value is not None and not isinstance(value, str))
seconds = st.floats(min_value=0.001, max_value=1e9)
options = st.builds(
    Options,
    priority=st.integers(-(10**9) + 1, 10**9 - 1),
    requires=st.lists(st.integers(0, 10**6), max_size=5).map(IdSet.of),
    after=st.lists(st.integers(0, 10**6), max_size=5).map(IdSet.of),
    cores=st.integers(1, 512),
    gpus=st.integers(0, 16),
    mem_mb=st.none() | st.integers(1, 10**7),
    time_request_s=st.none() | seconds,
    time_limit_s=st.none() | seconds,
    max_retries=st.none() | st.integers(0, 100),
    name=st.none() | commands.filter(lambda text: not text.strip().replace("-", "").isdigit()),
    tags=st.lists(plain_texts, max_size=3).map(tuple),
    env=st.dictionaries(plain_texts.filter(lambda text: "=" not in text), plain_texts, max_size=3),
    cwd=st.none() | plain_texts.map(lambda text: "/" + text),
    created_at=st.none() | st.just("2026-11-22T07:15:01Z"),
)
extras = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda key: key not in OPTION_NAMES and key not in ("id", "task")),
    json_values,
    max_size=3,
)


heads = st.sampled_from(['{"id":7,"task":', '{"id":8,"task":', '{"id":08,"task":', '{"task":1,"id":', '{"id":7, "task":', ""])
values = st.sampled_from(['"x"', "17", " 17", "null", '""', "[1]", '{"id":3}', ""])
fields = [',"priority":5', ',"priority":"x"', ',"id":9', ',"task":"y"', ',"created_at":"2026-11-22T07:15:01Z"', ',"n":{"id":1}']
rests = st.lists(st.sampled_from(fields), max_size=2).map("".join)
ends = st.sampled_from(["}", "}\n", "} ", "", "}}", ",}"])
texts = st.tuples(heads, values, rests, ends).map("".join)


@given(texts, texts)
@example('{"id":7,"task":17,"priority":5}', '{"id":7,"task":17,"priority":5,"id":9}')
@example('{"id":7,"task":"x","id":9}', '{"id":7,"task":17,"id":9}')
@example('{"id":7,"task":"x"}', '{"id":7,"task":""}')
def test_what_was_read_before_makes_no_difference(first: str, second: str) -> None:
    """Texts that share their ends are read at once; the answer is that of the plain way."""
    for text in (first, second, second.replace('"x"', "17"), first):
        try:
            wanted = Definition.from_raw(json.loads(text))
        except (ValueError, TaskError):
            with pytest.raises(TaskError):
                Definition.from_json(text)
        else:
            assert Definition.from_json(text) == Definition.from_json(text.encode()) == wanted


@given(st.integers(0, 10**9), commands | objects, options, extras)
@example(7, {"a": "\ud800"}, Options(), {})
@example(7, "a\u2028b\nc", Options(), {"future": {"x": [1]}})
def test_definition_round_trip(task_id: int, task: Any, given_: Options, extra: dict[str, Any]) -> None:
    written = Definition(task_id, task, given_, extra).to_json()
    assert written.count("\n") == 1 and written.endswith("\n")
    assert written.isascii()
    read = Definition.from_json(written)
    assert read == Definition(task_id, task, given_, extra)
    assert Definition.from_json(written.encode()).to_json() == written


def test_defaults_are_left_out() -> None:
    assert Definition(17, "ls").to_json() == '{"id":17,"task":"ls"}\n'


def test_unknown_fields_survive() -> None:
    line = '{"id":17,"task":"ls","from_the_future":{"a":[1,{"b":null}]},"priority":3,"x":1e300,"cores":2}\n'
    read = Definition.from_json(line)
    assert json.loads(read.to_json()) == json.loads(line)
    assert read.extra == {"from_the_future": {"a": [1, {"b": None}]}, "x": 1e300}


def test_example_of_the_design() -> None:
    text = """{"id":17,"task":"analyze blat.dat","priority":0,"requires":["1-16"],"after":[],"cores":1,"gpus":0,"mem_mb":null,
    "time_request_s":600,"time_limit_s":null,"max_retries":0,"name":null,"tags":[],"env":{},"cwd":"/scratch/me/run",
    "created_at":"2026-11-22T07:15:01Z"}"""
    read = Definition.from_json(text)
    assert read.options.requires == IdSet.parse("1-16")
    assert (read.options.time_request_s, read.options.cwd, read.options.max_retries) == (600, "/scratch/me/run", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"x"',
        "{}",
        '{"id":1}',
        '{"task":"x"}',
        '{"id":"1","task":"x"}',
        '{"id":true,"task":"x"}',
        '{"id":1.0,"task":"x"}',
        '{"id":1,"task":""}',
        '{"id":1,"task":"  "}',
        '{"id":1,"task":"a\\u0000b"}',
        '{"id":1,"task":"\\ud800"}',
        '{"id":1,"task":null}',
        '{"id":' + "9" * 5000 + ',"task":"x"}',
        "[" * 100_000,
        '{"id":1,"task":' + "[" * 100_000 + "}",
        '{"id":1,"task":"x","priority":"5"}',
        '{"id":1,"task":"x","priority":1.5}',
        '{"id":1,"task":"x","priority":true}',
        '{"id":1,"task":"x","cores":0}',
        '{"id":1,"task":"x","cores":"2"}',
        '{"id":1,"task":"x","requires":"abc"}',
        '{"id":1,"task":"x","requires":[-1]}',
        '{"id":1,"task":"x","requires":true}',
        '{"id":1,"task":"x","requires":{"a":1}}',
        '{"id":1,"task":"x","requires":' + "[" * 900 + "]" * 900 + "}",
        '{"id":1,"task":"x","env":[]}',
        '{"id":1,"task":"x","env":{"A":1}}',
        '{"id":1,"task":"x","env":{"A=B":"1"}}',
        '{"id":1,"task":"x","env":{"":"1"}}',
        '{"id":1,"task":"x","env":{"A":"\\u0000"}}',
        '{"id":1,"task":"x","tags":5}',
        '{"id":1,"task":"x","tags":[1]}',
        '{"id":1,"task":"x","cwd":5}',
        '{"id":1,"task":"x","cwd":"a\\u0000b"}',
        '{"id":1,"task":"x","cwd":""}',
        '{"id":1,"task":"x","time_limit_s":NaN}',
        '{"id":1,"task":"x","time_limit_s":Infinity}',
        '{"id":1,"task":"x","time_limit_s":-1}',
        '{"id":1,"task":"x","max_retries":-1}',
        '{"id":1,"task":"x","name":17}',
        '{"id":1,"task":"x","name":"17"}',
        "\ufeff{}",
    ],
    ids=lambda text: text[:60],
)
def test_bad_files_are_task_errors(text: str) -> None:
    # An empty list of requirements, however deep, requires nothing; any error but a TaskError would stop a worker.
    try:
        read = Definition.from_json(text)
    except TaskError:
        return
    assert '"requires":[[' in text and not read.options.requires


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80", b'{"id":1,"task":"\xff"}', b"\0" * 4096])
def test_bad_bytes_are_task_errors(content: bytes) -> None:
    with pytest.raises(TaskError):
        Definition.from_json(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_task_error_or_a_definition(content: bytes) -> None:
    try:
        Definition.from_json(content)
    except TaskError:
        pass


@given(json_values)
def test_any_json_is_a_task_error_or_a_definition(value: Any) -> None:
    for field in (
        "priority",
        "requires",
        "after",
        "cores",
        "tags",
        "env",
        "cwd",
        "name",
        "time_limit_s",
        "max_retries",
        "created_at",
    ):
        text = json.dumps({"id": 1, "task": "x", field: value})
        try:
            read = Definition.from_json(text)
        except TaskError:
            continue
        assert Definition.from_json(read.to_json()) == read


@pytest.mark.parametrize("text", ['{"id":1,"task":"x","tags":"abc"}', '{"id":1,"task":"x","tags":["abc"]}'])
def test_one_tag_is_a_word_and_not_its_letters(text: str) -> None:
    assert Definition.from_json(text).options.tags == ("abc",)
    assert Options.of(tags="abc").tags == ("abc",)


def circular() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "task",
    [
        "",
        " ",
        "\n\t",
        "a\0b",
        "\ud800",
        "x\udcff",
        None,
        b"x",
        float("nan"),
        float("inf"),
        {"a": float("nan")},
        {1, 2},
        object(),
        circular(),
        {"a": b"x"},
        {(1, 2): 3},
        pytest.param(10**5000, id="huge"),
        lambda: 1,
        Path("x"),
        1j,
    ],
)
def test_what_cannot_be_a_task(task: object) -> None:
    with pytest.raises(InputError) as caught:
        encode_task(task)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "task",
    [
        "ls",
        "two\nlines",
        "é日本\U0001f600",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "\\ud800",
        0,
        False,
        [],
        {},
        {"a": 1},
        10**40,
        1.5,
        {"a": "\ud800"},
    ],
)
def test_what_can_be_a_task(task: object) -> None:
    assert json.loads(encode_task(task)) == task


def test_deep_task_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError):
        encode_task(deep)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", "high"),
        ("priority", 1.5),
        ("priority", True),
        ("priority", 10**9),
        ("cores", 0),
        ("cores", 1.5),
        ("cores", "2"),
        ("cores", True),
        ("gpus", -1),
        ("mem_mb", 0),
        ("mem_mb", "4G"),
        ("max_retries", -1),
        ("time_limit_s", 0),
        ("time_limit_s", -1),
        ("time_limit_s", math.nan),
        ("time_limit_s", math.inf),
        ("time_limit_s", "60"),
        ("time_limit_s", True),
        ("time_request_s", 1e300),
        ("name", ""),
        ("name", " "),
        ("name", "17"),
        ("name", "1-5"),
        ("name", 5),
        ("name", "a\0b"),
        ("name", "\ud800"),
        ("tags", 5),
        ("tags", [1]),
        ("tags", ["a\0"]),
        ("tags", b"x"),
        ("env", {"A": 1}),
        ("env", {"A=B": "x"}),
        ("env", {"": "x"}),
        ("env", {"A": "a\0b"}),
        ("env", [("A", "B")]),
        ("env", {5: "x"}),
        ("cwd", 5),
        ("cwd", "a\0b"),
        ("cwd", b"/tmp"),
        ("cwd", ""),
        ("requires", "x"),
        ("requires", -1),
        ("requires", [None]),
        ("after", True),
        ("nonsense", 1),
        ("Priority", 1),
        pytest.param("cores", -(10**5000), id="huge"),
        pytest.param("priority", 10**5000, id="huge"),
    ],
)
def test_refused_options(name: str, value: object) -> None:
    with pytest.raises(InputError):
        Options.of(**{name: value})


def test_all_problems_are_said_together() -> None:
    with pytest.raises(InputError, match=r"cores.*gpus.*time_limit_s"):
        Options.of(cores=0, gpus=-1, time_limit_s="x")
    with pytest.raises(InputError, match=r"prioritie.*the options are.*priority"):
        Options.of(prioritie=5)


def test_options_take_what_people_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Options.of(cwd="sub", requires=range(1, 4), after="9", tags=["a", "b"], mem_mb=None, time_limit_s=5)
    assert made.cwd == str(tmp_path / "sub") and made.requires == IdSet.parse("1-3") and made.tags == ("a", "b")
    assert Options.of(cwd=tmp_path).cwd == os.fspath(tmp_path)


@pytest.mark.parametrize("text", ["failed", "Failed", "FAILED", " failed "])
def test_states_are_read_in_any_case(text: str) -> None:
    assert State(text) is State.FAILED is State.read(text)
    assert State.FAILED == "Failed" and str(State.FAILED) == "Failed" and f"{State.FAILED}" == "Failed"
    assert json.dumps({"state": State.FAILED}) == '{"state": "Failed"}'


@pytest.mark.parametrize("text", ["", "done", "fail", None, 5])
def test_no_state(text: Any) -> None:
    with pytest.raises(InputError, match="Waiting, Pending"):
        State.read(text)


def test_state_directories() -> None:
    assert [state.directory for state in State] == ["waiting", "pending", "running", "succeeded", "failed", "killed"]
    assert [state.final for state in State] == [False, False, False, True, True, True]


outcomes = st.builds(
    Outcome,
    name=st.sampled_from(["000000017", "000000017.f1i2", "000000017.r1m10"]),
    outcome=st.sampled_from(["succeeded", "failed", "retry", "interrupted", "killed"]),
    to=st.just("succeeded/000000/000000017@n-1-a.json"),
    started_at=st.none() | st.just(utc_now()),
    elapsed_s=st.none() | st.floats(0, 1e6),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    reason=st.none() | st.text(max_size=20),
    slot=st.none() | st.integers(0, 128),
    log=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 10**9), st.integers(0, 10**9)),
    cpu_s=st.none() | st.floats(0, 1e9),
    max_rss_kb=st.none() | st.integers(0, 2**40),
    ended_at=st.none() | st.just(utc_now()),
    result=json_values,
    worker=st.just("n-1-a"),
)


@given(outcomes)
def test_outcome_round_trip(outcome: Outcome) -> None:
    line = outcome.to_json()
    assert line.count("\n") == 1 and line.endswith("\n")
    assert Outcome.from_json(line, "n-1-a") == outcome
    assert outcome.how()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"name":"000000001"}',
        '{"name":"1","outcome":"x","to":"y","log":[1]}',
        '{"name":"1","outcome":"x","to":"y","log":["a","b","c"]}',
        "[" * 100_000,
        b"\xff",
        b"\0" * 100,
        '{"name":"000000001","outc',
    ],
)
def test_torn_outcomes_are_passed_over(line: Any) -> None:
    assert Outcome.from_json(line) is None


def test_outcome_of_a_later_release_is_read() -> None:
    line = '{"name":"000000001","outcome":"succeeded","to":"succeeded/000000/x.json","energy_j":5,"exit_code":0}\n'
    read = Outcome.from_json(line)
    assert read is not None and read.exit_code == 0


@given(json_values)
def test_encode_json_is_one_ascii_line(value: Any) -> None:
    text = encode_json(value)
    assert "\n" not in text and text.isascii() and json.loads(text) == value


def test_errors_have_one_root_and_exit_codes() -> None:
    with pytest.raises(FsqdoError) as caught:
        encode_task("")
    assert caught.value.exit_code == 2 and isinstance(caught.value, ValueError)


def test_the_line_of_a_usual_success_is_that_of_its_outcome() -> None:
    to = "succeeded/000000/000000017.r1@w.json"
    began, ended = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"
    line = success_line("000000017.r1", to, began, ended, 0.75)
    outcome = Outcome("000000017.r1", "succeeded", to, began, ended, 0.75, slot=0, worker="w")
    assert Outcome.from_json(line, "w") == outcome == Outcome.from_json(outcome.to_json(), "w")
    for log in (None, (3, 17, 1234)):
        line = success_line("000000017.r1", to, began, ended, 0.75, 3, 0.0625, 9000, log)
        outcome = outcome._replace(exit_code=0, slot=3, cpu_s=0.0625, max_rss_kb=9000, log=log)
        assert Outcome.from_json(line, "w") == outcome == Outcome.from_json(outcome.to_json(), "w")
