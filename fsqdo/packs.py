"""Packs: many tasks in one JSON Lines file under `loads/`, of which a marker says where they stand.

A marker `<first>-<last>.pack` in `pending/<priority>/` (or under `waiting/`, `killed/`) is the name under which its tasks are
in that state. To open it, a worker takes the marker into a directory of its own, writes the loose files beside it and
publishes the directory by one rename; from then on the loose files count, and the marker in it is spent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from fsqdo.errors import FencedError, StorageError, TaskError
from fsqdo.ids import IdSet
from fsqdo.names import (
    OpeningName,
    PackName,
    TaskName,
    load_name,
    moved_by_hand,
    new_token,
    parse_entry,
    parse_load,
    parse_marker,
    parse_opening,
)
from fsqdo.store import Entry, Store
from fsqdo.task import Definition, State

PACK_SIZE = 1000  # at most
KEPT_BYTES = 1 << 14  # of a definition, in the memory of a worker that does not read it again


def definition_of(store: Store, entry: Entry) -> Definition:
    """Read the definition of a loose task, or of the first task of a marker.

    A file that is no JSON is looked up in `loads/`, where it came from there.

    Raises
    ------
    TaskError
        When it cannot be read from either; also when the task has moved on meanwhile.
    """
    if isinstance(entry.name, PackName):
        for definition in definitions(store, entry):
            return definition
        raise TaskError(f"{store.path(entry.path)} has no tasks")
    if entry.packed is not None:
        return packed_definition(store, entry.name, entry.packed)
    content = store.read(entry.path)
    if content is None:
        raise TaskError(f"task {entry.name.id} is no longer at {store.path(entry.path)}")
    return definition_from(store, entry.name, content)


def packed_definition(store: Store, name: TaskName, line: bytes) -> Definition:
    """The definition in a line of a packed shard; one that cannot be read is looked up in `loads/`."""
    try:
        raw = json.loads(line)["task"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raw = None
    return definition_from(store, name, b"" if raw is None else json.dumps(raw).encode())


def definition_from(store: Store, name: TaskName, content: bytes) -> Definition:
    """Make a definition of a file's content; a torn one is rebuilt from its load."""
    try:
        definition = Definition.from_json(content)
        if definition.id != name.id:
            raise TaskError(f"the file of task {name.id} is that of task {definition.id}")
        return definition
    except TaskError:
        line = store.loaded_line(name.id)
        if line is None:
            raise
        return Definition.from_json(line)


def claimed_definition(
    store: Store, path: str, name: TaskName, content: bytes, report: Callable[[str], None] = lambda text: None
) -> Definition:
    """The definition of a task this process holds; a file that cannot be read is mended where its load has the task.

    Parameters
    ----------
    report
        Told where it was no power cut that tore the file, but somebody who edited it. What he wrote is kept in attic/.

    Raises
    ------
    TaskError
        When the file cannot be read and no load has the task.
    """
    definition = Definition.if_sound(content, name.id)
    if definition is None:
        definition = definition_from(store, name, content)
        if content.endswith(b"\n") and b"\0" not in content:
            kept = f"attic/{name.file}.{new_token()}"
            store.write(kept, content)
            report(f"task {name.id} runs as it was loaded: what its file says now cannot be read, and is kept as {kept}")
        store.replace(path, definition.to_json().encode(), f"mended.{new_token()}", sync=False)
    return definition


def definitions(store: Store, entry: Entry) -> Iterator[Definition]:
    """Yield the definitions of all tasks of a marker, in the order of their ids."""
    assert_pack = entry.name
    if isinstance(assert_pack, PackName):
        for line in lines_of(store, entry.directory, assert_pack):
            yield Definition.from_json(line)


def lines_of(store: Store, directory: str, marker: PackName) -> list[bytes]:
    """The lines of a marker's tasks, without their newlines.

    Raises
    ------
    TaskError
        When the load they came from is incomplete.
    """
    content = (store.read(f"{directory}/{marker.file}") or b"").decode(errors="replace").strip()
    wanted = _lines_in(store, content, marker)
    if wanted is None:  # its content was torn by a power cut
        wanted = _lines_in(store, (store.loaded_file(marker.first) or (0, 0, ""))[2], marker)
    if wanted is None:
        raise TaskError(
            f"the tasks {marker.first}-{marker.last} of {store.path(directory)}/{marker.file} are not in {store.path('loads')}",
            "restore the file from a backup",
        )
    return wanted


def _lines_in(store: Store, path: str, marker: PackName) -> list[bytes] | None:
    """The lines of a marker's tasks in a file below `loads/`; None when it does not have them all."""
    load, _, file = path.partition("/")
    ids = parse_load(file.removesuffix(".jsonl"))
    if parse_load(load) is None or ids is None or not ids[0] <= marker.first <= marker.last <= ids[1]:
        return None
    lines = (store.read(f"loads/{load}/{file}") or b"").split(b"\n")[:-1]
    wanted = lines[marker.first - ids[0] : marker.last - ids[0] + 1]
    return wanted if len(wanted) == marker.size else None


def open_pack(
    store: Store,
    worker: str,
    entry: Entry,
    priority: int,
    slice_: int | None = None,
    contents: dict[str, bytes] | None = None,
) -> str | None:
    """Open a marker: afterwards its tasks are loose files of one bundle, in the same state as before.

    Parameters
    ----------
    worker
        The worker that does it; `running/<worker>` must be there.
    entry
        The marker, in `pending/<priority>` (or a bundle there), `waiting/<shard>/<requirement>` or `killed/<shard>`.
    slice_
        Make only so many of its first tasks loose; the rest stays packed, under two markers in the bundle. None: all.
    contents
        Filled with what is in each loose file that is not too long for that: who claims it next need not read it.

    Returns
    -------
    str or None
        Path of the bundle; None when somebody else took the marker first.

    Raises
    ------
    FencedError
        When the worker's directory is gone.
    StorageError, TaskError
        When a file could not be written or the pack cannot be read; the marker went back.

    Notes
    -----
    mkdir in the worker's directory (no parents), rename the marker into it, write the files, rename the directory to its place
    (this publishes), unlink the spent marker. A kill before the publishing rename leaves a directory that recover undoes.
    """
    marker = entry.name
    if not isinstance(marker, PackName):
        raise TaskError(f"{entry.path} is no marker")
    opening = OpeningName(marker._replace(worker=None), priority, entry.waits_for, killed=entry.state is State.KILLED)
    own = f"running/{worker}/{opening}"
    if not store.make_directory(own):
        raise FencedError(f"running/{worker} is gone")
    bundle = f"{opening.home}/{opening.pack}"
    try:
        if not store.move(entry.path, f"{own}/{marker.file}", make=False):
            store.remove_directory(own)
            return None
        lines = lines_of(store, own, marker)
        loose = marker.size if slice_ is None else min(slice_, marker.size)
        for task_id, line in enumerate(lines[:loose], marker.first):
            file = _write_loose(store, own, marker, task_id, line)
            if contents is not None and len(line) <= KEPT_BYTES:
                contents[file] = line
        if loose < marker.size:
            _write_rest(store, own, marker, marker.first + loose)
        if not store.move(own, bundle):
            return None
    except (StorageError, TaskError, KeyboardInterrupt):  # ^C in an interpreter, which goes on and stays this worker
        drop(store, f"running/{worker}", str(opening))
        raise
    store.unlink(f"{bundle}/{marker.file}")
    return bundle


def _write_loose(store: Store, own: str, marker: PackName, task_id: int, line: bytes) -> str:
    if not line.startswith(b'{"id":%d,' % task_id) and Definition.if_sound(line, task_id) is None:
        raise TaskError(f"{store.path('loads')} has a line for task {task_id} that cannot be read: {line[:60]!r}")
    file = f"{marker.task(task_id)}.json"
    if not store.write(f"{own}/{file}", line + b"\n"):
        raise FencedError(f"{own} is gone")
    return file


def _write_rest(store: Store, own: str, marker: PackName, first: int) -> None:
    """Markers for what is not opened: two halves, so that others who come at once have two places to go on."""
    content = store.read(f"{own}/{marker.file}") or b""
    middle = (first + marker.last) // 2
    for low, high in ((first, middle), (middle + 1, marker.last)):
        if low <= high and not store.write(f"{own}/{marker._replace(first=low, last=high).file}", content):
            raise FencedError(f"{own} is gone")


def drop(store: Store, holder: str, name: str) -> None:
    """Undo an opening that was not published; can be repeated, and by several at once.

    Notes
    -----
    Rename the directory to `….drop`: this decides, nobody can publish it any more. Unlink the loose files, move the marker
    home with r raised, rmdir. A kill leaves the `….drop`, which the next one goes on with.
    """
    opening = parse_opening(name)
    if opening is None:
        return
    directory = f"{holder}/{name}"
    if not opening.dropped:
        dropped = f"{holder}/{opening._replace(dropped=True)}"
        if not store.move(directory, dropped, make=False):
            return
        directory = dropped
    marker = None
    for inside in store.ls(directory) or ():
        found = parse_marker(inside)
        if found is None or found[:2] != opening.pack[:2]:  # loose tasks, and markers of what was not to be opened
            store.unlink(f"{directory}/{inside}")
        else:
            marker = found
    if marker is not None:
        # Not i: none of these tasks has run, and a disk that is full for an hour would use up their max_interruptions.
        store.move(f"{directory}/{marker.file}", f"{opening.home}/{moved_by_hand(marker).file}")
    store.remove_directory(directory)


# ---------------------------------------------------------------- publishing what a load committed
def publish(store: Store, load: str, rolled_forward: bool = False) -> set[int]:
    """Move what a committed load holds under `publish/` to the same path in the queue.

    Parameters
    ----------
    rolled_forward
        Somebody else's load is finished here: a file that has two names (its loader was killed in the middle of a rename,
        GlusterFS) is in place already.

    Returns
    -------
    set of int
        The requirements under which tasks were filed: look at them again.

    Notes
    -----
    What waits first, so that nothing finishes before its dependents are filed. One rename each, or one for all that waits for
    tasks of a shard (or for a task) for which nobody waited before; a kill leaves the rest under `publish/`, which whoever
    sees it moves. Directories are removed as they become empty.
    """
    top = f"loads/{load}/publish"
    targets: set[int] = set()
    for shard in store.names(f"{top}/waiting"):
        directory = f"waiting/{shard}"
        required = [name for name in store.names(f"{top}/{directory}") if name.isascii() and name.isdigit()]
        targets.update(map(int, required))
        # A file with two names is looked for one by one.
        if not rolled_forward and store.move_directory(f"{top}/{directory}", directory):
            continue
        for requirement in required:
            below = f"{directory}/{requirement}"
            if rolled_forward or not store.move_directory(f"{top}/{below}", below):
                _publish_directory(store, top, below, rolled_forward)
        store.remove_directory(f"{top}/{directory}")
    for priority in store.names(f"{top}/pending"):
        _publish_directory(store, top, f"pending/{priority}", rolled_forward)
    for part in ("/waiting", "/pending", ""):
        store.remove_directory(top + part)
    return targets


def _publish_directory(store: Store, top: str, directory: str, rolled_forward: bool) -> None:
    for name in store.names(f"{top}/{directory}"):
        source = f"{top}/{directory}/{name}"
        parsed = parse_entry(name) if rolled_forward else None
        if parsed is not None and store.link_count(source) > 1 and has_second_name(store, source, parsed):
            store.unlink(source)
        else:
            store.move(source, f"{directory}/{name}")
    store.remove_directory(f"{top}/{directory}")


def has_second_name(store: Store, path: str, name: TaskName | PackName) -> bool:
    """Whether a task or marker stands under another name in the queue, too (a client died in a rename, GlusterFS).

    A second name elsewhere is none: a snapshot by hard links (`cp -al`). Looked for twice, since one wrong answer would have
    the task stand twice.
    """
    inode = store.inode(path) or store.inode(path)
    ids = IdSet([(name.first, name.last)])
    return inode is None or any(
        entry.path != path and entry.packed is None and store.inode(entry.path) == inode
        for _ in range(2)
        for state in State
        for entry in store.entries(state, ids)
    )


def roll_forward(store: Store, known: set[str] | None = None) -> set[int]:
    """Publish the rest of every load whose loader ended in the middle; returns the requirements to look at again.

    Parameters
    ----------
    known
        Loads seen complete before, which are not looked at again; added to.
    """
    targets: set[int] = set()
    known = set() if known is None else known
    for first, last in store.loads():
        load = load_name(first, last)
        if load in known:
            continue
        if "publish" in (store.ls(f"loads/{load}") or ()):
            targets |= publish(store, load, rolled_forward=True)
            if "publish" in (store.ls(f"loads/{load}") or ("publish",)):
                continue  # listings may leave names out
        known.add(load)
    return targets


def new_staging(store: Store) -> str:
    """Make a staging directory of this process' own; returns its path relative to the queue."""
    staging = f"tmp/{new_token()}"
    store.make_directories(staging)
    return staging
