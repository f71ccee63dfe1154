"""Packing: the thousand files of a finished shard become one JSON Lines file, in which each task stands with its outcome.

A shard `succeeded/<s>` whose ids have all ended is sealed, by a rename to `<s>.p<k>` (k is a number nobody had before). From
then on nothing is added to it or taken from it by hand. When no client can remember its old name any more, one process takes
it, by a rename to another number: others who pack it, or take it apart, find nothing. Its tasks are written into it as
`all.<token>.jsonl`, and a rename of the directory to `<s>.p<k>.all.<token>` decides that this file counts, and hides the
loose files it holds. These are unlinked, what came late moves to `<s>`, and the file moves up to
`<s>.p<k>.n<count>.jsonl`.

A kill leaves any prefix of this, which the next pass goes on with. What has no outcome in a journal stays loose.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable

from fsqdo import journal
from fsqdo.errors import TaskError
from fsqdo.finals import Finals
from fsqdo.ids import SHARD_SIZE
from fsqdo.mounts import is_ours_alone
from fsqdo.names import ShardEntry, TaskName, all_file, is_all_file, name_in_line, new_token, parse_shard, parse_task
from fsqdo.packs import definition_from
from fsqdo.sizes import size_of
from fsqdo.store import Store
from fsqdo.task import FINAL_STATES, State

SETTLE_S = 120.0
BATCH = 20
_TOP = State.SUCCEEDED.directory
_WORTH = 2


def ids_of(shard: int) -> range:
    """The ids of a shard."""
    return range(max(1, shard * SHARD_SIZE), (shard + 1) * SHARD_SIZE)


def new_round() -> int:
    """A number for a shard that is sealed, which nobody had before."""
    return int.from_bytes(os.urandom(4), "big") % 999_999_999


class Packer:
    """Packs the finished shards of one queue; what it remembers is when it first saw each sealed one.

    Parameters
    ----------
    settle_s
        How long a sealed shard rests before it is listed: longer than clients remember names. None: not at all where only
        this host has used the queue, on a local file system, else two minutes.
    """

    def __init__(self, store: Store, settle_s: float | None = None) -> None:
        self._store = store
        self._settle_s = settle_s
        self._seen: dict[str, float] = {}
        self._left: set[int] = set()

    @property
    def settle_s(self) -> float:
        """How long a sealed shard rests."""
        if self._settle_s is None:
            self._settle_s = 0.0 if is_ours_alone(self._store) else SETTLE_S
        return self._settle_s

    def run(self, most: int = BATCH, seal: bool = True) -> int:
        """Do what can be done now for at most so many shards; returns the number of tasks packed.

        Parameters
        ----------
        seal
            Begin with more shards; without it only what was begun is brought to its end.

        Raises
        ------
        StorageError
            When the file system refuses; what was begun stands as it is, and the next run goes on with it.

        Notes
        -----
        A listing of `succeeded/`, and for a shard: three listings to see that it has ended, a rename that seals it, one that
        takes it, a listing, one read of its load, its workers' journals (once for all shards of this run), a write, two
        syncs, a rename that decides, an unlink for each task, a rename, a rmdir.
        """
        sealed, plain = [], []
        for parsed, _ in self._store.shards(State.SUCCEEDED):
            if parsed.token is not None:
                finish(self._store, parsed)
            elif parsed.sealed:
                sealed.append(parsed)
            elif seal and not parsed.is_file and parsed.shard not in self._left:
                plain.append(parsed.shard)
        next_id = self._store.next_id() if plain else 0
        for shard in plain:
            if len(sealed) >= most:
                break
            entry = self._seal(shard, next_id)
            if entry is not None:
                sealed.append(entry)
        now = time.monotonic()
        ripe = [entry for entry in sealed if now - self._seen.setdefault(str(entry), now) >= self.settle_s]
        return self._pack(ripe[:most])

    def would(self, seal: bool = True) -> int:
        """Number of tasks that `run` would pack, sooner or later; those of which no journal has an outcome are counted, too.

        Notes
        -----
        Listings alone, as of `run`.
        """
        total = 0
        next_id = self._store.next_id()
        for parsed, file in self._store.shards(State.SUCCEEDED):
            if parsed.sealed and parsed.token is None:
                total += size_of(self._store.ls(f"{_TOP}/{file}") or ())
            elif seal and not parsed.sealed and not parsed.is_file:
                total += self._ended(parsed.shard, next_id)
        return total

    def run_on(self, shards: Iterable[int]) -> int:
        """Pack such of these shards as have ended, and what this process saw sealed and has rested; the number of tasks packed.

        Notes
        -----
        A listing for each shard, where it has not ended one or two more; for those that have, what `run` does.
        """
        wanted = [shard for shard in shards if shard not in self._left and self._looks_ended(shard)]
        next_id = self._store.next_id() if wanted else 0
        for shard in wanted:
            self._seal(shard, next_id)
        now = time.monotonic()
        seen = [entry for name, at in self._seen.items() if now - at >= self.settle_s and (entry := parse_shard(name))]
        return self._pack(seen[:BATCH]) if seen else 0

    def _looks_ended(self, shard: int) -> bool:
        """Whether as many tasks are in final states as the shard has ids; a shard that was packed before is left to `run`."""
        missing = len(ids_of(shard))
        for state in FINAL_STATES:
            missing -= size_of(self._store.ls(f"{state.directory}/{shard:06d}") or ())
            if missing <= 0:
                return True
        return False

    @property
    def resting(self) -> float:
        """Seconds until the first sealed shard that `run` saw may be packed; 0 when there is none."""
        if not self._seen:
            return 0.0
        return max(0.0, min(self._seen.values()) + self.settle_s - time.monotonic())

    def _ended(self, shard: int, next_id: int) -> int:
        """Number of loose tasks in a shard that has ended; 0 when it has not, or so few are not worth a file."""
        ids = ids_of(shard)
        if ids[-1] >= next_id:
            return 0
        names = [name for file in self._store.ls(f"{_TOP}/{shard:06d}") or () if (name := parse_task(file)) is not None]
        if len(names) < _WORTH:
            return 0
        whole = len({name.id for name in names}) == len(ids)
        if not whole and Finals(self._store).met(shard, ended=True).bit_count() < len(ids):
            return 0
        return len(names)

    def _seal(self, shard: int, next_id: int) -> ShardEntry | None:
        """Rename a shard that has ended, so that nobody adds to it or takes from it; None when it has not."""
        if not self._ended(shard, next_id):
            return None
        entry = ShardEntry(shard, new_round())
        if not self._store.move_directory(f"{_TOP}/{shard:06d}", f"{_TOP}/{entry}"):
            return None
        self._seen[str(entry)] = time.monotonic()
        return entry

    def _pack(self, entries: list[ShardEntry]) -> int:
        """Write, decide and finish several sealed shards, reading each journal once."""
        store = self._store
        listed: dict[ShardEntry, list[TaskName]] = {}
        wanted: dict[str, set[bytes]] = {}
        for sealed in entries:
            self._seen.pop(str(sealed), None)
            # RACE: somebody else packs it, too, or is still taking its tasks out (`unseal`): to neither is it there any more.
            entry = sealed._replace(round=new_round())
            if not store.move(f"{_TOP}/{sealed}", f"{_TOP}/{entry}"):
                continue
            names = [name for file in store.ls(f"{_TOP}/{entry}") or () if (name := parse_task(file)) is not None]
            listed[entry] = names
            for name in names:
                if name.worker is not None:
                    wanted.setdefault(name.worker, set()).add(str(name).encode())
        outcomes = {worker: journal.last_lines(store, worker, keys) for worker, keys in wanted.items()}
        done = 0
        for entry, names in listed.items():
            lines = _lines(store, entry, names, outcomes)
            if len(lines) >= _WORTH:
                done += _decide(store, entry, lines)
            else:  # its journals went with a node: as it was, and not looked at again by this process
                self._left.add(entry.shard)
                unseal(store, entry)
        return done


def _lines(store: Store, entry: ShardEntry, names: list[TaskName], outcomes: dict[str, dict[bytes, bytes]]) -> list[bytes]:
    """A line for each task of a shard of which definition and outcome can be read, in the order of ids."""
    load = _Loaded(store)
    found = []
    for name in sorted(names):
        outcome = outcomes.get(name.worker or "", {}).get(str(name).encode())
        if outcome is None:
            continue
        try:
            definition = (
                load.line(name.id)
                or definition_from(store, name, store.read(f"{_TOP}/{entry}/{name.file}") or b"").to_json().encode()
            )
            definition = definition.strip()
            line = b'{"name":"%s@%s","task":%s,"outcome":%s}\n' % (
                str(name).encode(), (name.worker or "").encode(), definition, outcome.strip(),
            )  # fmt: skip
            if _plain(definition, name.id) or json.loads(line)["task"]["id"] == name.id:
                found.append(line)
        except (TaskError, ValueError, KeyError, TypeError, RecursionError):
            continue  # it stays loose
    return found


def _plain(definition: bytes, task_id: int) -> bool:
    """Whether it is as we write it, complete and with nothing nested in it: then it need not be read to be believed."""
    return definition.startswith(b'{"id":%d,' % task_id) and definition.endswith(b"}") and definition.count(b"{") == 1


class _Loaded:
    """The lines with which tasks were loaded: the files of a shard are not read one by one where its load is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._first = self._last = 0
        self._lines: list[bytes] = []

    def line(self, task_id: int) -> bytes | None:
        """The line of a task; None when it did not come from a load."""
        if not self._first <= task_id <= self._last:
            self._first, self._last, self._lines = self._store.loaded_lines(task_id) or (task_id, task_id, [])
        at = task_id - self._first
        return self._lines[at] if at < len(self._lines) else None


def _decide(store: Store, entry: ShardEntry, lines: list[bytes]) -> int:
    """Write the lines into the sealed shard, and have them count; the number of tasks, 0 when another process was first."""
    token = new_token()
    directory = f"{_TOP}/{entry}"
    if not store.write(f"{directory}/{all_file(token)}", b"".join(lines), sync=True):
        return 0
    store.sync_directory(directory, may_be_gone=True)
    decided = entry._replace(token=token)
    if not store.move_directory(directory, f"{_TOP}/{decided}"):
        return 0
    # On disk before the first unlink: a power cut must not keep these and lose what they wait for.
    store.sync_directory(_TOP)
    finish(store, decided, {name for line in lines if (name := name_in_line(line[:-1])) is not None})
    return len(lines)


def finish(store: Store, decided: ShardEntry, held: set[str] | None = None) -> None:
    """Remove what the file of a decided shard holds, move what came late back, reveal the file; can be repeated.

    Parameters
    ----------
    held
        The names that the file holds, where they are known; else it is read.

    Notes
    -----
    Unlinks, a rename for each latecomer, a rename of the file, rmdir. A kill leaves the rest to the next.
    """
    directory = f"{_TOP}/{decided}"
    own = all_file(decided.token or "")
    if held is None:
        held = held_by(store, f"{directory}/{own}")
    revealed = _revealed(store, decided)
    if held is None and revealed is not None:
        held = held_by(store, f"{_TOP}/{revealed}")
    listed = store.ls(directory) or ()
    if held is not None and revealed is None:
        # Listings may leave names out: before the file is revealed none of them must be there beside it.
        for left_out in held.difference(file.removesuffix(".json") for file in listed):
            store.unlink(f"{directory}/{left_out}.json")
    for file in listed:
        if file == own:
            continue
        if is_all_file(file) or (held is not None and file.removesuffix(".json") in held):
            store.unlink(f"{directory}/{file}")
        elif (name := parse_task(file)) is not None:
            store.move(f"{directory}/{file}", f"{_TOP}/{name.id // SHARD_SIZE:06d}/{file}")
    if held is not None and revealed is None:
        packed = ShardEntry(decided.shard, decided.round, None, len(held))
        store.move(f"{directory}/{own}", f"{_TOP}/{packed}", private=True)
    store.remove_directory(directory)


def _revealed(store: Store, decided: ShardEntry) -> ShardEntry | None:
    """The packed file of a decided shard, when somebody has moved it up already."""
    for parsed, _ in store.shards(State.SUCCEEDED, decided.shard):
        if parsed.is_file and parsed.round == decided.round:
            return parsed
    return None


def held_by(store: Store, path: str) -> set[str] | None:
    """The names (with their worker) that a packed file holds; None when there is no such file."""
    names = {name for line in store.read_lines(path) if (name := name_in_line(line)) is not None}
    return names or None


def unseal(store: Store, entry: ShardEntry) -> None:
    """Give a sealed shard its old name back; where that is taken, its tasks go there one by one.

    Notes
    -----
    One rename; or one for each task, and rmdir. A kill leaves the rest sealed.
    """
    directory, home = f"{_TOP}/{entry}", f"{_TOP}/{entry.shard:06d}"
    files = store.ls(directory) or ()
    for file in filter(is_all_file, files):
        store.unlink(f"{directory}/{file}")
    if store.move_directory(directory, home):
        return
    for file in files:
        if parse_task(file) is not None:
            store.move(f"{directory}/{file}", f"{home}/{file}")
    store.remove_directory(directory)


def pack_all(store: Store, wait: bool = True, report: Callable[[str], None] = lambda text: None) -> int:
    """Pack every finished shard now; returns the number of tasks packed.

    Parameters
    ----------
    wait
        Wait until sealed shards may be listed, on file systems of a network: two minutes.
    report
        Told when that is.
    """
    packer = Packer(store)
    total = 0
    while True:
        done = packer.run()
        total += done
        if done:
            continue
        left_s = packer.resting
        if not left_s or not wait:
            return total
        report(f"the finished shards rest for {left_s:.0f} s: other hosts may still remember their old names")
        time.sleep(left_s)
