"""Tasks that somebody's `mv` put where they are in no state, or where nobody looks for them: put where their state has them.

One level too shallow, as in `mv failed/000000/000000007.f1@w.json pending/`; too deep; a whole directory; in the directory of
another thousand; or under the name of a directory that was not there, as in `mv … pending/0/000000` (a file called 000000).
The directory right below the queue's own says which state was meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from fsqdo.finals import Finals
from fsqdo.ids import IdSet
from fsqdo.journal import of_task, story_path
from fsqdo.names import (
    PackName,
    TaskName,
    is_place,
    is_waiting_dir,
    moved_by_hand,
    parse_bundle,
    parse_entry,
    parse_priority,
    parse_shard,
    parse_task,
    shard_name,
)
from fsqdo.requirements import look_again, options_of, pending_place, place
from fsqdo.store import Entry, Store
from fsqdo.task import FINAL_STATES, State

_STATES = (State.PENDING, State.WAITING, *FINAL_STATES)
_DEPTH = 8  # of directories that are looked into: somebody may have moved a whole tree
_NO_DIRECTORIES = (".txt", ".jsonl", ".log")


def put_right(store: Store, report: Callable[[str], None] = lambda text: None, thorough: bool = False) -> int:
    """Move what is in no state to where the directory it was put into says; returns how many tasks moved.

    Parameters
    ----------
    report
        Told what was moved where.
    thorough
        Look everywhere below the directories of the states, and not only at the first level of pending/ and waiting/.

    Notes
    -----
    A listing of each directory looked at: thorough, about those of a `status`, for what is filed under a requirement is in its
    place. A rename for each that moves. Several may do it at once.
    """
    moved, filed = 0, list[int]()
    found = list(_anywhere(store) if thorough else _at_the_top(store))
    there = _elsewhere(store, found)
    for entry in found:
        if not there.isdisjoint(range(entry.name.first, entry.name.last + 1)):
            report(f"{entry.path} is left there: its task is in a state already, so it must be a copy")
            continue
        to, requirement = _place(store, entry)
        if to and store.move(entry.path, to):
            moved += entry.name.size
            there.update(range(entry.name.first, entry.name.last + 1))
            filed += [] if requirement is None else [requirement]
            report(f"{entry.path} was in no state, somebody must have moved it there; it is {to} now")
            if entry.state is State.FAILED and store.is_file(story_path(entry.path)):
                store.move(story_path(entry.path), story_path(to))
            if entry.directory.count("/") > 1:
                store.remove_directory(entry.directory)
    return moved + (look_again(store, filed) if filed else 0)


def _elsewhere(store: Store, found: list[Entry]) -> set[int]:
    """Ids of misplaced tasks that are in a state, too: one look at the states, where there is anything misplaced at all."""
    wanted = IdSet((entry.name.first, entry.name.last) for entry in found)
    paths = {entry.path for entry in found}
    there = set[int]()
    for state in State if wanted else ():
        for entry in store.entries(state, wanted):
            if entry.path not in paths:
                there.update(i for i in range(entry.name.first, entry.name.last + 1) if i in wanted)
    return there


def _at_the_top(store: Store) -> Iterator[Entry]:
    for state in (State.PENDING, State.WAITING):
        directories = [state.directory]
        if state is State.WAITING:
            directories += [f"waiting/{shard}" for shard in store.names("waiting")]
        for directory in directories:
            for file in store.names(directory):
                name = parse_entry(file)
                if name is not None:
                    yield Entry(state, directory, file, name)


def _anywhere(store: Store) -> Iterator[Entry]:
    for state in _STATES:
        yield from _below(store, state, state.directory, store.ls(state.directory) or [], _DEPTH)
    for file in store.names("running"):
        name = parse_task(file)
        if name is not None:  # it was never a worker's
            yield Entry(State.PENDING, "running", file, name)


def _below(store: Store, state: State, directory: str, listed: list[str], depth: int) -> Iterator[Entry]:
    for file in sorted(listed):
        name = parse_entry(file)
        if name is not None:
            if not is_place(directory, name) and (isinstance(name, TaskName) or state not in (State.SUCCEEDED, State.FAILED)):
                yield Entry(state, directory, file, name)
        elif depth and not file.endswith(_NO_DIRECTORIES) and not _is_left_alone(directory, file):
            path = f"{directory}/{file}"
            inside = store.ls(path)
            if inside is not None:
                yield from _below(store, state, path, inside, depth - 1)
            elif _is_called_like_a_directory(file) and (name := _task_in(store, path)) is not None:
                # Its own name is lost, but not its id. Out of the way first: where it belongs may be below the name it has.
                aside = Entry(state, state.directory, name.file, name)
                if store.move(path, aside.path):
                    yield aside


def _is_left_alone(directory: str, file: str) -> bool:
    """Whether a directory is one in which a shard is being packed, or that of a requirement, of which there may be many."""
    if directory == "succeeded":
        shard = parse_shard(file)
        return shard is not None and shard.round is not None
    return directory.startswith("waiting/") and is_waiting_dir(f"{directory}/{file}", file)


def _is_called_like_a_directory(file: str) -> bool:
    """Whether a priority, a shard, a bundle or a requirement is called so, and no editor's backup."""
    return parse_priority(file) is not None or parse_bundle(file) is not None or (file.isascii() and file.isdigit())


def _task_in(store: Store, path: str) -> TaskName | None:
    """A name for the task in a file that has another; None for what is no task, or a second copy of one that is somewhere."""
    try:
        task_id = json.loads((store.read(path) if store.is_file(path) else None) or b"")["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if type(task_id) is not int or task_id < 1 or store.find(task_id) is not None:
        return None
    # Its counters are lost with its name: a journal may know it under any r up to the last one it has seen.
    names = (parse_task(f"{outcome.name}.json") for outcome in of_task(store, task_id))
    return TaskName(task_id, r=max((name.r for name in names if name is not None), default=0))


def _place(store: Store, entry: Entry) -> tuple[str, int | None]:
    """Where it belongs, and the requirement it is filed under there; "" for what stays."""
    if entry.state in FINAL_STATES:  # its name says whose journal tells how it ended
        return f"{entry.state.directory}/{shard_name(entry.name.first)}/{entry.file}", None
    options = options_of(store, entry)
    if options is None:
        return "", None
    fresh: TaskName | PackName = moved_by_hand(entry.name)
    if entry.state is State.WAITING:
        directory, requirement = place(store, Finals(store), fresh, options)
        return f"{directory}/{fresh.file}", requirement
    top, *below = entry.directory.split("/")
    meant = parse_priority(below[0]) if top == "pending" and below else None
    if meant is None:
        return f"{pending_place(fresh, options)}/{fresh.file}", None
    shard = "" if isinstance(fresh, PackName) else f"{shard_name(fresh.id)}/"
    return f"pending/{meant}/{shard}{fresh.file}", None
