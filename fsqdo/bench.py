"""Measure a file system as fsqdo uses it, beside what it does by itself (`floors`), and say in words what that means.

>>> from fsqdo.bench import measure
>>> from fsqdo.figures import words
>>> report = measure("/scratch/me")
>>> for sentence in words(report):
...     print(sentence)

All is made in a hidden scratch directory, in it a queue that is used as any other: through `Queue`. It is removed at the end,
after all measuring: ext4 creates slowly for tens of seconds after many deletions. Each measurement has a share of the
seconds and reports how far it came, so that a slow file system takes no longer than a fast one.
"""

from __future__ import annotations

import os
import platform
import signal
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import NoReturn

from fsqdo import __version__, floors
from fsqdo.errors import FsqdoError, InputError, StorageError
from fsqdo.figures import Figure, Herd, Report, each, herd, rounded
from fsqdo.mounts import type_of
from fsqdo.queue import Queue
from fsqdo.settings import Settings
from fsqdo.store import Store, Tree
from fsqdo.store import create as create_tree
from fsqdo.texts import utc_now

SECONDS = 30.0
WORKERS = (1, 2, 8, 64)
_CREATED = 5000
_SYNCED = 500
_LISTED = 200
_PAIRS = 20_000
_TURNING = 500  # files that are renamed in turn
_LOADED = 100_000
_WORKED = 10_000
_REMOVERS = 8
_WELL = b"+"
_LOOSE = 1000  # a load of up to so many is published loose
# Parts of the time: five measurements of one process, and for each number of workers the renames, the adding and the work.
_ONE = 1.0
_WORK = 3.0
_PARTS = 7 * _ONE + len(WORKERS) * (2 * _ONE + _WORK)

Silent: Callable[[str], None] = lambda text: None  # noqa: E731


def measure(
    directory: str, seconds: float = SECONDS, workers: Sequence[int] = WORKERS, report: Callable[[str], None] = Silent
) -> Report:
    """Measure the file system under a directory.

    Parameters
    ----------
    seconds
        About how long; removing what was made comes on top.
    workers
        Numbers of worker processes; all run on this machine, and are forked from this process.
    report
        Told what is being done.

    Raises
    ------
    InputError
        When there is no time to measure anything.
    FsqdoError, StorageError
        When the directory is not there, or cannot be written to, or becomes full.
    """
    if not 0 < seconds < float("inf") or not workers or min(workers) < 1:
        raise InputError(f"cannot measure for {seconds!r} seconds with {list(workers)!r} workers")
    if not os.path.isdir(directory):
        if os.path.exists(directory):
            raise FsqdoError(f"{directory} is not a directory", "name one on the file system that is to be measured")
        raise FsqdoError(f"there is no directory {directory}", "make it, or name one on the file system that is to be measured")
    directory = os.path.abspath(directory)
    try:
        place = floors.scratch(directory)
    except OSError as error:
        raise StorageError(error, "make a directory in", directory) from None
    try:
        return _Bench(place, seconds / _PARTS, report).run(directory, workers)
    except OSError as error:
        raise StorageError(error, "measure in", error.filename or place) from None
    finally:
        report("removing what was made")
        _remove(place)


class _Bench:
    """The measurements, all in one scratch directory, each with so many seconds to a part."""

    def __init__(self, place: str, part_s: float, report: Callable[[str], None]) -> None:
        self._place = place
        self._part_s = part_s
        self._report = report
        self._queue = _new_queue(f"{place}/worked")

    def run(self, directory: str, workers: Sequence[int]) -> Report:
        """Measure everything, in an order in which nothing slows down what comes after it."""
        began = perf_counter()
        self._report("one process: files, renames, listings")
        created = floors.below(self._place, "created")
        create = each(floors.creates(created, _CREATED, self._until()), _CREATED)
        listed, names = floors.listings(created, _LISTED, self._until())
        synced = floors.synced_creates(floors.below(self._place, "synced"), _SYNCED, self._until())
        self._report("one process: adding tasks")
        add = self._add()
        renames, work = [], []
        for number in workers:
            self._report(f"{number} {'process' if number == 1 else 'processes'}: renames, then tasks")
            renames.append(self._renames(number))
            work.append(self._work(number, renames[-1].per_s))
        self._report("one process: loading, and counting what there is")
        return Report(
            directory=directory,
            file_system=type_of(directory) or "unknown",
            machine=f"{platform.system()} {platform.release()} {platform.machine()}",
            processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            fsqdo=__version__,
            python=platform.python_version(),
            measured_at=utc_now(),
            create=create,
            synced_create=each(synced, _SYNCED),
            list_name=each(listed, 1, names),
            load=self._load(),
            add=add,
            count=self._count(),
            renames=renames,
            work=work,
            seconds=round(perf_counter() - began, 1),
        )

    def _until(self, parts: float = _ONE) -> float:
        return perf_counter() + parts * self._part_s

    # ------------------------------------------------------------ one process
    def _add(self) -> Figure:
        """One task after the other, each synced."""
        self._queue.add("analyze first.dat")  # the imports, and the directories
        until, ended = self._until(), [perf_counter()]
        while len(ended) <= _SYNCED and ended[-1] < until:
            self._queue.add(f"analyze {len(ended)}.dat")
            ended.append(perf_counter())
        return each(ended, _SYNCED)

    def _load(self) -> Figure:
        """Larger and larger loads, packed and synced, of a queue of their own: nobody opens them."""
        queue = _new_queue(f"{self._place}/loaded")
        until, began, done, size = self._until(), perf_counter(), 0, 2 * _LOOSE
        while done < _LOADED and perf_counter() < until:
            size = min(size, _LOADED - done)
            queue.add_multiple(f"analyze --input data/{done + n:09d}.dat" for n in range(size))
            done, size = done + size, 4 * size
        seconds = perf_counter() - began
        return Figure(done, round(seconds, 4), rounded(seconds / done * 1e6), done < _LOADED)

    def _count(self) -> Figure:
        """`status` of the queue that was worked on, whose tasks are all loose."""
        until, ended, tasks = self._until(), [perf_counter()], 0
        while len(ended) <= _LISTED // 20 and ended[-1] < until:
            tasks = sum(self._queue.status()["ntasks"].values())
            ended.append(perf_counter())
        return each(ended, 1, tasks)

    # ------------------------------------------------------------ many processes
    def _renames(self, number: int) -> Herd:
        top = floors.below(self._place, f"renames{number}")
        most, span_s = max(_PAIRS // number, 1), self._part_s

        def prepare(index: int) -> Callable[[], list[float]]:
            pairs = floors.Pairs(floors.below(top, str(index)), max(_TURNING // number, 20))
            return lambda: pairs.run(most, perf_counter() + span_s)

        return herd(together(number, prepare), float("inf"))

    def _work(self, number: int, renames_per_s: float | None) -> Herd:
        """Workers on loose tasks, as many of these as should fill the time."""
        span_s = _WORK * self._part_s
        wanted = int(min(_WORKED, max(2 * number, (renames_per_s or 1.0) * span_s / 3)))
        until, there = self._until(), 0
        while there < wanted and (perf_counter() < until or there < 2 * number):
            there += len(self._queue.add_multiple(range(min(_LOOSE, wanted - there))))

        def prepare(index: int) -> Callable[[], list[float]]:
            queue = Queue(Store(self._queue.directory))  # its own: a store has a token of its process
            return lambda: _claims(queue, span_s)

        return herd(together(number, prepare), there)


def _remove(place: str) -> None:
    """Remove the scratch directory; files by several threads, which wait together where each removal is a round trip."""
    from threading import Thread

    tree = Tree(place)
    files = [os.path.relpath(f"{top}/{name}", place) for top, _, names in os.walk(place) for name in names]

    def remove(some: Sequence[str]) -> None:
        with suppress(StorageError):  # below it is met again
            for path in some:
                tree.unlink(path)

    threads = [Thread(target=remove, args=(files[first::_REMOVERS],)) for first in range(_REMOVERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree.remove_tree("")


def _new_queue(path: str) -> Queue:
    """Its finished shards are left loose: a network file system would see packing only minutes later."""
    return Queue(create_tree(path, Settings().with_changes({"pack": False})))


def _claims(queue: Queue, span_s: float) -> list[float]:
    """Be a worker; the instants at which its function was called. From one to the next: a finish and a claim."""
    called: list[float] = []

    def note(task: object) -> None:
        called.append(perf_counter())

    queue.do(func=note, runtime_s=span_s, grace_s=0.0, report=Silent)
    return called


# ---------------------------------------------------------------- processes
def together(number: int, prepare: Callable[[int], Callable[[], list[float]]]) -> list[list[float]]:
    """Run something in forked processes that begin at the same moment; what each returned.

    Parameters
    ----------
    prepare
        Called in each process with its index; what it returns is called once all are prepared.

    Raises
    ------
    FsqdoError
        When one of them failed.
    """
    gate, opener = os.pipe()
    children: list[tuple[int, int]] = []
    try:
        # An exception from a signal that comes while Python forks would be lost in what Python does around that.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            for index in range(number):
                answers, answer = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.close(opener)
                    _be_child(gate, answer, partial(prepare, index), unblocked)
                os.close(answer)
                children.append((pid, answers))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        prepared = [os.read(answers, 1) == _WELL for _, answers in children]
        os.close(opener)
        opener = -1
        return [_result(answers, well) for (_, answers), well in zip(children, prepared, strict=True)]
    finally:
        for fd in (gate, opener, *(answers for _, answers in children)):
            if fd >= 0:
                os.close(fd)
        for pid, _ in children:
            _end(pid)


def _be_child(gate: int, answer: int, prepare: Callable[[], Callable[[], list[float]]], unblocked: Iterable[int]) -> NoReturn:
    """Nothing of the parent's code may run on here, whatever is raised."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        run = prepare()
        os.write(answer, _WELL)
        os.read(gate, 1)  # until the parent closes it
        data = _WELL + array("d", run()).tobytes()
    except BaseException as error:  # noqa: BLE001
        data = b"-" + f"{type(error).__name__}: {error}".encode(errors="replace")
    with suppress(OSError):  # nobody reads it any more
        while data:
            data = data[os.write(answer, data) :]
    os._exit(0)


def _result(answers: int, prepared: bool) -> list[float]:
    data = b"" if prepared else b"-"
    while piece := os.read(answers, 1 << 16):
        data += piece
    if not data.startswith(_WELL):
        raise FsqdoError(f"a process that measured has ended: {data[1:].decode(errors='replace') or 'killed'}")
    instants = array("d")
    instants.frombytes(data[1:])
    return instants.tolist()


def _end(pid: int) -> None:
    """See a child out: one that has answered is ending; one that has not was overtaken by an error, or by ^C."""
    if os.waitpid(pid, os.WNOHANG)[0] == 0:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
