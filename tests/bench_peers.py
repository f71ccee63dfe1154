"""fsqdo beside what else runs many small tasks, on the same machine, in turn; and what each asks of a metadata server.

`python -m tests.bench_peers` shows the tables; `make benchmarks` writes them into docs/benchmarks.md, with others. It needs the
extra `bench` of setup.py, GNU parallel and strace; what is missing is said in the table. `tests.peer_programs` has the peers.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import CHECKOUT, Bench

HANG_S = 110.0
REST_S = 2.5
RESTED = 500
STRACE = ("strace", "-f", "-y", "-s", "4096", "-e", "trace=%file,fsync,fdatasync,flock,fcntl")
SERVERS_PER_S = (5000, 20_000)
TASK_LENGTHS_S = (1, 10, 60, 600)
WORKERS = 1000
IDLE_S = (6, 26)


class PeerError(Exception):
    """A peer could not do its task; says why in a few words."""


@dataclass(frozen=True)
class Peer:
    """Something that runs tasks.

    Attributes
    ----------
    program
        Of `tests.peer_programs`; else `words` are those of a command that reads a line a task.
    distribution
        Whose version is told.
    counts
        Number of tasks by what is measured: load, noop, command. What is missing the peer cannot do.
    processes
        Workers, by kind; what is missing has two. One process where that has two slots or threads by itself.
    note
        What to know of its figures.
    """

    name: str
    distribution: str
    counts: dict[str, int]
    program: str = ""
    words: tuple[str, ...] = ()
    processes: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def version(self) -> str:
        """Its version; PeerError when it is not installed."""
        if self.words:
            if shutil.which(self.words[0]) is None:
                raise PeerError("not installed")
            said = subprocess.run([self.words[0], "--version"], check=False, capture_output=True, text=True)
            found = re.search(r"[0-9]+(\.[0-9]+)*", said.stdout)
            return found[0] if found else "?"
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            raise PeerError("not installed") from None


PEERS = [
    Peer("fsqdo", "fsqdo", {"load": 100_000, "noop": 10_000, "command": 2000}, "fsqdo", processes={"command": 1}),
    Peer("python-dirq", "dirq", {"load": 10_000, "noop": 10_000, "command": 1000}, "dirq"),
    Peer("huey, SQLite", "huey", {"load": 10_000, "noop": 10_000, "command": 1000}, "huey"),
    Peer(
        "huey, files",
        "huey",
        {"load": 3000, "noop": 1000, "command": 500},
        "huey-file",
        note="each dequeue lists all that is queued, so a task costs the more the longer the queue is",
    ),
    Peer(
        "persist-queue, SQLite",
        "persist-queue",
        {"load": 5000, "noop": 3000, "command": 1000},
        "persist-queue",
        processes={"noop": 1, "command": 1},
        note="two threads of one process",
    ),
    Peer(
        "persist-queue, files",
        "persist-queue",
        {"load": 5000, "noop": 5000, "command": 1000},
        "persist-queue-file",
        processes={"noop": 1, "command": 1},
        note="two threads of one process",
    ),
    Peer("jug", "jug", {"noop": 1000, "command": 500}, "jug", note="no load: each worker reads the script, in its figure"),
    Peer(
        "HyperQueue",
        "hyperqueue",
        {"load": 10_000, "noop": 20, "command": 2000},
        "hyperqueue",
        processes={"noop": 1, "command": 1},
        note="in-process cluster, told of the end once a second; submitting is in its figures; a function is a new Python",
    ),
    Peer("GNU parallel", "parallel", {"command": 500}, words=("parallel", "-j2", "true"), note="its start is in its figure"),
    Peer("xargs", "findutils", {"command": 2000}, words=("xargs", "-P2", "-n1", "true"), note="its start is in its figure"),
]
KINDS = ("load", "noop", "command")


@dataclass
class Section:
    """A part of the page: a table with words around it.

    Attributes
    ----------
    text
        Before the table, in Markdown.
    notes
        A list below it.
    data
        What else to keep as JSON.
    """

    key: str
    title: str
    text: str
    columns: Sequence[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    data: Any = None


# ---------------------------------------------------------------- running a program
def _words(program: str, verb: str, directory: Path, count: int, kind: str) -> list[str]:
    script = "import sys; from tests import peer_programs; peer_programs.main(*sys.argv[1:])"
    return [sys.executable, "-c", script, program, verb, str(directory), str(count), kind]


def _answer(name: str, text: str, code: int, errors: str) -> dict[str, Any]:
    """The last line, which is JSON."""
    try:
        if code == 0:
            found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
            return found
    except (ValueError, IndexError):
        pass
    last = errors.strip().splitlines()[-1:] or [f"exit code {code}"]
    raise PeerError(f"{name} failed: {last[0][:100]}")


def run_program(bench: Bench, words: Sequence[str]) -> dict[str, Any]:
    """Run a program that needs no gate; its answer."""
    try:
        ran = subprocess.run(
            words, check=False, capture_output=True, text=True, input="\n", timeout=HANG_S, env=bench.env, cwd=CHECKOUT
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"not done in {HANG_S:.0f} s") from None
    return _answer("it", ran.stdout, ran.returncode, ran.stderr)


def run_together(bench: Bench, commands: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Run workers that begin together once all are ready; the seconds until the last has ended its work, and tasks done."""
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=bench.env, cwd=CHECKOUT)
        for words in commands
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if "ready\n" not in iter(child.stdout.readline, ""):  # whatever else it prints before
                _, errors = child.communicate(timeout=HANG_S)
                _answer("it", "", 1, errors)
        bench.settle()
        began = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        answers = []
        for child in children:
            text, errors = child.communicate(timeout=HANG_S)
            answers.append(_answer("a worker", text, child.returncode, errors))
        # From the gate to the end of the work, as each worker saw it: ending a process is not in it.
        return max(answer["seconds"] for answer in answers), sum(answer["done"] for answer in answers)
    except subprocess.TimeoutExpired:
        raise PeerError(f"not done in {time.perf_counter() - began:.0f} s") from None
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


# ---------------------------------------------------------------- time
def measure_once(bench: Bench, peer: Peer, what: str, count: int) -> float:
    """Microseconds a task; PeerError when it cannot."""
    peer.version()
    directory = bench.fresh()
    if peer.words:
        lines = directory / "lines"
        lines.write_text("".join(f"{number}\n" for number in range(count)))
        bench.settle()
        with lines.open("rb") as file:
            return bench.run(*peer.words, stdin=file.fileno()).wall / count * 1e6
    kind = "noop" if what == "load" else what
    if what == "load":
        bench.settle()
    if what == "load" or peer.program != "hyperqueue":
        loaded = run_program(bench, _words(peer.program, "load", directory, count, kind))
        if what == "load":
            return float(loaded["seconds"]) / count * 1e6
    words = _words(peer.program, "work", directory, count, kind)
    seconds, done = run_together(bench, [words] * peer.processes.get(what, 2))
    if done != count:
        raise PeerError(f"did {done} of {count} tasks")
    return seconds / count * 1e6


def rest(bench: Bench, fastest_s: float, most_s: float = REST_S) -> float:
    """Wait until files are made as fast as they were, or long enough; the seconds a file that were the fewest so far.

    ext4 makes files slowly for tens of seconds after many were removed, which is how most queues end a task: the next one
    measured would pay for it.
    """
    until = time.monotonic() + most_s
    while True:
        directory = bench.fresh()
        began = time.perf_counter()
        for number in range(RESTED):
            (directory / str(number)).write_bytes(b"x")
        took_s = (time.perf_counter() - began) / RESTED
        fastest_s = min(fastest_s, took_s)
        if took_s <= 2 * fastest_s or time.monotonic() > until:
            return fastest_s
        time.sleep(0.5)


def peers(bench: Bench) -> Iterator[Section]:
    """Loading, functions that do nothing, and commands; in turn, after a warm-up that shows who can."""
    found: dict[tuple[str, str], list[float] | str] = {}
    fastest_s = rest(bench, float("inf"))
    for what in KINDS:
        able = [peer for peer in PEERS if what in peer.counts]
        for turn in range(bench.rounds + 1):
            for peer in able:
                key = (peer.name, what)
                known = found.setdefault(key, [])
                if isinstance(known, str):
                    continue
                if turn and what == "noop":
                    fastest_s = rest(bench, fastest_s)
                try:
                    took = measure_once(bench, peer, what, peer.counts[what] if turn else max(peer.counts[what] // 20, 10))
                except (PeerError, OSError, subprocess.SubprocessError) as error:
                    found[key] = str(error)
                else:
                    if turn:  # else it was the warm-up
                        known.append(took)
    yield Section(
        "peers",
        "Beside others",
        "Microseconds a task: to load (or enqueue) it, to run a function that does nothing, and to run the command `true N`, "
        f"with two workers on the same machine, in turn; the median of {bench.rounds} rounds after a warm-up, in brackets the "
        "least and the most. fsqdo syncs what is loaded before it says so, HyperQueue keeps it in memory. Starting the workers "
        "is not in it, where they can be started before. That of fsqdo is with packing of what has finished. File systems "
        "differ in what they make of many removals: ext4 makes files slowly for a while after them.",
        ["", "version", "load", "function", "command", ""],
        [[peer.name, _version(peer), *(_cell(found.get((peer.name, what))) for what in KINDS), peer.note] for peer in PEERS],
        data={"us_a_task": {f"{name}: {what}": value for (name, what), value in found.items()}},
    )


def _version(peer: Peer) -> str:
    try:
        return peer.version()
    except PeerError as error:
        return str(error)


def _cell(value: list[float] | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{figure(median(value))} ({figure(min(value))}–{figure(max(value))})" if value else "–"


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# ---------------------------------------------------------------- system calls
@dataclass(frozen=True)
class Traced:
    """What is traced: a program at two numbers of tasks, so that the difference is what a task costs."""

    name: str
    program: str
    verb: str
    kind: str
    counts: tuple[int, int]
    note: str = ""


PACKED, LOOSE = "fsqdo: function, packed load, finished shards packed again", "fsqdo: function, loose"
SECOND = "fsqdo: command of a second, loose"
TRACED = [
    Traced("fsqdo: load many", "fsqdo", "load", "noop", (5000, 25_000)),
    Traced("fsqdo: add one", "fsqdo-add", "load", "noop", (20, 120)),
    Traced("fsqdo: function, packed load", "fsqdo-unpacked", "work", "noop", (1000, 4000)),
    Traced(PACKED, "fsqdo", "work", "noop", (1000, 4000), "the default"),
    Traced(LOOSE, "fsqdo-loose", "work", "noop", (300, 900)),
    Traced("fsqdo: command, loose", "fsqdo-loose", "work", "command", (200, 600)),
    Traced(SECOND, "fsqdo-seconds", "work", "command", (4, 16), "with what its worker asks each second"),
    Traced("python-dirq: add", "dirq", "load", "noop", (200, 600)),
    Traced("python-dirq: function", "dirq", "work", "noop", (200, 600)),
    Traced("huey, files: enqueue", "huey-file", "load", "noop", (200, 600)),
    Traced("huey, files: function", "huey-file", "work", "noop", (200, 600), "and a listing of the whole queue in each"),
    Traced("persist-queue, files: put", "persist-queue-file", "load", "noop", (200, 600)),
    Traced("persist-queue, files: function", "persist-queue-file", "work", "noop", (200, 600), "one process at a time"),
    Traced("jug: function", "jug", "work", "noop", (100, 300)),
]
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\(")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OF_FD = re.compile(r"\((?:\d+|AT_FDCWD)<([^>]*)>")
_LOCKS = ("F_SETLK", "F_OFD_SETLK")


def count_calls(lines: Sequence[str], directory: str) -> Counter[str]:
    """The calls of a trace (`strace -f -y`) that are about something below a directory, by name."""
    found: Counter[str] = Counter()
    for line in lines:
        match = _CALL.match(line)
        if match is None:  # the other half of a call, a signal, an exit
            continue
        call = match[1]
        of_fd = _OF_FD.search(line)
        below_fd = of_fd is not None and is_below(of_fd[1], directory)
        if call in ("fsync", "fdatasync", "flock", "fcntl"):
            if below_fd and (call != "fcntl" or any(word in line for word in _LOCKS)):
                found[call] += 1
            continue
        paths = _QUOTED.findall(line)
        # A relative name counts when it is below such a descriptor; an empty one is a question about the open file.
        if any(is_below(path, directory) or (path and not path.startswith("/") and below_fd) for path in paths):
            found[call] += 1
    return found


def is_below(path: str, directory: str) -> bool:
    """Whether a path is that of the directory or below it."""
    return path == directory or path.startswith(directory + "/")


def trace_once(bench: Bench, traced: Traced, count: int, directory: Path) -> Counter[str]:
    """The calls of one process for so many tasks."""
    trace = bench.directory / f"{directory.name}.trace"
    if traced.verb == "work":
        run_program(bench, _words(traced.program, "load", directory, count, traced.kind))
    words = _words(traced.program, traced.verb, directory, count, traced.kind)
    answer = run_program(bench, [*STRACE, "-o", str(trace), *words])
    if traced.verb == "work" and answer["done"] != count:
        raise PeerError(f"did {answer['done']} of {count} tasks")
    with trace.open(errors="replace") as lines:
        return count_calls(list(lines), str(directory))


def calls_a_task(bench: Bench, traced: Traced) -> dict[str, float]:
    """Calls by name that each task more costs."""
    low, high = traced.counts
    few, many = trace_once(bench, traced, low, bench.fresh()), trace_once(bench, traced, high, bench.fresh())
    costs = {name: (many[name] - few[name]) / (high - low) for name in many}
    return {name: round(cost, 4) for name, cost in sorted(costs.items(), key=lambda item: -item[1]) if cost >= 0.0005}


def idle_calls_per_s(bench: Bench) -> float:
    """Calls a second of a worker whose only task runs on: from two of them, of which one sleeps longer."""
    sleeper = Traced("", "fsqdo-sleeper", "work", "noop", IDLE_S)
    places = [bench.fresh() for _ in IDLE_S]
    with ThreadPoolExecutor(2) as pool:  # they only wait
        short, long = pool.map(lambda count, place: trace_once(bench, sleeper, count, place).total(), IDLE_S, places)
    return (long - short) / (IDLE_S[1] - IDLE_S[0])


def system_calls(bench: Bench) -> Iterator[Section]:
    """Metadata calls a task, and what a thousand workers make of them."""
    if shutil.which("strace") is None:
        text = "Not measured: strace is not installed."
        yield Section("calls", "System calls", text, [], [])
        return
    costs: dict[str, dict[str, float] | str] = {}
    for traced in TRACED:
        try:
            costs[traced.name] = calls_a_task(bench, traced)
        except (PeerError, OSError, subprocess.SubprocessError) as error:
            costs[traced.name] = str(error)
    yield Section(
        "calls",
        "System calls a task",
        "What each task more costs in system calls about something below the queue's directory, in one process, as strace "
        "counts them: those with a path (each is a round trip to the metadata server on Lustre, and mostly on NFS), syncs, "
        "and locks. Unlike times they are the same on every machine and file system.",
        ["", "in all", "with a path", "syncs", "locks", "which", ""],
        [_calls_row(traced, costs[traced.name]) for traced in TRACED],
        data={"calls_a_task": costs},
    )
    idle = idle_calls_per_s(bench)
    yield thousand_workers(costs, idle)


def _calls_row(traced: Traced, cost: dict[str, float] | str) -> list[str]:
    if isinstance(cost, str):
        return [traced.name, cost, "", "", "", "", traced.note]
    syncs = sum(cost.get(name, 0.0) for name in ("fsync", "fdatasync"))
    locks = sum(cost.get(name, 0.0) for name in ("flock", "fcntl"))
    total = sum(cost.values())
    which = ", ".join(f"{name} {value:.2g}" for name, value in cost.items() if value >= 0.05)
    return [traced.name, *(f"{value:.3g}" for value in (total, total - syncs - locks, syncs, locks)), which, traced.note]


def thousand_workers(costs: Mapping[str, dict[str, float] | str], idle_per_s: float) -> Section:
    """What a thousand workers ask of a metadata server, computed from the calls of one."""
    totals = {name: sum(cost.values()) for name, cost in costs.items() if isinstance(cost, dict)}
    asked: list[tuple[str, float, float]] = []
    if SECOND in totals:
        each = totals[SECOND] - idle_per_s
        asked.append(("fsqdo, loose tasks", each, idle_per_s))
        if PACKED in totals and LOOSE in totals:
            more = totals[PACKED] - totals[LOOSE]
            asked.append(("fsqdo, a large load, finished shards packed again", each + more, idle_per_s))
    others = [traced.name for traced in TRACED if traced.verb == "work" and not traced.name.startswith("fsqdo")]
    asked += [(f"{name.partition(':')[0]} *", totals[name], 0.0) for name in others if name in totals]
    return Section(
        "server",
        "A thousand workers and a metadata server",
        f"Computed from the calls above: what {WORKERS} workers with one task each at a time ask of the metadata server, for "
        "tasks of these lengths; and how long tasks must be for all of them not to ask more than a server of that rate "
        "answers. For fsqdo a task costs what one of a second costs, which is more than in a row of short ones, since before "
        "each claim a worker looks whether the queue is paused and whether something more urgent has come; and a worker asks "
        f"{idle_per_s:.2g} times a second while its task runs (it lists its own directory).",
        ["calls/s with tasks of", *map("{} s".format, TASK_LENGTHS_S), *map("server of {}/s".format, SERVERS_PER_S)],
        [_server_row(*row) for row in asked],
        ["* what the others ask while a task runs, or while they wait for one, is not in their figures"],
        data={"idle_calls_per_s": round(idle_per_s, 3), "workers": WORKERS},
    )


def _server_row(name: str, each: float, around_per_s: float) -> list[str]:
    loads = [f"{server_load(each, around_per_s, length_s):.0f}" for length_s in TASK_LENGTHS_S]
    return [name, *loads, *(shortest(each, around_per_s, rate) for rate in SERVERS_PER_S)]


def server_load(each: float, around_per_s: float, length_s: float, workers: int = WORKERS) -> float:
    """Calls a second of so many workers, with tasks of this length that cost so many calls."""
    return workers * (each / length_s + around_per_s)


def shortest(each: float, around_per_s: float, rate_per_s: float, workers: int = WORKERS) -> str:
    """The shortest tasks with which so many workers do not ask for more than the rate."""
    left = rate_per_s - workers * around_per_s
    return f"{figure(workers * each / left)} s" if left > 0 else "never"


SECTIONS: dict[str, Callable[[Bench], Iterator[Section]]] = {"peers": peers, "calls": system_calls}


if __name__ == "__main__":
    from tests.benchmarks import main

    sys.exit(main(["--show", *sys.argv[1:]], SECTIONS))
