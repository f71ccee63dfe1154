"""Sets of task ids, kept as ranges: a million consecutive ids are one pair of numbers. Pure.

Written form, in JSON and on the command line: `5`, `9-12`, joined by commas.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import index

from fsqdo.errors import InputError, short

SHARD_SIZE = 1000
MAX_ID = 10**18 - 1
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?\Z")


def shard_of(task_id: int) -> int:
    """Number of the shard that holds this id."""
    return task_id // SHARD_SIZE


def bits_of(shard: int, first: int, last: int) -> int:
    """What of first..last lies in a shard, as bits of one number: bit k stands for the id `shard * 1000 + k`."""
    low, high = max(first - shard * SHARD_SIZE, 0), min(last - shard * SHARD_SIZE, SHARD_SIZE - 1)
    return ((1 << (high + 1)) - 1) & -(1 << low) if low <= high else 0


def ids_in(shard: int, bits: int) -> Iterator[int]:
    """Yield the ids that these bits of a shard stand for, in order."""
    while bits:
        lowest = bits & -bits
        yield shard * SHARD_SIZE + lowest.bit_length() - 1
        bits ^= lowest


def is_range_text(text: str) -> bool:
    """Whether a word is an id or a range of ids, and so cannot be the name of a task."""
    return _RANGE.match(text.strip()) is not None


class IdSet:
    """An immutable set of task ids.

    Parameters
    ----------
    ranges
        Pairs (first, last), both included, in any order, overlapping or not.
    """

    __slots__ = ("_firsts", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self.ranges = tuple(merged)
        self._firsts: list[int] | None = None

    @classmethod
    def of(cls, items: object) -> IdSet:
        """Make a set of whatever names tasks: an id, `"5,9-12"`, a range, a task, or any iterable of these.

        Raises
        ------
        InputError
            For anything else, naming it.
        """
        if isinstance(items, IdSet):
            return items
        try:
            return cls(_spans(items))
        except RecursionError:
            raise InputError("the ids are nested too deeply", "give ids, ranges, tasks, or an iterable of these") from None

    @classmethod
    def parse(cls, text: str) -> IdSet:
        """Read the written form."""
        return cls(_text_spans(text))

    def __str__(self) -> str:
        return ",".join(self.to_json())

    def __repr__(self) -> str:
        return f"IdSet.parse({str(self)!r})"

    def to_json(self) -> list[str]:
        """One string a range: `["1-16", "20"]`."""
        return [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges]

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __contains__(self, task_id: int) -> bool:
        at = self._at(task_id)
        return at >= 0 and task_id <= self.ranges[at][1]

    def _at(self, task_id: int) -> int:
        """Index of the last range that begins at or below an id; -1 when there is none."""
        if self._firsts is None:
            self._firsts = [first for first, _ in self.ranges]
        return bisect_right(self._firsts, task_id) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet((*self.ranges, *other.ranges))

    @property
    def highest(self) -> int:
        """The largest id; the set must not be empty."""
        return self.ranges[-1][1]

    @property
    def lowest(self) -> int:
        """The smallest id; the set must not be empty."""
        return self.ranges[0][0]

    def covers(self, first: int, last: int) -> bool:
        """Whether all of first..last is in the set."""
        at = self._at(first)
        return at >= 0 and last <= self.ranges[at][1]

    def meets(self, first: int, last: int) -> bool:
        """Whether any of first..last is in the set."""
        at = self._at(last)
        return at >= 0 and first <= self.ranges[at][1]

    def shards_down(self, below: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (shard, bits as of `bits_of`) for every shard that holds ids under `below`, from the highest down."""
        shard, bits = -1, 0
        at = len(self.ranges) - 1 if below is None else self._at(below - 1)
        for first, last in (self.ranges[i] for i in range(at, -1, -1)):
            if below is not None:
                last = min(last, below - 1)
            for of in range(shard_of(last), shard_of(first) - 1, -1):
                if of != shard:
                    if bits:
                        yield shard, bits
                    shard, bits = of, 0
                bits |= bits_of(of, first, last)
        if bits:
            yield shard, bits


def _text_spans(text: str) -> Iterator[tuple[int, int]]:
    for word in text.split(","):
        if not word.strip():
            continue
        match = _RANGE.match(word.strip())
        if match is None:
            raise InputError(f"{short(word.strip())} is not a task id", "ids are written like 5 or 9-12, joined by commas")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"the range {word.strip()} runs backwards", f"write {last}-{first}")
        yield first, last


def _spans(items: object) -> Iterator[tuple[int, int]]:
    if isinstance(items, (bool, bytes, bytearray)):  # bytes would be an iterable of numbers
        raise InputError(f"{short(items)} is not a task id")
    if hasattr(items, "__index__"):  # integers of other libraries, too
        items = index(items)
        if not 0 <= items <= MAX_ID:
            raise InputError(f"{short(items)} is not a task id", "ids are never negative, and have at most 18 digits")
        yield items, items
    elif isinstance(items, str):
        yield from _text_spans(items)
    elif isinstance(items, IdSet):
        yield from items.ranges
    elif isinstance(items, range):
        if items and items.step == 1:
            yield from _spans(items[0])
            yield from _spans(items[-1])
            yield items[0], items[-1]
        else:
            yield from _each(items)
    elif isinstance(getattr(items, "id", None), int):
        yield from _spans(items.id)  # type: ignore[attr-defined]
    elif isinstance(items, Iterable):
        yield from _each(items)
    else:
        raise InputError(f"{short(items)} is not a task id", "give ids, ranges, tasks, or an iterable of these")


def _each(items: Iterable[object]) -> Iterator[tuple[int, int]]:
    """Join neighbours on the way, so that a million ids in order never become a million pairs."""
    first = last = -2
    for item in items:
        if type(item) is int and item == last + 1 and first >= 0:
            last = item
            continue
        for low, high in _spans(item):
            if low == last + 1 and first >= 0:
                last = high
                continue
            if first >= 0:
                yield first, last
            first, last = low, high
    if first >= 0:
        yield first, last
