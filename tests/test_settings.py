"""queue.json: written for people, checked when it is read, and newer ones refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.errors import FormatError, InputError
from fsqdo.settings import FORMAT, SETTABLE, Settings


@given(
    st.builds(
        Settings,
        name=st.text(max_size=10),
        max_retries=st.integers(0, 100),
        retry_delay_s=st.floats(0, 1e6),
        max_interruptions=st.integers(0, 100),
        time_limit_s=st.none() | st.floats(0.1, 1e6),
        time_request_s=st.none() | st.integers(1, 10**6),
        requires=st.sampled_from(["succeed", "finish"]),
        durability=st.sampled_from(["normal", "paranoid"]),
        extra=st.dictionaries(st.sampled_from(["future", "x"]), st.integers() | st.lists(st.text(max_size=3), max_size=3)),
    )
)
def test_round_trip_with_unknown_fields(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json(), "queue.json") == settings


def test_content() -> None:
    raw = json.loads(Settings(name="x").to_json())
    assert raw["format"] == FORMAT == 1
    assert set(SETTABLE) < set(raw)
    assert Settings().to_json().count(b"\n") > 5


def test_newer_format_is_refused_naming_both_numbers() -> None:
    with pytest.raises(FormatError, match=rf"/q/queue.json.*format 7\b.*\b{FORMAT}\b"):
        Settings.from_json(b'{"format": 7, "max_retries": "what a later release may mean by it"}', "/q/queue.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b"{}",
        b"\xff",
        b'{"format":"1"}',
        b'{"format":0}',
        b'{"format":-1}',
        b'{"format":true}',
        b'{"format":1.0}',
        b'{"format":null}',
        b'{"format":1,"max_retries":-1}',
        b'{"format":1,"max_retries":"3"}',
        b'{"format":1,"requires":"x"}',
        b'{"format":1,"retry_delay_s":NaN}',
        b'{"format":1,"retry_delay_s":Infinity}',
        b'{"format":1,"time_limit_s":0}',
        b"[" * 100_000,
        b'{"format":1,"durability":["normal"]}',
        b'{"format":1,"time_limit_s":true}',
        b"\0" * 300,
    ],
)
def test_bad_files_name_the_path(content: bytes) -> None:
    with pytest.raises(FormatError, match=r"/q/queue\.json"):
        Settings.from_json(content, "/q/queue.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_retrys": 1}, "did you mean max_retries"),
        ({"zzz": 1}, "the settings are"),
        ({"name": "x"}, "no queue setting"),
        ({"format": 2}, "no queue setting"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"retry_delay_s": float("nan")}, "retry_delay_s"),
        ({"time_limit_s": float("inf")}, "time_limit_s"),
        ({"time_limit_s": 10**400}, "time_limit_s"),
        ({"requires": "maybe"}, "succeed, finish"),
    ],
)
def test_refused_changes(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings().with_changes(changes)


def test_all_problems_together() -> None:
    with pytest.raises(InputError, match=r"max_retries.*requires.*durability"):
        Settings().with_changes({"max_retries": -1, "requires": "x", "durability": "y"})


def test_changes_keep_the_rest() -> None:
    before = Settings(name="x", extra={"future": 1})
    after = before.with_changes({"max_retries": 3})
    assert (after.max_retries, after.name, after.extra) == (3, "x", {"future": 1})
