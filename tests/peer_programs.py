"""What `tests.bench_peers` runs: for each task queue a loader and a worker, as its own documentation writes them.

`main` has its words from `tests.bench_peers`: NAME load DIRECTORY COUNT KIND adds tasks; NAME work DIRECTORY COUNT KIND opens
what is there, prints `ready`, waits for a line, and works until nothing is left. Both print as JSON what they did, in how many
seconds. COUNT is that of all tasks. KIND is noop (a function that does nothing) or command (`true N`, which each runs as it
can). It is no program itself: tasks name their functions by the module, and count in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

DONE = {"tasks": 0}


def noop(task: object) -> None:
    """The function that does nothing."""
    DONE["tasks"] += 1


def command(task: object) -> None:
    """The function that runs a command, for queues of functions."""
    subprocess.run(["true", str(task)], check=True)
    DONE["tasks"] += 1


KINDS: dict[str, Callable[[object], None]] = {"noop": noop, "command": command}


class Program:
    """A queue in a directory, for tasks of one kind."""

    def __init__(self, directory: str, kind: str, count: int) -> None:
        self.directory = directory
        self.kind = kind
        self.count = count
        self.run = KINDS[kind]
        self.open()

    def open(self) -> None:
        """What is not measured."""

    def load(self, tasks: Iterable[str]) -> None:
        """Add all tasks."""
        raise NotImplementedError

    def work(self) -> None:
        """Run tasks until there are no more."""
        raise NotImplementedError


class Fsqdo(Program):
    """Functions in the worker's process; commands by its slots."""

    settings: ClassVar[dict[str, Any]] = {}

    def open(self) -> None:
        import fsqdo

        os.environ["FSQDO_DIR"] = self.directory
        try:
            self.queue = fsqdo.create("bench", **self.settings)
        except ValueError:  # the worker: it is there
            self.queue = fsqdo.connect("bench")

    def load(self, tasks: Iterable[str]) -> None:
        words = "true {}" if self.kind == "command" else "{}"
        self.queue.add_multiple(map(words.format, tasks))

    def work(self) -> None:
        if self.kind == "noop":
            self.queue.do(func=self.run)
        else:
            DONE["tasks"] = self.queue.do(slots=2).succeeded


class FsqdoUnpacked(Fsqdo):
    """Finished shards are left loose."""

    settings: ClassVar[dict[str, Any]] = {"pack": False}


class FsqdoLoose(FsqdoUnpacked):
    """Tasks that are files from the beginning."""

    def load(self, tasks: Iterable[str]) -> None:
        every = list(tasks)
        for first in range(0, len(every), 1000):
            super().load(every[first : first + 1000])


class FsqdoAdd(FsqdoUnpacked):
    """Tasks added one by one."""

    def load(self, tasks: Iterable[str]) -> None:
        for task in tasks:
            self.queue.add(task)


class FsqdoSleeper(FsqdoUnpacked):
    """One task that sleeps COUNT seconds: what a worker asks meanwhile."""

    def load(self, tasks: Iterable[str]) -> None:
        self.queue.add(f"sleep {self.count}")

    def work(self) -> None:
        DONE["tasks"] = self.queue.do(slots=1).succeeded * self.count


class FsqdoSeconds(FsqdoUnpacked):
    """Tasks of a second each."""

    def load(self, tasks: Iterable[str]) -> None:
        self.queue.add_multiple(["sleep 1"] * self.count)

    def work(self) -> None:
        DONE["tasks"] = self.queue.do(slots=1).succeeded


class Dirq(Program):
    """python-dirq: link to lock, unlink to finish."""

    def open(self) -> None:
        from dirq.QueueSimple import QueueSimple

        self.queue = QueueSimple(self.directory)

    def load(self, tasks: Iterable[str]) -> None:
        for task in tasks:
            self.queue.add(task)

    def work(self) -> None:
        for name in self.queue:
            if self.queue.lock(name):
                self.run(self.queue.get(name))
                self.queue.remove(name)


class Huey(Program):
    """huey: what its consumer's workers do, without their pauses."""

    def make(self) -> Any:
        from huey import SqliteHuey

        return SqliteHuey("bench", filename=f"{self.directory}/huey.db")

    def open(self) -> None:
        self.huey = self.make()
        self.task = self.huey.task()(self.run)

    def load(self, tasks: Iterable[str]) -> None:
        for task in tasks:
            self.task(task)

    def work(self) -> None:
        while (task := self.huey.dequeue()) is not None:
            self.huey.execute(task)


class HueyFile(Huey):
    """Its storage in files."""

    def make(self) -> Any:
        from huey import FileHuey

        return FileHuey("bench", path=self.directory)


class PersistQueue(Program):
    """persist-queue: two threads of one process, since one process at a time may use it."""

    def open(self) -> None:
        from persistqueue import SQLiteAckQueue

        self.queue: Any = SQLiteAckQueue(self.directory, multithreading=True)

    def load(self, tasks: Iterable[str]) -> None:
        for task in tasks:
            self.queue.put(task)

    def finish(self, item: object) -> None:
        """Say that it is done."""
        self.queue.ack(item)

    def work(self) -> None:
        from threading import Thread

        threads = [Thread(target=self.work_alone) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work_alone(self) -> None:
        """One of the two."""
        from persistqueue import Empty

        while True:
            try:
                item = self.queue.get(block=False)
            except Empty:
                return
            self.run(item)
            self.finish(item)


class PersistQueueFile(PersistQueue):
    """Its plain queue of files."""

    def open(self) -> None:
        from persistqueue import Queue

        self.queue = Queue(self.directory, tempdir=self.directory)

    def finish(self, item: object) -> None:
        self.queue.task_done()


class Jug(Program):
    """jug: the tasks are what its script calls; each worker reads that anew."""

    def open(self) -> None:
        import jug.jug  # noqa: F401

        self.script = Path(self.directory, "jugfile.py")

    def load(self, tasks: Iterable[str]) -> None:
        text = f"""
from jug import TaskGenerator
from tests import peer_programs

@TaskGenerator
def run(task):
    peer_programs.{self.kind}(task)

results = [run(str(number)) for number in range({self.count})]
"""
        self.script.write_text(text)

    def work(self) -> None:
        from jug.jug import main

        words = ["jug", "execute", str(self.script), f"--jugdir={self.directory}/data"]
        words += ["--nr-wait-cycles=1", "--wait-cycle-time=0"]
        stdout, sys.stdout = sys.stdout, sys.stderr  # it prints a table
        try:
            main(words)
        except SystemExit as ended:  # its way to return
            if ended.code:
                raise
        finally:
            sys.stdout = stdout


class HyperQueue(Program):
    """HyperQueue: server and worker in this process, which are gone at its end; so `work` does both."""

    def open(self) -> None:
        from hyperqueue import Job, LocalCluster
        from hyperqueue.task.function import PythonEnv

        self.cluster = LocalCluster(self.directory)  # type: ignore[arg-type]  # wants text, whatever it says
        self.client = self.cluster.client(python_env=PythonEnv(python_bin=sys.executable))
        self.job = Job()

    def load(self, tasks: Iterable[str]) -> None:
        for task in tasks:
            if self.kind == "command":
                self.job.program(["true", task], stdout=None, stderr=None)
            else:
                self.job.function(noop, args=(task,), stdout=None, stderr=None)
        self.submitted = self.client.submit(self.job)

    def work(self) -> None:
        from hyperqueue.cluster import WorkerConfig

        self.cluster.start_worker(WorkerConfig(cores=2))
        self.load(map(str, range(self.count)))
        self.client.wait_for_jobs([self.submitted])
        DONE["tasks"] = self.count


PROGRAMS: dict[str, type[Program]] = {
    "fsqdo": Fsqdo,
    "fsqdo-unpacked": FsqdoUnpacked,
    "fsqdo-loose": FsqdoLoose,
    "fsqdo-add": FsqdoAdd,
    "fsqdo-sleeper": FsqdoSleeper,
    "fsqdo-seconds": FsqdoSeconds,
    "dirq": Dirq,
    "huey": Huey,
    "huey-file": HueyFile,
    "persist-queue": PersistQueue,
    "persist-queue-file": PersistQueueFile,
    "jug": Jug,
    "hyperqueue": HyperQueue,
}


def main(name: str, verb: str, directory: str, count: str, kind: str) -> None:
    """Do one of the two, and end this process."""
    program = PROGRAMS[name](directory, kind, int(count))
    if verb == "work":
        print("ready", flush=True)
        sys.stdin.readline()
    began = time.perf_counter()
    program.load(map(str, range(int(count)))) if verb == "load" else program.work()
    print(json.dumps({"seconds": time.perf_counter() - began, "done": DONE["tasks"]}), flush=True)
    os._exit(0)  # some keep threads for ever
