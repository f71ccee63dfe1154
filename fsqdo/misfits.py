"""What no worker fits, for `status`, which has to be quick: a look at a few workers and the first tasks. Reads only.

Nearly all tasks ask for nothing special, and the first worker takes them: then nothing more is read, parsed or imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fsqdo.errors import TaskError
from fsqdo.names import PackName, TaskName, is_worker_name, parse_bundle, parse_entry
from fsqdo.store import Store
from fsqdo.task import Definition, asks_for_resources

_WORKERS = 20
_TASKS = 100
# From so many loose tasks on their lines are read from the load they came from: one file for all.
_MANY = 8


def misfits(store: Store) -> str:
    """`  (3 of the first 100 fit no worker)`, for the line of the pending tasks; "" when all fit or there is no worker.

    Notes
    -----
    Reads at most twenty `worker.json` and a hundred tasks, mostly one of them and one file of a load; and nothing more while
    there is no worker. It counts what has moved on meanwhile.
    """
    usual_fits = _takes_usual(store)
    if usual_fits is None:
        return ""
    looked, asking = 0, []
    for line in islice(_pending_lines(store), _TASKS):
        looked += 1
        if not usual_fits or asks_for_resources(line):
            asking.append(line)
    misfit = _fitting_none(store, asking) if asking else 0
    return f"  ({misfit} of the first {looked} fit no worker)" if misfit else ""


def _takes_usual(store: Store) -> bool | None:
    """Whether one of the first workers can run tasks that ask for nothing; None when there is no worker.

    One whose deadline has to be looked at counts as one that cannot.
    """
    found = None
    for name in islice(filter(is_worker_name, store.names("running")), _WORKERS):
        said = store.said_by(name)
        if said is None or "cores" not in said:
            continue  # a process that takes single tasks with `get`, or one of which nothing is known
        found = False
        in_time = store.settings.time_request_s is None or said.get("deadline") is None
        if in_time and all(type(n) is int and n > 0 for n in (said["cores"], said.get("nodes", 1))):
            return True
    return found


def _fitting_none(store: Store, lines: list[bytes]) -> int:
    """How many of some tasks fit none of the first workers."""
    from fsqdo.explain import workers_there

    workers = workers_there(store, _WORKERS)
    misfit = 0
    for line in lines:
        try:
            options = Definition.from_json(line).options
        except TaskError:
            continue  # its worker will say what is wrong with it
        request_s = options.time_request_s or store.settings.time_request_s
        misfit += all(worker.lacks(options, request_s) for worker in workers)
    return misfit


# ---------------------------------------------------------------- the first pending tasks
def _pending_lines(store: Store) -> Iterator[bytes]:
    """The definitions of pending tasks, unread: by priority, then roughly by id; nothing is listed before it is needed."""
    for priority in store.priorities():
        directory = f"pending/{priority}"
        listed = store.names(directory)
        for file in listed:
            if file.endswith((".pack", ".json")):
                yield from _lines(store, directory, [file])
            elif parse_bundle(file) is not None:
                inside = store.names(f"{directory}/{file}")
                yield from _lines(store, f"{directory}/{file}", [name for name in inside if name != f"{file}.pack"])  # spent


def _lines(store: Store, directory: str, files: list[str]) -> Iterator[bytes]:
    """The definitions of the tasks that some names in one directory stand for."""
    first, loaded, known = 0, list[bytes](), len(files) < _MANY
    for file in files:
        name = parse_entry(file)
        if isinstance(name, PackName):
            from fsqdo.packs import lines_of

            try:
                yield from lines_of(store, directory, name)
            except TaskError:
                continue  # it moved on, or its worker will say what is wrong with it
        elif isinstance(name, TaskName):
            if not known:
                known = True
                first, _, loaded = store.loaded_lines(name.id) or (0, 0, [])
            at = name.id - first
            line = loaded[at] if 0 <= at < len(loaded) else store.read(f"{directory}/{file}")
            if line is not None:
                yield line
