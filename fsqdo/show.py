"""Looking at single tasks and at workers: what the tree and the journals say, joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fsqdo import journal
from fsqdo.errors import TaskError
from fsqdo.liveness import Observer
from fsqdo.names import is_worker_name, parse_task
from fsqdo.outcome import Outcome
from fsqdo.rows import Task, packed_outcome
from fsqdo.store import Store
from fsqdo.task import State


def show(store: Store, task: Task) -> dict[str, Any]:
    """Everything known of a task."""
    entry = task.entry
    found = task.to_dict()
    found["path"] = store.path(entry.path)
    if entry.holder:
        found["worker"] = entry.holder
    if entry.waits_for is not None:
        found["waits_for"] = entry.waits_for
    found["attempts"] = [_attempt(store, outcome) for outcome in journal.of_task(store, task.id)]
    if found["attempts"] and "result" in found["attempts"][-1]:
        found["result"] = found["attempts"][-1]["result"]
    if task.state is State.FAILED:
        story = store.read(journal.story_path(entry.path))
        found["story"] = (story or b"").decode(errors="replace")
    if task.state.final and not found["attempts"] and task.state is not State.KILLED:
        found["note"] = "no journal has a line on how it ended: it may have been lost with its node"
    return found


def _attempt(store: Store, outcome: Outcome) -> dict[str, Any]:
    said = {key: value for key, value in outcome._asdict().items() if key != "to"}
    if outcome.log is not None and outcome.worker is not None:
        said["log"] = journal.log_place(store, outcome.worker, *outcome.log)
    return {key: value for key, value in said.items() if value is not None}


def log(store: Store, task: Task, attempt: int | None) -> bytes:
    """The output of an attempt (default: the last that was begun)."""
    attempts = journal.of_task(store, task.id)
    if not attempts and task.state is State.SUCCEEDED:
        raise TaskError(f"no journal has a line on task {task.id}", "it may have been lost with its node; look under logs/")
    if not attempts:
        raise TaskError(f"task {task.id} has not been started yet")
    if attempt is not None and not 1 <= attempt <= len(attempts):
        raise TaskError(f"task {task.id} has no attempt {attempt}", f"it has {len(attempts)}, numbered from 1")
    return journal.output(store, attempts[-1 if attempt is None else attempt - 1])


def results(store: Store) -> Iterator[tuple[int, Any]]:
    """Yield (id, result) of all succeeded tasks with one; a task that was rerun gives its last."""
    by_worker: dict[str, set[str]] = {}
    for entry in store.entries(State.SUCCEEDED):
        if entry.packed is not None:
            outcome = packed_outcome(entry.packed, entry.name.worker or "")
            if outcome is not None and outcome.result is not None:
                yield entry.name.first, outcome.result
        elif entry.name.worker is not None:
            by_worker.setdefault(entry.name.worker, set()).add(str(entry.name))
    for worker, wanted in by_worker.items():
        for outcome in journal.read(store, worker):
            if outcome.name in wanted and outcome.outcome == "succeeded" and outcome.result is not None:
                wanted.discard(outcome.name)  # a line that could not be written whole may stand there twice
                yield int(outcome.name.partition(".")[0]), outcome.result


_SAID = ("host", "pid", "slots", "cores", "gpus", "mem_mb", "nodes", "started_at", "job", "deadline", "restarts")


def workers(store: Store) -> list[dict[str, Any]]:
    """One mapping a worker, by name."""
    observer = Observer(store)
    found = []
    for worker in store.names("running"):
        if not is_worker_name(worker) or parse_task(worker) is not None:  # somebody's mv
            continue
        said = store.said_by(worker) or {}
        held = [name for file in store.names(f"running/{worker}") if (name := parse_task(file)) is not None]
        verdict = observer.judge(worker)
        row = {key: said.get(key) for key in _SAID}
        running = [name.id for name in held]
        found.append({"name": worker, **row, "running": running, "alive": verdict.alive, "reason": verdict.reason})
    observer.save()
    return found
