"""What the tests ask of a queue that is worked on by batch jobs, and the scripts of those jobs."""

from __future__ import annotations

import os
import shlex
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fsqdo
from fsqdo.launch import fsqdo_command
from fsqdo.liveness import process_start
from fsqdo.names import TaskName
from tests.checker import read_queue
from tests.cluster.daemons import wait_until


class Work:
    """A queue whose tasks leave a trace of each of their starts and ends in a directory.

    Attributes
    ----------
    queue
        The queue. Its tasks run in `directory`.
    """

    def __init__(self, directory: Path, name: str = "work") -> None:
        self.directory = directory / "traces"
        self.directory.mkdir()
        self.queue = fsqdo.create(name)

    def add(self, count: int, command: str) -> list[int]:
        """Add tasks that run a command between two traces: their process ids when they start, a line when they end."""
        text = f"echo $$ >> started.$FSQDO_TASK_ID; {command}; echo >> ended.$FSQDO_TASK_ID"
        return self.queue.add_multiple([text] * count, cwd=self.directory)

    def script(self, *options: str, before: str = "exec") -> Path:
        """A batch script whose last line becomes a worker of the queue; `before` comes before its command."""
        path = self.directory.parent / "job.sh"
        worker = shlex.join([*fsqdo_command(), "do", self.queue.name, *options])
        path.write_text(f"#!/bin/sh\nexport FSQDO_DIR={shlex.quote(os.environ['FSQDO_DIR'])}\n{before} {worker}\n")
        return path

    def end_what_is_left(self) -> None:
        """Kill the tasks that a failed test left running."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------ what happened
    def pids(self) -> list[int]:
        """Every process in which a task was started."""
        return [int(text) for path in self.directory.glob("started.*") for text in path.read_text().split()]

    def alive(self) -> list[int]:
        """Those of them that still run, zombies not counted."""
        return [pid for pid in self.pids() if process_start(pid) is not None]

    def counts(self) -> dict[str, int]:
        """Number of tasks in each state that has any."""
        found: dict[str, int] = self.queue.status()["ntasks"]
        return {state: count for state, count in found.items() if count}

    def wait_for(self, what: str, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Wait until something holds; an error tells the state of the queue."""
        try:
            wait_until(what, condition, within_s)
        except Exception as error:
            logs = [path.read_text("utf-8", "replace") for path in self.directory.parent.glob("*.out")]
            raise AssertionError(f"{error}; {self.counts()}; the jobs wrote: {logs}") from None

    def wait_for_running(self, count: int) -> None:
        """Wait until that many tasks have left the trace of their start and run."""
        self.wait_for(f"{count} tasks run", lambda: len(self.alive()) >= count)

    def wait_for_end(self, within_s: float = 60.0) -> None:
        """Wait until everything has an end."""
        self.wait_for("all tasks have ended", lambda: set(self.counts()) <= {"Succeeded", "Failed", "Killed"}, within_s)

    def wait_for_no_workers(self) -> None:
        """Wait until all workers have left, and the dead ones are recovered."""
        self.wait_for("the workers have left", lambda: not any(map(self.queue.store.ls, ("running", "recovering"))))

    def interruptions(self) -> dict[int, int]:
        """How often each task was interrupted, where it was."""
        counters = {task.id: task.entry.name for task in self.queue.tasks()}
        names = {task_id: name for task_id, name in counters.items() if isinstance(name, TaskName)}
        return {task_id: name.i + name.s for task_id, name in names.items() if name.i + name.s}

    def assert_all_succeeded_once(self, count: int) -> None:
        """Once the workers have left: every task has succeeded, in one place, with one outcome, and nothing of it is left."""
        self.wait_for_no_workers()
        report = read_queue(self.queue.directory)
        assert report.problems(healed=True) == []
        assert {state: n for state, n in report.counts().items() if n} == {"succeeded": count}
        succeeded = Counter(line["name"].partition(".")[0] for _, line in report.outcomes if line["outcome"] == "succeeded")
        assert dict(succeeded) == {f"{task_id:09d}": 1 for task_id in range(1, count + 1)}
        assert self.alive() == []
