"""A worker written from docs/format.md alone, without a line of fsqdo: `python -m tests.other_worker QUEUE_DIRECTORY`.

It runs commands, one at a time, until nothing is pending for three seconds. It writes its journal as plain `json.dumps` does.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

IDLE_S = 3.0
TASK = re.compile(r"([0-9]{9,})(?:\.((?:[rfispm][0-9]+)+))?(?:@.*)?\.json")
PACK = re.compile(r"([0-9]{9,})-([0-9]{9,})(\.[a-z0-9]+)?\.pack")
Counters = dict[str, int]


def names(directory: Path) -> list[str]:
    """What is in a directory; one that is missing is empty."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def move(old: Path, new: Path) -> bool:
    """One rename, as the document has it; whether it was done."""
    for _ in range(20):
        try:
            os.rename(old, new)
            return True
        except OSError as error:
            if error.errno not in (2, 17, 39, 116):
                raise
        if new.name in names(new.parent):
            return True
        if not new.parent.is_dir():
            new.parent.mkdir(parents=True, exist_ok=True)
        elif old.name not in names(old.parent):
            return False
        else:
            time.sleep(0.02)
    raise SystemExit(f"cannot move {old}")


def parse(file: str) -> tuple[int, Counters] | None:
    """The id and the counters in the name of a task's file."""
    match = TASK.fullmatch(file)
    if match is None:
        return None
    return int(match[1]), {letter: int(n) for letter, n in re.findall("([rfispm])([0-9]+)", match[2] or "")}


def build(task_id: int, counters: Counters) -> str:
    """A task's name."""
    text = "".join(f"{letter}{counters[letter]}" for letter in "rfispm" if letter in counters)
    return f"{task_id:09d}.{text}" if text else f"{task_id:09d}"


def raised(counters: Counters, letter: str) -> Counters:
    """The same with one counter raised."""
    return {**counters, letter: counters.get(letter, 0) + 1}


def shard(task_id: int) -> str:
    """The directory of its thousand."""
    return f"{task_id // 1000:06d}"


def members(ranges: list[str]) -> set[int]:
    """The ids of `requires` and `after`."""
    ends = [text.split("-") for text in ranges]
    return {i for end in ends for i in range(int(end[0]), int(end[-1]) + 1)}


def now() -> str:
    """The time, as journals have it."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


class Worker:
    """One worker, from its registration to its end."""

    def __init__(self, queue: Path) -> None:
        self.queue = queue
        self.settings = json.loads((queue / "queue.json").read_text())
        if self.settings["format"] > 1:
            raise SystemExit("a newer format")
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.home = queue / "running" / self.name
        me = {"worker": self.name, "host": socket.gethostname(), "pid": os.getpid()}
        staged = queue / "tmp" / self.name
        staged.mkdir()
        (staged / "worker.json").write_text(json.dumps(me) + "\n")
        staged.rename(self.home)
        self.journal = (queue / "outcomes" / f"{self.name}.jsonl").open("a")
        self.write(me)
        (queue / "logs" / self.name).mkdir()
        self.log = (queue / "logs" / self.name / "0.log").open("ab")
        threading.Thread(target=self.beat, daemon=True).start()

    def beat(self) -> None:
        """Set the heartbeat."""
        while True:
            time.sleep(60)
            os.utime(self.home / "worker.json")

    def write(self, line: dict[str, Any]) -> None:
        """A line of the journal."""
        self.journal.write(json.dumps(line) + "\n")
        self.journal.flush()

    def state(self, task_id: int) -> str:
        """In which final state a task is; "" for none."""
        name = f"{task_id:09d}"
        for state in ("succeeded", "failed", "killed"):
            if any(file.startswith(name) and file.endswith(".json") for file in names(self.queue / state / shard(task_id))):
                return state
        for file in names(self.queue / "succeeded"):
            if file.startswith(f"{shard(task_id)}.p") and file.endswith(".jsonl"):
                with (self.queue / "succeeded" / file).open() as lines:
                    if any(json.loads(line)["name"].startswith(name) for line in lines):
                        return "succeeded"
        return ""

    def priority(self, task: dict[str, Any], counters: Counters) -> int:
        """Where it is pending."""
        return counters["p"] if "p" in counters else -counters["m"] if "m" in counters else task.get("priority", 0)

    def promote(self, requirement: int) -> None:
        """Move on what waited for a task that has ended (loose ones: packs are left to the pass of fsqdo's workers)."""
        directory = self.queue / "waiting" / shard(requirement) / f"{requirement:09d}"
        for file in names(directory):
            found = parse(file)
            if found is None:
                continue
            task_id, counters = found
            try:
                task = json.loads((directory / file).read_text())
            except FileNotFoundError:
                continue
            requires, after = members(task.get("requires", [])), members(task.get("after", []))
            hold = None
            for other in sorted((i for i in requires | after if i <= requirement), reverse=True):
                state = self.state(other)
                if state != "succeeded" and not (state and other not in requires):
                    hold = other
                    break
            if hold == requirement:
                continue
            if hold is None:
                place = self.queue / "pending" / str(self.priority(task, counters)) / shard(task_id) / file
            else:
                fresh = build(task_id, raised(counters, "r"))
                place = self.queue / "waiting" / shard(hold) / f"{hold:09d}" / f"{fresh}.json"
            move(directory / file, place)

    def open_pack(self, priority: str, marker: str) -> None:
        """Make loose files of a pack's tasks."""
        match = PACK.fullmatch(marker)
        if match is None:
            return
        opening = self.home / f"{marker.removesuffix('.pack')}@{priority}"
        opening.mkdir()
        if not move(self.queue / "pending" / priority / marker, opening / marker):
            opening.rmdir()
            return
        loaded = self.queue / "loads" / (opening / marker).read_text().strip()
        for line in loaded.read_text().splitlines(keepends=True):
            task_id = json.loads(line)["id"]
            if int(match[1]) <= task_id <= int(match[2]):
                (opening / f"{task_id:09d}{match[3] or ''}.json").write_text(line)
        bundle = self.queue / "pending" / priority / marker.removesuffix(".pack")
        if move(opening, bundle):
            (bundle / marker).unlink()

    def claim(self) -> str | None:
        """Take a task; its name, without .json."""
        top = self.queue / "pending"
        for priority in sorted((n for n in names(top) if re.fullmatch("-?[0-9]+", n)), key=int, reverse=True):
            for bundle in names(top / priority):
                if bundle.endswith(".pack"):
                    self.open_pack(priority, bundle)
                    bundle = bundle.removesuffix(".pack")
                directory = top / priority / bundle
                for path in [directory] if bundle.endswith(".json") else [directory / file for file in names(directory)]:
                    found = parse(path.name)
                    if found is not None:
                        name = build(found[0], raised(found[1], "r") if "@" in path.name else found[1])
                        if move(path, self.home / f"{name}.json"):
                            return name
        return None

    def run(self, name: str) -> None:
        """Run one task, and put it where its outcome belongs."""
        path = self.home / f"{name}.json"
        task = json.loads(path.read_text())
        task_id, counters = parse(path.name) or (0, {})
        first, began, started_at = os.fstat(self.log.fileno()).st_size, time.monotonic(), now()
        self.write({"name": name, "outcome": "started", "to": "", "started_at": started_at, "log": [0, first, -1]})
        variables = {"FSQDO_QUEUE": self.queue.name, "FSQDO_TASK_ID": str(task_id)}
        process = subprocess.run(
            ["/bin/sh", "-c", task["task"]],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=task.get("cwd"),
            env={**os.environ, **variables, **task.get("env", {})},
            start_new_session=True,
        )
        retries = task.get("max_retries", self.settings.get("max_retries", 0))
        failed = build(task_id, raised(counters, "f"))
        if process.returncode == 0:
            outcome, to = "succeeded", f"succeeded/{shard(task_id)}/{name}@{self.name}.json"
        elif counters.get("f", 0) < retries:
            outcome, to = "retry", f"pending/{self.priority(task, counters)}/{shard(task_id)}/{failed}.json"
        else:
            outcome, to = "failed", f"failed/{shard(task_id)}/{failed}@{self.name}.json"
        code = {"exit_code": process.returncode} if process.returncode >= 0 else {"signal": -process.returncode}
        end = os.fstat(self.log.fileno()).st_size
        times = {"started_at": started_at, "ended_at": now(), "elapsed_s": time.monotonic() - began}
        self.write({"outcome": outcome, **times, **code, "slot": 0, "log": [0, first, end], "name": name, "to": to})
        if move(path, self.queue / to) and outcome != "retry":
            self.promote(task_id)

    def leave(self) -> None:
        """Take the own directory away as a recovery would: nobody can give it anything any more."""
        self.journal.close()
        self.log.close()
        last = self.queue / "recovering" / self.name
        self.home.rename(last)
        (last / "worker.json").unlink()
        last.rmdir()


def main(queue: Path) -> None:
    """Work until nothing is pending for a while."""
    worker = Worker(queue)
    ran, idle_since = 0, time.monotonic()
    while time.monotonic() - idle_since < IDLE_S and "PAUSED" not in names(queue):
        name = worker.claim()
        if name is None:
            time.sleep(0.1)
            continue
        worker.run(name)
        ran, idle_since = ran + 1, time.monotonic()
    worker.leave()
    print(ran)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
