"""What no worker fits, for `status`, which has to be quick: a look at a few workers and the first tasks. Reads only.

Nearly all tasks ask for nothing special, and the first worker takes them: then nothing more is read, parsed or imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from fsqdo.errors import TaskError
from fsqdo.names import PackName, TaskName, is_worker_name, parse_bundle, parse_entry, parse_load
from fsqdo.store import Store
from fsqdo.task import Definition

_WORKERS = 20
_TASKS = 100
# From so many loose tasks on their lines are read from the load they came from: one file for all.
_MANY = 8


def misfits(store: Store, kept: Mapping[str, list[str]]) -> str:
    """`  (3 of the first 100 fit no worker)`, for the line of the pending tasks; "" when all fit or there is no worker.

    Parameters
    ----------
    kept
        What was listed just before, by directory (`Store.counts`): that is not listed again.

    Notes
    -----
    Reads at most twenty `worker.json` and a hundred tasks, mostly one of them and one file of a load; and nothing more while
    there is no worker. It counts what has moved on meanwhile.
    """
    usual_fits = _takes_usual(store, kept)
    if usual_fits is None:
        return ""
    looked, asking = 0, []
    for line in islice(_pending_lines(store, kept), _TASKS):
        looked += 1
        if not usual_fits or _asks_for_resources(line):
            asking.append(line)
    misfit = _fitting_none(store, asking) if asking else 0
    return f"  ({misfit} of the first {looked} fit no worker)" if misfit else ""


def _takes_usual(store: Store, kept: Mapping[str, list[str]]) -> bool | None:
    """Whether one of the first workers can run tasks that ask for nothing; None when there is no worker.

    One whose deadline has to be looked at counts as one that cannot.
    """
    found = None
    for name in islice(filter(is_worker_name, _names(store, kept, "running")), _WORKERS):
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
def _pending_lines(store: Store, kept: Mapping[str, list[str]]) -> Iterator[bytes]:
    """The definitions of pending tasks, unread: by priority, then roughly by id; nothing is listed before it is needed."""
    directories = [directory for directory in kept if directory.count("/") == 1]  # pending/<priority>, the highest first
    for directory in directories:
        for file in _names(store, kept, directory):
            if file.endswith((".pack", ".json")):
                yield from _lines(store, directory, [file])
            elif parse_bundle(file) is not None:
                inside = _names(store, kept, f"{directory}/{file}")
                yield from _lines(store, f"{directory}/{file}", [name for name in inside if name != f"{file}.pack"])  # spent


def _names(store: Store, kept: Mapping[str, list[str]], directory: str) -> list[str]:
    return sorted(kept[directory]) if directory in kept else store.names(directory)


def _lines(store: Store, directory: str, files: list[str]) -> Iterator[bytes]:
    """The definitions of the tasks that some names in one directory stand for."""
    first, loaded = _loaded(store, directory, files) if len(files) >= _MANY else (0, [])
    for file in files:
        name = parse_entry(file)
        if isinstance(name, PackName):
            from fsqdo.packs import lines_of

            try:
                yield from lines_of(store, directory, name)
            except TaskError:
                continue  # it moved on, or its worker will say what is wrong with it
        elif isinstance(name, TaskName):
            at = name.id - first
            line = loaded[at] if 0 <= at < len(loaded) else store.read(f"{directory}/{file}")
            if line is not None:
                yield line


def _loaded(store: Store, directory: str, files: list[str]) -> tuple[int, list[bytes]]:
    """What was loaded together with the first of some tasks, as (first id, lines); of a pack a marker beside says where."""
    first = parse_entry(files[0])
    if first is None:
        return 0, []
    if files[-1].endswith(".pack"):
        path = (store.read(f"{directory}/{files[-1]}") or b"").decode(errors="replace").strip()
        load, _, file = path.partition("/")
        ids = parse_load(file.removesuffix(".jsonl"))
        if ids is not None and ids[0] <= first.first <= ids[1] and parse_load(load) is not None:
            return ids[0], (store.read(f"loads/{path}") or b"").split(b"\n")[:-1]
    low, _, lines = store.loaded_lines(first.first) or (0, 0, [])
    return low, lines


def _asks_for_resources(content: bytes) -> bool:
    """Whether a definition, unread, may say what its task needs of a worker; nearly none does.

    Only such a one has to be read more closely than its rename needs.
    """
    return (
        b'"cores"' in content
        or b'"gpus"' in content
        or b'"mem_mb"' in content
        or b'"ranks"' in content
        or b'"nodes"' in content
        or b'"time_request_s"' in content
    )
