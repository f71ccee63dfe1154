"""Tasks that somebody's `mv` put where they are in no state: put where their state has them.

One level too shallow, as in `mv failed/000000/000000007.f1@w.json pending/`; or under the name of a directory that was not
there, as in `mv … pending/0/000000` (a file called 000000, then). Nobody would ever look for them there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from fsqdo.finals import Finals
from fsqdo.names import PackName, TaskName, moved_by_hand, parse_bundle, parse_entry, shard_name
from fsqdo.requirements import look_again, options_of, pending_place, place
from fsqdo.store import Entry, Store
from fsqdo.task import FINAL_STATES, State


def put_right(store: Store, report: Callable[[str], None] = lambda text: None, thorough: bool = False) -> int:
    """Move what is in no state to where the directory it was put into says; returns how many names moved.

    Parameters
    ----------
    report
        Told what was moved where.
    thorough
        Look beyond pending/ and waiting/: in succeeded/, failed/ and killed/, and for files in the place of directories.

    Notes
    -----
    A listing of each of these directories and of those in waiting/; a rename for each that moves. Several may do it at once.
    """
    if thorough:
        _free_names_of_directories(store)
    moved, filed = 0, list[int]()
    for entry in _misplaced(store, FINAL_STATES if thorough else ()):
        to, requirement = _place(store, entry)
        if to and store.move(entry.path, to):
            moved += 1
            filed += [] if requirement is None else [requirement]
            report(f"{entry.path} was in no state, somebody must have moved it there; it is {to} now")
    return moved + (look_again(store, filed) if filed else 0)


def _misplaced(store: Store, final: Iterable[State]) -> Iterator[Entry]:
    for state in (State.PENDING, State.WAITING, *final):
        directories = [state.directory]
        if state is State.WAITING:
            directories += [f"waiting/{shard}" for shard in store.names("waiting")]
        for directory in directories:
            for file in store.names(directory):
                name = parse_entry(file)
                if name is not None:
                    yield Entry(state, directory, file, name)


def _free_names_of_directories(store: Store) -> None:
    """Move files of tasks that are called as a priority, or a bundle, is: their own name is lost, but not their id.

    Only to pending/ itself: where they belong may be below the name they have now.
    """
    for priority in store.priorities():
        inside = [file for file in store.names(f"pending/{priority}") if parse_bundle(file)]
        for directory, file in [("pending", str(priority)), *((f"pending/{priority}", file) for file in inside)]:
            path = f"{directory}/{file}"
            if store.is_file(path):
                try:
                    task_id = json.loads(store.read(path) or b"")["id"]
                except (ValueError, TypeError, KeyError):
                    continue  # somebody's, and no task
                if type(task_id) is int and task_id > 0:
                    store.move(path, f"pending/{TaskName(task_id).file}")


def _place(store: Store, entry: Entry) -> tuple[str, int | None]:
    """Where it belongs, and the requirement it is filed under there; "" for what stays."""
    if entry.state in FINAL_STATES:  # its name says whose journal tells how it ended
        return f"{entry.state.directory}/{shard_name(entry.name.first)}/{entry.file}", None
    options = options_of(store, entry)
    if options is None:
        return "", None
    fresh: TaskName | PackName = moved_by_hand(entry.name)
    if entry.state is State.PENDING:
        return f"{pending_place(fresh, options)}/{fresh.file}", None
    directory, requirement = place(store, Finals(store), fresh, options)
    return f"{directory}/{fresh.file}", requirement
