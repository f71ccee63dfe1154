"""Recovery: taking from a dead worker what it held, so that nothing it does late can change anything.

Its directory is renamed from `running/` to `recovering/`, then emptied until `rmdir` succeeds: a rename of the old holder
that comes late finds no directory. A worker that leaves in good order does the same with its own.
"""

from __future__ import annotations

import errno
import json
from typing import NamedTuple

from fsqdo import leftovers, requirements, unpacking
from fsqdo.errors import FormatError, FsqdoError, StorageError, TaskError
from fsqdo.journal import begun, lookup, write_story
from fsqdo.liveness import Observer
from fsqdo.names import (
    DRAIN,
    NOTES_STARTS,
    WORKER_FILE,
    TaskName,
    failed_once_more,
    failed_path,
    interrupted_once_more,
    is_place,
    is_worker_name,
    killed_path,
    new_token,
    parse_opening,
    parse_task,
    parse_unpacking,
    stopped_once_more,
    succeeded_path,
)
from fsqdo.outcome import ENDS, Outcome
from fsqdo.packs import definition_from, drop, has_second_name
from fsqdo.store import Store, fs
from fsqdo.task import Definition
from fsqdo.taskoptions import Options
from fsqdo.texts import utc_now

_ROUNDS = 8
_PLACES = {
    "succeeded": ("succeeded/",),
    "failed": ("failed/",),
    "killed": ("killed/",),
    "retry": ("pending/", "waiting/until/"),
    "interrupted": ("pending/",),
}


class Recovery(NamedTuple):
    """One worker's directory that was emptied: why that was right, and how many tasks went back to pending."""

    worker: str
    reason: str
    tasks: int


def recover(store: Store, force: bool = False, dry_run: bool = False, observer: Observer | None = None) -> list[Recovery]:
    """Empty the directories of all workers that are proven dead, and what earlier recoveries left.

    Parameters
    ----------
    force
        Take from all workers, dead or not; a live one notices within seconds and stops.
    dry_run
        Only say what would be done; `tasks` is then what the worker holds.
    """
    observer = observer or Observer(store)
    done: list[Recovery] = []
    errors: list[FsqdoError] = []
    for top in ("recovering", "running"):
        for worker in _workers(store, top):
            try:
                reason = (
                    "it was declared dead before" if top == "recovering" else _why_dead(store, observer, worker, force, dry_run)
                )
                if reason and not store.is_file(f"{top}/{worker}"):  # somebody's mv
                    done.append(_emptied(store, worker, reason, dry_run))
            except (StorageError, FormatError) as error:  # of one worker keeps nobody from the others
                errors.append(error)
    observer.save()
    if errors:
        raise errors[0]
    return done


def _why_dead(store: Store, observer: Observer, worker: str, force: bool, dry_run: bool) -> str:
    """Why what a worker holds is to be taken from it; "" when it is not."""
    verdict = observer.judge(worker)
    if verdict.alive is not False:
        return f"forced, although {verdict.reason}" if force else ""
    if verdict.here and not dry_run:
        leftovers.end(store, worker)
    return verdict.reason


def _workers(store: Store, top: str) -> list[str]:
    return [name for name in store.names(top) if is_worker_name(name)]


def _emptied(store: Store, worker: str, reason: str, dry_run: bool) -> Recovery:
    if dry_run:
        held = (store.names(f"{top}/{worker}") for top in ("running", "recovering"))
        return Recovery(worker, reason, sum(parse_task(name) is not None for listed in held for name in listed))
    return Recovery(worker, reason, drain(store, worker))


def drain(store: Store, worker: str, crashed: bool = True) -> int:
    """Take away a worker's directory and empty it; returns how many tasks went back to pending.

    Parameters
    ----------
    crashed
        The worker died, maybe of its task: that counts towards `max_interruptions`.

    Notes
    -----
    Rename `running/<w>` to `recovering/<w>` (not empty: that is emptied first, then again); give every task its known outcome,
    or back; rmdir; until both are gone. A kill leaves a half-emptied `recovering/<w>`, which any later recover goes on with.
    """
    returned = 0
    for round_ in range(_ROUNDS):
        moved = store.move_directory(f"running/{worker}", f"recovering/{worker}")
        returned += _empty(store, worker, crashed)
        gone = store.remove_directory(f"recovering/{worker}")
        if gone and not moved and store.ls(f"running/{worker}") is None:
            break
        if not gone:
            fs.sleep(0.05 * round_)  # the late renames of the old holder are still coming in
    return returned


def _empty(store: Store, worker: str, crashed: bool) -> int:
    """One round over `recovering/<worker>`; returns how many tasks were given back."""
    top = f"recovering/{worker}"
    listed = store.ls(top)
    if not listed:
        return 0
    tasks = {file: name for file in listed if (name := parse_task(file)) is not None}
    outcomes = lookup(store, worker, {str(name) for name in tasks.values()})
    not_begun = _not_begun(store, worker, {str(name) for name in tasks.values()} - outcomes.keys()) if crashed else set()
    returned = 0
    for file in sorted(listed):
        if file in tasks:
            name, key = tasks[file], str(tasks[file])
            outcome = _sound(outcomes.get(key), name, worker)
            left = _Left(f"{top}/{file}", name, worker, outcome, f"{key}.kill" in listed, crashed, key not in not_begun)
            returned += _settle(store, left)
        elif (opening := parse_opening(file)) is not None:
            drop(store, top, file)
            if opening.waits_for is not None:  # it may have ended while its pack was in here
                requirements.look_again(store, [opening.waits_for])
        elif parse_unpacking(file) is not None:
            unpacking.drop(store, top, file)
        elif file.endswith(".kill"):
            if f"{file.removesuffix('.kill')}.json" not in listed:
                store.unlink(f"{top}/{file}")
        elif file in (WORKER_FILE, DRAIN):
            store.unlink(f"{top}/{file}")
        else:
            store.move(f"{top}/{file}", f"attic/{file}.{new_token()}")  # not ours: kept, but it must not hold up the fence
    return returned


def _not_begun(store: Store, worker: str, names: set[str]) -> set[str]:
    """Those of some tasks that a worker held and had not begun, where its journal notes the begin of each attempt.

    The note on the last one before its death may be missing there, and after a power cut those of the last seconds: so none is
    exempt where none of them is known to have begun.
    """
    if not names:
        return set()
    try:
        said = json.loads(store.read(f"recovering/{worker}/{WORKER_FILE}") or b"{}")
    except ValueError:
        return set()
    noted = begun(store, worker, names) if isinstance(said, dict) and said.get(NOTES_STARTS) else set()
    return names - noted if noted else set()


class _Left(NamedTuple):
    """A task that a worker left.

    Attributes
    ----------
    outcome
        What the worker's journal says of it.
    kill, crashed, begun
        Whether it was to be killed, its worker has died, and it had begun, as far as that is known.
    """

    path: str
    name: TaskName
    worker: str
    outcome: Outcome | None
    kill: bool
    crashed: bool
    begun: bool


def _settle(store: Store, left: _Left) -> bool:
    """Give one task its place; True when it went back to pending as an interruption."""
    src, name, outcome, kill = left.path, left.name, left.outcome, left.kill
    if outcome is not None and not (kill and outcome.outcome in ("retry", "interrupted")):
        complete(store, src, outcome)
        if not _still_there(store, src):
            return False
    if store.link_count(src) > 1 and has_second_name(store, src, name) and _was_second_name(store, src, name):
        return False
    if outcome is not None and not kill:
        complete(store, src, outcome)
        return False
    if kill:
        store.move(src, killed_path(name))
        requirements.ended(store, name.id, succeeded=False)
        return False
    return _give_back(store, left)


def _sound(outcome: Outcome | None, name: TaskName, worker: str) -> Outcome | None:
    """An outcome, its `to` made a place for this task where another program wrote one that is none; None where it goes back."""
    if outcome is None or _is_place_for(outcome, name.id):
        return outcome
    places = {
        "succeeded": succeeded_path(name, str(name), worker),
        "failed": failed_path(failed_once_more(name), worker),
        "killed": killed_path(name),
    }
    return outcome._replace(to=places[outcome.outcome]) if outcome.outcome in places else None


def _is_place_for(outcome: Outcome, task_id: int) -> bool:
    """Whether `to` is where this task can be after such an end."""
    directory, _, file = outcome.to.rpartition("/")
    name = parse_task(file)
    return (
        name is not None
        and name.id == task_id
        and outcome.to.startswith(_PLACES[outcome.outcome])
        and is_place(directory, name)
    )


def _still_there(store: Store, src: str) -> bool:
    directory, _, file = src.rpartition("/")
    return file in (store.ls(directory) or ())


def _was_second_name(store: Store, src: str, name: TaskName) -> bool:
    """Get rid of one of two names of one file (GlusterFS, a client killed in a rename).

    Between two names of one file rename does nothing, so only one of them can get to the attic: if this one is still listed
    afterwards, the other went there, and this one counts.
    """
    second = f"{name.id:09d}"
    for _ in range(3):
        # A rename that failed tells nothing: only once a name is in the attic is it known which of the two went.
        if store.move_directory(src, f"attic/{second}") or second in (store.ls("attic") or ()):
            return not _still_there(store, src)
        if not _still_there(store, src):
            return True  # RACE: another recovery took it
    raise StorageError(OSError(errno.EIO, "a file with two names cannot be moved"), "rename", store.path(src))


def complete(store: Store, src: str, outcome: Outcome, definition: Definition | None = None, detail: str = "") -> bool:
    """Move a task to where its outcome says, and move on what waited for it; False when the task was not at src any more.

    Notes
    -----
    `put_away`, then look for watchers. A kill before the rename leaves the task in its worker's directory with its outcome in
    the journal: recover completes it; one after it leaves the watchers to the pass.
    """
    if not put_away(store, src, outcome, definition, detail):
        return False
    if outcome.outcome in ENDS:
        requirements.ended(store, int(outcome.name.partition(".")[0]), outcome.outcome == "succeeded")
    return True


def put_away(store: Store, src: str, outcome: Outcome, definition: Definition | None = None, detail: str = "") -> bool:
    """Move a task to where its outcome says; False when it was not at src any more. Whoever calls this looks for watchers.

    Notes
    -----
    Write the story (failed for good); one rename.
    """
    if outcome.outcome == "failed":
        write_story(store, definition or _definition_at(store, src), outcome, detail)
    return store.move(src, outcome.to)


def _definition_at(store: Store, src: str) -> Definition | None:
    name = parse_task(src.rpartition("/")[2])
    content = store.read(src)
    if name is None or content is None:
        return None
    try:
        return definition_from(store, name, content)
    except TaskError:
        return None


def _give_back(store: Store, left: _Left) -> bool:
    """Move a task back to pending as an interruption; False when it was interrupted too often and failed instead."""
    definition = _definition_at(store, left.path)
    options = definition.options if definition else Options()
    to_blame = left.crashed and left.begun
    fresh = interrupted_once_more(left.name) if to_blame else stopped_once_more(left.name)
    if to_blame and fresh.i > store.settings.max_interruptions:
        times = f"this was interruption {fresh.i} (max_interruptions is {store.settings.max_interruptions})"
        reason = f"its worker died while it ran, and {times}"
        to = failed_path(failed_once_more(left.name), left.worker)
        outcome = Outcome(str(left.name), "failed", to, ended_at=utc_now(), reason=reason, worker=left.worker)
        complete(store, left.path, outcome, definition)
        return False
    return store.move(left.path, f"{requirements.returned_place(store.settings, fresh, options)}/{fresh.file}")
