"""What workers left that have ended: the journals and logs of many in a few files. `tidy` makes these, everybody reads them.

`merged/<n>.<token>/` holds `outcomes.jsonl` (journals, one after the other, each as it was), `tasks.log` (pieces of logs) and
`index.json`, which says whose bytes are where. It is made complete in `tmp/`, revealed by one rename and never changed, and
only then the files go that it was made of. So a reader asks the worker's own file first and this afterwards. Of several copies
of a file the one made when it was longest counts, of those the one with the highest n: whoever merges again takes a higher one.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from fsqdo.errors import FormatError, StorageError
from fsqdo.names import parse_merged
from fsqdo.store import Store

TOP = "merged"
INDEX = "index.json"
JOURNALS = "outcomes.jsonl"
LOGS = "tasks.log"
_LOOKS = 5
_REMEMBERED = 256

Rank = tuple[int, int, str]


class Piece(NamedTuple):
    """Bytes first..end of a log as it was, which stand in `tasks.log` from `at` on."""

    first: int
    end: int
    at: int


class Log(NamedTuple):
    """What one directory keeps of one log.

    Attributes
    ----------
    directory
        `merged/<n>.<token>`.
    rank
        The log's size as it was, then what tells copies apart: the highest one counts.
    """

    directory: str
    rank: Rank
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes that the log had."""
        return self.rank[0]


class Journal(NamedTuple):
    """Where one directory keeps one journal: its bytes in `outcomes.jsonl`. The rest as of `Log`."""

    directory: str
    rank: Rank
    first: int
    end: int

    @property
    def size(self) -> int:
        """Bytes that the journal had."""
        return self.rank[0]


class Kept(NamedTuple):
    """What is kept of one worker: its journal, and its logs by slot."""

    journal: Journal | None
    logs: dict[int, Log]


NOTHING = Kept(None, {})
_known: dict[str, dict[str, Kept]] = {}
_joined: dict[str, tuple[tuple[str, ...], dict[str, Kept]]] = {}


def directories(store: Store) -> list[str]:
    """The names under `merged/`."""
    return [name for name in store.names(TOP) if parse_merged(name) is not None]


def kept(store: Store) -> dict[str, Kept]:
    """What is kept of each worker; false as soon as somebody tidies.

    Raises
    ------
    FormatError
        When an index cannot be read: nobody may take its workers for unknown.
    """
    names = tuple(directories(store))
    if not names:
        return {}
    before = _joined.get(store.directory)
    if before is not None and before[0] == names:
        return before[1]
    found = joined(store, names)
    if all(f"{store.directory}/{TOP}/{name}/{INDEX}" in _known for name in names):  # none is being removed
        if len(_joined) >= _REMEMBERED:
            _joined.clear()
        _joined[store.directory] = (names, found)
    return found


def joined(store: Store, names: Iterable[str]) -> dict[str, Kept]:
    """What these directories keep of each worker."""
    found: dict[str, Kept] = {}
    for name in names:
        for worker, its in (index(store, name) or {}).items():
            found[worker] = _better(found.get(worker, NOTHING), its)
    return found


def _better(a: Kept, b: Kept) -> Kept:
    """Of each file of a worker the copy that counts."""
    journals = [journal for journal in (a.journal, b.journal) if journal is not None]
    logs = dict(a.logs)
    for slot, log in b.logs.items():
        if slot not in logs or logs[slot].rank < log.rank:
            logs[slot] = log
    return Kept(max(journals, key=lambda journal: journal.rank, default=None), logs)


def index(store: Store, name: str) -> dict[str, Kept] | None:
    """What one directory under `merged/` keeps, by worker; None when it is being removed.

    Raises
    ------
    FormatError, StorageError
        When its index is there and cannot be read.
    """
    path = f"{store.directory}/{TOP}/{name}/{INDEX}"
    if path in _known:
        return _known[path]
    parsed = parse_merged(name)
    content = None
    for _ in range(_LOOKS):
        content = store.read(f"{TOP}/{name}/{INDEX}")
        if content is not None or INDEX not in (store.ls(f"{TOP}/{name}") or ()):
            break
    else:
        raise _gone(store, f"{TOP}/{name}/{INDEX}")
    if content is None or parsed is None:
        return None
    try:
        found = {str(w): _kept(name, parsed, raw) for w, raw in json.loads(content)["workers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError(f"{path} cannot be read", "it says whose journals and logs lie beside it; restore it") from None
    if len(_known) >= _REMEMBERED:
        _known.clear()
    _known[path] = found
    return found


def _kept(name: str, parsed: tuple[int, str], raw: dict[str, Any]) -> Kept:
    directory = f"{TOP}/{name}"
    journal = None
    if "journal" in raw:
        first, end, size = map(int, raw["journal"])
        journal = Journal(directory, (size, *parsed), first, end)
    logs = {
        int(slot): Log(directory, (int(log["size"]), *parsed), tuple(Piece(*map(int, piece)) for piece in log["pieces"]))
        for slot, log in raw.get("logs", {}).items()
    }
    return Kept(journal, logs)


def to_json(workers: dict[str, Kept]) -> bytes:
    """The content of `index.json`."""
    said: dict[str, dict[str, Any]] = {}
    for worker, one in workers.items():
        said[worker] = {}
        if one.journal is not None:
            said[worker]["journal"] = [one.journal.first, one.journal.end, one.journal.size]
        if one.logs:
            said[worker]["logs"] = {str(slot): {"size": log.size, "pieces": log.pieces} for slot, log in one.logs.items()}
    return (json.dumps({"workers": said}, separators=(",", ":")) + "\n").encode()


def read_journal(store: Store, worker: str, first: int, end: int) -> bytes:
    """Bytes of a merged journal, counted from its own beginning; none when none is kept."""
    path = TOP
    for _ in range(_LOOKS):
        one = kept(store).get(worker, NOTHING).journal
        if one is None or one.first + first >= one.end:
            return b""
        low, high = one.first + first, min(one.first + end, one.end)
        path = f"{one.directory}/{JOURNALS}"
        data = store.read_slice(path, low, high)
        if len(data) == high - low:
            return data
        _forget(store, one.directory)  # RACE: it was merged once more, and is elsewhere now
    raise _gone(store, path)


def read_log(store: Store, worker: str, slot: int, first: int, end: int) -> bytes | None:
    """Bytes of a merged log; None when some of them were tidied away; none when no such log is kept."""
    path = TOP
    for _ in range(_LOOKS):
        log = kept(store).get(worker, NOTHING).logs.get(slot)
        if log is None:
            return b""
        parts = part_of(log, first, end)
        if parts is None:
            return None
        path = f"{log.directory}/{LOGS}"
        data = [store.read_slice(path, p.at, p.at + p.end - p.first) for p in parts]
        if all(len(read) == p.end - p.first for read, p in zip(data, parts, strict=True)):
            return b"".join(data)
        _forget(store, log.directory)
    raise _gone(store, path)


def part_of(log: Log, first: int, end: int) -> list[Piece] | None:
    """Where the bytes first..end of a log are, as pieces of `tasks.log`; None when not all are there."""
    end = min(end, log.size)
    found, at = [], first
    for piece in sorted(log.pieces):
        if piece.end <= at or piece.first >= end:
            continue
        if piece.first > at:
            return None
        upto = min(piece.end, end)
        found.append(Piece(at, upto, piece.at + at - piece.first))
        at = upto
    return found if at >= end else None


def _forget(store: Store, directory: str) -> None:
    _known.pop(f"{store.directory}/{directory}/{INDEX}", None)
    _joined.pop(store.directory, None)


def _gone(store: Store, path: str) -> StorageError:
    return StorageError(OSError(errno.ENOENT, os.strerror(errno.ENOENT)), "read", store.path(path))
