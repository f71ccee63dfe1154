"""The journals, `outcomes/<worker>.jsonl`: one line per attempt, written by the worker alone, read by everybody.

An outcome stands in the journal before its task moves, under the task's full name with its counters, together with the place
the task goes to. So whoever finds the task still in a dead worker's directory completes the move and never runs it again.
Journals and logs of workers that have ended may have been put together (`merged`); what reads them here finds both.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fsqdo import merged
from fsqdo.errors import StorageError, TaskError
from fsqdo.names import parse_task
from fsqdo.outcome import Outcome
from fsqdo.store import Appender, Store
from fsqdo.task import Definition

# How fsqdo writes its lines: such ones are told apart without reading them as JSON. Other programs' lines are read.
_KEY = b'{"name":"'
_OURS = re.compile(rb'\{"name":"[^"\\]*","outcome":"')
_STARTED = re.compile(rb'\{"name":"[^"\\]*","outcome":"started"')
_ENDED = re.compile(rb'\{"name":"[^"\\]*","outcome":"(?:succeeded|failed|retry|interrupted|killed)","to":"')
_SUCCEEDED = re.compile(rb'\{"name":"([^"\\]*)","outcome":"succeeded"')
_TAIL_BYTES = 4096
_TAIL_LINES = 30
_SAMPLED = 16
_ALL = 1 << 62
SAMPLE_BYTES = 1 << 16


def journal_path(worker: str) -> str:
    """Path of a worker's journal, relative to the queue."""
    return f"outcomes/{worker}.jsonl"


class Journal:
    """The journal of one worker, which alone writes it.

    Notes
    -----
    One write(2) a line. Synced by `sync`, which the worker calls every few seconds, when idle, and before a move whose
    result is to be kept. A kill leaves whole lines, or one torn at the end, which readers pass over.

    That an attempt begins is held back until the next line is added or `flush` is called, which the worker does before it
    waits for anything: one write for both where tasks are short.
    """

    def __init__(self, store: Store, worker: str) -> None:
        self._file = Appender(store, journal_path(worker))
        self._held = b""

    def describe(self, worker: Mapping[str, Any]) -> None:
        """Write the first line: who this worker is, for those who look when its directory is gone."""
        self._file.append((json.dumps(worker) + "\n").encode())

    def append(self, outcome: Outcome) -> None:
        """Add a line; StorageError when it could not be written whole."""
        self.append_line(outcome.to_json().encode())

    def append_line(self, line: bytes) -> None:
        """The same, of a line that is made already (`task.success_line`)."""
        self._file.append(self._held + line if self._held else line)
        self._held = b""

    def flush(self) -> None:
        """Write what was held back; StorageError when it could not be written whole."""
        if self._held:
            self.append_line(b"")

    def started(self, key: str, started_at: str, slot: int, log_first: int, pid: int) -> None:
        """Note that an attempt begins: its process, and where its output will be. No move is decided by it."""
        self._held += (
            f'{{"name":"{key}","outcome":"started","to":"","started_at":"{started_at}",'
            f'"pid":{pid},"log":[{slot},{log_first},-1]}}\n'
        ).encode()

    def sync(self) -> None:
        """Put the lines on disk."""
        self.flush()
        self._file.sync()

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def lines(store: Store, worker: str) -> Iterator[bytes]:
    """Yield the lines of a worker's journal, oldest first, wherever it is."""
    there = False
    for line in store.read_lines(journal_path(worker)):
        there = True
        yield line
    if not there:
        yield from _lines_in(merged.read_journal(store, worker, 0, _ALL))


def _lines_back(store: Store, worker: str) -> Iterator[bytes]:
    """The same, newest first."""
    there = False
    for line in store.read_lines_back(journal_path(worker)):
        there = True
        yield line
    if not there:
        yield from reversed(_lines_in(merged.read_journal(store, worker, 0, _ALL)))


def _lines_in(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def piece(store: Store, worker: str, first: int, end: int) -> bytes:
    """Bytes first..end of a worker's journal, wherever it is; what is missing of them is left out."""
    data = store.read_slice(journal_path(worker), first, end)
    if data or (first and store.size(journal_path(worker))):
        return data
    return merged.read_journal(store, worker, first, end)


def read(store: Store, worker: str) -> Iterator[Outcome]:
    """Yield the outcomes in a worker's journal, oldest first; torn lines are passed over."""
    for line in lines(store, worker):
        outcome = Outcome.from_json(line, worker)
        if outcome is not None:
            yield outcome


def tail(store: Store, worker: str, most_bytes: int = SAMPLE_BYTES) -> list[Outcome]:
    """The last outcomes in a worker's journal, as far as so many bytes hold them whole; without those that only began."""
    content = store.read_tail(journal_path(worker), most_bytes)
    if not content and (one := merged.kept(store).get(worker, merged.NOTHING).journal) is not None:
        size = one.end - one.first
        content = merged.read_journal(store, worker, max(0, size - most_bytes), size)
    found = (Outcome.from_json(line, worker) for line in content.split(b"\n") if not _STARTED.match(line))
    return [outcome for outcome in found if outcome is not None and outcome.ended]


def durations(store: Store) -> list[float]:
    """How many seconds attempts took that succeeded lately, of some workers: its cost does not grow with the queue."""
    known = workers(store)
    found: list[float] = []
    for worker in random.sample(known, min(_SAMPLED, len(known))):
        succeeded = (outcome.elapsed_s for outcome in tail(store, worker) if outcome.outcome == "succeeded")
        found += [float(elapsed_s) for elapsed_s in succeeded if isinstance(elapsed_s, (int, float))]
    return found


def lookup(store: Store, worker: str, wanted: Iterable[str]) -> dict[str, Outcome]:
    """The last outcome of each of these task names in a worker's journal; names without one are left out."""
    keys = {name.encode() for name in wanted}
    found = last_lines(store, worker, keys) if keys else {}
    outcomes = (Outcome.from_json(line, worker) for line in found.values())
    return {outcome.name: outcome for outcome in outcomes if outcome is not None}


def last_lines(store: Store, worker: str, keys: set[bytes]) -> dict[bytes, bytes]:
    """The last line that ended an attempt of each of these task names in a worker's journal, as it stands there.

    Read from its end, and only as far as needed: of what has ended just now that is little.
    """
    found: dict[bytes, bytes] = {}
    for line in _lines_back(store, worker):
        if _OURS.match(line) and _key(line) not in keys:
            continue
        key = _ended(line)
        if key in keys and key not in found:
            found[key] = line
            if len(found) == len(keys):
                break
    return found


def begun(store: Store, worker: str, wanted: Iterable[str]) -> set[str]:
    """Those of these task names on which a worker's journal has a line of any kind."""
    keys, found = {name.encode() for name in wanted}, set[bytes]()
    for line in _lines_back(store, worker):
        if _OURS.match(line):
            key = _key(line)
        else:
            outcome = Outcome.from_json(line)
            key = b"" if outcome is None else outcome.name.encode()
        if key in keys:
            found.add(key)
            if len(found) == len(keys):
                break
    return {key.decode() for key in found}


def _key(line: bytes) -> bytes:
    """The name that a line as we write it begins with."""
    return line[len(_KEY) : line.find(b'"', len(_KEY))]


def _ended(line: bytes) -> bytes:
    """The name of the attempt whose end a line tells; b"" for any other line."""
    if _STARTED.match(line):
        return b""
    # As we write it, to its end and with nothing nested in it: then it need not be read to be believed.
    if _ENDED.match(line) and line.endswith(b"}") and line.count(b"{") == 1:
        return _key(line)
    outcome = Outcome.from_json(line)
    return outcome.name.encode() if outcome is not None and outcome.ended else b""


def successes(store: Store, worker: str) -> dict[bytes, bytes]:
    """The last line of each attempt in a worker's journal that succeeded, by the name it had, for those who look for many."""
    found = {}
    for line in lines(store, worker):
        match = _SUCCEEDED.match(line)
        if match is not None:
            found[match[1]] = line
        elif not _OURS.match(line):
            outcome = Outcome.from_json(line)
            if outcome is not None and outcome.outcome == "succeeded":
                found[outcome.name.encode()] = line
    return found


def of_task(store: Store, task_id: int) -> list[Outcome]:
    """Every attempt of a task that any journal knows, in order; one that has not ended has the outcome "started".

    The order is that of the counters, which only grow: the clocks of the workers' hosts tell nothing.
    """
    prefix = _KEY + b"%09d" % task_id
    found: dict[tuple[str, str], tuple[int, int, str, Outcome]] = {}
    for worker in workers(store):
        for line in lines(store, worker):
            if line.startswith((prefix + b'"', prefix + b".")) or not _OURS.match(line):
                outcome = Outcome.from_json(line, worker)
                name = None if outcome is None else parse_task(f"{outcome.name}.json")
                if outcome is not None and name is not None and name.id == task_id:
                    found[worker, outcome.name] = (name.r, name.attempt, outcome.started_at or "", outcome)
    return [outcome for *_, outcome in sorted(found.values(), key=lambda item: item[:3])]


def workers(store: Store) -> list[str]:
    """Names of all workers that have a journal, their own or in what was merged."""
    own = {name.removesuffix(".jsonl") for name in store.ls("outcomes") or () if name.endswith(".jsonl")}
    return sorted(own.union(worker for worker, its in merged.kept(store).items() if its.journal is not None))


def log_path(worker: str, slot: int) -> str:
    """Path of a slot's log, relative to the queue."""
    return f"logs/{worker}/{slot}.log"


def health_path(worker: str) -> str:
    """Path of what a worker's health check wrote, relative to the queue."""
    return f"logs/{worker}/health.log"


def output(store: Store, outcome: Outcome) -> bytes:
    """What an attempt wrote to stdout and stderr.

    Raises
    ------
    TaskError
        When somebody tidied it away.
    """
    if outcome.log is None or outcome.worker is None:
        return b""
    slot, first, end = outcome.log
    if end < 0:
        end = _ALL  # it runs, or its worker died
    data = store.read_slice(log_path(outcome.worker, slot), first, end)
    if data or end == first:
        return data
    found = merged.read_log(store, outcome.worker, slot, first, end)
    if found is None:
        hint = "`fsqdo tidy --logs succeeded` removes what attempts wrote that succeeded"
        raise TaskError(f"the log of {outcome.name} was tidied away", hint)
    return found


def log_place(store: Store, worker: str, slot: int, first: int, end: int) -> dict[str, Any]:
    """Where the output of an attempt is: path, first and end byte; or a note that it was tidied away."""
    path, size = log_path(worker, slot), None if end < 0 else end - first
    log = merged.kept(store).get(worker, merged.NOTHING).logs.get(slot)
    if log is None or size == 0 or store.size(path):
        return {"path": path, "first": first, "end": end}
    pieces = merged.part_of(log, first, log.size if end < 0 else end)
    if pieces is None:
        return {"note": "tidied away"}
    at = pieces[0].at if pieces else 0
    return {"path": f"{log.directory}/{merged.LOGS}", "first": at, "end": at + sum(p.end - p.first for p in pieces)}


def story_path(to: str) -> str:
    """Path of the story that belongs to a failed task's file."""
    return to.removesuffix(".json") + ".txt"


def write_story(store: Store, definition: Definition | None, outcome: Outcome, detail: str = "") -> None:
    """Write the story of a failed task for people, beside the place its file goes to.

    A story that cannot be written is left out: it must never keep a task from its place.

    Parameters
    ----------
    detail
        More of what happened: a traceback.
    """
    try:
        store.write(story_path(outcome.to), _story(store, definition, outcome, detail).encode(), make=True)
    except StorageError as error:
        if not error.full:
            raise


def _story(store: Store, definition: Definition | None, outcome: Outcome, detail: str) -> str:
    name = parse_task(outcome.name + ".json")
    task_id = name.id if name else 0
    lines = [f"task {task_id} failed: {outcome.how()}", ""]
    if definition is not None:
        lines.append(f"task:      {definition.words()}")
        if definition.options.cwd:
            lines.append(f"directory: {definition.options.cwd}")
    slot = "" if outcome.slot is None else f", slot {outcome.slot}"
    lines.append(f"attempt:   {name.attempt if name else 1}, by worker {outcome.worker}{slot}")
    if outcome.started_at:
        lines.append(f"time:      {outcome.started_at} to {outcome.ended_at} ({outcome.elapsed_s or 0:.3f} s)")
    if outcome.log is not None and outcome.worker is not None:
        number, first, end = outcome.log
        lines.append(f"output:    {log_path(outcome.worker, number)}, bytes {first} to {end}")
        tail = store.read_slice(log_path(outcome.worker, number), max(first, end - _TAIL_BYTES), end)
        text = tail.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if text:
            lines += ["", "last lines of its output:", *("  " + line for line in text)]
    # The traceback of a function in a child process stands in its output already.
    if detail and not (lines and lines[-1].strip() and lines[-1].strip() == detail.rstrip().rpartition("\n")[2].strip()):
        lines += ["", detail.rstrip()]
    return "\n".join(lines) + "\n"
