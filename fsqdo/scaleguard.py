"""What keeps autoscaling from doing harm: it stops after failures in a row, and is done by one process at a time.

After three jobs in a row that were refused, or ended without having begun a task, nothing more is launched until a job works or
somebody says so: `jobs/autoscale.json` then holds the number of the last job that is forgiven.

`locks/autoscale.<n>`, n being five-minute spans since 1970, is made with O_EXCL by who is at it and unlinked afterwards;
it only saves double work, since all is counted anew once it is held, and lapses by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fsqdo.batch import JobState
from fsqdo.jobs import Job, next_number, record_name
from fsqdo.journal import journal_path, tail, workers
from fsqdo.names import new_token
from fsqdo.store import Store

STATE_FILE = "jobs/autoscale.json"
MOST_FAILURES = 3
_SPAN_S = 300
_LOCK = "locks/autoscale."


# ---------------------------------------------------------------- when to stop
def failures(store: Store, found: Sequence[Job], forgiven: int = 0) -> list[str]:
    """Why the last jobs failed, if as many as may did and none worked since; else nothing.

    Parameters
    ----------
    forgiven
        Jobs up to this number are not looked at.
    """
    bad: list[str] = []
    for job in reversed(found):
        if job.number <= forgiven or len(bad) == MOST_FAILURES:
            break
        verdict = _verdict(store, job)
        if verdict == "":
            return []
        if verdict is not None:
            bad.append(f"job {job.number} {verdict}")
    return bad if len(bad) == MOST_FAILURES else []


def _verdict(store: Store, job: Job) -> str | None:
    """Why a job failed; an empty text for one that worked, None for one that has not shown yet or was not needed after all."""
    if any(_began(store, worker) for worker in job.workers):
        return ""
    if job.batch_id is None:
        # One without an error is being submitted at this moment.
        return None if job.error is None else f"was not submitted ({_first_line(job.error)})"
    if job.state is not JobState.ENDED or _cancelled(store, job):
        return None
    if not job.workers:
        return f"ended and no worker came of it (see {job.log_path})"
    if _others_worked(store, job):
        return None  # there may have been nothing left for it
    return f"ended without having begun a task (see {job.log_path})"


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= 200 else line[:197] + "..."


def _began(store: Store, worker: str) -> bool:
    """Whether a worker began a task: its journal has a line after the first."""
    return store.read_slice(journal_path(worker), 0, 8192).count(b"\n") > 1


def _cancelled(store: Store, job: Job) -> bool:
    """Whether fsqdo cancelled it, which its record tells."""
    record = _read_json(store, record_name(job.number))
    return record.get("cancelled_at") is not None or "cancel" in str(record.get("state", ""))


def _others_worked(store: Store, job: Job) -> bool:
    since = job.submitted_at or ""
    for worker in workers(store):
        if worker not in job.workers and any((o.ended_at or "") >= since for o in tail(store, worker, 4096)):
            return True
    return False


def forgive(store: Store) -> None:
    """Look no more at the jobs there are now, whatever became of them."""
    content = {"forgiven": next_number(store) - 1}
    store.replace(STATE_FILE, (json.dumps(content) + "\n").encode(), f"autoscale.{new_token()}")


def forgiven_up_to(store: Store) -> int:
    """Number of the last job that is forgiven; 0 when none is."""
    number = _read_json(store, STATE_FILE).get("forgiven", 0)
    return number if isinstance(number, int) else 0


def _read_json(store: Store, path: str) -> dict[str, Any]:
    """The object in a small file; an empty one when there is none."""
    try:
        raw = json.loads(store.read(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


# ---------------------------------------------------------------- one at a time
@contextmanager
def one_at_a_time(store: Store, now: Callable[[], float] = time.time) -> Iterator[bool]:
    """Whether this process may go on: nobody else was seen at it.

    Notes
    -----
    Make `locks/autoscale.<span>` with O_EXCL, list, unlink at the end. RACE: another one may make the name of the span before
    or after; each lists after it made its own, so at least one sees the other, and the later span yields. A kill leaves the
    name, which counts for this span and the next one only.
    """
    span = int(now() // _SPAN_S)
    own = f"{_LOCK}{span}"
    if _spans(store, span) or not store.claim_name(own):
        yield False
        return
    try:
        yield not any(other < span for other in _spans(store, span))
    finally:
        store.unlink(own)


def _spans(store: Store, span: int) -> list[int]:
    """The spans near this one that somebody holds; the names of older ones are removed."""
    found = []
    for name in store.names("locks"):
        _, _, text = f"locks/{name}".partition(_LOCK)
        if text.isascii() and text.isdigit():
            if abs(int(text) - span) <= 1:
                found.append(int(text))
            elif int(text) < span:
                store.unlink(f"{_LOCK}{text}")
    return found
