"""The tasks that a worker holds and has not begun: claimed ahead where tasks are short, or waiting for cores here."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from fsqdo.claims import Claim, Claimer
from fsqdo.errors import TaskError
from fsqdo.fit import Fit
from fsqdo.member import Member
from fsqdo.names import moved_by_hand
from fsqdo.packs import claimed_definition
from fsqdo.policy import KILLED, Attempt, begin
from fsqdo.requirements import pending_place
from fsqdo.runner import SpawnError
from fsqdo.slots import NEVER, NO_OPTIONS, Launcher, Ready, Slots
from fsqdo.store import Store
from fsqdo.task import Definition
from fsqdo.taskoptions import Options

_SHORT_S = 0.05
_AHEAD_S = 0.5
_AHEAD_MOST = 4


class Held:
    """What one worker holds and has not begun, and where it gets more.

    Parameters
    ----------
    fit, launcher
        The worker's, who can say what fits it, and what a task needs before it starts.
    record
        Told how what was not begun has ended, as `Worker._record` is: its content was bad, or its user killed it.
    slots
        The worker's.
    report
        Told of a file that was edited, and cannot be read since.

    Attributes
    ----------
    kept
        What has to wait until something here has ended, or could not be begun yet.
    ahead
        What was claimed before a slot is free for it, the next one first.
    ahead_until
        When that is to be put back, on the monotonic clock.

    Notes
    -----
    All of it lies in the worker's directory: a kill leaves it to recover.
    """

    def __init__(
        self,
        store: Store,
        member: Member,
        claimer: Claimer,
        fit: Fit,
        launcher: Launcher,
        record: Callable[[Claim, Definition | None, Options, Attempt, str], None],
        slots: Slots,
        report: Callable[[str], None],
    ) -> None:
        self._store = store
        self._member = member
        self._claimer = claimer
        self._fit = fit
        self._launcher = launcher
        self._record = record
        self._slots = slots
        self._report = report
        self._overtaken = 0
        self._typical_s = 1.0  # of tasks, in the mean of the last few
        self.kept: list[Ready] = []
        self.ahead: list[Ready] = []
        self.ahead_until = NEVER

    @property
    def short(self) -> bool:
        """Whether tasks are so short just now that a slot should not wait for the file system."""
        return self._typical_s <= _SHORT_S

    def keys(self) -> set[str]:
        """The names of the tasks, as journals know them."""
        return {ready.claim.key for ready in (*self.kept, *self.ahead)}

    def ended(self, elapsed_s: float) -> None:
        """Take note of what a task took."""
        self._typical_s += (elapsed_s - self._typical_s) / 4

    def began(self) -> None:
        """Take note that a task starts: it overtakes those kept here."""
        self._overtaken += bool(self.kept)

    def must_wait(self) -> bool:
        """Whether nothing more may start before what is kept here: enough smaller ones have."""
        return bool(self.kept) and self._overtaken >= len(self._slots) and bool(self._slots.busy())

    def next(self) -> Ready | None:
        """The next task to start: one that is here already, or a fresh claim; None when nothing is pending.

        Raises
        ------
        FencedError, StorageError
            As of `Claimer.claim`.
        """
        for kept in list(self.kept):
            if self._member.is_to_be_killed(kept.claim.key):
                self.kept.remove(kept)
                self._killed(kept.claim, kept.definition)
                continue
            options = kept.definition.options
            if self._fit.fits_now(options) or self._fit.never(options):
                self.kept.remove(kept)
                self._overtaken = 0
                return kept
        if self.must_wait():
            return None
        return self.ahead.pop(0) if self.ahead else self._claim()

    def _claim(self) -> Ready | None:
        """Claim the next task whose content can be read; None when nothing is pending."""
        self._member.journal.flush()  # whoever recovers after a kill in a long wait for the file system must know what runs
        while True:
            claim = self._claimer.claim()
            if claim is None:
                return None
            ready = self.read(claim)
            if ready is not None:
                return ready

    def read(self, claim: Claim) -> Ready | None:
        """Read what was claimed; None when its content is bad: then it has failed."""
        if claim.definition is not None:
            return Ready(claim, claim.definition)
        try:
            path = f"{self._member.directory}/{claim.file}"
            return Ready(claim, claimed_definition(self._store, path, claim.name, claim.content, self._report))
        except TaskError as error:
            attempt = begin()
            attempt.reason = str(error)
            attempt.detail = "content of its file:\n" + claim.content[:2000].decode(errors="replace")
            self._record(claim, None, NO_OPTIONS, attempt, "failed")
            return None

    def claim_ahead(self, most: int) -> None:
        """Claim the next tasks, up to so many, while others run; errors as of `Claimer.claim`.

        Never the last ones of a bundle, which others may look for; and what is not begun soon is to be put back.
        """
        most = min(len(self._slots), _AHEAD_MOST, most)
        while len(self.ahead) < most and self._claimer.plenty:
            ready = self._claim()
            if ready is None:
                return
            with suppress(SpawnError, TaskError):  # said when it is started
                ready = self._launcher.prepare(ready.claim, ready.definition, self._member.name)
            self.ahead.append(ready)
            self.ahead_until = time.monotonic() + _AHEAD_S

    def put_back_ahead(self) -> None:
        """Put what was claimed ahead, and is not needed after all, back for others."""
        self._typical_s = 1.0  # tasks are not short any more, until some were again
        self._put_back_all(self.ahead)

    def put_back_kept(self) -> None:
        """Put what waits here back: nothing is started any more."""
        self._put_back_all(self.kept)

    def _put_back_all(self, held: list[Ready]) -> None:
        while held:
            self.put_back(held[-1].claim, held[-1].definition)
            held.pop()

    def kill(self, key: str) -> bool:
        """Take out a task of this name, if it is here, since its user wants it killed."""
        for held in (self.kept, self.ahead):
            for ready in held:
                if ready.claim.key == key:
                    held.remove(ready)
                    self._killed(ready.claim, ready.definition)
                    return True
        return False

    def _killed(self, claim: Claim, definition: Definition) -> None:
        attempt = begin()
        attempt.reason = KILLED
        self._record(claim, definition, definition.options, attempt, "killed")

    def put_back(self, claim: Claim, definition: Definition) -> None:
        """Move a task that was not begun back to pending, under a fresh name; one that its user wants killed is."""
        if self._member.is_to_be_killed(claim.key):
            self._killed(claim, definition)
            return
        fresh = moved_by_hand(claim.name)
        place = pending_place(fresh, definition.options)
        self._store.move(f"{self._member.directory}/{claim.file}", f"{place}/{fresh.file}")
