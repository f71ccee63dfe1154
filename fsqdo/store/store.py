"""The tree of one queue: made, opened, asked. `docs/format.md` describes it for people.

What is here reads names, not contents: how many tasks are in which state, and under which path each is. Every answer can be
false by the time it is given, since tasks move meanwhile; decisions rest on `move` alone.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from fsqdo import names
from fsqdo.errors import FormatError, QueueExistsError, QueueNotFoundError, StorageError, TaskError
from fsqdo.ids import SHARD_SIZE, IdSet, bits_of, shard_of
from fsqdo.names import PackName, ShardEntry, TaskName, new_token
from fsqdo.settings import Settings
from fsqdo.sizes import size_of, size_of_packed
from fsqdo.store.system import fs
from fsqdo.store.tree import Tree, is_shared, make_directory
from fsqdo.task import Definition, State
from fsqdo.taskoptions import Options
from fsqdo.texts import utc_now

_REASON_BYTES = 1000
_LOOKS = 3
_NEWEST = 3


class Entry(NamedTuple):
    """One name in the tree that stands for a task, or for the tasks of a pack.

    Attributes
    ----------
    directory, file
        Where it is, relative to the queue.
    packed
        The line that holds a task of a packed shard; None for what has a file of its own.
    """

    state: State
    directory: str
    file: str
    name: TaskName | PackName
    packed: bytes | None = None

    @property
    def path(self) -> str:
        """Path relative to the queue."""
        return f"{self.directory}/{self.file}"

    @property
    def holder(self) -> str | None:
        """The worker that has it (running), or that finished it."""
        if self.state is State.RUNNING:
            return self.directory.partition("/")[2]
        return self.name.worker

    @property
    def waits_for(self) -> int | None:
        """The requirement under which a waiting task is filed; None for one that waits for a time."""
        parts = self.directory.split("/")
        if self.state is not State.WAITING or parts[1] == "until":
            return None
        if parts[0] == "waiting":
            return int(parts[2])
        opening = names.parse_opening(parts[2])  # in the hands of somebody who opens its pack
        return opening.waits_for if opening else None


class Store(Tree):
    """The tree of one queue, of a format this release knows.

    Attributes
    ----------
    damaged
        Packed files in which fewer tasks could be read than their names say, with the words for it; as far as they were read.

    Raises
    ------
    QueueNotFoundError, FormatError
        When the directory is missing or no queue.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(os.path.abspath(directory))
        self._token: str | None = None
        self.damaged: dict[str, str] = {}
        self.settings = self.read_settings()
        self.paranoid = self.settings.durability == "paranoid"

    # ------------------------------------------------------------ the queue as a whole
    def read_settings(self) -> Settings:
        """Read queue.json."""
        content = self.read(names.QUEUE_FILE)
        if content is not None:
            return Settings.from_json(content, self.path(names.QUEUE_FILE))
        if self.ls("") is None:
            raise QueueNotFoundError(f"there is no queue at {self.directory}", "see `fsqdo list`, or use `fsqdo create`")
        raise FormatError(f"{self.directory} is not a queue: it has no {names.QUEUE_FILE}")

    def write_settings(self, settings: Settings) -> None:
        """Replace queue.json, whole."""
        self.replace(names.QUEUE_FILE, settings.to_json(), f"settings.{new_token()}")
        self.settings = settings
        self.paranoid = settings.durability == "paranoid"

    @property
    def token(self) -> str:
        """A token of this process' own, for its staging directory and its next-id names."""
        if self._token is None:
            self._token = new_token()
        return self._token

    def top(self) -> list[str]:
        """List the queue's own directory; QueueNotFoundError when it is gone."""
        listed = self.ls_twice("")
        if listed is None:
            raise QueueNotFoundError(f"the queue at {self.directory} is gone")
        return listed

    def paused(self) -> bool:
        """Whether PAUSED is there; asked by listing, since a look-up may be 30 s old."""
        return names.PAUSED in self.top()

    def pause_reason(self) -> str:
        """What PAUSED says: its first line, "" for one that `touch` made or nobody else may read, or that is gone."""
        try:
            content = self.read(names.PAUSED) or b""
        except StorageError:
            return ""  # it pauses by being there
        lines = content[:_REASON_BYTES].decode(errors="replace").strip().splitlines()
        return lines[0] if lines else ""

    def pause(self, reason: str = "") -> bool:
        """Make PAUSED, with a reason in it; False when it was there already, which then keeps its own reason."""
        if self.paused():
            return False
        return self.write(names.PAUSED, f"{reason}\n".encode(errors="replace") if reason else b"")

    # ------------------------------------------------------------ ids
    def next_id(self) -> int:
        """The lowest id not yet given away (false as soon as somebody adds)."""
        return self._next_id_entry()[0]

    def _next_id_entry(self) -> tuple[int, str]:
        for delay in (0.0, 0.0, 0.01, 0.1, 1.0, 3.0):
            listed = self.ls("next-id") or ()
            # RACE: a listing in the middle of another's rename may show neither name, or both; the higher one counts.
            found = max(((n, name) for name in listed if (n := names.parse_next_id(name)) is not None), default=None)
            if found:
                return found
            fs.sleep(delay)
        self.top()  # a queue that was deleted has none, of course
        raise FormatError(
            f"{self.path('next-id')} has no file that says which id is next",
            "make an empty file in it called <number>.a, the number (nine digits) above every id in use",
        )

    def take_ids(self, count: int) -> int:
        """Take `count` consecutive ids; returns the first.

        Notes
        -----
        List next-id/, rename `<N>.<token>` to `<N+count>.<own new token>`; lost: again. A kill leaves a gap in the ids at
        most. Nobody else ever makes the new name, so it being there proves that this rename was done.
        """
        while True:
            first, name = self._next_id_entry()
            if self.move(f"next-id/{name}", f"next-id/{names.next_id_name(first + count, new_token())}", make=False):
                return first

    # ------------------------------------------------------------ where tasks are
    def entries(self, state: State, ids: IdSet | None = None) -> Iterator[Entry]:
        """Yield every name that stands for tasks in this state; with `ids`, only such as may hold one of them.

        Read lazily, directory by directory, each in the order of ids. What moves meanwhile may show twice or not at all.
        """
        if state is State.PENDING:
            yield from self._pending(ids)
            yield from self._opening(state, ids)
        elif state is State.WAITING:
            yield from self._waiting(ids)
            yield from self._opening(state, ids)
        elif state is State.RUNNING:
            yield from self._running(ids)
        else:
            yield from self._final(state, ids)

    def _here(self, state: State, directory: str, ids: IdSet | None, spent: str = "") -> list[Entry]:
        """The tasks and markers of one directory."""
        return _entries_among(self.ls(directory) or (), state, directory, ids, spent)

    def loose_in(self, state: State, bundle: str) -> list[Entry]:
        """The loose tasks of a bundle, in the order of their ids."""
        return [entry for entry in self._here(state, bundle, None) if isinstance(entry.name, TaskName)]

    def priorities(self) -> list[int]:
        """The priorities there are directories of, highest first."""
        found = (names.parse_priority(name) for name in self.ls("pending") or ())
        return sorted((p for p in found if p is not None), reverse=True)

    def _bundled(self, state: State, directory: str, ids: IdSet | None) -> Iterator[Entry]:
        """A directory with loose tasks, markers, and bundles of these."""
        found: list[tuple[int, str, TaskName | PackName]] = []
        for file in self.ls(directory) or ():
            name = names.parse_entry(file) or names.parse_bundle(file)
            if name is not None and (ids is None or ids.meets(name.first, name.last)):
                found.append((name.first, file, name))
        for _, file, name in sorted(found):
            if file.endswith((".pack", ".json")):
                yield Entry(state, directory, file, name)
            else:
                # The marker with the bundle's own name is spent: its tasks lie beside it.
                yield from self._here(state, f"{directory}/{file}", ids, spent=f"{file}.pack")

    def _pending(self, ids: IdSet | None) -> Iterator[Entry]:
        for priority in self.priorities():
            yield from self._bundled(State.PENDING, f"pending/{priority}", ids)

    def _opening(self, state: State, ids: IdSet | None) -> Iterator[Entry]:
        """Markers in the hands of somebody who opens them: in their state as before, until the directory is published."""
        for directory in self.holders():
            for name in self.ls(directory) or ():
                yield from (entry for entry in self._opened(directory, name, ids) if entry.state is state)

    def _opened(self, holder: str, name: str, ids: IdSet | None) -> Iterator[Entry]:
        opening = names.parse_opening(name)
        if opening is not None:
            state = State.KILLED if opening.killed else State.PENDING if opening.waits_for is None else State.WAITING
            for entry in self._here(state, f"{holder}/{name}", ids):
                # What is written beside the marker that is being opened does not count before it is published.
                if isinstance(entry.name, PackName) and entry.name[:2] == opening.pack[:2]:
                    yield entry

    def holders(self) -> list[str]:
        """The workers' directories, relative to the queue: those under running/, and what is left of dead ones."""
        return _holders_among({top: self.ls(top) or [] for top in ("running", "recovering")})

    def said_by(self, worker: str) -> dict[str, Any] | None:
        """What a worker says of itself; None when it does not (no file, or torn)."""
        try:
            said = json.loads(self.read(f"running/{worker}/{names.WORKER_FILE}") or b"")
        except ValueError:
            return None
        return said if isinstance(said, dict) else None

    def _running(self, ids: IdSet | None) -> Iterator[Entry]:
        for directory in self.holders():
            yield from self._here(State.RUNNING, directory, ids)

    def watched(self) -> Iterator[tuple[int, str]]:
        """Yield (requirement, directory) for everything somebody waits for."""
        yield from self._watched(self.names("waiting"))

    def _watched(self, shards: Iterable[str]) -> Iterator[tuple[int, str]]:
        for shard in shards:
            if shard == "until":
                continue
            for requirement in self.names(f"waiting/{shard}"):
                directory = f"waiting/{shard}/{requirement}"
                if _is_number(requirement) and names.waiting_dir(int(requirement)) == directory:
                    yield int(requirement), directory

    def delayed(self) -> Iterator[tuple[int, str]]:
        """Yield (unix seconds, directory) for every time at which retries are due."""
        for when in self.names("waiting/until"):
            if _is_number(when) and when == str(int(when)):
                yield int(when), f"waiting/until/{when}"

    def waiting_for(self, requirement: int) -> Iterator[Entry]:
        """Yield every name that is filed under a requirement."""
        yield from self._bundled(State.WAITING, names.waiting_dir(requirement), None)

    def _waiting(self, ids: IdSet | None) -> Iterator[Entry]:
        for _, directory in self.watched():
            yield from self._bundled(State.WAITING, directory, ids)
        for _, directory in self.delayed():
            yield from self._here(State.WAITING, directory, ids)

    def shards(self, state: State, shard: int | None = None) -> Iterator[tuple[ShardEntry, str]]:
        """Yield (parsed, name) of the shards of a final state, or of one shard in all its forms."""
        found = []
        prefix = "" if shard is None else f"{shard:06d}"
        for file in self.ls(state.directory) or ():
            parsed = names.parse_shard(file) if file.startswith(prefix) else None
            if parsed is not None and (shard is None or parsed.shard == shard):
                found.append((parsed, file))
        yield from sorted(found, key=lambda pair: (pair[0].shard, not pair[0].is_file, pair[1]))

    def _final(self, state: State, ids: IdSet | None) -> Iterator[Entry]:
        only = shard_of(ids.lowest) if ids and shard_of(ids.lowest) == shard_of(ids.highest) else None
        for shard, forms in groupby(self.shards(state, only), key=lambda pair: pair[0].shard):
            if ids is None or ids.meets(shard * SHARD_SIZE, shard * SHARD_SIZE + SHARD_SIZE - 1):
                yield from self._forms(state, shard, list(forms), ids)
        if state is State.SUCCEEDED:
            for directory in self.holders():
                for name in self.ls(directory) or ():
                    yield from self._unpacking(directory, name, ids)
        if state is State.KILLED:
            yield from self._opening(state, ids)

    def _forms(self, state: State, shard: int, forms: list[tuple[ShardEntry, str]], ids: IdSet | None) -> Iterator[Entry]:
        """One shard in all the forms it was listed in; what those hold that come first hides the same names in others."""
        hidden: set[str] = set()
        for _ in range(_LOOKS):
            all_there = True
            for parsed, file in forms:
                found, there = self._shard(state, parsed, file, ids, hidden)
                yield from found
                all_there = all_there and there
            if all_there:
                return
            forms = list(self.shards(state, shard))  # RACE: it was packed or unpacked, and has another name now

    def _unpacking(self, holder: str, name: str, ids: IdSet | None) -> Iterator[Entry]:
        """The tasks of a packed shard in the hands of somebody who unpacks it: where they were, until that is published."""
        if names.parse_unpacking(name) is not None:
            directory = f"{holder}/{name}"
            for file in filter(names.is_all_file, self.ls(directory) or ()):
                yield from self._packed(State.SUCCEEDED, directory, file, ids, set()) or ()

    def _shard(
        self, state: State, parsed: ShardEntry, file: str, ids: IdSet | None, hidden: set[str]
    ) -> tuple[list[Entry], bool]:
        """The tasks of a shard in one of its forms that are not hidden; and whether it was there. Adds to what is hidden."""
        directory = f"{state.directory}/{file}"
        if parsed.is_file:
            packed = self._packed(state, state.directory, file, ids, hidden)
            return packed or [], packed is not None
        if state is State.KILLED:  # packs are killed as they are, and opened here when a part of one is set back
            return list(self._bundled(state, directory, ids)), True
        packed = self._packed(state, directory, names.all_file(parsed.token), ids, hidden) if parsed.token else []
        listed = self.ls(directory)
        loose = [entry for entry in _entries_among(listed or (), state, directory, ids) if entry.file not in hidden]
        hidden.update(entry.file for entry in loose)
        return (packed or []) + loose, packed is not None and listed is not None

    def _packed(self, state: State, directory: str, file: str, ids: IdSet | None, hidden: set[str]) -> list[Entry] | None:
        """The tasks in a packed file that are not hidden, its names being so from then on; None when there is no such file."""
        found: list[Entry] | None = None
        readable = 0
        for line in self.read_lines(f"{directory}/{file}"):
            found = [] if found is None else found
            task_file = f"{names.name_in_line(line)}.json"
            name = names.parse_task(task_file)
            readable += name is not None
            if name is not None and task_file not in hidden:
                hidden.add(task_file)
                if ids is None or name.id in ids:
                    found.append(Entry(state, directory, file, name, line))
        parsed = names.parse_shard(file)
        if found is not None and parsed is not None and readable < (parsed.tasks or 0):
            self.damaged[f"{directory}/{file}"] = (
                f"{self.path(directory)}/{file} holds {readable} tasks that can be read, and its name says {parsed.tasks}"
            )
        return found

    def shard_files(self, state: State) -> dict[str, list[str]]:
        """What lies in the directory of a final state, by shard: `{"000017": ["000017", "000017.p1.n9.jsonl"]}`."""
        found: dict[str, list[str]] = {}
        for file in self.ls(state.directory) or ():
            found.setdefault(file.partition(".")[0], []).append(file)
        return found

    def bits_in(self, state: State, shard: int, files: Iterable[str]) -> tuple[int, bool]:
        """The ids of one shard that are in a final state, as bits of one number: bit k stands for the id `shard * 1000 + k`.

        Parameters
        ----------
        files
            What `shard_files` has for the shard.

        Returns
        -------
        tuple
            The bits, and whether all was there. False when one of the files has gone meanwhile: the shard was packed or
            unpacked, so list again.
        """
        whole = bits_of(shard, 1, (shard + 1) * SHARD_SIZE)
        found, there = 0, True
        forms = {parsed: file for file in files if (parsed := names.parse_shard(file)) is not None and parsed.shard == shard}
        for parsed, file in forms.items():
            if parsed.tasks == whole.bit_count():
                return whole, True  # its name says so
            directory = f"{state.directory}/{file}"
            if parsed.is_file:
                packed = self._packed_names(directory)
                there = there and bool(packed)
                found |= bits_of_names(packed, shard)
                continue
            listed = self.ls(directory)
            there = there and listed is not None
            found |= bits_of_names(listed or (), shard)
            if state is State.KILLED:
                for bundle in filter(names.parse_bundle, listed or ()):
                    inside = self.ls(f"{directory}/{bundle}") or ()
                    found |= bits_of_names([name for name in inside if name != f"{bundle}.pack"], shard)  # that is spent
            if parsed.token:
                # Hidden names are of tasks that the file holds, so both together are right, whatever is unlinked meanwhile.
                packed = self._packed_names(f"{directory}/{names.all_file(parsed.token)}")
                # RACE: else its file has moved up, and was not there yet when this was listed.
                there = there and (bool(packed) or any(form.is_file and form.round == parsed.round for form in forms))
                found |= bits_of_names(packed, shard)
        return found, there

    def _packed_names(self, path: str) -> list[str]:
        """The names that a packed file holds, as of files; what is no task's among them says nothing."""
        return [f"{names.name_in_line(line)}.json" for line in self.read_lines(path)]

    def counts(self, kept: dict[str, list[str]] | None = None) -> dict[State, int]:
        """Number of tasks in each state, by names alone.

        Parameters
        ----------
        kept
            Gets those of the listings, by directory, in which the first workers and the first pending tasks are.

        Notes
        -----
        A listing of every directory that holds loose tasks, and of those above them; what is packed says its number in its
        name.
        """
        kept = {} if kept is None else kept
        counts = dict.fromkeys(State, 0)
        counts[State.PENDING] = sum(self._count_bundled(f"pending/{priority}", kept) for priority in self.priorities())
        waiting = self.names("waiting")
        counts[State.WAITING] = sum(self._count_bundled(directory) for _, directory in self._watched(waiting))
        if "until" in waiting:
            counts[State.WAITING] += sum(size_of(self.ls(directory) or ()) for _, directory in self.delayed())
        kept["running"] = self.ls("running") or []
        for directory in _holders_among({"running": kept["running"], "recovering": self.ls("recovering") or []}):
            self._count_held(directory, counts)
        for state in (State.SUCCEEDED, State.FAILED, State.KILLED):
            counts[state] += self._count_final(state)
        return counts

    def _count_bundled(self, directory: str, kept: dict[str, list[str]] | None = None) -> int:
        listed = self.ls(directory) or []
        total = size_of(listed)
        bundles = [file for file in listed if not file.endswith((".pack", ".json"))]
        lowest = "" if kept is None or not bundles else min(bundles)
        if kept is not None:
            kept[directory] = listed
        for file in bundles:
            if names.parse_bundle(file) is not None:
                inside = self.ls(f"{directory}/{file}") or []
                if kept is not None and file == lowest:
                    kept[f"{directory}/{file}"] = inside
                total += size_of(inside, spent=f"{file}.pack")
        return total

    def _count_held(self, directory: str, counts: dict[State, int]) -> None:
        """What lies in a worker's directory: its tasks, and what it opens and unpacks."""
        for file in self.ls(directory) or ():
            name = names.parse_entry(file)
            if name is not None:
                counts[State.RUNNING] += name.size
            elif names.parse_opening(file) is not None:
                for entry in self._opened(directory, file, None):
                    counts[entry.state] += entry.name.size
            elif names.parse_unpacking(file) is not None:
                counts[State.SUCCEEDED] += sum(1 for _ in self._unpacking(directory, file, None))

    def _count_final(self, state: State) -> int:
        total = 0
        for _ in range(_LOOKS):
            total, rest = size_of_packed(self.ls(state.directory) or ())
            counted = [self._count_shard(state, file) for file in rest]
            total += sum(number for number, _ in counted)
            if all(there for _, there in counted):
                break  # else, RACE: one was packed or unpacked, and has another name now
        return total

    def _count_shard(self, state: State, file: str) -> tuple[int, bool]:
        """Number of tasks in a shard that is no file, and whether it was there."""
        parsed = names.parse_shard(file)
        if parsed is None or state is State.KILLED:
            return (0 if parsed is None else self._count_bundled(f"{state.directory}/{file}")), True
        if parsed.token is not None:
            found, there = self._shard(state, parsed, file, None, set())
            return len(found), there
        listed = self.ls(f"{state.directory}/{file}")
        return size_of(listed or ()), listed is not None

    def find(self, task_id: int) -> Entry | None:
        """Where a task is; None when it is nowhere (looked for three times, since tasks move during a look)."""
        ids = IdSet.of(task_id)
        for _ in range(3):
            # All that waits is listed only where nothing else has it: it may be a hundred thousand directories.
            for entry in self._waiting_as_loaded(task_id):
                return entry
            for state in (*(state for state in State if state is not State.WAITING), State.WAITING):
                for entry in self.entries(state, ids):
                    return entry
        return None

    def _waiting_as_loaded(self, task_id: int) -> Iterator[Entry]:
        """Look for a loaded task where it would wait: under one of its own requirements, most likely a high one."""
        try:
            line = self.loaded_line(task_id)
            options = Definition.from_json(line).options if line else Options()
        except TaskError:
            return
        ids, wanted = IdSet.of(task_id), options.requires | options.after
        for shard in sorted(self.ls("waiting") or (), reverse=True) if wanted else ():
            if _is_number(shard) and wanted.meets(int(shard) * SHARD_SIZE, int(shard) * SHARD_SIZE + SHARD_SIZE - 1):
                for requirement in sorted(self.ls(f"waiting/{shard}") or (), reverse=True):
                    if _is_number(requirement) and int(requirement) in wanted:
                        yield from self._bundled(State.WAITING, f"waiting/{shard}/{requirement}", ids)

    # ------------------------------------------------------------ loads
    def loads(self) -> list[tuple[int, int]]:
        """The (first, last) ids of every load, in order."""
        return sorted(pair for name in self.ls("loads") or () if (pair := names.parse_load(name)) is not None)

    def unpublished(self, counted: int) -> str:
        """The last of the newest loads of which not all is in its place, "<first>-<last>"; "" when there is none.

        One is there while it is being loaded, and where a loader was killed after its commit until somebody goes on with it.

        Parameters
        ----------
        counted
            How many tasks were found: where that is as many as ids were given away, no load is looked at.
        """
        if counted + 1 >= max((names.parse_next_id(name) or 0 for name in self.ls("next-id") or ()), default=0):
            return ""
        newest = sorted(self.ls("loads") or (), key=lambda name: (len(name), name))[-_NEWEST:]
        unpublished = (name for name in reversed(newest) if self.ls(f"loads/{name}/publish") is not None)
        return next((f"{pair[0]}-{pair[1]}" for name in unpublished if (pair := names.parse_load(name))), "")

    def loaded_line(self, task_id: int) -> bytes | None:
        """The line with which a task was loaded; None when it did not come from a load."""
        first, _, lines = self.loaded_lines(task_id) or (0, 0, [])
        return lines[task_id - first] if task_id - first < len(lines) else None

    def loaded_lines(self, task_id: int) -> tuple[int, int, list[bytes]] | None:
        """What was loaded together with a task, as (first id, last id, lines); None when it did not come from a load."""
        found = self.loaded_file(task_id)
        if found is None:
            return None
        first, last, path = found
        return first, last, (self.read(f"loads/{path}") or b"").split(b"\n")[:-1]

    def loaded_file(self, task_id: int) -> tuple[int, int, str] | None:
        """The file with the line of a task, as (first id, last id, path below loads/); None when it was not loaded."""
        for first, last in self.loads():
            if first <= task_id <= last:
                load = names.load_name(first, last)
                listed = self.ls(f"loads/{load}") or []
                # Nearly always it is the last one not after it in the order of names, which then need not all be read.
                likely = max((file for file in listed if file <= f"{task_id:09d}~"), default="")
                for file in (likely, *listed):
                    ids = names.parse_load(file.removesuffix(".jsonl")) if file.endswith(".jsonl") else None
                    if ids is not None and ids[0] <= task_id <= ids[1]:
                        return *ids, f"{load}/{file}"
        return None


def _entries_among(files: Iterable[str], state: State, directory: str, ids: IdSet | None, spent: str = "") -> list[Entry]:
    """The tasks and markers among the names of a directory, in the order of their ids."""
    found = []
    for file in files:
        name = names.parse_entry(file)
        if name is not None and file != spent and (ids is None or ids.meets(name.first, name.last)):
            found.append(Entry(state, directory, file, name))
    found.sort(key=lambda entry: entry.name.first)
    return found


def _holders_among(listed: Mapping[str, Iterable[str]]) -> list[str]:
    """The workers' directories in these directories."""
    return [f"{top}/{name}" for top, found in listed.items() for name in sorted(found) if names.is_worker_name(name)]


def bundles_among(files: Iterable[str]) -> list[tuple[PackName, str]]:
    """The bundles and unopened markers among the names of a directory, as (name, file name), by their first ids."""
    parsed = ((names.parse_marker(file) or names.parse_bundle(file), file) for file in files)
    return sorted((name, file) for name, file in parsed if name is not None)


def bits_of_names(files: Iterable[str], shard: int) -> int:
    """The ids of a shard that these names stand for, as bits of one number; names are read as `size_of` does it."""
    marks = bytearray(b"0" * SHARD_SIZE)
    prefix = f"{shard:06d}"
    width = len(prefix)
    known: set[str] = set()
    for file in files:
        digits, rest = file[width : width + 3], file[width + 3 :]
        if rest in known and digits.isdigit() and file.startswith(prefix) and file.isascii():
            marks[-1 - int(digits)] = 49
            continue
        name = names.parse_entry(file)
        if name is None or shard_of(name.first) > shard or shard_of(name.last) < shard:
            continue
        low, high = max(0, name.first - shard * SHARD_SIZE), min(SHARD_SIZE, name.last + 1 - shard * SHARD_SIZE)
        marks[SHARD_SIZE - high : SHARD_SIZE - low] = b"1" * (high - low)
        if isinstance(name, TaskName) and len(digits) == 3 and not rest[0].isdigit():
            known.add(rest)
    return int(marks, 2)


def create(directory: str, settings: Settings) -> Store:
    """Make the tree of a new queue and open it.

    Raises
    ------
    QueueExistsError
        When there is one already.
    StorageError
        When it cannot be made; EXDEV when renames between its directories are forbidden here (tried before it is revealed).

    Notes
    -----
    Everything is made and synced in a staging directory beside, tried out, then renamed. A kill leaves that.
    """
    root, _, name = os.path.abspath(directory).rpartition("/")
    staged = Tree(f"{root}/{names.staged_queue_name(name)}")
    _make_staging(staged.directory)
    try:
        for part in names.TREE_DIRS:
            staged.make_directories(part)
        _try_renames(staged)
        staged.write(f"next-id/{names.next_id_name(1, new_token())}", b"", sync=True, make=True)
        settings = settings.__class__(**{**settings.__dict__, "name": name, "created_at": utc_now(), "created_by": _user()})
        staged.write(names.QUEUE_FILE, settings.to_json(), sync=True, make=True)
        for part in ("next-id", ""):
            staged.sync_directory(part)
            beside = Tree(root)
        moved = beside.move_directory(os.path.basename(staged.directory), name)
        if not moved and staged.ls("") is not None:
            raise QueueExistsError(*_occupied(directory, name))
        beside.sync_directory("")
    finally:
        staged.remove_tree("")
    return Store(directory)


def _make_staging(path: str) -> None:
    """Make a directory and whatever is missing above it: the first queue makes the root."""
    for _ in range(3):
        try:
            make_directory(path, is_shared(os.path.dirname(path)))
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            _make_staging(os.path.dirname(path))
        except OSError as error:
            raise StorageError(error, "mkdir", path) from None
    raise StorageError(OSError(errno.ENOENT, os.strerror(errno.ENOENT)), "mkdir", path)


def _occupied(directory: str, name: str) -> tuple[str, str]:
    if os.path.exists(f"{directory}/{names.QUEUE_FILE}"):
        return f"there is a queue {name} already", f"use it, or delete it: fsqdo delete {name} --force"
    return f"{directory} is there already and is not a queue", "choose another name, or move it away"


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such entry in the password database (containers)
        return str(os.getuid())


def _try_renames(staged: Tree) -> None:
    """Rename a file through all directories between which tasks will move: some file systems forbid it (EXDEV)."""
    # It ends in tmp/, where it is litter at worst.
    places = [f"{part}/probe" for part in ("tmp", *names.STATE_DIRS, "recovering", "attic", "loads")] + ["tmp/probed"]
    staged.write(places[0], b"", make=True)
    for src, dst in pairwise(places):
        if not staged.move(src, dst):
            raise StorageError(OSError(0, "a probe file vanished"), "rename", staged.path(dst))
    staged.unlink(places[-1])
