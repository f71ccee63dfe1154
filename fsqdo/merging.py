"""Putting together what workers left that have ended: their journals and logs, into directories under `merged/`.

A worker has ended when its journal is there and its directory is neither under `running/` nor `recovering/`, asked in this
order: it makes that directory before its journal, and recovery moves it from the first to the second. What has ended
writes no more, so its files are copied, the copies are synced and revealed by one rename, and then the files are unlinked:
unless they have grown meanwhile, by a worker that was declared dead and was not. A kill anywhere leaves files beside their
copies; these are the same, and the next merge removes them.

Large files stay where they are, since each is one file already. Directories that hold little are merged again with what is new,
so that they stay few; those of which nothing counts any more go. Several may do all this at once: what they make are copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fsqdo import journal
from fsqdo.journal import health_path, journal_path, log_path
from fsqdo.merged import INDEX, JOURNALS, LOGS, NOTHING, TOP, Journal, Kept, Log, Piece, directories, joined, to_json
from fsqdo.names import is_worker_name, merged_name, new_token, parse_merged
from fsqdo.store import Appender, Store

LARGE = 16 << 20
FULL = 64 << 20
_CHUNK = 1 << 20
_LOG = re.compile(r"(0|[1-9][0-9]{0,8})\.log\Z")


class Source(NamedTuple):
    """Bytes first..end of a file, which were the bytes from `at` on of a log or journal."""

    path: str
    first: int
    end: int
    at: int = 0

    @property
    def size(self) -> int:
        """How many."""
        return self.end - self.first


@dataclass
class Part:
    """What is to be kept of one worker, and where that is now.

    Attributes
    ----------
    journal
        Its bytes, and its size as it was.
    logs
        By slot: the size of the log as it was, and what is to be kept of it.
    loose
        Its own files that are copied: what is unlinked afterwards, and their sizes.
    """

    worker: str
    journal: tuple[Source, int] | None = None
    logs: dict[int, tuple[int, list[Source]]] = field(default_factory=dict)
    loose: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes to be copied."""
        logs = sum(source.size for _, sources in self.logs.values() for source in sources)
        return logs + (self.journal[0].size if self.journal else 0)


@dataclass
class Plan:
    """What a merge is to do.

    Attributes
    ----------
    parts
        To be written anew.
    spent
        Files that are copied already, with their sizes: to be unlinked.
    replaced
        Directories under `merged/` that go when all parts are written.
    superfluous
        Those of them that hold nothing, as it seems: all is in higher ones, or somebody is removing them.
    directories
        Of logs: they are empty now, or will be.
    removed_bytes
        Of the logs of what succeeded.
    """

    parts: list[Part] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    superfluous: set[str] = field(default_factory=set)
    directories: list[str] = field(default_factory=list)
    round: int = 1
    removed_bytes: int = 0

    @property
    def files(self) -> list[str]:
        """The files that go."""
        return [*self.spent, *(path for part in self.parts for path in part.loose)]


def ended(store: Store) -> list[str]:
    """The workers that left a journal or logs and have ended, by name.

    Notes
    -----
    An empty listing proves nothing, so their directories are asked for one by one, too.
    """
    left = {name.removesuffix(".jsonl") for name in store.ls("outcomes") or () if name.endswith(".jsonl")}
    left |= {name for name in store.ls("logs") or () if not name.endswith(".log")}
    there = set(store.ls("running") or ())
    there |= set(store.ls("recovering") or ())
    gone = sorted(name for name in left - there if is_worker_name(name))
    return [w for w in gone if store.ls(f"running/{w}") is None and store.ls(f"recovering/{w}") is None]


def sizes(store: Store, workers: Iterable[str]) -> dict[str, dict[str, int]]:
    """The files of its own that each worker left, with their sizes."""
    listed = set(store.ls("outcomes") or ())
    found = {}
    for worker in workers:
        paths = [journal_path(worker)] if f"{worker}.jsonl" in listed else []
        there = [f"logs/{worker}/{name}" for name in store.names(f"logs/{worker}")]
        paths += [path for path in there if _LOG.match(path.rpartition("/")[2]) or path == health_path(worker)]
        found[worker] = {path: store.size(path) for path in paths}
    return found


def plan(store: Store, own: Mapping[str, Mapping[str, int]], drop: bool) -> Plan:
    """What there is to do for workers that have ended.

    Parameters
    ----------
    own
        The files that they left, as of `sizes`.
    drop
        Keep no output of attempts that succeeded.
    """
    here = directories(store)  # after the listings: what they do not show any more is here
    known = joined(store, here)
    made = Plan(round=1 + max((parsed[0] for name in here if (parsed := parse_merged(name)) is not None), default=0))
    made.directories = [f"logs/{worker}" for worker in own]
    changed: set[str] = set()
    parts: dict[str, Part] = {}
    for worker in sorted(own.keys() | (known.keys() if drop else set())):
        files = dict(own.get(worker, {}))
        health = files.pop(health_path(worker), None)
        if health is not None and (not health or _was_fit(store, worker)):
            made.spent[health_path(worker)] = health
        part = _part(files, known.get(worker, NOTHING), worker, made, drop)
        dropped = _drop(store, part) if drop else 0
        if dropped:
            made.removed_bytes += dropped
            changed.add(worker)
        if part.loose or dropped:
            parts[worker] = part
    by_directory = _by_directory(known, here)
    again = {name for name, its in by_directory.items() if its and not changed.isdisjoint(its)}
    small = [name for name, its in by_directory.items() if its and _bytes_in(known, its, name) < LARGE]
    if len(small) > 1 or (small and parts):
        again.update(small)
    for worker in {worker for name in again for worker in by_directory[name]} - parts.keys():
        parts[worker] = _part({}, known[worker], worker, made)
    made.superfluous = {name for name, its in by_directory.items() if not its}
    made.replaced = sorted(again | made.superfluous)
    made.parts = [parts[worker] for worker in sorted(parts)]
    return made


def _was_fit(store: Store, worker: str) -> bool:
    """Whether a worker has begun any task: then its health check had nothing to say."""
    return next(journal.read(store, worker), None) is not None


def _part(own: Mapping[str, int], known: Kept, worker: str, made: Plan, drop: bool = False) -> Part:
    """What is to be kept of a worker; its files that need no copy are noted as spent. With `drop` even of large logs."""
    part = Part(worker)
    if known.journal is not None:
        at = known.journal
        part.journal = Source(f"{at.directory}/{JOURNALS}", at.first, at.end), at.size
    for slot, log in known.logs.items():
        place = f"{log.directory}/{LOGS}"
        part.logs[slot] = log.size, [Source(place, p.at, p.at + p.end - p.first, p.first) for p in log.pieces]
    for path, size in own.items():
        name = _LOG.match(path.rpartition("/")[2]) if path.startswith("logs/") else None
        there = part.logs.get(int(name[1])) if name else part.journal
        copied = None if there is None else there[0 if name else 1]
        if size == 0 or size == copied:
            made.spent[path] = size
        elif size <= LARGE or (name and drop):
            part.loose[path] = size
            if name:
                part.logs[int(name[1])] = size, [Source(path, 0, size)]
            else:
                part.journal = Source(path, 0, size), size
    return part


def _drop(store: Store, part: Part) -> int:
    """Leave out the output of attempts that succeeded; how many bytes that is. What is large all the same stays as it is."""
    good: dict[int, list[tuple[int, int]]] = {}
    if any(sources for _, sources in part.logs.values()):
        for outcome in journal.read(store, part.worker):
            if outcome.outcome == "succeeded" and outcome.log is not None:
                good.setdefault(outcome.log[0], []).append(outcome.log[1:])
    dropped = 0
    for slot, (size, sources) in list(part.logs.items()):
        rest = [left for source in sources for left in _without(source, sorted(good.get(slot, ())))]
        kept_bytes = sum(source.size for source in rest)
        if kept_bytes > LARGE and part.loose.pop(log_path(part.worker, slot), None) is not None:
            del part.logs[slot]
            continue
        dropped += sum(source.size for source in sources) - kept_bytes
        part.logs[slot] = size, rest
    return dropped


def _without(source: Source, cut: list[tuple[int, int]]) -> Iterator[Source]:
    """What is left of a piece of a log."""
    at, end = source.at, source.at + source.size
    for first, last in [*cut, (end, end)]:
        if first > at:
            upto = min(first, end)
            if upto > at:
                yield Source(source.path, source.first + at - source.at, source.first + upto - source.at, at)
        at = max(at, last)


def _by_directory(known: dict[str, Kept], here: list[str]) -> dict[str, set[str]]:
    """The workers of which something counts in each directory under `merged/`."""
    found: dict[str, set[str]] = {name: set() for name in here}
    for worker, its in known.items():
        for place in (its.journal, *its.logs.values()):
            if place is not None:
                found.setdefault(place.directory.rpartition("/")[2], set()).add(worker)
    return found


def _bytes_in(known: dict[str, Kept], workers: set[str], name: str) -> int:
    total = 0
    for worker in workers:
        its = known[worker]
        if its.journal is not None and its.journal.directory.endswith(name):
            total += its.journal.end - its.journal.first
        total += sum(p.end - p.first for log in its.logs.values() if log.directory.endswith(name) for p in log.pieces)
    return total


# ---------------------------------------------------------------- doing it
def carry_out(store: Store, made: Plan) -> None:
    """Do what was planned.

    Raises
    ------
    StorageError
        When the file system refuses; what was begun is removed, and all files are where they were or in a copy.

    Notes
    -----
    For each 64 MiB: two files written and synced, the index, one rename; then an unlink for each file copied. A kill before the
    rename leaves litter in tmp/; one after it files beside their copies.
    """
    _unlink_unchanged(store, made.spent)
    done: set[str] = set()
    batch: list[Part] = []
    for part in made.parts:
        batch.append(part)
        if sum(one.size for one in batch) >= FULL:
            done |= _write(store, batch, made.round)
            batch = []
    if batch:
        done |= _write(store, batch, made.round)
    for directory in made.directories:
        store.remove_directory(directory)
    if done.issuperset(part.worker for part in made.parts):
        # An index that was not found is not gone, and what lies beside it may be all there is of it: so it is asked again.
        still = _by_directory(joined(store, here := directories(store)), here) if made.superfluous else {}
        for name in made.replaced:
            if name not in made.superfluous or not still.get(name):
                remove(store, name)


def remove(store: Store, name: str) -> None:
    """Remove a directory under `merged/`: its index first, so that nobody takes what is left of it for the whole."""
    store.unlink(f"{TOP}/{name}/{INDEX}")
    store.remove_tree(f"{TOP}/{name}")


def _unlink_unchanged(store: Store, files: dict[str, int]) -> None:
    """Unlink files that are copied; one that has grown since stays, for the next merge."""
    for path, size in files.items():
        if store.size(path) == size:
            store.unlink(path)


def _write(store: Store, parts: list[Part], round_: int) -> set[str]:
    """Write, reveal, unlink; returns the workers that were written."""
    name = merged_name(round_, new_token())
    staging = f"tmp/merge.{name}"
    store.make_directories(staging)
    try:
        written = _fill(store, staging, f"{TOP}/{name}", parts)
        if not written:
            store.remove_tree(staging)
            return set()
        store.sync_directory(staging)
        if not store.move(staging, f"{TOP}/{name}", private=True):
            return set()
    except BaseException:
        store.remove_tree(staging)
        raise
    # On disk before the first unlink.
    store.sync_directory(TOP)
    store.sync_directory("")
    for part in parts:
        if part.worker in written:
            _unlink_unchanged(store, part.loose)
    return set(written)


def _fill(store: Store, staging: str, directory: str, parts: list[Part]) -> dict[str, Kept]:
    journals, logs = _Copier(store, f"{staging}/{JOURNALS}"), _Copier(store, f"{staging}/{LOGS}")
    written: dict[str, Kept] = {}
    try:
        for part in parts:
            one = _copy(directory, part, journals, logs)
            if one is not None:
                written[part.worker] = one
    finally:
        journals.close()
        logs.close()
    store.write(f"{staging}/{INDEX}", to_json(written), sync=True)
    return written


def _copy(directory: str, part: Part, journals: _Copier, logs: _Copier) -> Kept | None:
    """Copy what is to be kept of a worker; None when some of it is elsewhere by now: somebody else merges it."""
    place = None
    if part.journal is not None:
        source, size = part.journal
        first = journals.at
        if not journals.copy(source, whole_lines=True):
            return None
        place = Journal(directory, (size, 0, ""), first, journals.at)
    kept_logs = {}
    for slot, (size, sources) in part.logs.items():
        pieces = []
        for source in sources:
            pieces.append(Piece(source.at, source.at + source.size, logs.at))
            if not logs.copy(source):
                return None
        kept_logs[slot] = Log(directory, (size, 0, ""), tuple(pieces))
    return Kept(place, kept_logs)


class _Copier:
    """A file that bytes of others are added to."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self._file = Appender(store, path)
        self.at = 0

    def copy(self, source: Source, whole_lines: bool = False) -> bool:
        """Add them; False when they are not all there."""
        done, data = 0, b""
        while done < source.size:
            low = source.first + done
            data = self._store.read_slice(source.path, low, min(low + _CHUNK, source.end))
            if not data:
                return False
            self._add(data)
            done += len(data)
        if whole_lines and data and not data.endswith(b"\n"):
            self._add(b"\n")  # its last line is torn; the next journal's must not be
        return True

    def _add(self, data: bytes) -> None:
        self._file.append(data)
        self.at += len(data)

    def close(self) -> None:
        """Sync and close."""
        self._file.sync()
        self._file.close()
