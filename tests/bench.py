"""The speed of fsqdo, each line as a ratio against its floor: what the file system, xargs and Python themselves take.

`make bench`, or `python -m tests.bench [--only NAME]... [--rounds N] [--dir DIR] [--json FILE] [--keep]`.

Times mean little on another machine or a busy one; ratios carry over. So the floor of each line is measured in the same run,
in the same directory, in turn with fsqdo (A B A B ...), each time in a fresh subdirectory and with nothing waiting to be
written (`sync -f`). The ratio shown is the median of the rounds' own ratios, so that a slow minute of the machine hits both
sides; beside it stands the same ratio in CPU time, children included, which a busy machine disturbs less. Nothing is deleted
before the end: ext4 creates slowly for tens of seconds after that. A limit that is missed is said and is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import fsqdo
from fsqdo.claims import Claim, Claimer
from fsqdo.member import Member
from fsqdo.names import PackName
from fsqdo.packs import open_pack
from fsqdo.task import State
from tests import big, herd

CHECKOUT = Path(__file__).resolve().parent.parent
SLOTS = (1, 2, 4)
LONG_SLOTS = 128
LONG_S = 20
FILE_BYTES = 200
LOADED = 100_000
CREATED = 20_000
MANY = 1_000_000
COMMANDS = 3000
LOOSE = 1000
SHELL_COMMANDS = 1500
CALLED = 3000
DRAINED = 20_000
ADDED = 150
CHAINED = 2000
FANNED = 100_000
STARTS = 20


class Cost(NamedTuple):
    """What something took, in seconds: on the clock, and of the processors (user and system, children included)."""

    wall: float
    cpu: float

    def per(self, count: int) -> Cost:
        """The share of one of so many."""
        return Cost(self.wall / count, self.cpu / count)


Side = Callable[[], Cost]


@dataclass
class Line:
    """One line of the table.

    Attributes
    ----------
    floor, ours
        Medians, in `unit`.
    ratio
        Median of the ratios of the rounds; `lowest` and `highest` of them beside it.
    cpu_ratio
        The same of CPU times; None where it says nothing.
    limit
        What it must not exceed (or, with `at_least`, fall below).
    """

    name: str
    what: str
    unit: str
    floor: float
    ours: float
    ratio: float
    lowest: float
    highest: float
    limit: float
    at_least: bool = False
    cpu_ratio: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the limit holds."""
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


class Bench:
    """What all measurements share: the directory, the number of rounds, the environment of child processes.

    Parameters
    ----------
    directory
        Everything is made here.
    rounds
        Of each side.
    """

    def __init__(self, directory: Path, rounds: int) -> None:
        self.directory = directory
        self.rounds = rounds
        # With byte code kept, as it is where fsqdo is installed.
        self.env = {
            key: value for key, value in os.environ.items() if not key.startswith("FSQDO_") and key != "PYTHONDONTWRITEBYTECODE"
        }
        self.env["FSQDO_DIR"] = os.environ["FSQDO_DIR"] = str(directory / "queues")
        (directory / "queues").mkdir(parents=True)
        self.program = _program()
        self._made = 0

    def fresh(self) -> Path:
        """A new directory."""
        self._made += 1
        path = self.directory / f"{self._made:04d}"
        path.mkdir()
        return path

    def queue(self, **settings: Any) -> fsqdo.Queue:
        """A new queue."""
        self._made += 1
        return fsqdo.create(f"bench{self._made:04d}", **settings)

    def settle(self) -> None:
        """Write out what is waiting: the next measurement must not pay for the one before."""
        subprocess.run(["sync", "-f", str(self.directory)], check=False)

    def turns(self, floor: Side, ours: Side, rounds: int | None = None) -> list[tuple[Cost, Cost]]:
        """Measure both sides in turn."""
        found = []
        for _ in range(rounds or self.rounds):
            self.settle()
            a = floor()
            self.settle()
            found.append((a, ours()))
        return found

    def run(self, *words: str, stdin: int | None = None) -> Cost:
        """What a program takes."""
        return self.run_with_peak(*words, stdin=stdin)[0]

    def run_with_peak(self, *words: str, stdin: int | None = None) -> tuple[Cost, int]:
        """What a program takes, and its peak memory in KiB."""
        began = time.perf_counter()
        child = subprocess.Popen(words, env=self.env, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, words)
        return Cost(wall, used.ru_utime + used.ru_stime), used.ru_maxrss


class Clock:
    """Measures a piece of this process, from its making to `cost`."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cost(self) -> Cost:
        """What it took."""
        return Cost(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def _program() -> tuple[str, ...]:
    """The command people type: as installed beside this Python, else from the checkout."""
    installed = Path(sys.executable).parent / "fsqdo"
    return (str(installed),) if installed.exists() else (sys.executable, str(CHECKOUT / "bin" / "fsqdo"))


def _share(name: str, what: str, unit: str, values: list[float], most: float) -> Line:
    """A line of what has no floor but a number it must not exceed."""
    middle, least, highest = median(values), min(values), max(values)
    return Line(name, what, unit, most, middle, middle / most, least / most, highest / most, 1.0)


def _line(name: str, what: str, unit: str, pairs: list[tuple[Cost, Cost]], scale: float, limit: float, **more: Any) -> Line:
    """A line of the table from what each round took; `at_least` compares rates."""
    times = [(a.wall, b.wall) for a, b in pairs]
    cpu = [(a.cpu, b.cpu) for a, b in pairs if a.cpu and b.cpu]
    if more.get("at_least"):
        ratios, cpu_ratios = [a / b for a, b in times], [a / b for a, b in cpu]
    else:
        ratios, cpu_ratios = [b / a for a, b in times], [b / a for a, b in cpu]
    floor, ours = median(a for a, _ in times) * scale, median(b for _, b in times) * scale
    more.setdefault("cpu_ratio", median(cpu_ratios) if cpu_ratios else None)
    return Line(name, what, unit, floor, ours, median(ratios), min(ratios), max(ratios), limit, **more)


# ---------------------------------------------------------------- loading and adding
def _create(bench: Bench) -> Cost:
    """Seconds a file that open, write, close takes."""
    directory, data = str(bench.fresh()), b"x" * FILE_BYTES
    clock = Clock()
    for number in range(CREATED):
        fd = os.open(f"{directory}/{number:09d}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        os.write(fd, data)
        os.close(fd)
    return clock.cost().per(CREATED)


def _commands(path: Path, count: int) -> str:
    with path.open("w") as file:
        file.writelines(f"analyze --input data/{number:09d}.dat --output results/{number:09d}.out\n" for number in range(count))
    return str(path)


def bench_load(bench: Bench) -> Iterator[Line]:
    """`fsqdo load` of 100,000 commands, start-up included, against creating files."""
    source = _commands(bench.directory / "commands.txt", LOADED)
    load = (*bench.program, "load")
    pairs = bench.turns(partial(_create, bench), lambda: bench.run(*load, bench.queue().name, source).per(LOADED))
    what = f"load of {LOADED:,} commands / creating files"
    yield _line("load", what, "us a task", pairs, 1e6, 5.0, at_least=True)


def bench_memory(bench: Bench) -> Iterator[Line]:
    """`fsqdo load` of 1,000,000 commands, synced: its rate, its time, its peak memory, the files it makes."""
    source = _commands(bench.directory / "many.txt", MANY)
    seconds, peaks, files = [], [], []

    def load() -> Cost:
        queue = bench.queue()
        cost, peak_kb = bench.run_with_peak(*bench.program, "load", queue.name, source)
        seconds.append(cost.wall)
        peaks.append(peak_kb / 1024)
        files.append(float(sum(1 + len(names) for _, _, names in os.walk(queue.directory))))
        return cost.per(MANY)

    pairs = bench.turns(partial(_create, bench), load)
    yield _line("load1m", f"load of {MANY:,} commands / creating files", "us a task", pairs, 1e6, 8.0, at_least=True)
    yield _share("load1m-s", f"time of a load of {MANY:,} / 6 s", "s", seconds, 6)
    yield _share("memory", f"peak memory of a load of {MANY:,} / 150 MiB", "MiB", peaks, 150)
    yield _share("inodes", f"inodes after a load of {MANY:,} / 3000", "files", files, 3000)


def _raw_adds(bench: Bench) -> Cost:
    """Seconds a task of create, fsync, rename, fsync of the directory."""
    top, data = str(bench.fresh()), b"x" * FILE_BYTES
    os.mkdir(f"{top}/tmp")
    os.mkdir(f"{top}/pending")
    clock = Clock()
    for number in range(ADDED):
        fd = os.open(f"{top}/tmp/{number:09d}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{top}/tmp/{number:09d}", f"{top}/pending/{number:09d}")
        fd = os.open(f"{top}/pending", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)
    return clock.cost().per(ADDED)


def _adds(bench: Bench) -> Cost:
    queue = bench.queue()
    queue.add("analyze first.dat")  # the imports and the shard
    clock = Clock()
    for number in range(ADDED):
        queue.add(f"analyze {number}.dat")
    return clock.cost().per(ADDED)


def bench_add(bench: Bench) -> Iterator[Line]:
    """`Queue.add` in a loop, synced, against the same done by hand."""
    pairs = bench.turns(partial(_raw_adds, bench), partial(_adds, bench), rounds=max(bench.rounds, 7))
    yield _line("add", "Queue.add / create, fsync, rename, fsync dir", "us a task", pairs, 1e6, 0.6, at_least=True)


# ---------------------------------------------------------------- working
def _xargs(bench: Bench, words: list[str], lines: Path, count: int) -> Cost:
    with lines.open("rb") as file:
        return bench.run("xargs", *words, stdin=file.fileno()).per(count)


def _worker(bench: Bench, commands: Path, slots: int, count: int) -> Cost:
    """Seconds a task of `fsqdo do` on loose tasks; the loading is not in it."""
    queue = bench.queue(pack=False)
    words = commands.read_text().splitlines()
    for first in range(0, len(words), LOOSE):
        queue.add_multiple(words[first : first + LOOSE])
    bench.settle()
    return bench.run(*bench.program, "do", queue.name, "-j", str(slots)).per(count)


def _start_up(bench: Bench) -> float:
    """Seconds of a worker that finds nothing to do."""
    return median(bench.run(*bench.program, "do", bench.queue().name).wall for _ in range(5))


def _work_lines(
    bench: Bench,
    name: str,
    what: str,
    make: Callable[[int], tuple[str, str]],
    count: int,
    xargs: list[str],
) -> Iterator[Line]:
    commands, lines = bench.directory / f"{name}.commands", bench.directory / f"{name}.lines"
    made = [make(number) for number in range(count)]
    commands.write_text("".join(f"{command}\n" for command, _ in made))
    lines.write_text("".join(f"{line}\n" for _, line in made))
    start_s = _start_up(bench)
    for slots in SLOTS:
        floor = partial(_xargs, bench, [f"-P{slots}", *xargs], lines, count)
        pairs = bench.turns(floor, partial(_worker, bench, commands, slots, count))
        without = median((b.wall - start_s / count) / a.wall for a, b in pairs)
        note = f"{without:.2f} without the start of {start_s * 1e3:.0f} ms"
        yield _line(f"{name}-{slots}", f"do -j {slots}, {count} x {what} -P{slots}", "us a task", pairs, 1e6, 1.2, note=note)


def bench_true(bench: Bench) -> Iterator[Line]:
    """A worker that runs programs, against xargs with as many processes."""
    true = shutil.which("true") or "/bin/true"
    words = ["-n1", true]
    yield from _work_lines(bench, "true", f"{true} / xargs -n1", lambda n: (f"{true} {n}", str(n)), COMMANDS, words)


def bench_shell(bench: Bench) -> Iterator[Line]:
    """A worker that runs shell commands, against xargs with a shell each."""
    words = ["-I{}", "sh", "-c", "{}"]
    both = "true {0} && true"
    yield from _work_lines(
        bench, "shell", "sh / xargs -I{} sh -c {}", lambda n: (both.format(n), both.format(n)), SHELL_COMMANDS, words
    )


def _renames(bench: Bench) -> Cost:
    """Seconds a task of two renames in a loop."""
    top = str(bench.fresh())
    names = [f"{number:09d}.json" for number in range(CALLED)]
    for directory in ("pending", "running", "succeeded"):
        os.mkdir(f"{top}/{directory}")
    for name in names:
        fd = os.open(f"{top}/pending/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.write(fd, b"x" * FILE_BYTES)
        os.close(fd)
    bench.settle()
    clock = Clock()
    for name in names:
        os.rename(f"{top}/pending/{name}", f"{top}/running/{name}")
        os.rename(f"{top}/running/{name}", f"{top}/succeeded/{name}")
    return clock.cost().per(CALLED)


def _calls(bench: Bench) -> Cost:
    """Seconds a task of a function that does nothing, in this process; all tasks are loose files, and stay so."""
    queue = bench.queue(pack=False)
    for first in range(0, CALLED, 1000):
        queue.add_multiple(range(first, first + 1000))
    bench.settle()
    clock = Clock()
    summary = queue.do(func=_nothing)
    cost = clock.cost()
    if summary.succeeded != CALLED:
        raise RuntimeError(f"{summary.succeeded} of {CALLED} calls succeeded")
    return cost.per(CALLED)


def _nothing(task: object) -> None:
    """The task of the no-op line."""


def bench_function(bench: Bench) -> Iterator[Line]:
    """No-op function tasks, against two renames a task."""
    pairs = bench.turns(partial(_renames, bench), partial(_calls, bench), rounds=max(bench.rounds, 7))
    yield _line("function", "no-op function task, loose / two os.rename", "us a task", pairs, 1e6, 2.5)


def _opening(bench: Bench) -> Cost:
    """Seconds a task of making a packed load loose, as workers do it."""
    queue = bench.queue()
    queue.add_multiple(f"analyze --input data/{number:09d}.dat" for number in range(CREATED))
    member = Member(queue.store)
    markers = [entry for entry in queue.store.entries(State.PENDING) if isinstance(entry.name, PackName)]
    bench.settle()
    clock = Clock()
    for entry in markers:
        open_pack(queue.store, member.name, entry, 0)
    cost = clock.cost()
    member.leave()
    return cost.per(sum(entry.name.size for entry in markers))


def bench_open(bench: Bench) -> Iterator[Line]:
    """Opening packs, against creating as many files."""
    pairs = bench.turns(partial(_create, bench), partial(_opening, bench))
    yield _line("open", "opening packs / creating files", "us a task", pairs, 1e6, 1.6)


def _drain(bench: Bench, workers: int) -> Cost:
    """Seconds a task of a no-op drain of loose tasks by so many processes, from the first claim to the last."""
    queue = bench.queue(pack=False)
    for first in range(0, DRAINED, LOOSE):
        queue.add_multiple(range(first, first + LOOSE))
    bench.settle()
    done = herd.run(queue, workers)
    return Cost(done.claims[-1][0] - done.claims[0][0], 0.0).per(DRAINED)


def bench_two(bench: Bench) -> Iterator[Line]:
    """Two workers against one."""
    pairs = bench.turns(partial(_drain, bench, 1), partial(_drain, bench, 2), rounds=max(bench.rounds, 7))
    yield _line("two", "no-op drain by two workers / by one", "us a task", pairs, 1e6, 1.7, at_least=True, cpu_ratio=None)


# ---------------------------------------------------------------- requirements
def _drained(bench: Bench, queue: fsqdo.Queue, tasks: int) -> Cost:
    """What a worker in this process takes for tasks that do nothing."""
    bench.settle()
    clock = Clock()
    summary = queue.do(func=_nothing)
    cost = clock.cost()
    if summary.succeeded != tasks:
        raise RuntimeError(f"{summary.succeeded} of {tasks} tasks succeeded")
    return cost


def _independent(bench: Bench) -> Cost:
    queue = bench.queue(pack=False)
    for first in range(0, CHAINED, LOOSE):
        queue.add_multiple(range(first, min(first + LOOSE, CHAINED)))
    return _drained(bench, queue, CHAINED).per(CHAINED)


def _chain(bench: Bench, links: list[float]) -> Cost:
    """From the end of a task to the claim of the one that requires it, by the worker that ran it; a whole link in `links`."""
    queue = bench.queue(pack=False)
    rows = ({"task": n, "name": f"n{n}", "requires": [f"n{n - 1}"][: min(n, 1)]} for n in range(CHAINED))
    queue.loadfile(BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows)), json=True)
    clocks: list[Clock] = []
    gaps: list[Cost] = []
    claim = Claimer.claim

    def noting(claimer: Claimer, *given: Any) -> Claim | None:
        found = claim(claimer, *given)
        if found is not None and clocks:
            gaps.append(clocks.pop().cost())
        return found

    bench.settle()
    whole = Clock()
    with mock.patch.object(Claimer, "claim", noting):
        summary = queue.do(func=lambda task: clocks.append(Clock()))
    links.append(whole.cost().wall / CHAINED)
    if (summary.succeeded, len(gaps)) != (CHAINED, CHAINED - 1):
        raise RuntimeError(f"{summary.succeeded} of {CHAINED} tasks succeeded, {len(gaps)} were claimed after another one")
    return Cost(sum(gap.wall for gap in gaps), sum(gap.cpu for gap in gaps)).per(len(gaps))


def bench_chain(bench: Bench) -> Iterator[Line]:
    """Tasks of which each requires the one before it: from an end to a claim, against all that an independent task takes."""
    links: list[float] = []
    pairs = bench.turns(partial(_independent, bench), lambda: _chain(bench, links), rounds=max(bench.rounds, 7))
    what = f"chain of {CHAINED:,}, a task's end to the next claim / independent loose task"
    yield _line("chain", what, "us a task", pairs, 1e6, 5.0, note=f"a link takes {median(links) * 1e6:.0f} us in all")


def _raw_renames(bench: Bench) -> Cost:
    """Seconds of a rename in a loop, of files in directories of a thousand."""
    top, data = str(bench.fresh()), b"x" * FILE_BYTES
    for shard in range(0, FANNED, LOOSE):
        os.makedirs(f"{top}/a/{shard}")
        os.makedirs(f"{top}/b/{shard}")
        for number in range(shard, min(shard + LOOSE, FANNED)):
            fd = os.open(f"{top}/a/{shard}/{number:09d}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.write(fd, data)
            os.close(fd)
    bench.settle()
    names = [f"{number // LOOSE * LOOSE}/{number:09d}" for number in range(FANNED)]
    clock = Clock()
    for name in names:
        os.rename(f"{top}/a/{name}", f"{top}/b/{name}")
    return clock.cost().per(FANNED)


def _fan_in(bench: Bench, required: bool) -> Cost:
    """What the tasks take, without opening packs and packing: loose from the beginning and to the end."""
    queue = bench.queue(pack=False)
    for first in range(0, FANNED, LOOSE):
        queue.add_multiple(range(first, first + LOOSE))
    if required:
        queue.add("all", requires=range(1, FANNED + 1))
    return _drained(bench, queue, FANNED + required).per(FANNED)


def bench_fanin(bench: Bench) -> Iterator[Line]:
    """What it costs tasks that one requires them all: against the same tasks without it, counted in renames."""
    found = []
    for _ in range(max(1, bench.rounds // 3)):
        bench.settle()
        rename = _raw_renames(bench)
        without, required = _fan_in(bench, False), _fan_in(bench, True)
        more = Cost(max(0.0, required.wall - without.wall), max(0.0, required.cpu - without.cpu))
        found.append((rename, more, without))
    what = f"one requires {FANNED:,}: cost for each of them / rename"
    plain = median(cost.wall for _, _, cost in found) * 1e6
    note = f"a task takes {plain:.0f} us without it"
    yield _line("fanin", what, "us a task", [(a, b) for a, b, _ in found], 1e6, 3.0, note=note)


# ---------------------------------------------------------------- starting
def bench_startup(bench: Bench) -> Iterator[Line]:
    """CPU time of short commands, against an empty Python."""
    queue = bench.queue().name
    for name, words in (("help", ("--help",)), ("status", ("status", queue))):
        bench.run(*bench.program, *words)  # the byte code is written
        pairs = []
        for _ in range(STARTS):
            floor = bench.run(sys.executable, "-c", "pass").cpu
            ours = bench.run(*bench.program, *words).cpu
            pairs.append((Cost(floor, floor), Cost(ours, ours)))
        least = min(b.cpu for _, b in pairs) / min(a.cpu for a, _ in pairs)
        what = f"CPU of fsqdo {name if name == 'status' else '--help'} / python -c pass"
        yield _line(name, what, "ms", pairs, 1e3, 5.0, note=f"{least:.2f} by the least of {STARTS}")


def bench_worker(bench: Bench) -> Iterator[Line]:
    """What a worker costs beside its tasks: until it claims the first, and while many long ones run."""
    costs = []
    for _ in range(STARTS):
        queue = bench.queue()
        queue.add("true")
        costs.append(bench.run(*bench.program, "do", queue.name).cpu)
    what = "CPU of a worker with one task / 250 ms"
    yield _share("first", what, "ms", [cost * 1e3 for cost in costs], 250)
    queue = bench.queue()
    queue.add_multiple([f"exec sleep {LONG_S}"] * LONG_SLOTS)
    child = subprocess.Popen(
        [*bench.program, "do", queue.name, "-j", str(LONG_SLOTS)], env=bench.env, stderr=subprocess.DEVNULL
    )
    try:
        while queue.status()["ntasks"]["Running"] < LONG_SLOTS:
            time.sleep(0.1)
        time.sleep(1)
        began, used = time.monotonic(), _cpu_s(child.pid)
        time.sleep(LONG_S / 2)
        share = (_cpu_s(child.pid) - used) / (time.monotonic() - began)
        rss_mib = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        child.terminate()
        child.wait()
    what = f"memory of a worker with {LONG_SLOTS} busy slots / 40 MiB"
    yield _share("slots-mem", what, "MiB", [rss_mib], 40)
    what = f"CPU of a worker with {LONG_SLOTS} busy slots / 3 % of a core"
    yield _share("slots-cpu", what, "%", [share * 100], 3)


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, without its children (proc(5))."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- large queues
def _listings(directories: list[str]) -> Cost:
    """What one and a half plain listings of these take."""
    clock = Clock()
    for directory in directories:
        os.listdir(directory)
    cost = clock.cost()
    return Cost(1.5 * cost.wall, 1.5 * cost.cpu)


def _poll(queue: fsqdo.Queue) -> Cost:
    """What a status takes in a process that asks for it again and again."""
    clock = Clock()
    queue.status()
    return clock.cost()


def bench_status1m(bench: Bench) -> Iterator[Line]:
    """`fsqdo status` of 1,000,000 tasks, as a process, against that of an empty queue; and polled, against what is loose."""
    empty, words = bench.queue().name, (*bench.program, "status")
    for mix in (big.pending, big.half, big.done):
        queue = mix(f"status-{mix.__name__}", MANY)
        pairs = bench.turns(partial(bench.run, *words, empty), partial(bench.run, *words, queue.name), rounds=9)
        yield _line(f"1m-{mix.__name__}", f"status of 1M, {mix.__name__} / of an empty queue", "ms", pairs, 1e3, 3.0)
    queue = fsqdo.connect(f"status-{big.half.__name__}")
    directories = big.loose_directories(queue)
    pairs = bench.turns(partial(_listings, directories), partial(_poll, queue), rounds=9)
    note = f"{len(directories)} directories"
    yield _line("1m-list", "polling a status of 1M, half / 1.5 listings", "ms", pairs, 1e3, 1.0, note=note)


def bench_list1000(bench: Bench) -> Iterator[Line]:
    """`fsqdo list` over 1000 queues of 1000 tasks: under a second."""
    first = bench.queue()
    first.add_multiple(big.commands(1000))
    root = bench.directory / "thousand"
    for number in range(1000):
        shutil.copytree(first.directory, root / f"q{number:04d}")
    before, bench.env["FSQDO_DIR"] = bench.env["FSQDO_DIR"], str(root)
    costs = [bench.run(*bench.program, "list") for _ in range(max(5, bench.rounds))]
    bench.env["FSQDO_DIR"] = before
    pairs = [(Cost(1.0, 1.0), cost) for cost in costs]
    yield _line("list1000", "list of 1000 queues of 1000 tasks / 1 s", "ms", pairs, 1e3, 1.0)


BENCHES = {
    "load": bench_load,
    "memory": bench_memory,
    "true": bench_true,
    "shell": bench_shell,
    "function": bench_function,
    "open": bench_open,
    "two": bench_two,
    "add": bench_add,
    "chain": bench_chain,
    "fanin": bench_fanin,
    "startup": bench_startup,
    "worker": bench_worker,
    "status1m": bench_status1m,
    "list1000": bench_list1000,
}


# ---------------------------------------------------------------- the table
COLUMNS = "{:<9}  {:<46}  {:>9}  {:>9}  {:<9}  {:>6}  {:>13}  {:>5}  {:>6}  {:<4}  {}"


def show(line: Line) -> str:
    """One row."""
    limit = f"{'>=' if line.at_least else '<='} {line.limit:g}"
    spread = f"{line.lowest:.2f} - {line.highest:.2f}"
    cells = (line.name, line.what, f"{line.floor:.1f}", f"{line.ours:.1f}", line.unit, f"{line.ratio:.2f}", spread)
    cpu = "" if line.cpu_ratio is None else f"{line.cpu_ratio:.2f}"
    return COLUMNS.format(*cells, cpu, limit, "ok" if line.ok else "OVER", line.note).rstrip()


def about(directory: Path) -> dict[str, Any]:
    """Where the figures come from."""
    df = subprocess.run(["df", "--output=fstype", str(directory)], check=False, capture_output=True, text=True)
    kind = df.stdout.rpartition("Type")[2].strip()
    return {
        "fsqdo": fsqdo.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "file_system": kind or "unknown",
        "load_average": round(os.getloadavg()[0], 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit code is 0 whatever the figures are."""
    options = _parser().parse_args(arguments)
    top = Path(options.dir)
    top.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=top))
    lines: list[Line] = []
    began = time.monotonic()
    try:
        bench = Bench(directory, options.rounds)
        machine = about(directory)
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        print(
            COLUMNS.format("name", "what", "floor", "fsqdo", "unit", "ratio", "of the rounds", "CPU", "limit", "", "").rstrip(),
            flush=True,
        )
        for name in options.only or BENCHES:
            for line in BENCHES[name](bench):
                lines.append(line)
                print(show(line), flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    over = [line.name for line in lines if not line.ok]
    seconds = time.monotonic() - began
    print(
        f"{len(lines)} lines in {seconds:.0f} s, "
        + (f"over the limit: {', '.join(over)}" if over else "all within their limits")
    )
    if options.json:
        rows = [{**asdict(line), "ok": line.ok} for line in lines]
        Path(options.json).write_text(json.dumps({"machine": machine, "lines": rows}, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The speed of fsqdo against its floors.")
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="measure this alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="of each side (default: 5)")
    parser.add_argument("--dir", default=str(CHECKOUT / "build"), help="where (default: build/ of the checkout)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--keep", action="store_true", help="leave what was made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
