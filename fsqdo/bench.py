"""Measure a file system as fsqdo uses it, beside what it does by itself (`floors`), and say in words what that means.

>>> from fsqdo.bench import measure, words
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
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from math import floor, log10
from time import perf_counter
from typing import Any, NoReturn

from fsqdo import __version__, floors
from fsqdo.errors import FsqdoError, InputError, StorageError
from fsqdo.mounts import type_of
from fsqdo.queue import Queue
from fsqdo.settings import Settings
from fsqdo.store import Store, Tree
from fsqdo.store import create as create_tree
from fsqdo.task import utc_now

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


@dataclass(frozen=True)
class Figure:
    """What operations took that one process did one after the other.

    Attributes
    ----------
    count, seconds
        How many were done, and in which time.
    each_us
        The mean, in microseconds: of what was done one by one, the median.
    cut_short
        The time was over before all were done.
    """

    count: int
    seconds: float
    each_us: float
    cut_short: bool = False


@dataclass(frozen=True)
class Herd:
    """What processes did at once: each again and again the same operation.

    Attributes
    ----------
    count, per_s
        Operations in all, and their rate; None where too few were done to tell.
    median_us, p90_us, p99_us, longest_us
        What one of them took its process, in microseconds.
    """

    processes: int
    count: int
    per_s: float | None
    median_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    longest_us: float | None = None
    cut_short: bool = False


@dataclass(frozen=True)
class Report:
    """All that was measured.

    Attributes
    ----------
    create, synced_create, list_name
        The file system: a file of 200 bytes; the same synced, renamed, and its directory synced; a name in a listing.
    load, add, count
        fsqdo: a task of a large load; a task added by itself; a loose task in `status`.
    renames, work
        By number of processes: pairs of renames; tasks claimed and finished by workers whose function does nothing.
    """

    directory: str
    file_system: str
    machine: str
    processors: int
    fsqdo: str
    python: str
    measured_at: str
    create: Figure
    synced_create: Figure
    list_name: Figure
    load: Figure
    add: Figure
    count: Figure
    renames: list[Herd] = field(default_factory=list)
    work: list[Herd] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain objects, with the words."""
        return {**asdict(self), "words": words(self)}


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
        create = _each(floors.creates(created, _CREATED, self._until()), _CREATED)
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
            synced_create=_each(synced, _SYNCED),
            list_name=_each(listed, 1, names),
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
        return _each(ended, _SYNCED)

    def _load(self) -> Figure:
        """Larger and larger loads, packed and synced, of a queue of their own: nobody opens them."""
        queue = _new_queue(f"{self._place}/loaded")
        until, began, done, size = self._until(), perf_counter(), 0, 2 * _LOOSE
        while done < _LOADED and perf_counter() < until:
            size = min(size, _LOADED - done)
            queue.add_multiple(f"analyze --input data/{done + n:09d}.dat" for n in range(size))
            done, size = done + size, 4 * size
        seconds = perf_counter() - began
        return Figure(done, round(seconds, 4), _rounded(seconds / done * 1e6), done < _LOADED)

    def _count(self) -> Figure:
        """`status` of the queue that was worked on, whose tasks are all loose."""
        until, ended, tasks = self._until(), [perf_counter()], 0
        while len(ended) <= _LISTED // 20 and ended[-1] < until:
            tasks = sum(self._queue.status()["ntasks"].values())
            ended.append(perf_counter())
        return _each(ended, 1, tasks)

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


# ---------------------------------------------------------------- figures (pure from here on)
def _each(ended: Sequence[float], wanted: int, parts: int = 1) -> Figure:
    """The figure of what was done one by one, each in so many parts; `ended` begins with the start."""
    took = sorted(b - a for a, b in pairwise(ended))
    seconds = ended[-1] - ended[0]
    return Figure(len(took) * parts, round(seconds, 4), _rounded(_part(took, 0.5) / max(parts, 1) * 1e6), len(took) < wanted)


def herd(instants: Sequence[Sequence[float]], wanted: float) -> Herd:
    """The figures of processes from the instants at which each of them ended (or began) an operation.

    The rate is that from the first instant to the last of them all, whoever came late; what a process did before its first is
    in no figure.
    """
    count = sum(map(len, instants))
    cut_short = count < wanted < float("inf")
    ends = [each for each in instants if each]
    span_s = max((each[-1] for each in ends), default=0.0) - min((each[0] for each in ends), default=0.0)
    took = sorted(b - a for each in ends for a, b in pairwise(each))
    if not took or span_s <= 0:
        return Herd(len(instants), count, None, cut_short=cut_short)
    usual, p90, p99, longest = (_rounded(_part(took, part) * 1e6) for part in (0.5, 0.9, 0.99, 1.0))
    return Herd(len(instants), count, _rounded((count - 1) / span_s), usual, p90, p99, longest, cut_short)


def _part(values: Sequence[float], part: float) -> float:
    """A quantile of sorted values."""
    return values[min(int(len(values) * part), len(values) - 1)] if values else 0.0


def _rounded(value: float) -> float:
    """Four digits say all that is known."""
    return float(f"{value:.4g}")


# ---------------------------------------------------------------- words
def words(report: Report) -> list[str]:
    """What the figures mean for those who want to use queues here, a sentence each."""
    said = [_many(herd) for herd in report.work[-1:]]
    said += _fewer_are_better(report.work)
    said += _who_limits(report)
    for alone in (herd for herd in report.work if herd.processes == 1 and herd.median_us and herd.p99_us):
        usual, rare = span(alone.median_us or 0), span(alone.p99_us or 0)
        said.append(f"one worker alone spends {usual} on a task beside running it; one time in 100 more than {rare}")
    said.append(
        f"a million tasks are loaded in about {span(report.load.each_us * 1e6)}; "
        f"added one by one, each takes {span(report.add.each_us)}"
    )
    said.append(f"`fsqdo status` of a queue with 100000 tasks that are files takes about {span(report.count.each_us * 1e5)}")
    cut = [name for name in ("create", "synced_create", "load", "add") if getattr(report, name).cut_short]
    cut += [f"work by {herd.processes}" for herd in report.work if herd.cut_short]
    if cut:
        said.append(f"this file system is slow, or busy: not all was done in the time there was ({', '.join(cut)})")
    return said


def _many(most: Herd) -> str:
    who = "one worker" if most.processes == 1 else f"{most.processes} workers"
    if not most.per_s:
        return f"{who} finished {most.count} tasks in the time there was: too few to tell a rate"
    shortest_s = rounded_up(most.processes / most.per_s)
    return f"about {about(most.per_s)} tasks/s with {who}: fine for tasks longer than {span(shortest_s * 1e6)}"


def _fewer_are_better(work: Sequence[Herd]) -> list[str]:
    """Where many workers do less than fewer of them."""
    best = max(work, key=lambda herd: herd.per_s or 0.0)
    last = work[-1].per_s
    if not last or not best.per_s or best.per_s < 1.3 * last:
        return []
    return [f"{best.processes} at once do most here, about {about(best.per_s)} tasks/s"]


def _who_limits(report: Report) -> list[str]:
    """Whether workers on other machines would come on top."""
    if not report.work or not report.renames or report.work[-1].processes <= report.processors:
        return []
    able, done = report.renames[-1].per_s, report.work[-1].per_s
    if not able or not done:
        return []
    number = f"{report.processors} processors" if report.processors > 1 else "one processor"
    where = f"the {number} of this machine"
    if able > 2 * done:
        were = "were" if report.processors > 1 else "was"
        return [f"{where} {were} the limit: the file system renames for {about(able)} tasks/s, so other machines add to that"]
    return [f"the file system was the limit: it renames for {about(able)} tasks/s at most, however many machines work"]


def about(value: float) -> str:
    """A number as one says it: 912.3 -> 900, 1234 -> 1200, 12345 -> 12000."""
    if value <= 0:
        return "0"
    unit = 10 ** floor(log10(value))
    digits = 0 if value / unit >= 5 else 1
    return f"{round(value / unit, digits) * unit:.12g}"


def rounded_up(value: float) -> float:
    """The next of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is not less."""
    unit = 10.0 ** floor(log10(value))
    return next(float(f"{step * unit:.3g}") for step in (1, 2, 5, 10) if step * unit >= value * 0.9999)


def span(microseconds: float) -> str:
    """A span of time as one says it: `80 us`, `2.5 ms`, `0.1 s`, `3 min`."""
    if microseconds >= 120e6:
        return f"{about(microseconds / 60e6)} min"
    for least, unit, name in ((0.05e6, 1e6, "s"), (1e3, 1e3, "ms"), (0.0, 1.0, "us")):
        if microseconds >= least:
            return f"{about(microseconds / unit)} {name}"
    return "0 us"
