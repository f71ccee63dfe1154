"""Why a task is where it is: what it waits for, and which workers could run it. Reads only.

What is said can already be false: workers come and go, and tasks end while this looks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from fsqdo import journal
from fsqdo.durations import Durations, expected_s
from fsqdo.finals import Finals, Missing
from fsqdo.liveness import Observer
from fsqdo.names import DRAIN, PackName, is_worker_name
from fsqdo.requirements import blocked_by, pending_place
from fsqdo.resources import lacking, wants
from fsqdo.rows import Task
from fsqdo.store import Store
from fsqdo.task import State
from fsqdo.taskoptions import Options

_NAMED = 5
_WORKERS_MOST = 200


class Worker(NamedTuple):
    """A worker that is not known to be dead."""

    name: str
    said: Mapping[str, Any]
    draining: bool

    def lacks(self, options: Options, request_s: float | None) -> str:
        """Why it cannot run a task; "" when it can."""
        cores = _number(self.said, "cores", 1)
        nodes = _number(self.said, "nodes", 1)
        mem_mb = self.said.get("mem_mb")
        # A worker of another release may not say what it has: then nothing speaks against it.
        gpus = _number(self.said, "gpus", options.gpus)
        wanted = wants(options, cores)
        why = lacking(wanted, options, cores, gpus, mem_mb if isinstance(mem_mb, int) else None, nodes)
        deadline = self.said.get("deadline")
        if not why and request_s is not None and isinstance(deadline, (int, float)):
            left_s = deadline - time.time()
            if left_s < request_s:
                why = f"it asks for {request_s:.3g} s and this worker has {max(left_s, 0):.3g} s left"
        return why


def explain(store: Store, task: Task) -> dict[str, Any]:
    """Why a task is where it is: `id`, `state`, and `why`, a list of sentences."""
    say = {State.WAITING: _waiting, State.PENDING: _pending, State.RUNNING: _running}.get(task.state, _ended)
    return {"id": task.id, "state": task.state.value, "why": say(store, task)}


# ---------------------------------------------------------------- waiting
def _waiting(store: Store, task: Task) -> list[str]:
    if task.entry.directory.startswith("waiting/until/"):
        when = task.entry.directory.split("/")[2]
        left_s = int(when) - time.time() if when.isdigit() else 0
        name, now = task.entry.name, pending_place(task.entry.name, task.definition.options)
        have_it = f"to have it now: mv {store.path(task.entry.path)} {store.path(now)}/{name.file} (make the directory)"
        return [f"it failed and is tried again in {max(0, left_s):.0f} s, by a worker", have_it]
    options = task.definition.options
    finals = Finals(store)
    finish = store.settings.requires == "finish"
    missing = finals.missing(options.requires, finish, _NAMED)
    unended = finals.missing(options.after, True, _NAMED)
    why = []
    if missing.number:
        must = "end" if finish else "succeed"
        why.append(f"it requires {missing.number} of {len(options.requires)} tasks still to {must}: {_first(missing)}")
    if unended.number:
        why.append(f"{unended.number} of the {len(options.after)} tasks it is to run after have not ended: {_first(unended)}")
    lost = None if finish else finals.lost(options.requires, _NAMED)
    if lost and lost.number:
        why.append(f"blocked: {_first(lost)} failed or was killed; `fsqdo retry` or `rerun` those to go on")
    elif missing.number and any(map(finals.any, (State.FAILED, State.KILLED))):
        roots = (root for entry, root in blocked_by(store) if entry.name.first <= task.id <= entry.name.last)
        root = next(roots, None)
        if root is not None:
            why.append(f"blocked: what it requires waits in the end for {root}, which failed or was killed; `fsqdo retry` it")
    return why or ["what it waited for has ended: the next pass of a worker moves it, or `fsqdo promote`"]


def _queue(store: Store) -> str:
    return store.directory.rpartition("/")[2]


def _first(ids: Missing) -> str:
    named = ", ".join(map(str, ids.first))
    return f"{named}, …" if ids.number > len(ids.first) else named


# ---------------------------------------------------------------- pending
def _pending(store: Store, task: Task) -> list[str]:
    why = [task.error] if task.error else []
    if store.paused():
        why.append("the queue is paused: `fsqdo resume` lets workers claim again")
    workers = workers_there(store, _WORKERS_MOST, judge=True)
    if not workers:
        return [*why, "no worker is there: start one with `fsqdo launch` or `fsqdo do`"]
    options = task.definition.options
    request_s = expected_s(options, store.settings, Durations(store))
    lacks = {worker.name: worker.lacks(options, request_s) for worker in workers}
    fitting = [worker for worker in workers if not lacks[worker.name]]
    claiming = [worker for worker in fitting if not worker.draining]
    if not fitting:
        why.append(f"no worker fits: {_reasons(lacks)}")
    elif not claiming:
        why.append("the workers that fit it are told to drain, and claim no more")
    else:
        why.append(f"{len(claiming)} of {len(workers)} workers can run it; priority {task.priority}")
    return why


def _reasons(lacks: Mapping[str, str]) -> str:
    """Why each worker cannot run it, each reason once with the first worker that has it."""
    by_reason: dict[str, list[str]] = {}
    for worker, why in lacks.items():
        by_reason.setdefault(why, []).append(worker)
    texts = [f"{why} ({_which(names)})" for why, names in by_reason.items()]
    return "; ".join(texts[:_NAMED]) + ("; …" if len(texts) > _NAMED else "")


def _which(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def workers_there(store: Store, most: int, judge: bool = False) -> list[Worker]:
    """The first workers that are not known to be dead; with `judge` that is looked at, else none is."""
    observer = Observer(store) if judge else None
    found = []
    for name in islice(filter(is_worker_name, store.names("running")), most):
        said = store.said_by(name)
        if said is None or "cores" not in said:
            continue  # a process that takes single tasks with `get`, or one of which nothing is known
        if observer is not None and observer.judge(name).alive is False:
            continue
        found.append(Worker(name, said, judge and DRAIN in (store.ls(f"running/{name}") or ())))
    return found


def _number(said: Mapping[str, Any], key: str, unknown: int) -> int:
    value = said.get(key)
    return value if type(value) is int else unknown


# ---------------------------------------------------------------- running, ended
def _running(store: Store, task: Task) -> list[str]:
    holder = task.entry.holder
    if not holder:
        return ["it is between two places: look again"]
    verdict = Observer(store).judge(holder)
    alive = {True: "which is alive", False: "which is dead: `fsqdo recover` takes it back", None: "of which nothing is known"}
    return [f"worker {holder} has it, {alive[verdict.alive]} ({verdict.reason})"]


def _ended(store: Store, task: Task) -> list[str]:
    if task.state is State.KILLED:
        return [_killed(store, task), f"`fsqdo retry {_queue(store)} --state Killed {task.id}` puts it back to pending"]
    outcome = task.outcome
    if outcome is None:
        return [] if task.state is State.SUCCEEDED else ["no journal tells more"]
    return [f"its last attempt ended {outcome.ended_at}: {outcome.how()}"]


def _killed(store: Store, task: Task) -> str:
    """How it came to be killed: its name has no worker, so all journals are asked, but for those of a whole pack."""
    attempts = [] if isinstance(task.entry.name, PackName) else journal.of_task(store, task.id)
    ended = [attempt for attempt in attempts if attempt.outcome != "started"]
    if not ended:
        return "it was killed before an attempt of it ended"
    how = f"its last attempt ended {ended[-1].ended_at}: {ended[-1].how()}"
    return how if ended[-1].outcome == "killed" else f"it was killed afterwards; {how}"
