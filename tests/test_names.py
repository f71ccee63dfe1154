"""Names: what is built is read back, what people do with `mv` is understood, what is not ours is left alone."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsqdo import names
from fsqdo.errors import InputError
from fsqdo.ids import SHARD_SIZE
from fsqdo.names import OpeningName, PackName, ShardEntry, TaskName
from tests import checker

ids = st.integers(0, 10**12)
counters = st.integers(0, 10**6)
priorities = st.integers(-names.MAX_PRIORITY, names.MAX_PRIORITY)
workers = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}", fullmatch=True)
task_names = st.builds(TaskName, ids, counters, counters, counters, counters, st.none() | priorities, st.none() | workers)
pack_names = st.builds(
    lambda first, more, r, f, i, s, p: PackName(first, first + more, r, f, i, s, p),
    ids,
    st.integers(0, 5000),
    counters,
    counters,
    counters,
    counters,
    st.none() | priorities,
)
file_names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=60)
almost_names = st.text(alphabet="0123456789rfispmw@.-jsonlpackdrt", min_size=1, max_size=60)


@given(task_names)
def test_task_round_trip(name: TaskName) -> None:
    assert names.parse_task(name.file) == name
    assert names.parse_entry(name.file) == name
    assert name.file.startswith(str(name))
    assert names.parse_marker(name.file) is None
    assert (name.first, name.last, name.size, name.attempt) == (name.id, name.id, 1, name.f + name.i + name.s + 1)
    assert checker.TASK.fullmatch(name.file)


@given(pack_names)
def test_marker_and_bundle_round_trip(name: PackName) -> None:
    assert names.parse_marker(name.file) == name
    assert names.parse_entry(name.file) == name
    assert names.parse_bundle(str(name)) == name
    assert names.parse_bundle(name.file) is None
    assert names.parse_task(name.file) is None
    assert name.size == name.last - name.first + 1
    assert name.task(name.first).id == name.first
    assert checker.PACK.fullmatch(name.file) and checker.BUNDLE.fullmatch(str(name))


@given(pack_names, priorities, st.none() | ids, st.booleans())
def test_opening_round_trip(pack: PackName, priority: int, requirement: int | None, dropped: bool) -> None:
    opening = OpeningName(pack, priority, requirement, dropped)
    assert names.parse_opening(str(opening)) == opening
    assert names.parse_entry(str(opening)) is None
    assert names.parse_bundle(str(opening)) is None or opening.pack != names.parse_bundle(str(opening))
    if requirement is None:
        assert opening.home == f"pending/{priority}"
    else:
        assert opening.home == names.waiting_dir(requirement)
    assert checker.OPENING.fullmatch(str(opening))


@given(task_names, priorities)
def test_every_move_gives_a_fresh_name(name: TaskName, priority: int) -> None:
    for fresh in (
        names.failed_once_more(name),
        names.interrupted_once_more(name),
        names.stopped_once_more(name),
        names.moved_by_hand(name),
        names.moved_by_hand(name, renew=True),
        names.moved_by_hand(name, priority=priority),
    ):
        assert str(fresh) != str(name)
        assert fresh.id == name.id
        assert fresh.worker is None
    renewed = names.moved_by_hand(name, renew=True)
    assert (renewed.r, renewed.f, renewed.i, renewed.s, renewed.priority) == (name.r + 1, 0, 0, 0, name.priority)
    assert names.moved_by_hand(name, priority=priority).priority == priority


@given(pack_names)
def test_moves_of_packs(name: PackName) -> None:
    assert names.interrupted_once_more(name) == name._replace(i=name.i + 1)
    assert names.moved_by_hand(name, renew=True) == name._replace(r=name.r + 1, f=0, i=0, s=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("000000017.json", TaskName(17)),
        ("000000017.f1.json", TaskName(17, f=1)),
        ("000000017.f1i2.json", TaskName(17, f=1, i=2)),
        ("000000017.i2f1.json", TaskName(17, f=1, i=2)),
        ("000000017.r1f1i2s3p5.json", TaskName(17, 1, 1, 2, 3, 5)),
        ("000000017.r1p5.json", TaskName(17, r=1, priority=5)),
        ("000000017.r1m10@node-1-ab.json", TaskName(17, r=1, priority=-10, worker="node-1-ab")),
        ("000000017@a.b.c.json", TaskName(17, worker="a.b.c")),
        ("1234567890.json", TaskName(1234567890)),
    ],
)
def test_tasks_of_the_format_document(text: str, expected: TaskName) -> None:
    assert names.parse_task(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "17.json",
        "000000017",
        "000000017.JSON",
        "000000017.json~",
        ".000000017.json",
        "000000017.x1.json",
        "000000017.f.json",
        "000000017..json",
        "000000017.f-1.json",
        "000000017@.json",
        "000000017@a/b.json",
        "000000017.json\n",
        "٠٠٠٠٠٠٠١٧.json",
        " 000000017.json",
        "000000017 (copy).json",
        "000000017@a b.json",
        "-00000017.json",
        "000000017.kill",
        "worker.json",
        "",
        "0" * 40 + ".json",
        "000000017.p9999999999.json",
        "000000017.r" + "9" * 30 + ".json",
    ],
)
def test_not_a_task(text: str) -> None:
    assert names.parse_task(text) is None


@pytest.mark.parametrize(
    "text",
    ["000000009-000000001.pack", "000000001-000000009", "1-9.pack", "000000001-000000009.pack.tmp", "000000001.pack", ".pack"],
)
def test_not_a_marker(text: str) -> None:
    assert names.parse_marker(text) is None


@given(file_names | almost_names)
@example("9" * 5000 + ".json")
@example("9" * 5000 + "-" + "9" * 5000 + ".pack")
@example("9" * 5000)
@example("000000001.p" + "9" * 5000 + ".json")
@example("9" * 5000 + ".p1.n" + "9" * 5000 + ".jsonl")
@example("9" * 5000 + ".a")
def test_parsers_never_raise_and_agree_with_their_builders(text: str) -> None:
    task = names.parse_task(text)
    if task is not None:
        assert names.parse_task(task.file) == task
    marker = names.parse_marker(text)
    if marker is not None:
        assert marker.first <= marker.last
        assert names.parse_marker(marker.file) == marker._replace(worker=None)
    bundle = names.parse_bundle(text)
    assert bundle is None or bundle.first <= bundle.last
    opening = names.parse_opening(text)
    assert opening is None or names.parse_opening(str(opening)) is not None
    assert not (task and marker)
    (
        names.parse_shard(text),
        names.parse_load(text),
        names.parse_next_id(text),
        names.is_worker_name(text),
        names.parse_entry(text),
    )
    priority = names.parse_priority(text)
    # Files are looked for under the number, so a name that says it differently must not be taken for it.
    assert priority is None or str(priority) == text


def test_bundle_of_a_shard() -> None:
    assert names.parse_bundle("000017") == PackName(17000, 17999)
    assert names.parse_bundle("17") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("000017", ShardEntry(17)),
        ("000017.p1", ShardEntry(17, 1)),
        ("000017.p2.all.ab12", ShardEntry(17, 2, "ab12")),
        ("000017.p2.n1000.jsonl", ShardEntry(17, 2, None, 1000)),
        ("000017.p2.n1000", None),
        ("000017.jsonl", None),
        ("000017.p", None),
        ("17", None),
        ("000017.p1.all.", None),
    ],
)
def test_shard_forms(text: str, expected: ShardEntry | None) -> None:
    assert names.parse_shard(text) == expected
    assert expected is None or expected.is_file == text.endswith(".jsonl")


@given(ids)
def test_places_of_a_task(task_id: int) -> None:
    shard = names.shard_name(task_id)
    parsed = names.parse_shard(shard)
    assert parsed is not None and parsed.shard == task_id // SHARD_SIZE
    bundle = names.parse_bundle(shard)
    assert bundle is not None and bundle.first <= task_id <= bundle.last
    assert names.pending_dir(-3, task_id) == f"pending/-3/{shard}"
    assert names.waiting_dir(task_id).startswith(f"waiting/{shard}/")


@given(ids, st.integers(0, 10**6))
def test_loads_and_next_id_round_trip(first: int, more: int) -> None:
    assert names.parse_load(names.load_name(first, first + more)) == (first, first + more)
    assert names.parse_next_id(names.next_id_name(first, names.new_token())) == first


@pytest.mark.parametrize(
    "text", ["000000001", "000000001.", "000000001.a.b", "1.a", "000000001.a~", ".nfs0001", "000000001.a b"]
)
def test_not_a_next_id(text: str) -> None:
    assert names.parse_next_id(text) is None


@given(priorities)
def test_priority_round_trip(priority: int) -> None:
    assert names.parse_priority(str(priority)) == priority == names.check_priority(priority)


@pytest.mark.parametrize("text", ["-0", "007", "+5", "1_0", "", "-", "5 ", "٣", "1234567890", "5.0"])
def test_not_a_priority(text: str) -> None:
    assert names.parse_priority(text) is None


@pytest.mark.parametrize("value", [True, 1.0, "5", None, 10**9, -(10**9), pytest.param(10**5000, id="huge")])
def test_refused_priorities(value: object) -> None:
    with pytest.raises(InputError):
        names.check_priority(value)


def test_worker_names_are_fresh_and_fit_their_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {names.new_worker_name() for _ in range(1000)}
    assert len(made) == 1000
    for host in ("node-1.example.org", "-x", "ünïcode", "", "a b/c", "x" * 200, "..", "日本"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        name = names.new_worker_name()
        assert names.is_worker_name(name)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
        assert f"-{os.getpid()}-" in name
        assert len(name) < 80
        assert names.parse_task(f"000000001@{name}.json") == TaskName(1, worker=name)


@pytest.mark.parametrize("name", ["Blat", "a", "_x", "extract.v2", "run+1", "a=b,c@d%", "Überlauf", "日本", "x" * 200, "3"])
def test_queue_names(name: str) -> None:
    assert names.check_queue_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "/a",
        "a b",
        " a",
        "a\n",
        "\n",
        "a\0b",
        "a\tb",
        "x" * 201,
        "日" * 67,
        "a\\b",
        "a*",
        "~",
        "$x",
        "a;b",
        "a'b",
        '"',
        None,
        5,
        b"x",
        "\ud800",
    ],
)
def test_refused_queue_names(name: object) -> None:
    with pytest.raises(InputError):
        names.check_queue_name(name)  # type: ignore[arg-type]
