"""Recording how attempts ended: the outcome into the journal, then the task to its place; again, when the disk was full.

An attempt that has ended is never forgotten while its worker lives: what the file system does not take is kept and tried again,
and nothing new is claimed meanwhile. If the worker ends before, the task is still in its directory, and is run again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fsqdo import requirements
from fsqdo.claims import Claim
from fsqdo.errors import StorageError
from fsqdo.failures import Failures
from fsqdo.ids import SHARD_SIZE
from fsqdo.member import Member
from fsqdo.names import succeeded_path, waiting_dir
from fsqdo.outcome import ENDS, Outcome, success_line
from fsqdo.policy import KILLED, Attempt, decide
from fsqdo.recovery import put_away
from fsqdo.store import Store
from fsqdo.task import Definition
from fsqdo.taskoptions import Options
from fsqdo.texts import utc_now, utc_text
from fsqdo.workeroptions import Summary

_FEW = 2
_LONG_AGO_S = 1.0
_MANY = 20


@dataclass
class _Unsaved:
    """An outcome that the file system has not taken yet."""

    source: str
    outcome: Outcome
    definition: Definition | None
    detail: str
    journaled: bool


class Recorder:
    """Records the outcomes of one worker.

    Parameters
    ----------
    offer
        Told which tasks have become pending because of what ended here.

    Attributes
    ----------
    summary
        Numbers of attempts, counted as they end.
    emptied
        Directories of `waiting/` that the looks emptied, for `sweep`.
    missed
        A task was not where it should have been: fenced, or moved by hand; the next look at the own directory tells.
    """

    def __init__(
        self,
        store: Store,
        member: Member,
        summary: Summary,
        report: Callable[[str], None],
        verbose: bool,
        failures: Failures | None = None,
        offer: Callable[[list[requirements.Freed]], None] | None = None,
    ) -> None:
        self._store = store
        self._member = member
        self._report = report
        self._verbose = verbose
        self._failures = failures
        self._offer = offer
        self._unsaved: list[_Unsaved] = []
        self._ended: list[tuple[int, bool]] = []
        self._first_end = 0.0
        self._told = False
        self._touched: set[int] = set()
        self.summary = summary
        self.emptied: list[str] = []
        self.missed = False

    @property
    def pending(self) -> int:
        """Number of outcomes that the file system has not taken yet."""
        return len(self._unsaved)

    @property
    def unknown(self) -> int:
        """Number of those of which not even the journal knows."""
        return sum(not unsaved.journaled for unsaved in self._unsaved)

    @property
    def unlooked(self) -> int:
        """Number of tasks that have ended since the last `look`."""
        return len(self._ended)

    def names(self) -> set[str]:
        """The names of the tasks they belong to."""
        return {unsaved.outcome.name for unsaved in self._unsaved}

    def record(self, claim: Claim, definition: Definition | None, options: Options, attempt: Attempt, kind: str) -> None:
        """Write the outcome of an attempt to the journal, then move its task.

        Raises
        ------
        StorageError
            When the file system refuses; the outcome is kept for `save_again`.

        Notes
        -----
        A kill before the journal has the line: the task is run again. After it: recover completes the move.
        """
        if kind == "succeeded" and self._is_usual(attempt):
            key = claim.key
            to = succeeded_path(claim.name, key, self._member.name)
            what = (
                attempt.started_at,
                utc_now(),
                attempt.elapsed_s,
                attempt.slot,
                attempt.cpu_s,
                attempt.max_rss_kb,
                attempt.log,
            )
            self._succeeded(claim, definition, to, success_line(key, to, *what))
            return
        if not attempt.elapsed_s:
            attempt.elapsed_s = time.monotonic() - attempt.started
        outcome = decide(claim.name, claim.key, options, self._store.settings, self._member.name, attempt, kind)
        if outcome.outcome not in ("succeeded", "killed") and self._member.is_to_be_killed(claim.key):
            attempt.reason, attempt.cause = KILLED, ""  # it was not told so yet
            outcome = decide(claim.name, claim.key, options, self._store.settings, self._member.name, attempt, "killed")
        self.summary.count(outcome.outcome)
        if self._failures is not None and (outcome.outcome != "succeeded" or self._failures.watching):
            self._failures.saw(claim.name, outcome, attempt)
        if self._verbose or outcome.outcome == "failed":
            self._report(f"task {claim.name.id} {outcome.outcome}: {outcome.how()} ({attempt.elapsed_s:.3f} s)")
        elif outcome.outcome == "succeeded" and outcome.reason and not self._told:
            self._told = True
            self._report(f"task {claim.name.id} succeeded, but {outcome.reason} (said once; `fsqdo show` tells of each)")
        source = f"{self._member.directory}/{claim.file}"
        journaled = False
        try:
            self._member.journal.append(outcome)
            journaled = True
            self._finish(source, outcome, definition, attempt.detail)
        except StorageError:
            self._unsaved.append(_Unsaved(source, outcome, definition, attempt.detail, journaled))
            raise

    def _is_usual(self, attempt: Attempt) -> bool:
        """Whether nothing is to be said of a success but what `success_line` says of a command."""
        if self._verbose or self._store.paranoid or (self._failures is not None and self._failures.watching):
            return False
        return attempt.exit_code == 0 and attempt.result is None and attempt.reason is None and attempt.cpu_s is not None

    def succeeded(self, claim: Claim, definition: Definition, started_at: float, elapsed_s: float) -> None:
        """The same for the usual success of a function of this process: written out, since many queues have no other.

        Parameters
        ----------
        started_at
            Seconds since 1970.

        Raises
        ------
        StorageError
            As of `record`.
        """
        key = claim.key
        to = succeeded_path(claim.name, key, self._member.name)
        began, ended = utc_text(int(started_at)), utc_text(int(started_at + elapsed_s))
        self._succeeded(claim, definition, to, success_line(key, to, began, ended, elapsed_s))

    def _succeeded(self, claim: Claim, definition: Definition | None, to: str, line: bytes) -> None:
        self.summary.succeeded += 1
        source = f"{self._member.directory}/{claim.file}"
        journaled = False
        try:
            self._member.journal.append_line(line)
            journaled = True
            if self._store.move(source, to):
                self._note_end(claim.name.id, True)
            else:
                self.missed = True
        except StorageError:
            outcome = Outcome.from_json(line, self._member.name)
            if outcome is not None:
                self._unsaved.append(_Unsaved(source, outcome, definition, "", journaled))
            raise

    def save_again(self) -> None:
        """Try again what could not be recorded; StorageError when it still cannot."""
        while self._unsaved:
            self._save(self._unsaved[0])
            self._unsaved.pop(0)
        if self._failures is not None:
            self._failures.saw_late()
        self._report("the outcomes are recorded now")

    def _save(self, unsaved: _Unsaved) -> None:
        if not unsaved.journaled:
            self._member.journal.append(unsaved.outcome)
            unsaved.journaled = True
        self._finish(unsaved.source, unsaved.outcome, unsaved.definition, unsaved.detail)

    def _finish(self, source: str, outcome: Outcome, definition: Definition | None, detail: str) -> None:
        if outcome.result is not None or self._store.paranoid:
            self._member.journal.sync()
        if not put_away(self._store, source, outcome, definition, detail):
            self.missed = True
        elif outcome.outcome in ENDS:
            self._note_end(int(outcome.name.partition(".")[0]), outcome.outcome == "succeeded")
        if outcome.outcome == "killed":
            self._store.unlink(f"{self._member.directory}/{outcome.name}.kill")

    def _note_end(self, task_id: int, succeeded: bool) -> None:
        """Keep for the look at what waited for it."""
        if not self._ended:
            self._first_end = time.monotonic()
        self._ended.append((task_id, succeeded))

    def left_shards(self, at: int | None, most: int) -> list[int]:
        """Shards in which tasks of this worker ended, but for the one where it claims now (`at`); each is told once."""
        found = [shard for shard in self._touched if shard != at][:most]
        self._touched.difference_update(found)
        return found

    def look(self) -> int:
        """Move on what waited for the tasks that have ended since the last look; returns how many names moved.

        Notes
        -----
        Moved first, looked afterwards, as always; for several at once one listing of `waiting/` tells most of them apart, for
        many of one shard another one of that. A kill before it leaves the watchers to the pass.
        """
        ended = self._ended
        if ended and time.monotonic() - self._first_end > _LONG_AGO_S:
            # A long call came between: what ended may be pending again since, so it is asked for.
            self._touched |= {task_id // SHARD_SIZE for task_id, _ in ended}
            moved = requirements.look_again(self._store, {task_id for task_id, _ in ended})
            self._ended = []
            return moved
        shards = {task_id // SHARD_SIZE for task_id, _ in ended}
        self._touched |= shards
        if len(ended) > _FEW:
            listed = set(self._store.ls("waiting") or ())
            waited_for = {shard for shard in shards if f"{shard:06d}" in listed}
            ended = [pair for pair in ended if pair[0] // SHARD_SIZE in waited_for]
        if len(ended) > _MANY:
            directories = [waiting_dir(task_id).rpartition("/") for task_id, _ in ended]
            crowded = [above for above, n in Counter(above for above, _, _ in directories).items() if n > _MANY]
            watched = {above: set(self._store.ls(above) or ()) for above in crowded}
            ended = [
                pair
                for pair, (above, _, name) in zip(ended, directories, strict=True)
                if above not in watched or name in watched[above]
            ]
        freed: list[requirements.Freed] = []
        moved = 0
        for task_id, succeeded in ended:
            moved += requirements.ended(self._store, task_id, succeeded, freed, self.emptied)
        if freed and self._offer is not None:
            self._offer(freed)
        self._ended = []  # only now: what an error cut short is looked at again
        return moved

    def sweep(self) -> None:
        """Remove the directories that the looks emptied: after the next claim, which shall not wait for it.

        Notes
        -----
        An rmdir each. A kill before it, or an error, leaves them to the pass.
        """
        emptied, self.emptied = self.emptied, []
        with suppress(StorageError):
            requirements.remove(self._store, emptied)
