"""Requirements: which task waits for which, and when it may go to pending.

A waiting task is filed under one open requirement, the one with the highest id: `waiting/<shard>/<id>/`. When that ends,
the task moves to pending, or on to its next open requirement below that one. So a finish costs one failed look-up where
nobody waits, and a task that requires a million others moves a few times in its life.

Adding files first and looks at the requirement again afterwards; finishing moves first and looks for watchers afterwards: one
of the two sees the other. The pass does the same for everything watched, and heals what caches or kills left behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from fsqdo.errors import TaskError
from fsqdo.finals import Finals
from fsqdo.ids import IdSet
from fsqdo.names import PackName, TaskName, moved_by_hand, parse_bundle, parse_entry, pending_dir, waiting_dir
from fsqdo.packs import KEPT_BYTES, definition_from, definition_of
from fsqdo.settings import Settings
from fsqdo.store import Entry, Store
from fsqdo.task import State
from fsqdo.taskoptions import Options

# Promoted at once: their options are kept in memory meanwhile.
_AT_ONCE = 100


def open_requirement(
    store: Store, finals: Finals, options: Options, below: int | None = None, also_open: dict[int, int] | None = None
) -> int | None:
    """The highest id that a task still has to wait for; None when it may run.

    Parameters
    ----------
    below
        Requirements from this id up count as met, whatever was rerun since.
    also_open
        Ids that count as open whatever is listed, since they are about to be rerun: by shard, as bits of one number.
    """
    best = finals.highest_open(options.requires, store.settings.requires == "finish", below, also_open)
    other = finals.highest_open(options.after, True, below, also_open)
    return max((i for i in (best, other) if i is not None), default=None)


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


def options_of(store: Store, entry: Entry) -> Options | None:
    """The options by which it is known where something belongs; None when its load cannot be read just now.

    What can be read nowhere has the usual ones: whoever claims it files it under failed/ with its story.
    """
    try:
        return definition_of(store, entry).options
    except TaskError:
        return Options() if store.loaded_file(entry.name.first) is None else None


def place(
    store: Store, finals: Finals, name: TaskName | PackName, options: Options, also_open: dict[int, int] | None = None
) -> tuple[str, int | None]:
    """Where a task belongs that is to run: (directory, the requirement it is filed under or None)."""
    hold = open_requirement(store, finals, options, also_open=also_open)
    return (pending_place(name, options), None) if hold is None else (waiting_dir(hold), hold)


class Freed(NamedTuple):
    """A loose task that has just become pending: where it is, its priority, what is in its file (b"" where that is long)."""

    directory: str
    name: TaskName
    priority: int
    content: bytes


def ended(
    store: Store, task_id: int, succeeded: bool, freed: list[Freed] | None = None, emptied: list[str] | None = None
) -> int:
    """Move on what waited for a task that has just ended; returns how many names moved.

    Parameters
    ----------
    freed
        Gets the first of the loose tasks among them that are pending now: who moved them knows where to claim.
    emptied
        Gets the directories that are empty now: who has something better to do removes them later. None: they are removed here.

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
    entries = _watchers(store, directory, listed)
    while some := list(islice(entries, _AT_ONCE)):
        moved += _promote(store, some, task_id, succeeded, freed)
    left = [f"{directory}/{file}" for file in listed if parse_bundle(file)] + [directory]
    if emptied is None:
        remove(store, left)
    else:
        emptied += left
    return moved


def remove(store: Store, directories: Iterable[str]) -> None:
    """Remove directories that nobody uses any more; those in which something is after all stay."""
    for directory in directories:
        store.remove_directory(directory)


def _watchers(store: Store, directory: str, listed: list[str]) -> Iterator[Entry]:
    """What is filed under a requirement, each bundle listed when it is reached."""
    for file in sorted(listed):
        name = parse_entry(file)
        if name is not None:
            yield Entry(State.WAITING, directory, file, name)
        elif parse_bundle(file):
            bundle = f"{directory}/{file}"
            for inside in store.names(bundle):
                name = parse_entry(inside)
                if inside == f"{file}.pack":
                    store.unlink(f"{bundle}/{inside}")  # spent
                elif name is not None:
                    yield Entry(State.WAITING, bundle, inside, name)


class _Leaving(NamedTuple):
    """A waiting name on its way to what it requires next: all from the id `below` up counts as met.

    Attributes
    ----------
    content
        What is in the file of a loose task; b"" of a marker.
    """

    path: str
    name: TaskName | PackName
    options: Options
    below: int
    content: bytes


def _leaving(store: Store, entry: Entry, task_id: int, succeeded: bool) -> _Leaving | None:
    """What leaves the requirement `task_id`, which has ended; None when it stays, or somebody else moved it."""
    content = b""
    try:
        if isinstance(entry.name, TaskName):
            read = store.read(entry.path, sure=False)
            if read is None:
                return None  # RACE: another promoter moved it between the listing and the look
            content = read
            options = definition_from(store, entry.name, content).options
        else:
            options = definition_of(store, entry).options
    except TaskError:
        if not content and store.read(entry.path) is None:
            return None  # RACE: as above
        if store.loaded_file(entry.name.first) is not None:
            return None  # what its load says cannot be read just now: it stays, and the next pass tries again
        options = Options()  # unreadable and in no load: let it be claimed, which files it under failed/ with its story
    if not succeeded and task_id in options.requires and store.settings.requires != "finish":
        return None
    return _Leaving(entry.path, entry.name, options, task_id, content)


def _promote(store: Store, entries: list[Entry], task_id: int, succeeded: bool, freed: list[Freed] | None) -> int:
    """Move waiting names on from the requirement `task_id`, which has ended; returns how many moved.

    All of them go by one look at what has ended. Where some are filed anew, a second look, made after that, shows whose next
    requirement had ended meanwhile: these go on.
    """
    going = [left for entry in entries if (left := _leaving(store, entry, task_id, succeeded)) is not None]
    finals = Finals(store)
    moved = 0
    while going:
        filed = []
        for path, name, options, below, content in going:
            hold = open_requirement(store, finals, options, below)
            if hold is None:
                directory = pending_place(name, options)
                if store.move(path, f"{directory}/{name.file}"):
                    moved += 1
                    if freed is not None and isinstance(name, TaskName) and len(freed) < _AT_ONCE:
                        content = content if len(content) <= KEPT_BYTES else b""
                        freed.append(Freed(directory, name, priority_of(name, options), content))
                continue
            # A fresh name each time it is filed anew: it may have been under this requirement before.
            name = moved_by_hand(name)
            anew = _Leaving(f"{waiting_dir(hold)}/{name.file}", name, options, hold, content)
            if store.move(path, anew.path):
                filed.append(anew)
        if filed:
            finals = Finals(store)
        going = [left for left in filed if open_requirement(store, finals, left.options, left.below + 1) != left.below]
        moved += len(filed) - len(going)
    return moved


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
            options = options_of(store, entry)
            if options is not None:
                moved += store.move(entry.path, f"{pending_place(name, options)}/{name.file}")
        store.remove_directory(directory)
    return moved


def blocked(store: Store) -> Iterator[Entry]:
    """Yield the waiting names that wait for a task that failed or was killed, or for one that is blocked itself."""
    return (entry for entry, _ in blocked_by(store))


def blocked_by(store: Store) -> Iterator[tuple[Entry, int]]:
    """The same, each with the id of the task that failed or was killed.

    Notes
    -----
    Where nothing failed or was killed, two listings. Else those of `waiting/`, and of what is filed under each blocked task.
    """
    finals = Finals(store)
    if store.settings.requires == "finish" or not any(map(finals.any, (State.FAILED, State.KILLED))):
        return
    under = {requirement for requirement, _ in store.watched()}
    stack = [(r, r) for r in under if finals.lost(IdSet.of(r), 1).number]
    under.difference_update(r for r, _ in stack)
    while stack:
        requirement, root = stack.pop()
        for entry in store.waiting_for(requirement):
            yield entry, root
            tasks = range(entry.name.first, entry.name.last + 1)
            found = [r for r in (tasks if len(tasks) < len(under) else list(under)) if r in under and r in tasks]
            under.difference_update(found)
            stack += [(r, root) for r in found]
