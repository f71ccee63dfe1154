"""Unpacking: the tasks of a packed shard become loose files again, so that they can be moved one by one.

The packed file is taken, by a rename, into a directory of the unpacker's own; the loose files are written beside it, and a
rename of that directory to `succeeded/<s>` publishes them. Until then its tasks are where they were: in the file, wherever
that is.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from fsqdo.errors import FencedError, StorageError, TaskError
from fsqdo.ids import IdSet
from fsqdo.names import ShardEntry, UnpackingName, all_file, is_all_file, parse_task, parse_unpacking
from fsqdo.packing import Packer, new_round, unseal
from fsqdo.store import Entry, Store, fs
from fsqdo.task import Definition, State

_TOP = State.SUCCEEDED.directory
OWN_FILE = all_file("taken")
MEND = "mend it with an editor: loads/ has the tasks, outcomes/ how they ended"

_LOOKS = 60
_PAUSE_S = 5.0
_SHORT_PAUSE_S = 0.1


def refuse_damage(store: Store, done: str) -> None:
    """Say that packed files hold fewer tasks than their names say, as far as they were read: what they held is not known.

    Parameters
    ----------
    done
        What was done for all others.

    Raises
    ------
    TaskError
        Where there are any.
    """
    if store.damaged:
        raise TaskError("; ".join(store.damaged.values()), f"{MEND}; {done}")


def unpack(store: Store, worker: str, packed: ShardEntry) -> bool:
    """Make the tasks of a packed file loose again.

    Parameters
    ----------
    worker
        The worker that does it; `running/<worker>` must be there.

    Returns
    -------
    bool
        False when somebody else took the file first.

    Raises
    ------
    FencedError
        When the worker's directory is gone.
    StorageError, TaskError
        When a file could not be written, or a line cannot be read; the packed file went back.

    Notes
    -----
    mkdir in the worker's directory, rename the file into it, a write for each task (synced where no load has it), rename the
    directory to a sealed form of the shard (this publishes), unlink the file, rename the directory to the shard. A kill before
    the publishing rename leaves a directory that recover undoes; one after it a sealed shard, which the next pass packs.
    """
    own = f"running/{worker}/{UnpackingName(packed)}"
    if not store.make_directory(own):
        raise FencedError(f"running/{worker} is gone")
    published = ShardEntry(packed.shard, new_round())
    try:
        if not store.move(f"{_TOP}/{packed}", f"{own}/{OWN_FILE}", make=False):
            store.remove_directory(own)
            return False
        _write_loose(store, own, packed)
        if not store.move(own, f"{_TOP}/{published}"):
            return False
    except (StorageError, TaskError, KeyboardInterrupt):  # ^C in an interpreter, which goes on and stays this worker
        drop(store, f"running/{worker}", str(UnpackingName(packed)))
        raise
    store.unlink(f"{_TOP}/{published}/{OWN_FILE}")
    unseal(store, published)
    return True


def _write_loose(store: Store, own: str, packed: ShardEntry) -> None:
    """Write a file for each line of the packed file; all that its name promises, or an error."""
    loaded = IdSet(store.loads())
    written = set()
    synced: list[tuple[str, bytes]] = []
    for line in store.read_lines(f"{own}/{OWN_FILE}"):
        task_id, file, content = _loose(_home(store, packed), line)
        if task_id not in loaded:  # what a power cut tears nobody could mend
            synced.append((f"{own}/{file}", content))
        elif not store.write(f"{own}/{file}", content):
            raise FencedError(f"{own} is gone")
        written.add(file)
    if synced:
        try:
            store.write_files(synced)
            store.sync_directory(own)
        except StorageError:
            if store.ls(own) is None:
                raise FencedError(f"{own} is gone") from None
            raise
    if len(written) == packed.tasks:
        return
    # RACE: whoever declared this worker dead has the file, and a missing file has no lines. Published like this, all of
    # its tasks would be gone with it.
    if OWN_FILE not in (store.ls(own) or ()):
        raise FencedError(f"{own} is gone")
    raise TaskError(
        f"{_home(store, packed)} holds {len(written)} tasks, and its name says {packed.tasks}; nothing was unpacked", MEND
    )


def _home(store: Store, packed: ShardEntry) -> str:
    """Where the packed file is again once the unpacking is undone, as a pattern: under another number."""
    return f"{store.path(_TOP)}/{packed.shard:06d}.p*.n{packed.tasks}.jsonl"


def _loose(home: str, line: bytes) -> tuple[int, str, bytes]:
    """Id, name and content of the file of a packed task."""
    try:
        raw = json.loads(line)
        file = f"{raw['name']}.json"
        definition = Definition.from_raw(raw["task"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TaskError(f"{home} has a line that cannot be read: {line[:60]!r}; nothing was unpacked", MEND) from None
    name = parse_task(file)
    if name is None:
        raise TaskError(f"{home} has a line with a name that is no task's: {file!r}; nothing was unpacked", MEND)
    return name.id, file, definition.to_json().encode()


def loosened(store: Store, unpack_one: Callable[[ShardEntry], object], shard: int, ids: IdSet) -> list[Entry]:
    """Unpack what is packed of a shard; the loose files of these ids, as far as they still have succeeded.

    Parameters
    ----------
    unpack_one
        `unpack`, by a worker that is there.

    Notes
    -----
    What is being packed is brought to its end first: nothing is taken from a sealed shard, of which other hosts may still know
    the old name. On a network that takes two minutes.
    """
    packer = Packer(store)
    for _ in range(_LOOKS):
        entries = list(store.entries(State.SUCCEEDED, ids))
        forms = [parsed for parsed, _ in store.shards(State.SUCCEEDED, shard)]
        if all(entry.packed is None and "." not in entry.directory for entry in entries):
            return entries
        for parsed in forms:
            if parsed.is_file:
                unpack_one(parsed)
        if any(parsed.sealed for parsed in forms):
            packer.run()
            fs.sleep(min(packer.resting, _PAUSE_S) or _SHORT_PAUSE_S)
        elif not any(parsed.is_file for parsed in forms):
            fs.sleep(_SHORT_PAUSE_S)  # RACE: somebody else is unpacking it
    what = f"{store.path(_TOP)}/{shard:06d} is being packed or unpacked all the time"
    raise TaskError(what, "try again later; if who does it has died, `fsqdo recover` first")


def drop(store: Store, holder: str, name: str) -> None:
    """Undo an unpacking that was not published; can be repeated, and by several at once.

    Notes
    -----
    Rename the directory to `….drop`: this decides, nobody can publish it any more. Unlink the loose files, move the packed file
    home under a fresh number, rmdir. A kill leaves the `….drop`, which the next one goes on with.
    """
    unpacking = parse_unpacking(name)
    if unpacking is None:
        return
    directory = f"{holder}/{name}"
    if not unpacking.dropped:
        dropped = f"{holder}/{unpacking._replace(dropped=True)}"
        if not store.move(directory, dropped, make=False):
            return
        directory = dropped
    for file in store.ls(directory) or ():
        if not is_all_file(file):
            store.unlink(f"{directory}/{file}")
    # It keeps its number of tasks: lines that cannot be read are still missed, then.
    store.move(f"{directory}/{OWN_FILE}", f"{_TOP}/{unpacking.packed._replace(round=new_round())}")
    store.remove_directory(directory)
