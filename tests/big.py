"""Large queues, made without running their tasks: loaded, then what has ended is written as workers would have left it.

`pending`, `half` and `done` make the mixes that questions about a queue must stay quick in. With a thousand tasks a pack and a
shard they are as real ones; the tree passes the checker.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsqdo
from fsqdo.ids import SHARD_SIZE

WORKERS = 50
_DONE_OF_PACK = 300
_LOOSE_OF_PACK = 200
_TIME = "2026-11-22T07:15:01Z"


def commands(count: int) -> Iterator[str]:
    """So many commands, each like one of a user's."""
    return (f"analyze --input data/{number:09d}.dat --output results/{number:09d}.out" for number in range(count))


def pending(name: str, count: int) -> fsqdo.Queue:
    """All of it is pending."""
    queue = fsqdo.create(name)
    queue.add_multiple(commands(count))
    return queue


def done(name: str, count: int) -> fsqdo.Queue:
    """All has succeeded and is packed, but for the last shard, whose ids are not all used."""
    queue = pending(name, count)
    shutil.rmtree(f"{queue.directory}/pending/0")
    _finished(queue, range(1, count + 1), "host-1-a")
    return queue


def half(name: str, count: int, workers: int = WORKERS) -> fsqdo.Queue:
    """Half of it has succeeded and is packed; of the next packs each is open and has a worker that is in the middle of it."""
    queue = pending(name, count)
    base = Path(queue.directory)
    packs = sorted((base / "pending/0").iterdir())
    behind = len(packs) // 2
    for marker in packs[:behind]:
        marker.unlink()
    _finished(queue, range(1, int(packs[behind].name[:9])), "host-1-a")
    for number, marker in enumerate(packs[behind : behind + workers]):
        _open(queue, marker, f"host-{number + 2}-a")
    return queue


def _open(queue: fsqdo.Queue, marker: Path, worker: str) -> None:
    """A pack of which some is done, one task runs, some is loose, and the rest lies beside it as markers."""
    first, last = (int(part) for part in marker.stem.split("-"))
    lines = Path(queue.directory, "loads", marker.read_text().strip()).read_bytes().splitlines(keepends=True)[-SHARD_SIZE:]
    home, bundle = Path(queue.directory, "running", worker), marker.with_suffix("")
    home.mkdir()
    said = {"worker": worker, "host": "elsewhere", "pid": 1, "cores": 1, "slots": 1}
    (home / "worker.json").write_text(json.dumps(said) + "\n")
    _journal(queue, worker, range(first, first + _DONE_OF_PACK))
    for task_id in range(first, first + _DONE_OF_PACK):
        _loose(queue, task_id, lines[task_id - first], worker)
    running = first + _DONE_OF_PACK
    (home / f"{running:09d}.json").write_bytes(lines[running - first])
    bundle.mkdir()
    rest = running + 1 + _LOOSE_OF_PACK
    for task_id in range(running + 1, rest):
        (bundle / f"{task_id:09d}.json").write_bytes(lines[task_id - first])
    middle = (rest + last) // 2
    for low, high in ((rest, middle), (middle + 1, last)):
        (bundle / f"{low:09d}-{high:09d}.pack").write_bytes(marker.read_bytes())
    marker.unlink()


def _finished(queue: fsqdo.Queue, ids: range, worker: str) -> None:
    """Succeeded: whole shards as packed files, the rest loose."""
    _journal(queue, worker, ids)
    lines = _loaded(queue)
    for shard in range(ids[0] // SHARD_SIZE, ids[-1] // SHARD_SIZE + 1):
        own = range(max(1, shard * SHARD_SIZE), (shard + 1) * SHARD_SIZE)
        if own[-1] > ids[-1]:
            for task_id in range(own[0], ids[-1] + 1):
                _loose(queue, task_id, next(lines), worker)
            return
        with open(f"{queue.directory}/succeeded/{shard:06d}.p1.n{len(own)}.jsonl", "wb") as file:
            for task_id in own:
                outcome = _outcome(task_id, worker)
                line = b'{"name":"%09d@%s","task":%s,"outcome":%s}\n'
                file.write(line % (task_id, worker.encode(), next(lines).strip(), outcome.encode()))


def _loaded(queue: fsqdo.Queue) -> Iterator[bytes]:
    (load,) = Path(queue.directory, "loads").iterdir()
    for path in sorted(load.glob("*.jsonl")):
        with path.open("rb") as file:
            yield from file


def _loose(queue: fsqdo.Queue, task_id: int, line: bytes, worker: str) -> None:
    shard = Path(queue.directory, f"succeeded/{task_id // SHARD_SIZE:06d}")
    shard.mkdir(exist_ok=True)
    (shard / f"{task_id:09d}@{worker}.json").write_bytes(line)


def _outcome(task_id: int, worker: str) -> str:
    to = f"succeeded/{task_id // SHARD_SIZE:06d}/{task_id:09d}@{worker}.json"
    times = f'"started_at":"{_TIME}","ended_at":"{_TIME}","elapsed_s":0.5,"exit_code":0'
    return f'{{"name":"{task_id:09d}","outcome":"succeeded","to":"{to}",{times}}}'


def _journal(queue: fsqdo.Queue, worker: str, ids: Iterable[int]) -> None:
    with open(f"{queue.directory}/outcomes/{worker}.jsonl", "w") as file:
        file.write(json.dumps({"worker": worker}) + "\n")
        file.writelines(_outcome(task_id, worker) + "\n" for task_id in ids)


def loose_directories(queue: fsqdo.Queue) -> list[str]:
    """The directories that hold loose names, and those above them: what one plain listing has to read."""
    found: list[Any] = []
    for top in ("waiting", "pending", "running", "recovering", "succeeded", "failed", "killed"):
        found += [path for path, _, _ in os.walk(f"{queue.directory}/{top}")]
    return found
