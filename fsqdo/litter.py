"""Litter: what killed processes left that stands for no task. It is found by its place and name, and by having lain for long.

How long something has lain: where only this host can mount the file system, its clock wrote the file's time, and tells. Else
a file's time is another clock's, so it is only seen to stay the same, on this host's boot-time clock, and what was seen is
kept in `observed/<boot id>.litter.json`: on such file systems the first look finds nothing old.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fsqdo.liveness import boot_clock, boot_id
from fsqdo.mounts import is_local
from fsqdo.names import is_staged_queue, is_trash, new_token, parse_shard, parse_task
from fsqdo.store import Store, Tree
from fsqdo.task import State

DAY_S = 86400.0
_HOST_GONE_S = 7 * DAY_S
_DEPTHS = {"pending": 2, "waiting": 3, "succeeded": 1, "failed": 1, "killed": 2}
_FILES = (".json", ".jsonl", ".pack", ".txt", ".log")


class Litter(NamedTuple):
    """Something to be removed: of which kind, its path, and how."""

    kind: str
    path: str
    remove: Callable[[], object]


class Ages:
    """How long things have lain unchanged in the tree of one queue, or beside it.

    Parameters
    ----------
    looks_count
        Keep what is seen now, for later looks.
    """

    def __init__(self, store: Store, looks_count: bool = True) -> None:
        self._store = store
        self._local = is_local(store.directory)
        self._path = f"observed/{boot_id()}.litter.json"
        self._looks_count = looks_count
        self._before = {} if self._local else self._load()
        self._now: dict[str, list[float]] = {}

    def _load(self) -> dict[str, list[float]]:
        try:
            raw = json.loads(self._store.read(self._path) or b"{}")
            return {str(path): [float(changed), float(at)] for path, (changed, at) in raw.items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def of(self, tree: Tree, relative: str) -> float:
        """For how many seconds something with all that is in it has been the same, as far as that is known; at least."""
        changed = float(_newest(tree, relative))
        if self._local:
            return time.time() - changed / 1e9
        path, now = tree.path(relative), boot_clock()
        before = self._before.get(path)
        if before is None or before[0] != changed or before[1] > now:
            before = [changed, now]
        self._now[path] = before
        return now - before[1]

    def save(self) -> None:
        """Keep what was seen, for later looks of this host."""
        if self._looks_count and not self._local and self._now != self._before:
            self._store.replace(self._path, json.dumps(self._now).encode(), f"litter.{new_token()}", sync=False)


def _newest(tree: Tree, relative: str) -> int:
    """The latest time of change in a tree, in ns of whatever clock wrote it."""
    inside = (_newest(tree, f"{relative}/{name}") for name in tree.ls(relative) or ())
    return max(tree.changed_ns(relative) or 0, max(inside, default=0))


def find(store: Store, ages: Ages) -> Iterator[Litter]:
    """Yield all litter there is.

    Notes
    -----
    A listing of every directory of loose tasks; beside these only tmp/, locks/ and observed/ are looked at. Several may do it
    at once: directories are removed when they are empty, and whoever needs one makes it again.
    """
    yield from _old(store, ages)
    yield from _beside(store, ages)
    for top, depth in _DEPTHS.items():
        for name in store.names(top):
            if not name.endswith(_FILES):
                yield from _hollow(store, f"{top}/{name}", depth - 1)[1]
    yield from _stories(store)


def _old(store: Store, ages: Ages) -> Iterator[Litter]:
    for kind, top, least_s in (("staging", "tmp", DAY_S), ("lock", "locks", DAY_S), ("observation", "observed", _HOST_GONE_S)):
        for name in store.names(top):
            path = f"{top}/{name}"
            if top == "observed" and name.startswith(boot_id()):
                continue
            if ages.of(store, path) >= least_s:
                yield Litter(kind, path, _remover(store, path))


def _beside(store: Store, ages: Ages) -> Iterator[Litter]:
    """Queues that are being removed, and those that somebody has been making for a day."""
    root = Tree(os.path.dirname(store.directory))
    for name in root.names(""):
        if is_trash(name) or (is_staged_queue(name) and ages.of(root, name) >= DAY_S):
            yield Litter("queue", root.path(name), _remover(root, name))


def _remover(tree: Tree, relative: str) -> Callable[[], object]:
    def remove() -> None:
        if tree.ls(relative) is None:
            tree.unlink(relative)
        else:
            tree.remove_tree(relative)

    return remove


def _hollow(store: Store, directory: str, depth: int) -> tuple[bool, list[Litter]]:
    """Whether a directory holds nothing but litter, and the litter: spent markers, and directories that are empty then."""
    listed = store.ls(directory)
    if listed is None:
        return False, []
    found: list[Litter] = []
    hollow = True
    spent = f"{directory.rpartition('/')[2]}.pack"
    for name in sorted(listed):
        path = f"{directory}/{name}"
        if name == spent:
            found.append(Litter("marker", path, lambda path=path: store.unlink(path)))  # type: ignore[misc]
        elif name.endswith(_FILES) or depth == 0:
            hollow = False
        else:
            inner, more = _hollow(store, path, depth - 1)
            found += more
            hollow = hollow and inner
    if hollow:
        found.append(Litter("directory", directory, lambda: store.remove_directory(directory)))
    return hollow, found


def _stories(store: Store) -> Iterator[Litter]:
    """Stories whose task is not there any more; one whose worker has not ended is about to be followed by its task."""
    there = {holder.rpartition("/")[2] for holder in store.holders()}
    for parsed, shard in store.shards(State.FAILED):
        listed = set(store.ls(f"failed/{shard}") or ()) if parsed == parse_shard(shard) else set()
        for name in sorted(listed):
            task = parse_task(f"{name.removesuffix('.txt')}.json") if name.endswith(".txt") else None
            file = f"{name.removesuffix('.txt')}.json"
            if task is not None and file not in listed and task.worker not in there and store.gone(f"failed/{shard}/{file}"):
                path = f"failed/{shard}/{name}"
                yield Litter("story", path, lambda path=path: store.unlink(path))  # type: ignore[misc]
