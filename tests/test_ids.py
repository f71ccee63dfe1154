"""Sets of ids: against plain Python sets, and what is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.errors import InputError
from fsqdo.ids import IdSet, bits_of, ids_in, is_range_text, shard_of

id_lists = st.lists(st.integers(0, 60) | st.integers(990, 1010) | st.integers(0, 10**12), max_size=40)


@given(id_lists)
def test_of_a_list_is_that_set(ids: list[int]) -> None:
    made = IdSet.of(ids)
    assert list(made) == sorted(set(ids))
    assert len(made) == len(set(ids))
    assert bool(made) == bool(ids)
    for task_id in ids:
        assert task_id in made
        assert task_id + 1 in made or task_id + 1 not in ids


@given(id_lists)
def test_written_form_round_trip(ids: list[int]) -> None:
    made = IdSet.of(ids)
    assert IdSet.parse(str(made)) == made
    assert IdSet.of(made.to_json()) == made
    assert hash(IdSet.of(str(made))) == hash(made)
    assert eval(repr(made)) == made


@given(id_lists, id_lists)
def test_union_meets_covers(one: list[int], other: list[int]) -> None:
    a, b = IdSet.of(one), IdSet.of(other)
    assert set(a | b) == set(one) | set(other)
    for first, last in b.ranges:
        if last - first < 1000:
            wanted = set(range(first, last + 1))
            assert a.meets(first, last) == bool(wanted & set(one))
            assert a.covers(first, last) == (wanted <= set(one))


@given(id_lists, st.none() | st.integers(0, 1200))
def test_shards_down(ids: list[int], below: int | None) -> None:
    pieces = list(IdSet.of(ids).shards_down(below))
    assert [shard for shard, _ in pieces] == sorted({shard for shard, _ in pieces}, reverse=True)
    found = [task_id for shard, bits in reversed(pieces) for task_id in ids_in(shard, bits)]
    assert found == sorted(i for i in set(ids) if below is None or i < below)


@given(st.integers(0, 3), st.integers(0, 3500), st.integers(0, 3500))
def test_the_bits_of_a_shard(shard: int, first: int, last: int) -> None:
    inside = [task_id for task_id in range(first, last + 1) if shard_of(task_id) == shard]
    assert list(ids_in(shard, bits_of(shard, first, last))) == inside


@given(id_lists)
def test_lowest_and_highest(ids: list[int]) -> None:
    if ids:
        assert IdSet.of(ids).lowest == min(ids)
        assert IdSet.of(ids).highest == max(ids)


class Row:
    """Anything with an integer id."""

    def __init__(self, task_id: int) -> None:
        self.id = task_id


class DictRow(dict):  # type: ignore[type-arg]
    """A row that is a mapping as well, as the rows of Queue.tasks are."""

    id = 8


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (5, "5"),
        ("5", "5"),
        (" 5 , 9-12,", "5,9-12"),
        ("", ""),
        (range(3, 7), "3-6"),
        (range(0, 7, 3), "0,3,6"),
        (range(6, 2, -1), "3-6"),
        (range(5, 5), ""),
        (range(9, 5), ""),
        (Row(4), "4"),
        (DictRow(a=1), "8"),
        ([Row(4), 5, "7-9", range(20, 22), [30, [31]]], "4-5,7-9,20-21,30-31"),
        ({3, 1, 2}, "1-3"),
        (iter([1, 2, 9]), "1-2,9"),
        ((i for i in (1, 1, 1)), "1"),
        ([0], "0"),
        ([2, 1, 0], "0-2"),
        (IdSet.of("4"), "4"),
        ({"7": "x"}, "7"),
        ("0", "0"),
    ],
)
def test_of_accepts(given_: object, expected: str) -> None:
    assert str(IdSet.of(given_)) == expected


@pytest.mark.parametrize(
    "given_",
    [
        True,
        [True],
        [1, False],
        -1,
        [-1],
        [-1, 0, 1],
        [0, -1],
        [3, -2, -1],
        range(-3, 0),
        range(-1, 2),
        range(2, -3, -1),
        1.0,
        [1.5],
        None,
        [None],
        object(),
        b"5",
        "x",
        "5-",
        "-5",
        "5--6",
        "1-2-3",
        "9-5",
        "5;6",
        "٣",
        "1_000",
        "+5",
        "0x5",
        "5 6",
        ["-1"],
        Row(-4),
        float("nan"),
        "9" * 5000,
        "1" * 19,
    ],
)
def test_of_refuses(given_: object) -> None:
    with pytest.raises(InputError):
        IdSet.of(given_)


def test_message_names_the_word() -> None:
    with pytest.raises(InputError, match="'abc'"):
        IdSet.of("5,abc")
    with pytest.raises(InputError, match="12-9"):
        IdSet.of("12-9")


class Index:
    """An integer that is no int, as numpy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_integers_of_other_libraries() -> None:
    assert IdSet.of([Index(4), Index(5)]) == IdSet.of("4-5")
    with pytest.raises(InputError):
        IdSet.of(Index(-4))


@pytest.mark.parametrize(
    "items",
    [10**18, [10**18], range(10**18, 10**18 + 2), range(5, 10**18 + 2), [Index(10**400)]],
    ids=lambda items: type(items).__name__,
)
def test_what_has_no_written_form_is_refused(items: object) -> None:
    with pytest.raises(InputError):
        IdSet.of(items)
    assert IdSet.parse(str(IdSet.of(10**18 - 1))) == IdSet.of(10**18 - 1)


@pytest.mark.parametrize("make", [range, lambda n: iter(range(n)), lambda n: f"0-{n - 1}"])
def test_a_million_ids_stay_a_range(make: Any) -> None:
    items: Iterable[int] = make(1_000_000)
    tracemalloc.start()
    made = IdSet.of(items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.ranges == ((0, 999_999),)
    assert peak < 1_000_000


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    nested: list[Any] = [1]
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(InputError):
        IdSet.of(nested)


@pytest.mark.parametrize(
    ("text", "expected"), [("5", True), ("5-7", True), (" 5 ", True), ("a5", False), ("5,6", False), ("", False)]
)
def test_is_range_text(text: str, expected: bool) -> None:
    assert is_range_text(text) is expected
