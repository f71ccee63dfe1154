"""Everything at once, for as long as one likes: `make soak`, or `python -m tests.soak [SECONDS] [--seed N] [--dir DIR]`.

Processes add single tasks and load thousands, with priorities, requirements, retries and functions that fail; others retry,
reprioritize, kill, rerun, pause, resume and promote; workers run it all and are killed with -9, stopped, fenced while they are
stopped, continued, terminated; adders and loaders are killed in the middle, too. Then everything ends, is recovered, and worked
off, and `checker`, which shares no code with fsqdo, reads the tree: every id that was acknowledged is there exactly once, in a
final state, or waits for one that failed or was killed.

Exit code 1 and the tree left behind when something is wrong. This is no test of the suite: it is driven by clocks and chance.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsqdo
from fsqdo.errors import TaskError
from fsqdo.recovery import drain
from tests.checker import Report, read_queue

CHECKOUT = Path(__file__).resolve().parent.parent
SECONDS = 1800
MOST_TASKS = 200_000
TASKS_A_SECOND = 500
WORKERS = 4
SETTINGS = {"max_retries": 1, "retry_delay_s": 0, "max_interruptions": 1000}
DRAIN_S = 3600
SHOWN = 40


# ---------------------------------------------------------------- the task
_starts: dict[str, int] = {}


def work(task: Any) -> Any:
    """What the tasks do: tell that they start, and fail, crash or take their time as they were told."""
    path = f"{os.environ['SOAK_DIR']}/starts/{os.getpid()}"
    if path not in _starts:
        _starts[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(_starts[path], f"{os.environ['FSQDO_TASK_ID']}\n".encode())
    do = task.get("do") if isinstance(task, dict) else None
    if do == "fail":
        raise ValueError("as it was told")
    if do == "fail once" and os.environ["FSQDO_ATTEMPT"] == "1":
        raise ValueError("as it was told, the first time")
    if do == "crash" and os.environ["FSQDO_ATTEMPT"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "wait":
        time.sleep(0.05)
    return task.get("n") if do == "return" else None


def _some_task(rng: random.Random) -> dict[str, Any]:
    kinds = ["", "return", "fail once", "fail", "crash", "wait"]
    return {"do": rng.choices(kinds, (80, 10, 4, 1, 1, 4))[0], "n": rng.randrange(1000)}


# ---------------------------------------------------------------- the actors, each a process of its own
class Ledger:
    """The ids that an actor was given, in a file that outlives its death: one `first last` a line, written after the fact."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._fd = os.open(directory / "acknowledged" / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._rng = rng
        self.known: list[range] = []

    def note(self, ids: range) -> None:
        os.write(self._fd, f"{ids[0]} {ids[-1]}\n".encode())
        self.known.append(ids)

    def some(self) -> range | None:
        """Ids to require: all of an earlier load, or a few of it."""
        if not self.known:
            return None
        ids = self._rng.choice(self.known[-20:])
        first = self._rng.randrange(len(ids))
        return self._rng.choice([ids, ids[first : first + 3]])


def adder(queue: fsqdo.Queue, rng: random.Random, ledger: Ledger) -> None:
    """Add one task."""
    options: dict[str, Any] = {"priority": rng.choice([0, 0, 0, 5, -5, rng.randrange(-9, 9)])}
    if rng.random() < 0.3:
        options[rng.choice(["requires", "after"])] = ledger.some()
    if rng.random() < 0.1:
        options["max_retries"] = rng.randrange(4)
    task_id = queue.add(_some_task(rng), **options)
    ledger.note(range(task_id, task_id + 1))
    time.sleep(0.02)


def loader(queue: fsqdo.Queue, rng: random.Random, ledger: Ledger) -> None:
    """Load some to some thousands, in one of the ways there are."""
    count = rng.choice([3, 30, 300, 1000, 1001, 2500, 5000])
    requires = ledger.some() if rng.random() < 0.3 else None
    tasks: list[Any] = [_some_task(rng) for _ in range(count)]
    if rng.random() < 0.3:  # places that differ from line to line
        tasks = [fsqdo.NewTask(task, priority=rng.randrange(3)) if rng.random() < 0.5 else task for task in tasks]
    ids = queue.add_multiple(tasks, requires=requires, priority=rng.choice([0, 0, 3, -3]))
    ledger.note(range(ids[0], ids[-1] + 1))
    time.sleep(rng.random() * 4 * count / float(os.environ["SOAK_RATE"]))  # there are two loaders


def meddler(queue: fsqdo.Queue, rng: random.Random, ledger: Ledger) -> None:
    """Do to the queue what its users do to it."""
    top = max(2, queue.store.next_id())
    first = rng.randrange(1, top)
    ids = range(first, min(top, first + rng.choice([1, 10, 200])))
    verbs: dict[str, Callable[[], object]] = {
        "retry": queue.retry,
        "retry again": queue.retry,
        "reprioritize": lambda: queue.reprioritize(rng.randrange(-5, 6), id=ids),
        "reprioritize all": lambda: queue.reprioritize(rng.randrange(-5, 6), state="Waiting"),
        "rerun": lambda: queue.rerun(id=ids),
        "rerun killed": lambda: queue.rerun(state="Killed", id=range(first, top)),
        "kill": lambda: queue.kill(id=ids[:10]),
        "kill many": lambda: queue.kill(id=range(first, min(top, first + 3000)), state="Pending"),  # whole packs among them
        "recover": queue.recover,
        "promote": queue.promote,
        "status": queue.status,
        "pause": lambda: _pause(queue, rng),
        "pack": lambda: queue.pack(wait=False),
        "unpack": lambda: queue.unpack(id=ids),
        "tidy": lambda: queue.tidy(wait=False),
    }
    try:
        verbs[rng.choice(list(verbs))]()
    except TaskError as error:
        if "is opening the pack" not in str(error):
            raise
        # The opener is stopped (`stop`): the verb says so, as it should, and has moved all others.
    time.sleep(rng.random())


def _pause(queue: fsqdo.Queue, rng: random.Random) -> None:
    queue.pause()
    time.sleep(rng.random())
    queue.resume()


ACTORS: dict[str, Callable[[fsqdo.Queue, random.Random, Ledger], None]] = {
    "adder-1": adder,
    "adder-2": adder,
    "loader-1": loader,
    "loader-2": loader,
    "meddler": meddler,
}
PRODUCERS = tuple(name for name, turn in ACTORS.items() if turn is not meddler)


def act(name: str, seed: int, directory: Path, until: float) -> None:
    """Take turns until the time is over (or, for those that add, there is enough)."""
    rng = random.Random(seed)
    queue = fsqdo.connect("soak")
    ledger = Ledger(directory, rng)
    enough = int(os.environ["SOAK_TASKS"])
    while time.time() < until:
        if name in PRODUCERS and queue.store.next_id() > enough:
            return
        ACTORS[name](queue, rng, ledger)
    queue.close()


# ---------------------------------------------------------------- the one who starts, kills and stops them
class Soak:
    """The processes, by what they are; each is known by its pid, and ended by it."""

    def __init__(self, directory: Path, seconds: float, seed: int) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.until = time.time() + seconds
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        for name in ("starts", "acknowledged", "logs"):
            (directory / name).mkdir()
        most = min(MOST_TASKS, int(seconds * TASKS_A_SECOND))
        os.environ.update(FSQDO_DIR=str(directory / "queues"), SOAK_DIR=str(directory))
        os.environ.update(SOAK_TASKS=str(most), SOAK_RATE=str(most / seconds))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        self.queue = fsqdo.create("soak", **SETTINGS)
        self._log = (directory / "logs" / "all.log").open("ab")
        self._processes: dict[subprocess.Popen[bytes], str] = {}
        self._asleep: dict[subprocess.Popen[bytes], float] = {}
        self._terminated: set[int] = set()

    # ------------------------------------------------------------ starting
    def _start(self, kind: str, *words: str) -> None:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        self._processes[subprocess.Popen([sys.executable, *words], cwd=CHECKOUT, **streams)] = kind
        self.done[f"{kind.partition('-')[0]}s started"] += 1

    def _start_worker(self, slots: int = 2) -> None:
        words = ["-j", str(slots), "--func", "tests.soak:work", "--bad-node-after", "0"]
        self._start("worker", "-m", "fsqdo", "do", "soak", *words)

    def _start_actor(self, name: str) -> None:
        seed = self.rng.randrange(1 << 30)
        self._start(name, "-m", "tests.soak", "--act", name, "--seed", str(seed), "--dir", str(self.directory), str(self.until))

    def _fill(self) -> None:
        """Start what is missing; note what ended as it should not."""
        for process, kind in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self._processes[process]
            self._asleep.pop(process, None)
            # A worker that is told to end while it still starts knows no better than to die.
            if code not in (0, -signal.SIGKILL) and not (code == -signal.SIGTERM and process.pid in self._terminated):
                self.problems.append(f"{kind} with pid {process.pid} ended with {code}: see {self.directory}/logs/all.log")
        there = Counter(self._processes.values())
        for _ in range(WORKERS - there["worker"]):
            self._start_worker(self.rng.choice([1, 2, 3]))
        enough = self.queue.store.next_id() > int(os.environ["SOAK_TASKS"])
        for name in ACTORS:
            if not there[name] and not (enough and name in PRODUCERS):
                self._start_actor(name)

    # ------------------------------------------------------------ disturbing
    def _some(self, *kinds: str) -> subprocess.Popen[bytes] | None:
        found = [p for p, kind in self._processes.items() if kind in kinds and p not in self._asleep and p.poll() is None]
        return self.rng.choice(found) if found else None

    def _disturb(self) -> None:
        """Do something bad to one of them."""
        what = self.rng.choices(["kill", "stop", "terminate", "kill an actor", "recover", "nothing"], (3, 3, 1, 1, 2, 4))[0]
        process = self._some(*ACTORS) if what == "kill an actor" else self._some("worker")
        if what == "recover":
            self.done["tasks recovered"] += sum(recovery.tasks for recovery in self.queue.recover())
        elif what == "nothing" or process is None:
            return
        elif what == "stop":
            self._stop(process)
        elif what == "terminate":
            self._terminated.add(process.pid)
            process.terminate()
        else:
            process.kill()
        self.done[f"times: {what}"] += 1

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a worker; most of the time others get what it holds before it goes on."""
        process.send_signal(signal.SIGSTOP)
        self._asleep[process] = time.time() + self.rng.random() * 10
        if self.rng.random() < 0.7:
            names = [name for name in os.listdir(f"{self.queue.directory}/running") if name.split("-")[-2] == str(process.pid)]
            self.done["tasks taken from a stopped worker"] += sum(drain(self.queue.store, name) for name in names)

    def _wake(self, all_of_them: bool = False) -> None:
        for process, when in list(self._asleep.items()):
            if all_of_them or time.time() >= when:
                del self._asleep[process]
                process.send_signal(signal.SIGCONT)

    # ------------------------------------------------------------ the course of it
    def run(self) -> None:
        """Disturb until the time is over, then work everything off."""
        next_word = 0.0
        while time.time() < self.until:
            self._fill()
            self._wake()
            self._disturb()
            if time.time() >= next_word:
                next_word = time.time() + 30
                self._say(str(self.queue.status()["ntasks"]))
            time.sleep(self.rng.random() * 0.6)
        self._say("the time is over; working off what is left")
        self._wake(all_of_them=True)
        self.end()
        self.queue.resume()
        self.queue.recover(force=True)
        self._work_off()

    def _work_off(self) -> None:
        deadline = time.time() + DRAIN_S
        for _ in range(WORKERS):
            self._start_worker()
        while self._processes and time.time() < deadline:
            for process, kind in list(self._processes.items()):
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(timeout=1)
                    del self._processes[process]
                    if code:
                        self.problems.append(f"the last {kind}s: pid {process.pid} ended with {code}")
        if self._processes:
            self.problems.append(f"the queue was not drained within {DRAIN_S} s")
        self.end()

    def end(self) -> None:
        """End all processes there are, by pid."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self._processes.clear()
        self._asleep.clear()

    @staticmethod
    def _say(text: str) -> None:
        print(f"soak: {text}", file=sys.stderr, flush=True)

    # ------------------------------------------------------------ the verdict
    def check(self) -> Report:
        """Read the tree, and what the actors and the tasks said; everything wrong goes to `problems`."""
        report = read_queue(self.queue.directory)
        acknowledged = set(_acknowledged(self.directory))
        self.done["ids acknowledged"] = len(acknowledged)
        self.problems += report.problems(acknowledged, healed=True)
        self.problems += _not_at_rest(report)
        self.problems += _without_outcome(report)
        started = {int(line) for path in (self.directory / "starts").iterdir() for line in path.read_text().split()}
        self.problems += [f"task {i} succeeded and was never started" for i in report.ids("succeeded") if i not in started]
        return report


def _acknowledged(directory: Path) -> Iterator[int]:
    for path in (directory / "acknowledged").iterdir():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                first, last = map(int, line.split())
                yield from range(first, last + 1)


def _not_at_rest(report: Report) -> list[str]:
    """Tasks that should have run: pending ones, and such as wait for one that is not itself failed, killed or waiting."""
    found = [f"task {i} is still pending" for i in report.ids("pending")]
    for task_id in report.ids("waiting"):
        for place in report.places[task_id]:
            top, shard, requirement = place.path.split("/")[:3]
            if top != "waiting" or shard == "until":
                found.append(f"task {task_id} still waits at {place.path}")
            elif report.state(int(requirement)) not in ("failed", "killed", "waiting"):
                found.append(f"task {task_id} waits for {int(requirement)}, which is {report.state(int(requirement))}")
    return found


def _without_outcome(report: Report) -> list[str]:
    """Tasks in succeeded/ of which no line in the journal of the worker they name says that they succeeded."""
    said = {(worker, raw.get("name")) for worker, raw in report.outcomes if raw.get("outcome") == "succeeded"}
    found = []
    for task_id in report.ids("succeeded"):
        for place in report.places[task_id]:
            holder = place.path.rpartition("@")[2].removesuffix(".json")
            if (holder, place.key) not in said:
                found.append(f"{place.path} has no outcome in the journal of {holder}")
    return found


def soak(top: Path, seconds: float, seed: int) -> int:
    """Run it; 0 when all is well."""
    top.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir=top)).resolve()
    began = time.monotonic()
    print(f"soak: {seconds:.0f} s in {directory}, seed {seed}", flush=True)
    it = Soak(directory, seconds, seed)
    try:
        it.run()
    finally:
        it.end()
    report = it.check()
    counts = {state: count for state, count in report.counts().items() if count}
    print(f"soak: {sum(counts.values())} tasks in {time.monotonic() - began:.0f} s: {counts}")
    for what, number in sorted(it.done.items()):
        print(f"  {what}: {number}")
    if it.problems:
        print(f"soak: {len(it.problems)} problems; the tree is {it.queue.directory}")
        for problem in it.problems[:SHOWN]:
            print(f"  {problem}")
        return 1
    shutil.rmtree(directory)
    print("soak: no problems")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The program, and (with --act) one of its actors."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Everything at once, and a look at what is left.")
    parser.add_argument(
        "time", nargs="?", type=float, metavar="SECONDS", help=f"how long (default: SOAK_SECONDS, or {SECONDS})"
    )
    parser.add_argument("--seconds", type=float, help="the same")
    parser.add_argument("--seed", type=int, default=None, help="of the chances taken (default: a new one)")
    parser.add_argument("--dir", default=str(CHECKOUT / "build"), help="where (default: build/ of the checkout)")
    parser.add_argument("--act", choices=list(ACTORS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    seconds = options.seconds or options.time or float(os.environ.get("SOAK_SECONDS", SECONDS))
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    if options.act:
        act(options.act, seed, Path(options.dir), until=seconds)
        return 0
    return soak(Path(options.dir), seconds, seed)


if __name__ == "__main__":
    sys.exit(main())
