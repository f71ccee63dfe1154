"""Batch jobs as their queue remembers them: a script and a record each under `jobs/`, by number."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

from fsqdo.batch import JobState
from fsqdo.store import Store

_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json\Z")
_NUMBER = re.compile(r"([1-9][0-9]{0,17})\.")


class QueueLike(Protocol):
    """The part of a queue that launching needs."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def directory(self) -> str:
        """Absolute path of its tree."""

    @property
    def store(self) -> Store:
        """Its tree."""


@dataclass(frozen=True)
class Job:
    """A batch job of a queue.

    Attributes
    ----------
    number
        Unique in the queue.
    batch_id
        Its id in the batch system; None when it has none (not submitted, or nobody could record it).
    state
        As the batch system says it; false as soon as the job goes on.
    submitted_at
        ISO 8601 UTC; None when it was not.
    slots
        Tasks that it runs at once, on all its nodes; of an array each element.
    command
        The command that submits it.
    workers
        Names of the workers that ran or run in it, as far as the tree still tells.
    script_path, log_path
        Absolute paths of its script and of what it prints.
    error
        Why it was not submitted, or why its record cannot be read.
    script
        The text of the script; only in what `launch` returns.
    nodes, workers_per_node, slots_per_worker, nodes_per_worker
        Its nodes, the workers on each, the slots of each of these; or the nodes that its one worker has to itself.
    cores, walltime_s
        Cores of each worker, and the limit of the job, where they were asked for.
    array
        Number of like jobs that were submitted as this one; None: it is single.
    after
        Id in the batch system of the job that had to end first.
    cancel_when_drained
        Whether it may be cancelled, while it is queued, once the queue is drained.
    cancelled_at
        ISO 8601 UTC, when fsqdo last had it cancelled.
    queue
        Directory of the queue that it was launched for; None in records that do not say so.
    succeeded, failed, running
        Attempts of its workers that ended so, and tasks that they run now.
    """

    number: int
    system: str
    profile: str
    batch_id: str | None
    state: JobState
    submitted_at: str | None
    slots: int
    command: tuple[str, ...]
    script_path: str
    log_path: str
    workers: tuple[str, ...] = ()
    error: str | None = None
    script: str = ""
    nodes: int = 1
    workers_per_node: int = 1
    slots_per_worker: int | None = None
    nodes_per_worker: int | None = None
    cores: int | None = None
    walltime_s: int | None = None
    array: int | None = None
    after: str | None = None
    cancel_when_drained: bool = False
    cancelled_at: str | None = None
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    queue: str | None = None

    @property
    def slots_per_node(self) -> int:
        """Tasks at once on each of its nodes, or over all nodes of its one worker."""
        return self.slots if self.nodes_per_worker else self.slots // max(1, self.nodes)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them, without the script."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "script"}
        return {**shown, "state": str(self.state), "command": list(self.command), "workers": list(self.workers)}


def script_name(number: int) -> str:
    """Path of a job's script, relative to the queue."""
    return f"jobs/{number}.sh"


def record_name(number: int) -> str:
    """Path of a job's record, relative to the queue."""
    return f"jobs/{number}.json"


def log_name(number: int) -> str:
    """Path of what a job prints, relative to the queue."""
    return f"logs/job-{number}.log"


def next_number(store: Store) -> int:
    """A number above all that were taken (false as soon as somebody launches)."""
    taken = (int(match[1]) for name in store.ls("jobs") or () if (match := _NUMBER.match(name)))
    return max(taken, default=0) + 1


def job_numbers(store: Store) -> list[int]:
    """Numbers of the jobs that have a record, sorted."""
    return sorted(int(match[1]) for name in store.ls("jobs") or () if (match := _RECORD.match(name)))


def read_job(store: Store, number: int) -> Job:
    """The job of a record; one whose record is no record is UNKNOWN and says so."""
    path = store.path(record_name(number))
    text = store.read(record_name(number))
    try:
        raw = json.loads(text or b"")
        return Job(
            number=number,
            system=_text(raw["system"]),
            profile=_text(raw["profile"]),
            batch_id=None if raw["batch_id"] is None else _text(raw["batch_id"]),
            state=JobState.ENDED if raw.get("state") == "refused" else JobState.UNKNOWN,
            submitted_at=None if raw["submitted_at"] is None else _text(raw["submitted_at"]),
            slots=int(raw["slots"]),
            command=tuple(_text(word) for word in raw["command"]),
            script_path=store.path(script_name(number)),
            log_path=store.path(log_name(number)),
            error=None if raw.get("error") is None else _text(raw["error"]),
            **_more(raw),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error = f"{path} is not the record of a job"
    return Job(
        number, "", "", None, JobState.UNKNOWN, None, 0, (), store.path(script_name(number)), store.path(log_name(number)),
        error=error,
    )  # fmt: skip


def _more(raw: dict[str, Any]) -> dict[str, Any]:
    """What records did not have from the beginning."""
    numbers = {name: raw.get(name) for name in ("slots_per_worker", "nodes_per_worker", "cores", "walltime_s", "array")}
    texts = {name: raw.get(name) for name in ("after", "cancelled_at", "queue")}
    return {
        **{name: None if value is None else int(value) for name, value in numbers.items()},
        **{name: None if value is None else _text(value) for name, value in texts.items()},
        "nodes": int(raw.get("nodes", 1)),
        "workers_per_node": int(raw.get("workers_per_node", 1)),
        "cancel_when_drained": raw.get("cancel_when_drained") is True,
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
