"""The worker: claim, run, record, on one machine, with as many slots as it was given.

One loop in one thread: look at signals, at its own directory (every few seconds), at the clock; record what has ended; claim
and start what fits; wait for a child, a signal, or the next thing due. The heartbeat alone has a thread of its own.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fsqdo import allocation, resources, upkeep
from fsqdo.claims import Claim, Claimer
from fsqdo.errors import FencedError, FsqdoError, StorageError, TaskError
from fsqdo.failures import Failures, note
from fsqdo.fit import Fit
from fsqdo.health import unfit
from fsqdo.held import Held
from fsqdo.inline import Calls, call, keep, raised, restored, surroundings
from fsqdo.journal import lookup
from fsqdo.limits import Limits
from fsqdo.member import Member
from fsqdo.names import DRAIN, NOTES_STARTS, TaskName, parse_opening, parse_task
from fsqdo.packs import drop
from fsqdo.policy import KILLED, Attempt, begin
from fsqdo.recorder import Recorder
from fsqdo.recovery import complete, drain
from fsqdo.rules import TIME_LIMIT
from fsqdo.runner import BusyError, Ended, SpawnError
from fsqdo.signals import Signals
from fsqdo.slots import NEVER, Launcher, Ready, Slot, Slots, wait_fds
from fsqdo.store import Store
from fsqdo.task import Definition
from fsqdo.taskoptions import Options
from fsqdo.workeroptions import GRACE_S, Summary, WorkerOptions

SCAN_S = 5.0
SYNC_S = 5.0
PASS_S = 120.0
PACK_S = 0.2
_FILL_S = 0.05
_PAUSED_LOOK_S = 3.0
_IDLE_FIRST_S = 0.1
_IDLE_MOST_S = 30.0
_TROUBLE_MOST_S = 30.0
_LOOK_S = 0.02
_UNBEGUN_S = 0.01
_PACKED_ON_THE_WAY = 4  # shards: some 0.2 s in which nothing is started

_Ended = tuple[Claim, Definition | None, Options, Attempt, str]


class Worker:
    """A worker of one queue.

    Notes
    -----
    What it changes in the tree goes through `claims`, `recorder` and `member`, whose notes say what a kill leaves.
    """

    def __init__(self, store: Store, options: WorkerOptions) -> None:
        self._store = store
        self._options = options
        self._report = options.report
        variables = {
            "FSQDO_DIR": os.path.dirname(store.directory),
            "FSQDO_QUEUE": os.path.basename(store.directory),
            "FSQDO_QUEUE_DIR": store.directory,
        }
        self._grace_s = allocation.grace_s(os.environ, GRACE_S) if options.grace_s is None else options.grace_s
        self._deadline = NEVER
        ends_in_s = allocation.ends_in_s(os.environ, options.runtime_s)
        if ends_in_s is not None:
            self._grace_s = min(self._grace_s, ends_in_s / 4)
            self._deadline = time.monotonic() + ends_in_s
            variables["FSQDO_DEADLINE"] = str(int(time.time() + ends_in_s))
        self._resources = resources.of_worker(options, os.environ)
        self._inline: Callable[[Any], Any] | None = options.func if callable(options.func) else None
        function = options.func if isinstance(options.func, str) else None
        self._launcher = Launcher(options.script, function, variables, self._resources, options.mpirun or (), store.settings)
        self._slots = Slots(options.slots, self._launcher.plain and self._inline is None)
        self._summary = Summary()
        self._fit = Fit(store, self._resources, self._deadline - self._grace_s, lambda: bool(self._held.kept))
        self._started = 0
        self._stopping = ""
        self._draining = ""
        self._passes = upkeep.Passes(store, self._report)
        self._limits = Limits(store)
        self._failures = Failures(store, options, self._report)
        self._examined = self._told_of_limits = False

    # ------------------------------------------------------------ the loop
    def run(self) -> Summary:
        """Work until there is nothing left to do, or a signal or the deadline says stop; returns what was done."""
        warnings = (signal.SIGUSR1,) if self._deadline < NEVER else ()
        with Signals(self._inline is not None, warnings) as self._signals, restored("FSQDO_TASK_ID"):
            while True:
                self._join()
                try:
                    self._examine()
                    self._serve()
                    self._guarded(partial(self._act_on_failures, last=True))
                    self._leave()
                    break
                except FencedError as error:
                    self._after_fence(error)
                    if self._stopping:
                        break
                except BaseException:
                    self._kill_all()
                    with suppress(StorageError):  # what led here is the one to be told; recover does the rest
                        self._leave()
                    raise
        self._summary.why = self._stopping or self._draining or "the queue is drained"
        return self._summary

    def _join(self) -> None:
        """Become a worker of the queue, under a new name."""
        options = self._options
        deadline = None if self._deadline == NEVER else int(time.time() + self._deadline - time.monotonic())
        job = allocation.job_number(os.environ, self._store.directory)
        self._member = Member(
            self._store,
            slots=options.slots,
            **self._resources.describe(),
            **({NOTES_STARTS: True} if self._inline is None else {}),
            job=job,
            deadline=deadline,
            restarts=allocation.restarts(os.environ),
        )
        self._claimer = Claimer(self._store, self._member.name, self._report, self._fit.judge, options.slots)
        self._recorder = Recorder(
            self._store, self._member, self._summary, self._report, options.verbose, self._failures, self._claimer.offer
        )
        self._held = Held(
            self._store, self._member, self._claimer, self._fit, self._launcher, self._record, self._slots, self._report
        )
        self._calls = self._new_calls()
        now = time.monotonic()
        self._next_scan = self._next_poll = now + SCAN_S
        self._next_look = now
        self._next_sync = now + SYNC_S
        self._next_pack = now + PACK_S
        self._next_pass = now + PASS_S * random.uniform(0.5, 1.5)
        self._next_try = self._next_flush = self._next_pause_look = self._idle_since = now
        if not self._started:
            self._next_try = self._idle_since = now + random.uniform(0, self._options.stagger_s)
        self._paused = self._looked_twice = False
        self._pause_s = _IDLE_FIRST_S
        self._guarded(self._passes.due)  # counted from now on

    def _examine(self) -> None:
        """Run the health check, once; a worker on an unfit machine drains before it has claimed anything."""
        command = self._options.health_check or self._store.settings.health_check
        if command is None or self._examined:
            return
        self._examined = True

        def unwanted() -> bool:
            return bool(self._signals.got) or time.monotonic() >= self._deadline - self._grace_s

        why = unfit(
            self._store, self._member.name, command, self._launcher.spawner, lambda s: self._signals.wait(s, []), unwanted
        )
        if why:
            self._draining, self._summary.trouble = why, True
            self._report(f"this worker ends without a claim: {why}")
            self._guarded(partial(note, self._store, self._member.name, why))

    def _act_on_failures(self, last: bool = False) -> None:
        """Do what failures lead to beyond their own task."""
        if self._failures.why and not self._draining:
            self._draining, self._summary.trouble = self._failures.why, True
        if self._failures.due and self._failures.act(self._member.name, last):
            self._paused, self._next_pause_look = True, time.monotonic() + 1.0

    def _leave(self) -> None:
        for slot in self._slots.all:
            slot.close()
        if self._recorder.unknown:
            self._summary.trouble = True
            self._report(f"{self._recorder.unknown} outcomes could not be recorded; these tasks will run again")
        self._member.leave()

    def _after_fence(self, error: FencedError) -> None:
        """Others have what this worker held: stop the copies here, move nothing, start anew under a new name."""
        deleted = self._store.ls("") is None
        self._report(
            "the queue was deleted; its tasks here are killed"
            if deleted
            else f"{error}; its tasks are killed here, others run them"
        )
        self._kill_all()
        self._member.abandon()
        if deleted:
            self._stopping = "the queue was deleted"
        else:  # nothing is there, if all is as it seems
            self._guarded(partial(drain, self._store, self._member.name, crashed=False))
        for slot in self._slots.all:
            slot.close()

    def _kill_all(self) -> None:
        for slot in self._slots.busy():
            slot.kill()
            while slot.poll() is None:
                self._signals.wait(0.05, wait_fds([slot]))
            slot.clear()

    def _serve(self) -> None:
        """Until nothing is left to do, or it is told to stop and what ran has ended."""
        while True:
            now = time.monotonic()
            self._obey(now)
            ended = self._reap(now)
            if ended and not self._failures.careful and (self._held.ahead or self._claimer.ready) and self._may_start(now):
                self._fill(now, eager=True)  # the next ones run while these are recorded
            for claim, definition, options, attempt, kind in ended:
                self._record(claim, definition, options, attempt, kind)
            if self._failures.due or self._failures.why:
                self._guarded(self._act_on_failures)
            self._look(now)
            if self._recorder.pending and (now >= self._next_try or self._stopping):
                self._guarded(self._recorder.save_again)
            if self._may_start(now):
                self._fill(now)
                self._claim_ahead()
            if self._recorder.emptied:
                self._recorder.sweep()
            if (self._stopping or (self._draining and not self._recorder.pending)) and not self._slots.busy():
                self._guarded(self._recorder.look)
                self._recorder.sweep()
                return
            self._wait()

    def _look(self, now: float) -> None:
        """Move on what waited for what has ended: where tasks are short for some at once, a moment later."""
        if not self._recorder.unlooked:
            self._next_look = now + (_LOOK_S if self._held.short else 0.0)
        elif now >= self._next_look:
            self._next_look = now + _LOOK_S
            if not self._guarded(self._recorder.look):
                self._next_look = self._next_try

    def _may_start(self, now: float) -> bool:
        return now >= self._next_try and not (self._stopping or self._draining or self._recorder.pending)

    def _wait(self) -> None:
        """Sleep until a child ends, a signal comes, or the next thing is due."""
        now = time.monotonic()
        if now >= self._next_flush and not self._guarded(self._member.journal.flush):
            self._next_flush = self._next_try
        busy = self._slots.busy()
        due = min(self._next_scan, self._next_pass, self._next_sync, self._slots.due)
        if self._recorder.unlooked:
            due = min(due, self._next_look)
        if not self._stopping:
            due = min(due, self._deadline - self._grace_s)
            if self._recorder.pending or (len(busy) < len(self._slots) and not self._draining):
                due = min(due, self._next_try)
        if self._held.ahead:
            due = min(due, self._held.ahead_until)
        if self._inline is not None and any(slot.run.pid == 0 for slot in busy if slot.run is not None):
            due = min(due, now + _UNBEGUN_S)  # the check of what ran in this process: no child's end wakes the loop for it
        if due > now:
            self._signals.wait(due - now, self._slots.wait_fds())

    def _guarded(self, step: Callable[[], object]) -> bool:
        """Do something that the file system may refuse; False when it did: said, and tried again later, ever more slowly."""
        try:
            step()
            return True
        except StorageError as error:
            self._trouble(error)
            return False

    def _trouble(self, error: FsqdoError) -> None:
        self._pause_s = min(max(self._pause_s * 2, 1.0), _TROUBLE_MOST_S)
        self._report(f"{error}; this worker tries again in {self._pause_s:.0f} s")
        self._next_try = time.monotonic() + self._pause_s

    # ------------------------------------------------------------ orders
    def _obey(self, now: float) -> None:
        """Signals, the deadline, the clock of each slot; what is due every few seconds."""
        if self._signals.got:
            for number in self._signals.take():
                self._on_signal(number)
        if now >= self._deadline - self._grace_s and not self._stopping:
            self._stop("its time is over")
        self._slots.enforce(now, lambda slot: self._limits.words(slot.options, slot.limit_s), self._grace_s)
        if now >= self._next_scan or self._recorder.missed:
            self._next_scan, self._recorder.missed = now + SCAN_S, False
            self._guarded(self._scan)
            for slot in self._slots.busy() if self._limits.changing else ():
                slot.limit(self._limits.of(slot.options))
                self._slots.changed(slot)
        if now >= self._next_sync:
            self._next_sync = now + SYNC_S
            self._guarded(self._member.journal.sync)
        self._keep_up(now)
        held = self._held
        unwanted = now >= held.ahead_until or self._stopping or self._draining or self._paused
        if held.ahead and unwanted and not self._guarded(held.put_back_ahead):
            held.ahead_until = self._next_try
        if held.kept and (self._stopping or self._draining):
            self._guarded(held.put_back_kept)

    def _keep_up(self, now: float) -> None:
        """Pack the shards this worker has left, soon; the whole pass rarely."""
        if now >= self._next_pack:
            self._next_pack = now + PACK_S
            left = self._recorder.left_shards(self._claimer.shard, _PACKED_ON_THE_WAY)
            if left:
                self._guarded(partial(self._passes.pack_left, left))
        if now >= self._next_pass:
            self._next_pass = now + PASS_S * random.uniform(0.75, 1.25)
            self._guarded(self._pass_if_due)

    def _pass_if_due(self) -> None:
        """One of all the workers does the pass, about every two minutes, while there is work for all."""
        if self._passes.due():
            self._passes.run(_PACKED_ON_THE_WAY)
            self._passes.due()  # the lock of this very pass is none of another's

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR1 and self._deadline < NEVER:
            # A warning: what ends in time may, and the rest is stopped when the deadline is near (`_obey`).
            self._draining = self._draining or "warned by SIGUSR1 that its time is nearly over"
        elif not self._stopping:
            self._stop(f"stopped by {signal.Signals(number).name}")
        elif number == signal.SIGINT:
            for slot in self._slots.busy():
                slot.kill()

    def _stop(self, why: str) -> None:
        """Claim no more; stop what runs, as interruptions, early enough to have moved it when the grace is over."""
        self._stopping = why
        for slot in self._slots.busy():
            slot.stop("interrupted", why, self._grace_s * 0.8)
            self._slots.changed(slot)

    def _scan(self) -> None:
        """Look into the own directory for a fence, orders, and claims whose reply was lost."""
        listed = self._member.listing()
        running = {str(slot.claim.name): slot for slot in self._slots.all if slot.claim is not None}
        known = set(running) | self._recorder.names() | self._held.keys()
        if DRAIN in listed and not self._draining:
            self._draining = "told to drain"
        for file in listed:
            name = parse_task(file)
            if name is not None and str(name) not in known:
                self._adopt(name)
            elif file.endswith(".kill"):
                self._kill(file.removesuffix(".kill"), running, listed)
            elif parse_opening(file) and file not in self._claimer.openings:
                drop(self._store, self._member.directory, file)

    def _adopt(self, name: TaskName) -> None:
        """A task in the own directory that this worker does not know: a claim or a finish whose reply was lost."""
        path = f"{self._member.directory}/{name}.json"
        outcome = lookup(self._store, self._member.name, [str(name)]).get(str(name))
        if outcome is not None:
            complete(self._store, path, outcome)
            return
        content = self._store.read(path)
        if content is not None:
            ready = self._held.read(Claim(name, f"{name}.json", content))
            if ready is not None:
                self._held.kept.append(ready)

    def _kill(self, key: str, running: dict[str, Slot], listed: list[str]) -> None:
        slot = running.get(key)
        if slot is not None:
            slot.stop("killed", KILLED, self._grace_s)
            self._slots.changed(slot)
        elif not self._held.kill(key) and f"{key}.json" not in listed:
            self._store.unlink(f"{self._member.directory}/{key}.kill")

    # ------------------------------------------------------------ claim
    def _fill(self, now: float, eager: bool = False) -> None:
        """Claim and start until the slots are full, nothing more is to be had, or it is time to look at orders again.

        Parameters
        ----------
        eager
            Outcomes wait to be recorded meanwhile: that nothing is pending means nothing yet, others may wait for just these.
        """
        until = now + _FILL_S
        if self._calls is not None and not (self._held.kept or self._failures.careful):
            self._fill_with_calls(self._calls, now, until)
            return
        for slot in self._slots.all:
            while slot.run is None:  # a function of this process has ended when `_accept` returns
                if not self._may_claim(now):
                    return
                try:
                    ready = self._held.next()
                    if ready is not None:
                        self._accept(slot, ready)
                    elif eager or not self._found_nothing(now):
                        return
                except StorageError as error:
                    self._trouble(error)
                    return
                now = time.monotonic()
                if self._signals.got or self._next_try > now or now > until:
                    return

    def _fill_with_calls(self, calls: Calls, now: float, until: float) -> None:
        """Call the function of this process for tasks that need nothing else; what is unusual is accepted as others are."""
        while self._may_claim(now):
            most, before = self._options.max_tasks, calls.started
            try:
                try:
                    claim = calls.run(until, NEVER if most is None else most - self._started)
                finally:
                    if calls.started > before:
                        self._started += calls.started - before
                        self._idle_since, self._pause_s, self._looked_twice = NEVER, _IDLE_FIRST_S, False
                ready = None if claim is None else self._held.read(claim)
                if ready is not None:
                    self._accept(self._slots.all[0], ready)
                if not calls.dry or not self._found_nothing(now):
                    return
            except StorageError as error:
                self._trouble(error)
                return
            now = time.monotonic()
            if self._signals.got or self._next_try > now or now > until:
                return

    def _usual(self, options: Options) -> bool:
        """Whether a task needs nothing but its call."""
        asks = options.env or options.cwd is not None
        return self._limits.of(options) == NEVER and not asks and not self._fit.never(options)

    def _new_calls(self) -> Calls | None:
        """None where every task needs more than its call."""
        settings, options = self._store.settings, self._options
        careful = options.verbose or self._store.paranoid or self._deadline < NEVER
        if self._inline is None or careful or settings.success_check is not None or settings.time_limit is not None:
            return None
        return Calls(self._inline, self._signals, self._claimer, self._recorder, self._usual, self._fit.judge)

    def _found_nothing(self, now: float) -> bool:
        """Nothing could be taken: whether to try again at once; if not, when."""
        if self._held.must_wait():
            self._next_try = NEVER  # until something here has ended
        elif self._claimer.cut_short:
            self._next_try = now
        elif self._recorder.look():
            return True
        else:
            self._idle()
        return False

    def _may_claim(self, now: float) -> bool:
        if self._options.max_tasks is not None and self._started >= self._options.max_tasks:
            self._draining = self._draining or f"it started as many tasks as it may, {self._started}"
        if self._draining:
            return False
        if now >= self._next_pause_look:
            self._next_pause_look = now + 1.0
            if not self._guarded(self._look_whether_paused):
                return False
        if self._paused:
            self._idle_for(now)
            self._next_try = min(self._next_try, now + _PAUSED_LOOK_S)
            self._end_if_idle(now)
        return not self._paused

    def _look_whether_paused(self) -> None:
        was, self._paused = self._paused, self._store.paused()
        if self._paused and not was:  # who started it, and sees nothing happen, is to know why
            self._report("the queue is paused: this worker waits for `fsqdo resume`")

    def _claim_ahead(self) -> None:
        """Where tasks are short, claim the next ones while these run."""
        if not self._held.short or self._paused or self._draining or self._failures.careful:
            return
        most = len(self._slots) if self._options.max_tasks is None else self._options.max_tasks - self._started
        self._guarded(partial(self._held.claim_ahead, most))

    def _accept(self, slot: Slot, ready: Ready) -> None:
        """Start a task; keep it when it has to wait for what others have here; put it back when it does not fit."""
        self._idle_since, self._looked_twice = NEVER, False
        claim, definition, _ = ready
        options = definition.options
        why = self._fit.never(options)
        if why:
            self._put_back(ready, why)
            return
        slot.share = self._resources.take(options)
        if slot.share is None:
            self._held.kept.append(ready)
            return
        self._held.began()
        slot.claim, slot.definition, slot.options = claim, definition, options
        slot.attempt = attempt = begin(slot.index)
        self._started += 1
        if self._options.verbose:
            self._report(f"task {claim.name.id} starts, attempt {claim.name.attempt}")
        if self._inline is not None:
            self._call(slot, ready, attempt, self._inline)
        else:
            self._begin(slot, ready, attempt)
        self._pause_s = _IDLE_FIRST_S  # not before: what cannot be started is tried ever more slowly

    def _put_back(self, ready: Ready, why: str) -> None:
        """Put a task that does not fit after all (time has passed since it was claimed) back for others."""
        task_id = ready.claim.name.id
        self._claimer.unfit.add(task_id)
        self._fit.why = self._fit.why or f"task {task_id}: {why}"
        self._report(f"task {task_id} is left to other workers: {why}")
        self._held.put_back(ready.claim, ready.definition)

    def _idle(self) -> None:
        """Nothing to claim: do the pass; then wait, or end."""
        if self._passes.run():
            return
        now = time.monotonic()
        self._idle_for(now)
        self._member.journal.sync()
        if self._slots.busy():
            return
        if self._options.idle_s is not None:
            self._end_if_idle(now)
        elif not self._looked_twice and (self._passes.sharers > 1 or self._store.ls("pending")):
            # The last pack may be in the hands of another, who is opening it; or one listing was wrong.
            self._looked_twice = True
        elif not self._passes.more_to_come():
            left = self._claimer.left
            unfit = (
                f"{left} {'task is' if left == 1 else 'tasks are'} left to other workers ({self._fit.why or self._claimer.why})"
            )
            self._draining = unfit if left else "the queue is drained"

    def _end_if_idle(self, now: float) -> None:
        idle_s = self._options.idle_s
        if idle_s is None or self._slots.busy():
            return
        if now - self._idle_since >= idle_s:
            self._draining = f"no task for {idle_s:g} s"
        else:
            self._next_try = min(self._next_try, self._idle_since + idle_s)

    def _idle_for(self, now: float) -> None:
        if self._idle_since == NEVER:
            self._idle_since = now
        self._next_try = now + self._pause_s * random.uniform(0.7, 1.3)
        self._pause_s = min(self._pause_s * 1.6, _IDLE_MOST_S)

    # ------------------------------------------------------------ run
    def _begin(self, slot: Slot, ready: Ready, attempt: Attempt) -> None:
        try:
            if ready.prepared is None:
                ready = self._launcher.prepare(ready.claim, ready.definition, self._member.name)
            slot.begin(ready, self._store, self._member, self._launcher, self._limits.of(slot.options))
            self._slots.changed(slot)
        except (SpawnError, TaskError) as error:
            attempt.reason = str(error)
            attempt.exit_code = error.task_exit_code if isinstance(error, SpawnError) else None
            slot.note_output(attempt)
            self._record_slot(slot, attempt, "failed")
        except BusyError as error:
            attempt.reason = str(error)
            self._record_slot(slot, attempt, "interrupted")
            self._trouble(error)
        except StorageError:
            if slot.run is None:
                self._keep(slot, ready)
            raise

    def _keep(self, slot: Slot, ready: Ready) -> None:
        """Keep a task that could not be begun, without any of the resources; forgotten, the queue might seem drained."""
        slot.clear()
        self._started -= 1
        self._held.kept.append(Ready(ready.claim, ready.definition))

    def _call(self, slot: Slot, ready: Ready, attempt: Attempt, function: Callable[[Any], Any]) -> None:
        """Run a function of this process, to its end; its `success_check`, if there is one, goes on in the slot."""
        limit_s = self._limits.of(slot.options)
        if limit_s < NEVER and not self._signals.limits_calls and not self._told_of_limits:
            self._told_of_limits = True
            self._report("time limits have no effect here: a function can be stopped in the main thread only")
        left_s = max(0.001, self._deadline - self._grace_s - time.monotonic())
        kind = "succeeded"
        try:
            with surroundings(slot.options):
                result = call(self._signals, function, ready.definition, min(limit_s, left_s))
            if result is not None:
                keep(attempt, result)
        except BaseException as error:  # noqa: BLE001  `raised` raises again what is not the task's affair
            kind = raised(self._signals, error, attempt)
            if attempt.cause == TIME_LIMIT:
                attempt.reason = self._limits.words(slot.options, limit_s)
                if left_s < limit_s:
                    kind, attempt.cause, attempt.reason = "interrupted", "", "its worker's time is over"
        attempt.elapsed_s = time.monotonic() - attempt.started
        if kind == "succeeded" and self._store.settings.success_check is not None:
            ended = Ended(0, None, 0.0, 0, attempt.elapsed_s, attempt.result, reason=attempt.reason)
            attempt.reason = None  # that of the check would come after it
            try:
                if slot.begin_check(ready, self._store, self._member, self._launcher, ended, limit_s):
                    self._slots.changed(slot)
                    return
                attempt.reason = ended.reason
            except StorageError:
                if slot.run is None:  # unchecked it counts for nothing: it is called again
                    self._keep(slot, ready)
                raise
        self._record_slot(slot, attempt, kind)

    # ------------------------------------------------------------ record
    def _reap(self, now: float) -> list[_Ended]:
        """The attempts that have ended since the last time; their slots are free."""
        found = []
        look_at_all = now >= self._next_poll
        if look_at_all:
            self._next_poll = now + SCAN_S
        for slot in self._slots.ended(look_at_all):
            ended = slot.poll()
            if ended is None or slot.claim is None:
                continue
            self._held.ended(ended[0].elapsed_s)
            if ended[1] == "succeeded":
                self._fit.durations.note(ended[0].elapsed_s)
            found.append((slot.claim, slot.definition, slot.options, *ended))
            slot.clear()
        if found:
            self._next_try = min(self._next_try, now)
        return found

    def _record_slot(self, slot: Slot, attempt: Attempt, kind: str) -> None:
        """Free a slot whose attempt has ended without a process, and record it."""
        claim, definition, options = slot.claim, slot.definition, slot.options
        slot.clear()
        if claim is not None:
            self._record(claim, definition, options, attempt, kind)

    def _record(self, claim: Claim, definition: Definition | None, options: Options, attempt: Attempt, kind: str) -> None:
        """Write the outcome to the journal and move the task."""
        try:
            self._recorder.record(claim, definition, options, attempt, kind)
        except StorageError as error:
            self._trouble(error)
