"""Which tasks have ended, a shard at a time: a thousand ids are one number of a thousand bits, so that a million cost little.

What is packed says in its name how many it holds, so a whole shard is known without a look into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fsqdo.ids import SHARD_SIZE, IdSet, ids_in, shard_of
from fsqdo.store import Store
from fsqdo.task import FINAL_STATES, State

_LOOKS = 3


class Missing(NamedTuple):
    """How many ids of a set are missing somewhere, and the first few of them."""

    number: int
    first: list[int]


class Finals:
    """Which ids have ended, state by state and shard by shard, as listed when first asked.

    An answer "not yet" can be false at once; "ended" is false only after a retry or rerun.

    Notes
    -----
    A listing of the state's directory, once, and one of each shard that it has; a packed shard that is not whole is read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: dict[State, dict[str, list[str]]] = {}
        self._seen: dict[tuple[State, int], int] = {}

    def any(self, state: State) -> bool:
        """Whether a final state has anything at all."""
        return bool(self._listed(state))

    def bits(self, state: State, shard: int) -> int:
        """The ids of a shard in one final state, as bits of one number (`ids.bits_of`)."""
        key = (state, shard)
        bits = self._seen.get(key)
        if bits is None:
            bits = self._seen[key] = self._look(state, shard)
        return bits

    def _listed(self, state: State) -> dict[str, list[str]]:
        if state not in self._files:
            self._files[state] = self._store.shard_files(state)
        return self._files[state]

    def _look(self, state: State, shard: int) -> int:
        bits = 0
        for _ in range(_LOOKS):
            files = self._listed(state).get(f"{shard:06d}", ())
            bits, there = self._store.bits_in(state, shard, files)
            if there:
                break
            del self._files[state]  # RACE: it is being packed, and has another name now
        return bits

    def met(self, shard: int, ended: bool) -> int:
        """The ids of a shard that have succeeded, or (with `ended`) are in any final state, as bits of one number."""
        bits = self.bits(State.SUCCEEDED, shard)
        if ended:
            for state in FINAL_STATES:
                bits |= self.bits(state, shard)
        return bits

    def succeeded(self, task_id: int) -> bool:
        """Whether a task has succeeded."""
        return bool(self.bits(State.SUCCEEDED, shard_of(task_id)) >> task_id % SHARD_SIZE & 1)

    def ended(self, task_id: int) -> bool:
        """Whether a task is in any final state."""
        return any(self.bits(state, shard_of(task_id)) >> task_id % SHARD_SIZE & 1 for state in FINAL_STATES)

    def highest_open(self, ids: IdSet, ended: bool, below: int | None, also_open: dict[int, int] | None) -> int | None:
        """The highest id of a set under `below` that has not succeeded (with `ended`: ended), or is in `also_open`."""
        for shard, wanted in ids.shards_down(below):
            left = wanted & also_open.get(shard, 0) if also_open else 0
            if left.bit_length() < wanted.bit_length():  # else the highest of all is open, whatever is listed
                left |= wanted & ~self.met(shard, ended)
            if left:
                return shard * SHARD_SIZE + left.bit_length() - 1
        return None

    def missing(self, ids: IdSet, ended: bool, most: int) -> Missing:
        """How many ids of a set have not succeeded (with `ended`: ended), and the first `most` of them."""
        left = ((shard, wanted & ~self.met(shard, ended)) for shard, wanted in ids.shards_down())
        return _first_of(left, most)

    def lost(self, ids: IdSet, most: int) -> Missing:
        """How many ids of a set have ended without success, and the first `most` of them."""
        if not any(map(self.any, (State.FAILED, State.KILLED))):
            return Missing(0, [])
        ended = (
            (shard, wanted & (self.bits(State.FAILED, shard) | self.bits(State.KILLED, shard)))
            for shard, wanted in ids.shards_down()
        )
        return _first_of(((shard, bits & ~self.bits(State.SUCCEEDED, shard)) for shard, bits in ended if bits), most)


def _first_of(shards: Iterator[tuple[int, int]], most: int) -> Missing:
    """Count the ids of shards that come from the highest down, and keep the lowest."""
    count, lowest = 0, list[tuple[int, int]]()
    for shard, bits in shards:
        if bits:
            count += bits.bit_count()
            lowest.append((shard, bits))
    first: list[int] = []
    for shard, bits in reversed(lowest):
        for task_id in ids_in(shard, bits):
            if len(first) == most:
                return Missing(count, first)
            first.append(task_id)
    return Missing(count, first)
