"""Requirements: which task waits for which, and when it may go to pending.

A waiting task is filed under one open requirement, the one with the highest id: `waiting/<shard>/<id>/`. When that ends,
the task moves to pending, or on to its next open requirement below that one. So a finish costs one failed look-up where
nobody waits, and a task that requires a million others moves a few times in its life.

Adding files first and looks at the requirement again afterwards; finishing moves first and looks for watchers afterwards: one
of the two sees the other. The pass does the same for everything watched, and heals what caches or kills left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fsqdo.errors import TaskError
from fsqdo.ids import IdSet, shard_of
from fsqdo.names import PackName, TaskName, moved_by_hand, parse_bundle, parse_entry, pending_dir, waiting_dir
from fsqdo.packs import definition_of
from fsqdo.settings import Settings
from fsqdo.store import Entry, Store
from fsqdo.task import FINAL_STATES, Options, State


class Finals:
    """Which ids have ended, shard by shard, as listed when first asked.

    An answer "not yet" can be false at once; "ended" is false only after a retry or rerun.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[tuple[State, int], set[int]] = {}

    def ids(self, state: State, shard: int) -> set[int]:
        """The ids of a shard in one final state."""
        key = (state, shard)
        if key not in self._seen:
            self._seen[key] = self._store.ids_in(state, shard)
        return self._seen[key]

    def succeeded(self, task_id: int) -> bool:
        """Whether a task has succeeded."""
        return task_id in self.ids(State.SUCCEEDED, shard_of(task_id))

    def ended(self, task_id: int) -> bool:
        """Whether a task is in any final state."""
        return any(task_id in self.ids(state, shard_of(task_id)) for state in FINAL_STATES)


def open_requirement(
    store: Store, finals: Finals, options: Options, below: int | None = None, also_open: IdSet | None = None
) -> int | None:
    """The highest id that a task still has to wait for; None when it may run.

    Parameters
    ----------
    below
        Requirements from this id up count as met, whatever was rerun since.
    also_open
        Ids that count as open whatever is listed: they are about to be rerun.
    """
    met = finals.ended if store.settings.requires == "finish" else finals.succeeded
    best = _highest_open(options.requires, met, below, also_open)
    other = _highest_open(options.after, finals.ended, below, also_open)
    return max((i for i in (best, other) if i is not None), default=None)


def _highest_open(ids: IdSet, met: Callable[[int], bool], below: int | None, also_open: IdSet | None) -> int | None:
    for low, high in ids.spans_down(below):
        for task_id in range(high, low - 1, -1):
            if not met(task_id) or (also_open is not None and task_id in also_open):
                return task_id
    return None


def priority_of(name: TaskName | PackName, options: Options) -> int:
    """The priority of a task: the one given later, in its name, before the one in its file."""
    return options.priority if name.priority is None else name.priority


def pending_place(name: TaskName | PackName, options: Options) -> str:
    """Directory in which this task or marker is pending, relative to the queue."""
    priority = priority_of(name, options)
    return f"pending/{priority}" if isinstance(name, PackName) else pending_dir(priority, name.id)


def returned_place(settings: Settings, name: TaskName, options: Options) -> str:
    """Directory in which an interrupted task is pending: with `interrupted_first` beside the bundles of its priority.

    What lies there is claimed before any bundle (it is where a person's `mv` would put it, too).
    """
    return f"pending/{priority_of(name, options)}" if settings.interrupted_first else pending_place(name, options)


def place(
    store: Store, finals: Finals, name: TaskName | PackName, options: Options, also_open: IdSet | None = None
) -> tuple[str, int | None]:
    """Where a task belongs that is to run: (directory, the requirement it is filed under or None)."""
    hold = open_requirement(store, finals, options, also_open=also_open)
    return (pending_place(name, options), None) if hold is None else (waiting_dir(hold), hold)


def ended(store: Store, task_id: int, succeeded: bool) -> int:
    """Move on what waited for a task that has just ended; returns how many names moved.

    Notes
    -----
    One listing of `waiting/<shard>/<id>`, nearly always ENOENT; then one rename for each that moves. A kill leaves the rest
    to the pass.
    """
    directory = waiting_dir(task_id)
    listed = store.ls(directory)
    if listed is None:
        return 0
    moved = 0
    for file in sorted(listed):
        name = parse_entry(file)
        if name is not None:
            moved += _promote(store, Entry(State.WAITING, directory, file, name), task_id, succeeded)
        elif parse_bundle(file):
            moved += _promote_bundle(store, f"{directory}/{file}", task_id, succeeded)
    store.remove_directory(directory)
    return moved


def _promote_bundle(store: Store, bundle: str, task_id: int, succeeded: bool) -> int:
    moved = 0
    spent = bundle.rpartition("/")[2] + ".pack"
    for file in store.names(bundle):
        name = parse_entry(file)
        if file == spent:
            store.unlink(f"{bundle}/{file}")
        elif name is not None:
            moved += _promote(store, Entry(State.WAITING, bundle, file, name), task_id, succeeded)
    store.remove_directory(bundle)
    return moved


def _promote(store: Store, entry: Entry, task_id: int, succeeded: bool) -> int:
    """Move one waiting name on from the requirement `task_id`, which has ended."""
    try:
        options = definition_of(store, entry).options
    except TaskError:
        if store.read(entry.path) is None:
            return 0  # RACE: another promoter moved it between the listing and the look
        options = Options()  # unreadable and in no load: let it be claimed, which files it under failed/ with its story
    if not succeeded and task_id in options.requires and store.settings.requires != "finish":
        return 0
    src, name, below = entry.path, entry.name, task_id
    while True:
        hold = open_requirement(store, Finals(store), options, below)
        if hold is None:
            return int(store.move(src, f"{pending_place(name, options)}/{name.file}"))
        # A fresh name each time it is filed anew: it may have been under this requirement before.
        name = moved_by_hand(name)
        dst = f"{waiting_dir(hold)}/{name.file}"
        if not store.move(src, dst):
            return 0
        if open_requirement(store, Finals(store), options, below) == hold:
            return 1
        src, below = dst, hold


def look_again(store: Store, requirements: Iterable[int]) -> int:
    """Move on what waits for any of these that has ended meanwhile; returns how many names moved."""
    finals = Finals(store)
    moved = 0
    for task_id in sorted(requirements):
        if finals.succeeded(task_id):
            moved += ended(store, task_id, succeeded=True)
        elif finals.ended(task_id):
            moved += ended(store, task_id, succeeded=False)
    return moved


def promote(store: Store) -> int:
    """Look at every watched requirement, and at the retries whose time has come; returns how many names moved."""
    return look_again(store, {task_id for task_id, _ in store.watched()}) + release_delayed(store)


def release_delayed(store: Store) -> int:
    """Move retries whose time has come back to pending; returns how many."""
    moved = 0
    now = time.time()
    for when, directory in store.delayed():
        if when > now:
            break
        for file in store.names(directory):
            name = parse_entry(file)
            if name is None:
                continue
            entry = Entry(State.WAITING, directory, file, name)
            try:
                options = definition_of(store, entry).options
            except TaskError:
                options = Options()
            moved += store.move(entry.path, f"{pending_place(name, options)}/{name.file}")
        store.remove_directory(directory)
    return moved


def blocked(store: Store) -> list[Entry]:
    """The waiting names that wait for a task that failed or was killed, or for one that is blocked itself."""
    if store.settings.requires == "finish":
        return []
    finals = Finals(store)
    under: dict[int, list[Entry]] = {}
    for entry in store.entries(State.WAITING):
        hold = entry.waits_for
        if hold is not None:
            under.setdefault(hold, []).append(entry)
    found: list[Entry] = []
    stack = [r for r in under if finals.ended(r) and not finals.succeeded(r)]
    while stack:
        for entry in under.pop(stack.pop(), ()):
            found.append(entry)
            tasks = range(entry.name.first, entry.name.last + 1)
            stack += [r for r in (tasks if len(tasks) < len(under) else list(under)) if r in under and r in tasks]
    return found
