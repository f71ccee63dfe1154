"""What the workers of batch jobs have done: their names by job, and their outcomes counted without reading each."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from fsqdo import journal
from fsqdo.names import WORKER_FILE, parse_task
from fsqdo.store import Store

_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_OUTCOME = re.compile(rb'^\{"name":"[^"]*","outcome":"(succeeded|failed)"', re.MULTILINE)


@dataclass
class Work:
    """What one job did: its workers, how many attempts of theirs ended for good, and how many tasks they run now."""

    workers: list[str] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    running: int = 0


def work(store: Store, count: bool = True) -> dict[str, Work]:
    """The work by job number, as the `worker.json` of the workers says, or the first line of their journal.

    Parameters
    ----------
    count
        Whether to read the journals; without that only the workers are told.
    """
    found: dict[str, Work] = {}
    for holder in store.holders():
        job = _note_worker(found, holder.rpartition("/")[2], store.read(f"{holder}/{WORKER_FILE}") or b"")
        if job is not None and count:
            job.running += sum(parse_task(name) is not None for name in store.ls(holder) or ())
    for worker in journal.workers(store):
        head = journal.piece(store, worker, 0, _HEAD_BYTES)
        job = _note_worker(found, worker, head.partition(b"\n")[0])
        if job is not None and count:
            _count(store, worker, job)
    return found


def _note_worker(found: dict[str, Work], worker: str, text: bytes) -> Work | None:
    try:
        number = json.loads(text).get("job")
    except (ValueError, AttributeError, RecursionError):
        return None
    if number is None:
        return None
    job = found.setdefault(str(number), Work())
    if worker not in job.workers:
        job.workers.append(worker)
    return job


def _count(store: Store, worker: str, job: Work) -> None:
    """Add the outcomes of a journal; a million lines take about a second."""
    at, rest = 0, b""
    while chunk := journal.piece(store, worker, at, at + _CHUNK_BYTES):
        at += len(chunk)
        whole, newline, tail = (rest + chunk).rpartition(b"\n")
        rest = tail if newline else rest + chunk
        ended = _OUTCOME.findall(whole)
        succeeded = ended.count(b"succeeded")
        job.succeeded += succeeded
        job.failed += len(ended) - succeeded
