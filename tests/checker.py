"""A second reader of a queue's tree, which shares no code with fsqdo: it knows the format from its description alone.

`read_queue(directory)` walks the whole tree and says under which names each task counts, what is torn, and what it does not
know. The fault suite, the races and the stress tests judge by it, so that a mistake in fsqdo's own reader cannot hide one in
its moves. It looks at a tree at rest; of a tree in motion it may say that a task is nowhere or twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COUNTERS = r"(?P<counters>\.(?:[rfispm]\d+)+)?"
TASK = re.compile(r"(?P<id>\d{9,})" + COUNTERS + r"(?:@(?P<worker>[A-Za-z0-9_.-]+))?\.json", re.ASCII)
PACK = re.compile(r"(?P<first>\d{9,})-(?P<last>\d{9,})" + COUNTERS + r"\.pack", re.ASCII)
BUNDLE = re.compile(r"(?P<first>\d{9,})-(?P<last>\d{9,})" + COUNTERS, re.ASCII)
OPENING = re.compile(r"(?P<pack>.+)@(?P<priority>-?\d+)(?:w(?P<requirement>\d+)|(?P<killed>k))?(?P<drop>\.drop)?", re.ASCII)
SHARD = re.compile(r"\d{6,}", re.ASCII)
PACKED = re.compile(r"(?P<shard>\d{6,})\.p\d+\.n(?P<count>\d+)\.jsonl", re.ASCII)
PACKING = re.compile(r"(?P<shard>\d{6,})\.p\d+(?:\.all\.(?P<token>[A-Za-z0-9]+))?", re.ASCII)
UNPACKING = re.compile(r"\d{6,}\.p\d+\.n\d+\.unpack(?:\.drop)?", re.ASCII)
WORKER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
TOP = frozenset(
    [
        "queue.json",
        "next-id",
        "loads",
        "waiting",
        "pending",
        "running",
        "recovering",
        "succeeded",
        "failed",
        "killed",
        "outcomes",
        "logs",
        "locks",
        "observed",
        "jobs",
        "tmp",
        "attic",
    ]
)
# What is not there from the beginning.
MAYBE = frozenset({"merged", "trouble"})


class Place(NamedTuple):
    """One name under which a task counts."""

    state: str
    path: str
    key: str
    """The task's name with its counters, as the journals have it."""
    inode: int


@dataclass
class Report:
    """What a tree says.

    Attributes
    ----------
    places
        For each id, every name under which it counts.
    unexpected
        Paths that the format does not know.
    torn
        Files that should be JSON and are not.
    leftovers
        What a healthy queue does not have: names under recovering/ and loads/*/publish/, unfinished openings.
    outcomes
        (worker, line) of every journal line that can be read, in the order of each journal.
    """

    directory: str
    places: dict[int, list[Place]] = field(default_factory=lambda: defaultdict(list))
    unexpected: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    outcomes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    loaded: list[tuple[int, int]] = field(default_factory=list)
    next_id: int = 0
    paused: bool = False

    def state(self, task_id: int) -> str | None:
        """The state of a task; None when it is nowhere or in more than one place."""
        places = self.places.get(task_id, [])
        return places[0].state if len(places) == 1 else None

    def ids(self, state: str) -> list[int]:
        """All ids that count as being in this state, in order."""
        return sorted(i for i, places in self.places.items() if any(p.state == state for p in places))

    def counts(self) -> dict[str, int]:
        """How many tasks there are in each state."""
        found = dict.fromkeys(("waiting", "pending", "running", "succeeded", "failed", "killed"), 0)
        for places in self.places.values():
            for place in places:
                found[place.state] += 1
        return found

    def problems(self, acknowledged: Iterable[int] = (), healed: bool = False, allow_foreign: bool = False) -> list[str]:
        """Everything that must not be.

        Parameters
        ----------
        acknowledged
            Ids that must be there.
        healed
            The tree has been recovered by force: nothing may be running or half done any more.
        """
        found = [f"{path} is not complete JSON" for path in self.torn]
        found += [f"task {task_id} is lost" for task_id in sorted(set(acknowledged) - set(self.places))]
        for task_id, places in sorted(self.places.items()):
            if len(places) > 1:
                found.append(f"task {task_id} is in {len(places)} places: " + ", ".join(p.path for p in places))
            if task_id >= self.next_id:
                found.append(f"task {task_id} is not below the next id, {self.next_id}")
        if not allow_foreign:
            found += [f"{path} is unexpected" for path in self.unexpected]
        if healed:
            found += [f"{path} is left over" for path in self.leftovers]
            found += [f"task {i} is still running" for i in self.ids("running")]
        found += self._double_outcomes()
        return found

    def _double_outcomes(self) -> list[str]:
        """One name of a task has one outcome that counts, whichever journals speak of it."""
        ended: dict[str, set[str]] = defaultdict(set)
        for places in self.places.values():
            for place in places:
                if place.state == "succeeded" and "@" in place.path:
                    ended[place.key].add(place.path.rpartition("@")[2].removesuffix(".json"))
        return [f"{key} succeeded at {sorted(workers)}" for key, workers in ended.items() if len(workers) > 1]


def read_queue(directory: str | os.PathLike[str]) -> Report:
    """Walk the tree of a queue."""
    reader = _Reader(os.fspath(directory))
    reader.walk()
    return reader.report


class _Reader:
    def __init__(self, directory: str) -> None:
        self.report = Report(directory)

    # ---------------------------------------------------------------- the pieces
    def ls(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self.report.directory, path)))
        except FileNotFoundError:
            self.strange(f"{path} (missing)")
            return []

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(os.path.join(self.report.directory, path))

    def content(self, path: str) -> bytes:
        with open(os.path.join(self.report.directory, path), "rb") as file:
            return file.read()

    def inode(self, path: str) -> int:
        return os.lstat(os.path.join(self.report.directory, path)).st_ino

    def strange(self, path: str) -> None:
        self.report.unexpected.append(path)

    def json(self, path: str) -> Any:
        try:
            return json.loads(self.content(path))
        except (ValueError, OSError):
            self.report.torn.append(path)
            return None

    # ---------------------------------------------------------------- the walk
    def walk(self) -> None:
        for name in self.ls(""):
            if name == "PAUSED":
                self.report.paused = True
            elif name == "queue.json":
                raw = self.json(name)
                if isinstance(raw, dict) and raw.get("format") != 1:
                    self.strange(f"{name} (format {raw.get('format')!r})")
            elif name not in TOP | MAYBE or not self.is_dir(name):
                self.strange(name)
        self.walk_next_id()
        self.walk_waiting("waiting", "")
        self.walk_pending("pending", "")
        self.walk_workers()
        for state in ("succeeded", "failed", "killed"):
            for name in self.ls(state):
                self.walk_shard(state, name)
        self.walk_loads()
        self.walk_outcomes()
        self.walk_merged()

    def walk_next_id(self) -> None:
        for name in self.ls("next-id"):
            match = re.fullmatch(r"(\d{9,})\.[A-Za-z0-9]+", name, re.ASCII)
            if match is None:
                self.strange(f"next-id/{name}")
            else:
                self.report.next_id = max(self.report.next_id, int(match[1]))

    def count_task(self, state: str, path: str) -> bool:
        """Take a name as that of a task's file; False when it is none."""
        match = TASK.fullmatch(os.path.basename(path))
        if match is None:
            return False
        key = match["id"] + (match["counters"] or "")
        self.report.places[int(match["id"])].append(Place(state, path, key, self.inode(path)))
        raw = self.json(path)
        if isinstance(raw, dict) and raw.get("id") != int(match["id"]):
            self.strange(f"{path} (holds the id {raw.get('id')!r})")
        return True

    def count_pack(self, state: str, path: str) -> bool:
        """Take a name as that of a marker; False when it is none."""
        match = PACK.fullmatch(os.path.basename(path))
        if match is None:
            return False
        for task_id in range(int(match["first"]), int(match["last"]) + 1):
            key = f"{task_id:09d}" + (match["counters"] or "")
            self.report.places[task_id].append(Place(state, path, key, self.inode(path)))
        return True

    def walk_bundled(self, state: str, directory: str) -> None:
        """A directory of loose tasks, markers and bundles of them."""
        for name in self.ls(directory):
            path = f"{directory}/{name}"
            if self.is_dir(path) and (SHARD.fullmatch(name) or BUNDLE.fullmatch(name)):
                for inner in self.ls(path):
                    # The marker that is called like its bundle is spent.
                    if inner == f"{name}.pack":
                        continue
                    if not (self.count_task(state, f"{path}/{inner}") or self.count_pack(state, f"{path}/{inner}")):
                        self.strange(f"{path}/{inner}")
            elif not (self.count_task(state, path) or self.count_pack(state, path)):
                self.strange(path)

    def walk_pending(self, top: str, prefix: str) -> None:
        for priority in self.ls(f"{prefix}{top}"):
            path = f"{prefix}{top}/{priority}"
            if re.fullmatch(r"0|-?[1-9]\d{0,8}", priority, re.ASCII) and self.is_dir(path):
                self.walk_bundled("pending", path)
            else:
                self.strange(path)

    def walk_waiting(self, top: str, prefix: str) -> None:
        for shard in self.ls(f"{prefix}{top}"):
            path = f"{prefix}{top}/{shard}"
            if not self.is_dir(path) or not (shard == "until" or SHARD.fullmatch(shard)):
                self.strange(path)
                continue
            for inner in self.ls(path):
                if not inner.isascii() or not inner.isdigit() or not self.is_dir(f"{path}/{inner}"):
                    self.strange(f"{path}/{inner}")
                elif shard != "until" and int(inner) // 1000 != int(shard):
                    self.strange(f"{path}/{inner} (in the wrong shard)")
                else:
                    self.walk_bundled("waiting", f"{path}/{inner}")

    def walk_workers(self) -> None:
        for top in ("running", "recovering"):
            for worker in self.ls(top):
                path = f"{top}/{worker}"
                if not WORKER.fullmatch(worker) or not self.is_dir(path):
                    self.strange(path)
                    continue
                if top == "recovering":
                    self.report.leftovers.append(path)
                self.walk_worker(path)

    def walk_worker(self, directory: str) -> None:
        for name in self.ls(directory):
            path = f"{directory}/{name}"
            if name == "worker.json":
                self.json(path)
            elif name == "DRAIN" or name.endswith(".kill"):
                continue
            elif self.is_dir(path) and OPENING.fullmatch(name):
                self.report.leftovers.append(path)
                self.walk_opening(path, name)
            elif self.is_dir(path) and UNPACKING.fullmatch(name):
                self.report.leftovers.append(path)
                self.walk_unpacking(path)
            elif PACK.fullmatch(name) and self.count_pack("pending", path):
                continue
            elif not self.count_task("running", path):
                self.strange(path)

    def walk_opening(self, path: str, name: str) -> None:
        """A pack that is being opened: its marker counts, what is written beside it does not yet."""
        match = OPENING.fullmatch(name)
        pack = BUNDLE.fullmatch(match["pack"]) if match else None
        for inner in self.ls(path):
            marker = PACK.fullmatch(inner)
            if marker and pack and marker["first"] == pack["first"] and marker["last"] == pack["last"]:
                state = "killed" if match and match["killed"] else "waiting" if match and match["requirement"] else "pending"
                self.count_pack(state, f"{path}/{inner}")
            elif not marker and not TASK.fullmatch(inner):
                self.strange(f"{path}/{inner}")

    def walk_unpacking(self, path: str) -> None:
        """A shard that is being unpacked: its lines count, what is written beside them does not yet."""
        for inner in self.ls(path):
            if re.fullmatch(r"all\.[A-Za-z0-9]+\.jsonl", inner):
                self.count_lines("succeeded", f"{path}/{inner}")
            elif not TASK.fullmatch(inner):
                self.strange(f"{path}/{inner}")

    # ---------------------------------------------------------------- what has ended
    def walk_shard(self, state: str, name: str) -> None:
        path = f"{state}/{name}"
        packed, packing = PACKED.fullmatch(name), PACKING.fullmatch(name)
        if packed and not self.is_dir(path):
            if len(self.count_lines(state, path)) != int(packed["count"]):
                self.strange(f"{path} (holds another number of tasks)")
        elif (SHARD.fullmatch(name) or packing) and self.is_dir(path):
            if state == "killed":
                self.walk_bundled("killed", path)
                return
            token = packing["token"] if packing else None
            own = f"all.{token}.jsonl"
            # Without its file the directory is only what is left: that has moved up already.
            hidden = self.count_lines(state, f"{path}/{own}") if own in self.ls(path) else set()
            for inner in self.ls(path):
                self.walk_final(state, f"{path}/{inner}", hidden, in_packing=bool(packing))
        else:
            self.strange(path)

    def walk_final(self, state: str, path: str, hidden: set[str], in_packing: bool) -> None:
        name = os.path.basename(path)
        if name.removesuffix(".json") in hidden or (in_packing and re.fullmatch(r"all\.[A-Za-z0-9]+\.jsonl", name)):
            return
        if name.endswith(".txt"):  # the story for people
            if state != "failed":
                self.strange(path)
        elif not self.count_task(state, path):
            self.strange(path)

    def count_lines(self, state: str, path: str) -> set[str]:
        """Count the tasks of a packed shard; their names."""
        found: set[str] = set()
        for line in self.content(path).splitlines():
            try:
                name = json.loads(line)["name"]
            except (ValueError, KeyError, TypeError):
                self.report.torn.append(path)
                continue
            match = TASK.fullmatch(f"{name}.json")
            if match is None:
                self.strange(f"{path}: {name}")
                continue
            found.add(name)
            key = match["id"] + (match["counters"] or "")
            self.report.places[int(match["id"])].append(Place(state, f"{path}:{name}", key, self.inode(path)))
        return found

    # ---------------------------------------------------------------- loads and journals
    def walk_loads(self) -> None:
        for load in self.ls("loads"):
            match = re.fullmatch(r"(\d{9,})-(\d{9,})", load, re.ASCII)
            if match is None or not self.is_dir(f"loads/{load}"):
                self.strange(f"loads/{load}")
                continue
            self.report.loaded.append((int(match[1]), int(match[2])))
            for name in self.ls(f"loads/{load}"):
                path = f"loads/{load}/{name}"
                if name == "publish":
                    self.walk_publish(path)
                elif name.endswith(".jsonl"):
                    self.check_lines(path)
                else:
                    self.strange(path)

    def check_lines(self, path: str) -> None:
        match = re.fullmatch(r"(\d{9,})-(\d{9,})\.jsonl", os.path.basename(path), re.ASCII)
        if match is None:
            self.strange(path)
            return
        try:
            ids = [json.loads(line)["id"] for line in self.content(path).splitlines()]
        except (ValueError, KeyError, TypeError):
            self.report.torn.append(path)
            return
        if ids != list(range(int(match[1]), int(match[2]) + 1)):
            self.strange(f"{path} (holds other ids than its name says)")

    def walk_publish(self, directory: str) -> None:
        """What is still to be moved counts already, where it is."""
        self.report.leftovers.append(directory)
        for top in self.ls(directory):
            if top == "pending":
                self.walk_pending(top, f"{directory}/")
            elif top == "waiting":
                self.walk_waiting(top, f"{directory}/")
            else:
                self.strange(f"{directory}/{top}")

    def walk_outcomes(self) -> None:
        for name in self.ls("outcomes"):
            worker = name.removesuffix(".jsonl")
            if worker == name or not WORKER.fullmatch(worker):
                self.strange(f"outcomes/{name}")
                continue
            self.read_journal(worker, self.content(f"outcomes/{name}"))

    def read_journal(self, worker: str, content: bytes) -> None:
        for line in content.split(b"\n"):
            try:
                raw = json.loads(line)
            except ValueError:  # torn by a full disk or a kill: readers pass over it
                continue
            if isinstance(raw, dict) and "name" in raw:  # the first line says who the worker is
                self.report.outcomes.append((worker, raw))

    def walk_merged(self) -> None:
        """Journals and logs that were put together: of each worker the longest copy counts, unless its own file is there."""
        own = set(self.ls("outcomes"))
        best: dict[str, tuple[tuple[int, str], bytes]] = {}
        for name in self.ls("merged") if self.is_dir(f"{self.report.directory}/merged") else ():
            path = f"merged/{name}"
            files = set(self.ls(path))
            if not re.fullmatch(r"\d{6,}\.[A-Za-z0-9]+", name) or files - {"index.json", "outcomes.jsonl", "tasks.log"}:
                self.strange(path)
            if "index.json" not in files:
                continue  # it is being removed
            index = self.json(f"{path}/index.json")
            journals, logs = self.content(f"{path}/outcomes.jsonl"), self.content(f"{path}/tasks.log")
            for worker, said in index["workers"].items() if isinstance(index, dict) else ():
                if "journal" in said:
                    first, end, size = said["journal"]
                    if not 0 <= first < end <= len(journals) or not 0 <= end - first - size <= 1 or journals[end - 1] != 10:
                        self.strange(f"{path} ({worker} is not in it)")
                    best[worker] = max(best.get(worker, ((0, ""), b"")), ((size, name), journals[first:end]))
                for log in said.get("logs", {}).values():
                    for first, end, at in log["pieces"]:
                        if not 0 <= first < end <= log["size"] or at + end - first > len(logs):
                            self.strange(f"{path} (a log of {worker} is not in it)")
        for worker, (_, content) in best.items():
            if f"{worker}.jsonl" not in own:
                self.read_journal(worker, content)


def main(arguments: list[str]) -> int:
    """`python -m tests.checker DIRECTORY...`: print counts and problems of queues."""
    bad = 0
    for directory in arguments:
        report = read_queue(directory)
        problems = report.problems()
        print(directory, report.counts(), f"{len(problems)} problems")
        for problem in problems:
            print("  " + problem)
        bad += bool(problems)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
