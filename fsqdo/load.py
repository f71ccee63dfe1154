"""Adding tasks: one by one as loose files, many at once as packs that are there whole or not at all.

A load reads and checks its whole input first, into a spool, so that its ids are one range and a bad line 900,000 leaves nothing
behind. Then it writes packs, markers and loose files in `tmp/`, and commits them by one rename to `loads/<first>-<last>`.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from json.encoder import encode_basestring_ascii as quote_json
from typing import NamedTuple

from fsqdo import requirements
from fsqdo.errors import InputError, StorageError
from fsqdo.finals import Finals
from fsqdo.ids import SHARD_SIZE, IdSet, shard_of
from fsqdo.inputs import Commands, NewTask, flat, split_names
from fsqdo.names import TaskName, load_name, pending_dir, waiting_dir
from fsqdo.packs import PACK_SIZE, new_staging, publish
from fsqdo.store import Appender, Store
from fsqdo.task import Definition, encode_task
from fsqdo.taskoptions import Options, requirement_text
from fsqdo.texts import encode_json, utc_now

LOOSE_LOAD = PACK_SIZE
_PENDING_RUN = 100
_WAITING_RUN = 10
_BATCH = 2000
_IN_MEMORY = 8 << 20
_BUFFERED = 1 << 18
_PACKS_AT_ONCE = 64
Progress = Callable[[int], None]
Where = Callable[[int], str]


class _Head(NamedTuple):
    """What decides where a task is filed: priority, requirements as ids and as names."""

    priority: int
    requires: IdSet
    requires_names: tuple[str, ...]
    after: IdSet
    after_names: tuple[str, ...]

    def encode(self) -> str:
        return encode_json([self.priority, str(self.requires), self.requires_names, str(self.after), self.after_names])

    @classmethod
    def decode(cls, text: str) -> _Head:
        priority, requires, requires_names, after, after_names = json.loads(text)
        return cls(priority, IdSet.parse(requires), tuple(requires_names), IdSet.parse(after), tuple(after_names))


def add_one(store: Store, task: object, options: Options) -> int:
    """Add one task as a loose file; returns its id once it is on disk.

    Notes
    -----
    Take an id; write and sync the file in tmp/; rename it to its place; sync that directory, and those above it in which one
    had to be made; when it waits, look at the requirement again.
    A kill before the rename leaves litter in tmp/ and a gap in the ids.
    """
    encode_task(task)
    _check_ids(store, options.requires | options.after)
    task_id = store.take_ids(1)
    name = TaskName(task_id)
    staged = f"tmp/{store.token}.{name.file}"
    directory, told = "", f"task {task_id} is in the queue all the same: do not add it again"
    definition = Definition(task_id, task, options)
    try:
        store.write(staged, definition.to_json().encode(), sync=True, make=True)
        if options.requires or options.after:
            directory, hold = requirements.place(store, Finals(store), name, options)
        else:
            directory, hold = pending_dir(options.priority, task_id), None
        made: list[str] = []
        if not store.move(staged, f"{directory}/{name.file}", make=False, private=True):
            made = store.make_directories(directory)
            store.move(staged, f"{directory}/{name.file}", private=True)
    except StorageError as error:
        with suppress(StorageError):
            if error.operation == "fsync" and not store.gone(f"{directory}/{name.file}"):
                error.hint = told  # it came after the rename (`durability: paranoid`)
        _remove_quietly(store.unlink, staged)
        raise
    with _added(told):
        # Gone means that the task has moved on already and somebody removed the empty directory.
        for synced in (directory, *sorted({above.rpartition("/")[0] for above in made})):
            store.sync_directory(synced, may_be_gone=True)
        if hold is not None:
            requirements.look_again(store, [hold])
    return task_id


@contextmanager
def _added(what: str) -> Iterator[None]:
    """Have errors after the commit say that they came after it: who adds again would have the tasks twice."""
    try:
        yield
    except StorageError as error:
        error.hint = f"{error.hint}; {what}".removeprefix("; ")
        raise
    except KeyboardInterrupt as interrupt:
        interrupt.args = (what,)
        raise


def _remove_quietly(remove: Callable[[str], object], path: str) -> None:
    try:
        remove(path)
    except StorageError:  # litter in tmp/; the error that led here says what is wrong
        return


def _check_ids(store: Store, ids: IdSet) -> None:
    if ids and ids.lowest < 1:
        raise InputError(f"the required task {ids.lowest} does not exist", "ids begin with 1")
    if ids and ids.highest >= store.next_id():
        raise InputError(f"the required task {ids.highest} does not exist", f"the next free id is {store.next_id()}")


def load(
    store: Store,
    items: Iterable[object],
    common: Options,
    *,
    cwd: str | None = None,
    known: dict[int, int] | None = None,
    progress: Progress | None = None,
    where: Where,
) -> range:
    """Add many tasks at once: all of them, or none.

    Parameters
    ----------
    items
        Commands, JSON-able objects and NewTask, read once.
    common
        The options of every task that does not say otherwise.
    cwd
        The directory commands run in that do not name one.
    known
        `key_of` of the tasks that are to be left out, each with its id made negative: who requires the name of one in this
        load gets that id. Added to, with positions in the load, so that later duplicates are left out, too.
    progress
        Called with the number of tasks read so far, every few thousand.
    where
        Says in words where the task with a number, from 1, came from.

    Returns
    -------
    range
        Their ids, in the order of the items.

    Raises
    ------
    InputError
        For a bad item, with its number; nothing was added.
    StorageError
        When the file system refuses; nothing was added, unless it failed after the commit, then all is.

    Notes
    -----
    Spool everything in `tmp/<token>`; take the ids; write and sync packs; stage markers and loose files under `publish/` there;
    rename `tmp/<token>` to `loads/<first>-<last>` (commit); sync `loads/`; publish. A kill before the commit leaves litter
    and a gap in the ids, one after it leaves `publish/`, which the next pass moves.
    """
    staging = new_staging(store)
    spool = _Spool(store, f"{staging}/spool", common, cwd, known, where)
    load_directory = told = ""
    try:
        spool.read(items, progress)
        if spool.count == 0:
            store.remove_tree(staging)
            return range(0)
        first = store.take_ids(spool.count)
        ids = range(first, first + spool.count)
        load_directory = f"loads/{load_name(ids[0], ids[-1])}"
        told = (
            f"the tasks {ids[0]}-{ids[-1]} are in the queue all the same: do not load them again, workers publish the rest "
            "when there is room, and so does `fsqdo promote`"
        )
        _Writer(store, staging, ids, spool.names).write(spool.lines())
        store.unlink(f"{staging}/spool")
        store.sync_directory(staging)
        store.move(staging, load_directory, private=True)
    except (Exception, KeyboardInterrupt) as error:
        with suppress(StorageError):  # a full file system may say so once more
            spool.close()
            if load_directory and store.ls(load_directory) is not None:  # it came with the rename that commits, or after it
                if isinstance(error, KeyboardInterrupt):
                    error.args = (told,)
                elif isinstance(error, StorageError):
                    error.hint = told
        _remove_quietly(store.remove_tree, staging)
        raise
    with _added(told):
        store.sync_directory("loads")
        targets = publish(store, load_name(ids[0], ids[-1]))
        requirements.look_again(store, targets)
    return ids


class _Spool:
    """Pass one: check every item and write it down, a line each: head, tab, the task and its options as JSON."""

    def __init__(
        self, store: Store, path: str, common: Options, cwd: str | None, known: dict[int, int] | None, where: Where
    ) -> None:
        self._store = store
        self._path = path
        self._common = replace(common, created_at=common.created_at or utc_now())
        self._cwd = cwd
        self._known = known
        self._where = where
        self._limit = store.next_id()
        self._wanted: dict[str, int] = {}
        self._edges: dict[int, tuple[str, ...]] = {}
        self.names: dict[str, int] = {}
        self.count = 0
        self._buffer: list[str] = []
        self._size = 0
        self._file: Appender | None = None

    def read(self, items: Iterable[object], progress: Progress | None) -> None:
        """Read all items."""
        plain = replace(self._common, requires=IdSet(), after=IdSet())
        head = _Head(plain.priority, self._common.requires, (), self._common.after, ())
        self._check(head)
        prefix = head.encode() + "\t"
        object_end = plain.suffix() + "\n"
        command_end = replace(plain, cwd=plain.cwd or self._cwd).suffix() + "\n"
        known, number = self._known, 0
        for item in items if known is None else flat(items):
            if type(item) is Commands:
                number += len(item)
                self._keep(prefix + (command_end + prefix).join(map(quote_json, item)) + command_end, len(item), progress)
                continue
            number += 1
            try:
                if type(item) is str:
                    text, line_prefix, end = encode_task(item), prefix, command_end
                elif isinstance(item, NewTask):
                    text, line_prefix, end = self._own_options(item)
                else:
                    text, line_prefix, end = encode_task(item), prefix, object_end
            except InputError as error:
                raise InputError(f"{self._where(number)}: {error.message}", error.hint) from None
            if known is not None:
                key = hash(text)
                if key in known:
                    if isinstance(item, NewTask):
                        self._name(item, number, known[key])
                    continue
                known[key] = self.count
            if isinstance(item, NewTask):
                self._note_names(item, number)
            self._keep(line_prefix + text + end, 1, progress)
        self._check_names()
        if self._file is not None:
            self._flush()

    def _keep(self, lines: str, count: int, progress: Progress | None) -> None:
        """Keep the lines of so many tasks, for a while in memory."""
        self._buffer.append(lines)
        self._size += len(lines)
        if self._size > _IN_MEMORY:
            self._flush()
            self._size = _IN_MEMORY - _BUFFERED  # what follows goes to the file in smaller pieces
        before, self.count = self.count, self.count + count
        if progress and before // _BATCH < self.count // _BATCH:
            progress(self.count)

    def _own_options(self, item: NewTask) -> tuple[str, str, str]:
        text = encode_task(item.task)
        options = self._common
        if item.options:
            own = Options.of(**item.options)
            options = replace(options, **{key: getattr(own, key) for key, value in item.options.items() if value is not None})
        if isinstance(item.task, str) and options.cwd is None:
            options = replace(options, cwd=self._cwd)
        requires, requires_names = split_names(item.requires)
        after, after_names = split_names(item.after)
        head = _Head(options.priority, requires | options.requires, requires_names, after | options.after, after_names)
        self._check(head)
        return text, head.encode() + "\t", replace(options, requires=IdSet(), after=IdSet()).suffix() + "\n"

    def _note_names(self, item: NewTask, number: int) -> None:
        """Keep the names, for tasks of this load to require; positions count only what is added."""
        if item.options.get("name") in self.names:
            raise InputError(f"{self._where(number)}: the name {item.options['name']!r} is used twice in it")
        self._name(item, number, self.count)
        wanted = split_names(item.requires)[1] + split_names(item.after)[1]
        if wanted:
            self._edges[self.count] = wanted
            for word in wanted:
                self._wanted.setdefault(word, number)

    def _name(self, item: NewTask, number: int, place: int) -> None:
        """Note which task a name stands for: a position in the load, or a negative id."""
        name = item.options.get("name")
        if name is not None and self.names.setdefault(name, place) != place:
            raise InputError(f"{self._where(number)}: the name {name!r} is used twice in it")

    def _check(self, head: _Head) -> None:
        ids = head.requires | head.after
        if ids and (ids.highest >= self._limit or ids.lowest < 1):
            self._limit = self._store.next_id()
            _check_ids(self._store, ids)

    def _check_names(self) -> None:
        for word, number in self._wanted.items():
            if word not in self.names:
                raise InputError(
                    f"{self._where(number)}: the required {word!r} is no id, and no task of this load has that name",
                    "requirements are ids of the queue or names in the same load",
                )
        _refuse_cycles({task: [self.names[word] for word in wanted] for task, wanted in self._edges.items()}, self.names)

    def _flush(self) -> None:
        if self._file is None:
            self._file = Appender(self._store, self._path)
        self._file.append("".join(self._buffer).encode())
        self._buffer.clear()

    def close(self) -> None:
        """Close the spool's file, where there is one."""
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines again, without their newlines."""
        if self._file is None:
            yield from "".join(self._buffer).encode().split(b"\n")[:-1]
            return
        self.close()
        yield from self._store.read_lines(self._path)


def _refuse_cycles(edges: dict[int, list[int]], names: dict[str, int]) -> None:
    """Depth-first, with a stack of its own: a chain may be 10,000 long."""
    done: set[int] = set()
    by_position = {position: name for name, position in names.items()}
    for start in edges:
        path: list[int] = []
        on_path: set[int] = set()
        stack: list[tuple[int, bool]] = [(start, False)]
        while stack:
            task, leaving = stack.pop()
            if leaving:
                on_path.discard(path.pop())
                done.add(task)
            elif task in on_path:
                loop = [by_position.get(t, f"task {t + 1}") for t in [*path[path.index(task) :], task]]
                raise InputError("the requirements of this load run in a circle: " + " requires ".join(loop))
            elif task not in done:
                path.append(task)
                on_path.add(task)
                stack.append((task, True))
                stack += [(required, False) for required in edges.get(task, ())]


class _Run(NamedTuple):
    """Consecutive ids with the same place."""

    first: int
    last: int
    directory: str
    waits: bool


class _Writer:
    """Pass two: packs, and under `publish/` what will stand in the queue."""

    def __init__(self, store: Store, staging: str, ids: range, names: dict[str, int]) -> None:
        self._store = store
        self._staging = staging
        self._ids = ids
        self._names = names
        self._finals = Finals(store)
        self._directories: set[str] = set()
        self._packs: list[tuple[str, bytes]] = []
        self._packs_size = 0
        self._head_text = b""
        self._head: tuple[bytes, str, bool] = (b"", "", False)

    def write(self, lines: Iterator[bytes]) -> None:
        """Write packs of up to 1000 tasks, with their markers or loose files, all synced."""
        ids = self._ids
        low = ids[0]
        while low in ids:
            high = min(low + PACK_SIZE - 1, ids[-1])
            if len(ids) > LOOSE_LOAD:
                # Within a shard: who works off a pack has finished a shard, which is packed again at once.
                high = min(high, shard_of(low) * SHARD_SIZE + SHARD_SIZE - 1)
            self._write_pack(low, high, lines)
            low = high + 1
        self._write_packs()
        for directory in sorted(self._directories, reverse=True):
            self._store.sync_directory(f"{self._staging}/{directory}")

    def _write_packs(self) -> None:
        self._store.write_files(self._packs)
        self._packs.clear()
        self._packs_size = 0

    def _write_pack(self, low: int, high: int, lines: Iterator[bytes]) -> None:
        out: list[bytes] = []
        runs: list[_Run] = []
        middle = self._head[0]
        # As bytes throughout, and encoded at once: a million times it counts.
        begins = "\n".join([f'{{"id":{task_id},"task":' for task_id in range(low, high + 1)]).encode().split(b"\n")
        for task_id, begin in enumerate(begins, low):
            head, _, body = next(lines).partition(b"\t")
            if head != self._head_text or not runs:
                self._head_text, self._head = head, self._resolve(head.decode())
                middle, directory, waits = self._head
                runs.append(_Run(task_id, high, directory, waits))
            out.append(begin + body[:-1] + middle + b"}\n" if middle else begin + body + b"\n")
        name = load_name(low, high)
        self._packs.append((f"{self._staging}/{name}.jsonl", b"".join(out)))
        self._packs_size += len(self._packs[-1][1])
        if len(self._packs) >= _PACKS_AT_ONCE or self._packs_size > _IN_MEMORY:
            self._write_packs()
        ends = [following.first - 1 for following in runs[1:]] + [high]
        runs = [run._replace(last=last) for run, last in zip(runs, ends, strict=True)]
        waiting: dict[str, int] = {}
        for run in runs:
            if run.waits:
                waiting[run.directory] = waiting.get(run.directory, 0) + run.last - run.first + 1
        for run in runs:
            bundled = not run.waits or waiting[run.directory] >= _WAITING_RUN
            self._stage(run, name, bundled, out[run.first - low : run.last - low + 1])

    def _resolve(self, text: str) -> tuple[bytes, str, bool]:
        """Turn names into ids and find the place: (the JSON of the requirements, directory, whether it waits)."""
        head = _Head.decode(text)
        requires = head.requires | self._named(head.requires_names)
        after = head.after | self._named(head.after_names)
        middle = requirement_text(head.priority, requires, after).encode()
        inside = [i for i in (requires.highest if requires else -1, after.highest if after else -1) if i >= self._ids[0]]
        if inside:
            hold: int | None = max(inside)  # a task of this very load: open, since nothing of it is published yet
        elif requires or after:
            options = Options(requires=requires, after=after)
            hold = requirements.open_requirement(self._store, self._finals, options)
        else:
            hold = None
        return middle, f"pending/{head.priority}" if hold is None else waiting_dir(hold), hold is not None

    def _named(self, names: Iterable[str]) -> IdSet:
        places = [self._names[name] for name in names]
        return IdSet.of([-place if place < 0 else self._ids[0] + place for place in places])

    def _stage(self, run: _Run, pack: str, bundled: bool, lines: list[bytes]) -> None:
        """Stage a run as a marker when that saves files, else as loose files; many of them in a directory of their own."""
        count = run.last - run.first + 1
        packed = count >= _WAITING_RUN if run.waits else count >= _PENDING_RUN and len(self._ids) > LOOSE_LOAD
        directory = f"publish/{run.directory}"
        if packed:
            content = f"{load_name(self._ids[0], self._ids[-1])}/{pack}.jsonl\n"
            self._file(directory, f"{load_name(run.first, run.last)}.pack", content.encode())
            return
        if bundled:
            # One directory per priority or requirement, moved in one rename.
            directory = f"{directory}/{pack}"
        for task_id, line in enumerate(lines, run.first):
            self._file(directory, TaskName(task_id).file, line)

    def _file(self, directory: str, name: str, content: bytes) -> None:
        path = f"{self._staging}/{directory}"
        if directory not in self._directories:
            self._store.make_directories(path)
            while directory:
                self._directories.add(directory)
                directory = directory.rpartition("/")[0]
        self._write(f"{path}/{name}", content)

    def _write(self, path: str, content: bytes) -> None:
        if not self._store.write(path, content):
            gone = OSError(errno.ENOENT, "the staging directory was removed while it was filled")
            raise StorageError(gone, "write", self._store.path(path))
