"""The worker: claim, run, record, on one machine, with as many slots as it was given.

One loop in one thread: look at signals, at its own directory (every few seconds), at the clock; record what has ended; claim
and start what fits; wait for a child, a signal, or the next thing due. The heartbeat alone has a thread of its own.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsqdo import upkeep
from fsqdo.claims import Claim, Claimer
from fsqdo.errors import FencedError, FsqdoError, InputError, StorageError, TaskError
from fsqdo.journal import log_path, lookup
from fsqdo.member import Member
from fsqdo.names import DRAIN, TaskName, moved_by_hand, parse_opening, parse_task
from fsqdo.packs import claimed_definition, drop
from fsqdo.policy import Attempt, begin, decide
from fsqdo.recovery import complete
from fsqdo.requirements import pending_place
from fsqdo.runner import BusyError, Ended, Spawner, SpawnError
from fsqdo.signals import Signals
from fsqdo.store import Appender, Store
from fsqdo.task import Definition, Options, Outcome, command_from

if TYPE_CHECKING:
    from fsqdo.functions import FunctionSlot

GRACE_S = 10.0
SCAN_S = 5.0
SYNC_S = 5.0
_FILL_S = 0.05
_PAUSED_LOOK_S = 3.0
PASS_S = 120.0
_IDLE_FIRST_S = 0.1
_IDLE_MOST_S = 30.0
_TROUBLE_MOST_S = 30.0


@dataclass
class WorkerOptions:
    """How a worker works.

    Attributes
    ----------
    slots, cores
        Tasks at once at most, and cores they may use in all (None: those this process may use, or one a slot if more).
    idle_s
        End after this many seconds without a task; None: when the queue is drained.
    max_tasks
        Start at most this many attempts.
    runtime_s
        End, with tasks stopped and given back, before this many seconds are over.
    script
        Template that makes a command of each task.
    func
        `package.module:function` to be called with each task in a forked child per slot, or a callable, called here.
    report
        Called with each line that people should see.
    verbose
        Report every claim and every end.
    """

    slots: int = 1
    cores: int | None = None
    idle_s: float | None = None
    max_tasks: int | None = None
    runtime_s: float | None = None
    script: str | None = None
    func: str | Callable[[Any], Any] | None = None
    report: Callable[[str], None] = lambda text: print(f"fsqdo: {text}", file=sys.stderr)
    verbose: bool = False

    def __post_init__(self) -> None:
        for key, lowest in (("slots", 1), ("cores", 1), ("max_tasks", 0)):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < lowest):
                raise InputError(f"{key} is {value!r}, but must be an integer of at least {lowest}")
        for key in ("idle_s", "runtime_s"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
                raise InputError(f"{key} is {value!r}, but must be a number of seconds")
        if self.func is not None and self.script is not None:
            raise InputError("a worker has a script or a function, not both")
        if callable(self.func) and self.slots != 1:
            raise InputError("a function of this process runs one task at a time", "give it as 'package.module:function'")
        if self.cores is None:
            self.cores = max(self.slots, len(os.sched_getaffinity(0)))


@dataclass
class Summary:
    """What a worker did: numbers of attempts, and why it ended."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    interrupted: int = 0
    killed: int = 0
    why: str = ""

    def __str__(self) -> str:
        parts = [f"{self.succeeded} succeeded", f"{self.failed} failed"]
        parts += [f"{n} {word}" for n, word in self._rare() if n]
        return ", ".join(parts) + f"; {self.why}"

    def _rare(self) -> list[tuple[int, str]]:
        return [(self.retried, "to be retried"), (self.interrupted, "interrupted"), (self.killed, "killed")]

    def count(self, kind: str) -> None:
        """Add one attempt that ended so."""
        if kind == "succeeded":
            self.succeeded += 1
            return
        attribute = {"retry": "retried"}.get(kind, kind)
        setattr(self, attribute, getattr(self, attribute) + 1)


@dataclass
class _Slot:
    """One place in which a task runs."""

    index: int
    log: Appender | None = None
    function: FunctionSlot | None = None
    run: Any = None
    claim: Claim | None = None
    options: Options = field(default_factory=Options)
    definition: Definition | None = None
    attempt: Attempt | None = None
    log_first: int = 0
    stop_at: float = float("inf")
    stopped_as: str = ""
    kill_at: float = float("inf")


@dataclass
class _Unsaved:
    """An outcome that the file system has not taken yet."""

    claim: Claim
    outcome: Outcome
    definition: Definition | None
    detail: str
    journaled: bool = False


class Worker:
    """A worker of one queue.

    Notes
    -----
    What it changes in the tree goes through `claims`, `recovery.complete` and `member`, whose notes say what a kill leaves.
    """

    def __init__(self, store: Store, options: WorkerOptions) -> None:
        self._store = store
        self._options = options
        self._inline: Callable[[Any], Any] | None = options.func if callable(options.func) else None
        self._new_function_slot = _function_slots(options.func) if isinstance(options.func, str) else None
        self._slots = [_Slot(index) for index in range(options.slots)]
        self._summary = Summary()
        self._unsaved: list[_Unsaved] = []
        self._adopted: list[Claim] = []
        self._started = 0
        self._stopping = ""
        self._draining = ""
        self._grace_s = GRACE_S
        if options.runtime_s is not None:
            self._grace_s = min(GRACE_S, options.runtime_s / 4)
        self._deadline = float("inf") if options.runtime_s is None else time.monotonic() + options.runtime_s
        self._passes = upkeep.Passes(store)
        self._base_env = {
            "FSQDO_DIR": os.path.dirname(store.directory),
            "FSQDO_QUEUE": os.path.basename(store.directory),
            "FSQDO_QUEUE_DIR": store.directory,
        }
        if options.runtime_s is not None:
            self._base_env["FSQDO_DEADLINE"] = str(int(time.time() + options.runtime_s))
        environ = {key: value for key, value in os.environ.items() if key != "FSQDO_JOB"}  # the job is the worker's, not the task's
        self._spawner = Spawner({**environ, **self._base_env})

    # ------------------------------------------------------------ the loop
    def run(self) -> Summary:
        """Work until there is nothing left to do, or a signal or the deadline says stop; returns what was done."""
        with Signals(interrupt_calls=self._inline is not None) as self._signals:
            while True:
                self._join()
                try:
                    self._serve()
                    break
                except FencedError as error:
                    self._after_fence(error)
                    if self._store.ls("") is None:
                        self._stopping = "the queue was deleted"
                    if self._stopping:
                        self._summary.why = self._stopping
                        return self._summary
                except BaseException:
                    self._kill_all()
                    self._leave()
                    raise
            self._leave()
        self._summary.why = self._stopping or self._draining or "the queue is drained"
        return self._summary

    def _join(self) -> None:
        job = os.environ.get("FSQDO_JOB")
        deadline = None if self._options.runtime_s is None else int(time.time() + self._deadline - time.monotonic())
        self._member = Member(
            self._store, slots=self._options.slots, cores=self._options.cores, job=job, deadline=deadline
        )
        self._claimer = Claimer(self._store, self._member.name, self._options.report)
        now = time.monotonic()
        self._next_scan = now + SCAN_S
        self._next_sync = now + SYNC_S
        self._next_pass = now + PASS_S * random.uniform(0.5, 1.5)
        self._next_try = now
        self._next_pause_look = now
        self._paused = False
        self._idle_since = now
        self._pause_s = _IDLE_FIRST_S
        self._fence_checked = now

    def _leave(self) -> None:
        for slot in self._slots:
            if slot.function is not None:
                slot.function.close()
            if slot.log is not None:
                slot.log.close()
        if self._unsaved:
            self._options.report(f"{len(self._unsaved)} outcomes could not be recorded; these tasks will run again")
        self._member.leave()

    def _after_fence(self, error: FencedError) -> None:
        """Others have what this worker held: stop the copies here, move nothing, start anew under a new name."""
        self._options.report(f"{error}; its tasks here are killed, others run them")
        self._kill_all()
        self._member.abandon()
        self._unsaved.clear()
        self._adopted.clear()
        for slot in self._slots:
            if slot.function is not None:
                slot.function.close()
            if slot.log is not None:
                slot.log.close()
        self._slots = [_Slot(index) for index in range(self._options.slots)]

    def _kill_all(self) -> None:
        for slot in self._busy():
            slot.run.kill()
            while slot.run.poll() is None:
                self._signals.wait(0.05, _wait_fds([slot]))
            slot.run = None

    def _serve(self) -> None:
        while True:
            now = time.monotonic()
            self._obey(now)
            self._reap()
            if self._unsaved:
                self._save_again(now)
            if not self._stopping and not self._unsaved and now >= self._next_try:
                self._fill(now)
            if not self._busy() and (self._stopping or self._draining) and (not self._unsaved or self._stopping):
                return
            self._wait()

    def _busy(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.run is not None]

    def _wait(self) -> None:
        """Sleep until a child ends, a signal comes, or the next thing is due."""
        now = time.monotonic()
        busy = self._busy()
        due = min(self._next_scan, self._next_pass, self._next_sync)
        if not self._stopping:
            due = min(due, self._deadline - self._grace_s)
        for slot in busy:
            due = min(due, slot.stop_at, slot.kill_at)
        if len(busy) < len(self._slots) and not self._stopping:
            due = min(due, self._next_try)
        if due > now:
            self._signals.wait(due - now, _wait_fds(busy))

    # ------------------------------------------------------------ orders
    def _obey(self, now: float) -> None:
        """Signals, the deadline, the clock of each slot; what is due every few seconds."""
        if self._signals.got:
            for number in self._signals.take():
                self._on_signal(number)
        if now >= self._deadline - self._grace_s and not self._stopping:
            self._stop("its time is over")
        for slot in self._slots:
            if slot.run is not None and now >= min(slot.stop_at, slot.kill_at):
                self._enforce(slot, now)
        if now >= self._next_scan:
            self._next_scan = now + SCAN_S
            try:
                self._scan()
            except StorageError as error:
                self._trouble(error)
        if now >= self._next_sync:
            self._next_sync = now + SYNC_S
            self._sync()
        if now >= self._next_pass:
            self._pass()
            self._next_pass = now + PASS_S * self._passes.sharers * random.uniform(0.75, 1.25)

    def _on_signal(self, number: int) -> None:
        if self._stopping and number == signal.SIGINT:
            for slot in self._busy():
                slot.run.kill()
        elif not self._stopping:
            self._stop(f"stopped by {signal.Signals(number).name}")

    def _stop(self, why: str) -> None:
        """Claim no more; stop what runs, as interruptions."""
        self._stopping = why
        for slot in self._busy():
            self._stop_slot(slot, "interrupted", why)

    def _stop_slot(self, slot: _Slot, kind: str, why: str) -> None:
        if slot.stopped_as:
            return
        slot.stopped_as = kind
        if slot.attempt is not None:
            slot.attempt.reason = why
        slot.stop_at = float("inf")
        slot.kill_at = time.monotonic() + self._grace_s * (0.8 if self._stopping else 1.0)
        slot.run.terminate()

    def _enforce(self, slot: _Slot, now: float) -> None:
        if now >= slot.kill_at:
            slot.kill_at = float("inf")
            slot.run.kill()
        elif now >= slot.stop_at:
            self._stop_slot(slot, "failed", f"time limit of {self._limit(slot.options):g} s")

    def _limit(self, options: Options) -> float:
        limit_s = options.time_limit_s or self._store.settings.time_limit_s
        return float("inf") if limit_s is None else limit_s

    def _scan(self) -> None:
        """Look into the own directory: fenced? orders? a claim whose reply was lost?"""
        listed = self._member.listing()
        held = {str(slot.claim.name): slot for slot in self._slots if slot.claim is not None}
        known = set(held) | {str(unsaved.claim.name) for unsaved in self._unsaved} | {str(c.name) for c in self._adopted}
        if DRAIN in listed and not self._draining:
            self._draining = "told to drain"
        for file in listed:
            name = parse_task(file)
            if name is not None and str(name) not in known:
                self._adopt(name)
            elif file.endswith(".kill"):
                self._kill(file.removesuffix(".kill"), held, listed)
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
            self._adopted.append(Claim(name, f"{name}.json", content))

    def _kill(self, key: str, held: dict[str, _Slot], listed: list[str]) -> None:
        slot = held.get(key)
        if slot is not None and slot.run is not None:
            self._stop_slot(slot, "killed", "killed by its user")
        elif f"{key}.json" not in listed:
            self._store.unlink(f"{self._member.directory}/{key}.kill")

    def _sync(self) -> None:
        try:
            self._member.journal.sync()
        except StorageError as error:
            self._trouble(error)

    def _pass(self) -> bool:
        try:
            return self._passes.run()
        except StorageError as error:
            self._trouble(error)
            return False

    def _trouble(self, error: FsqdoError) -> None:
        """The file system refuses: say so, and try again later, ever more slowly."""
        self._options.report(str(error))
        self._pause_s = min(max(self._pause_s * 2, 1.0), _TROUBLE_MOST_S)
        self._next_try = time.monotonic() + self._pause_s

    # ------------------------------------------------------------ claim
    def _fill(self, now: float) -> None:
        """Claim and start until the slots are full, nothing more is to be had, or it is time to look at orders again."""
        until = now + _FILL_S
        for slot in self._slots:
            while slot.run is None:  # a function of this process has ended when `_accept` returns
                if not self._may_claim(now):
                    return
                try:
                    claim = self._adopted.pop() if self._adopted else self._claimer.claim()
                    if claim is None:
                        self._idle()
                        return
                    self._accept(slot, claim)
                except StorageError as error:
                    self._trouble(error)
                    return
                now = time.monotonic()
                if self._unsaved or self._signals.got or self._next_try > now or now > until:
                    return

    def _may_claim(self, now: float) -> bool:
        if self._options.max_tasks is not None and self._started >= self._options.max_tasks:
            self._draining = self._draining or f"it started {self._started} tasks, as many as it may"
        if self._draining:
            return False
        if now >= self._next_pause_look:
            self._next_pause_look = now + 1.0
            self._paused = self._store.paused()
        if self._paused:
            self._idle_for(now)
            self._next_try = min(self._next_try, now + _PAUSED_LOOK_S)
            self._end_if_idle(now)
        return not self._paused

    def _accept(self, slot: _Slot, claim: Claim) -> None:
        """Read what was claimed; start it, or put it back when it does not fit."""
        self._idle_since, self._pause_s = float("inf"), _IDLE_FIRST_S
        attempt = begin(slot.index)
        slot.claim = claim
        try:
            definition = claimed_definition(self._store, f"{self._member.directory}/{claim.file}", claim.name, claim.content)
        except TaskError as error:
            attempt.reason = str(error)
            attempt.detail = "content of its file:\n" + claim.content[:2000].decode(errors="replace")
            self._record(slot, attempt, "failed")
            return
        slot.definition, slot.options = definition, definition.options
        why = self._unfit(definition.options)
        if why:
            self._put_back(slot, why)
            return
        self._started += 1
        slot.attempt = attempt
        if self._options.verbose:
            self._options.report(f"task {claim.name.id} starts, attempt {claim.name.attempt}")
        self._start(slot, definition, attempt)

    def _unfit(self, options: Options) -> str:
        """Why this worker cannot run a task, now or ever; "" when it can."""
        total = self._options.cores or 1
        if options.cores > total:
            return f"it needs {options.cores} cores and this worker has {total}"
        used = sum(slot.options.cores for slot in self._busy())
        if options.cores > total - used:
            return "wait"
        needed_s = options.time_request_s or self._store.settings.time_request_s
        if needed_s is not None and time.monotonic() + needed_s > self._deadline - self._grace_s:
            return f"it asks for {needed_s:g} s and this worker ends before"
        return ""

    def _put_back(self, slot: _Slot, why: str) -> None:
        """Put a task that does not fit back for others; one that only has to wait for cores is kept for the next turn."""
        claim = slot.claim
        if claim is None:
            return
        if why == "wait":
            self._adopted.append(claim)
            self._next_try = float("inf")  # until something here has ended
        else:
            fresh = moved_by_hand(claim.name)
            self._claimer.unfit.add(claim.name.id)
            self._options.report(f"task {claim.name.id} is left to other workers: {why}")
            place = pending_place(fresh, slot.options)
            self._store.move(f"{self._member.directory}/{claim.file}", f"{place}/{fresh.file}")
        self._clear(slot)

    def _idle(self) -> None:
        """Nothing to claim: do the pass; then wait, or end."""
        if self._pass():
            return
        now = time.monotonic()
        self._idle_for(now)
        self._sync()
        if self._busy():
            return
        if self._options.idle_s is not None:
            self._end_if_idle(now)
        elif not self._passes.more_to_come():
            left = len(self._claimer.unfit)
            self._draining = f"{left} tasks are left that do not fit this worker" if left else "the queue is drained"

    def _end_if_idle(self, now: float) -> None:
        idle_s = self._options.idle_s
        if idle_s is None or self._busy():
            return
        if now - self._idle_since >= idle_s:
            self._draining = f"no task for {idle_s:g} s"
        else:
            self._next_try = min(self._next_try, self._idle_since + idle_s)

    def _idle_for(self, now: float) -> None:
        if self._idle_since == float("inf"):
            self._idle_since = now
        self._next_try = now + self._pause_s * random.uniform(0.7, 1.3)
        self._pause_s = min(self._pause_s * 1.6, _IDLE_MOST_S)

    # ------------------------------------------------------------ run
    def _start(self, slot: _Slot, definition: Definition, attempt: Attempt) -> None:
        try:
            if self._inline is not None:
                self._call(slot, definition, attempt, self._inline)
                return
            log = self._log(slot)
            env = self._environment(slot, definition)
            if self._new_function_slot is not None:
                slot.function = slot.function or self._new_function_slot()
                slot.run = slot.function.start(definition.task, log.fd, {**self._base_env, **env}, definition.options.cwd)
            else:
                slot.run = self._spawner.start(self._command(definition), log.fd, env, definition.options.cwd)
        except (SpawnError, TaskError) as error:
            attempt.reason = error.message
            attempt.exit_code = error.task_exit_code if isinstance(error, SpawnError) else None
            self._end_log(slot, attempt)
            self._record(slot, attempt, "failed")
            return
        except BusyError as error:
            attempt.reason = str(error)
            self._record(slot, attempt, "interrupted")
            self._trouble(error)
            return
        slot.stop_at = attempt.started + self._limit(slot.options)
        if slot.claim is not None:
            self._member.journal.started(slot.claim.name, attempt.started_at, slot.index, slot.log_first, slot.run.pid)

    def _command(self, definition: Definition) -> str:
        if self._options.script is not None:
            return command_from(definition.task, self._options.script)
        if isinstance(definition.task, str):
            return definition.task
        raise TaskError("an object is no command", "give the worker a script or a function: --script, --func")

    def _log(self, slot: _Slot) -> Appender:
        if slot.log is None:
            self._store.make_directories(f"logs/{self._member.name}")
            slot.log = Appender(self._store, log_path(self._member.name, slot.index))
        slot.log_first = slot.log.size()
        return slot.log

    def _environment(self, slot: _Slot, definition: Definition) -> dict[str, str]:
        env = dict(definition.options.env)
        env["FSQDO_WORKER"] = self._member.name
        env["FSQDO_TASK_ID"] = str(definition.id)
        env["FSQDO_SLOT"] = str(slot.index)
        env["FSQDO_CORES"] = str(definition.options.cores)
        env["FSQDO_GPUS"] = str(definition.options.gpus)
        if slot.claim is not None:
            env["FSQDO_ATTEMPT"] = str(slot.claim.name.attempt)
        return env

    def _call(self, slot: _Slot, definition: Definition, attempt: Attempt, function: Callable[[Any], Any]) -> None:
        """Run a function of this process, to its end."""
        os.environ["FSQDO_TASK_ID"] = str(definition.id)
        kind = "succeeded"
        try:
            result = self._signals.call(function, definition.task, self._limit(slot.options))
            attempt.result = None if result is None else upkeep.json_able(result)
        except Signals.TimeUp:
            kind, attempt.reason = "failed", f"time limit of {self._limit(slot.options):g} s"
        except Signals.Interrupted:
            kind, attempt.reason = "interrupted", "stopped by a signal"
        except KeyboardInterrupt:
            self._signals.got.append(signal.SIGINT)
            kind, attempt.reason = "interrupted", "stopped by a signal"
        except (Exception, SystemExit) as error:
            import traceback

            kind, attempt.reason = "failed", f"{type(error).__name__}: {error}"
            attempt.detail = "".join(traceback.format_exception(error))
        attempt.elapsed_s = time.monotonic() - attempt.started
        self._record(slot, attempt, kind)

    # ------------------------------------------------------------ record
    def _reap(self) -> None:
        for slot in self._slots:
            if slot.run is not None:
                ended = slot.run.poll()
                if ended is not None:
                    self._ended(slot, ended)

    def _ended(self, slot: _Slot, ended: Ended) -> None:
        attempt = slot.attempt or begin(slot.index)
        attempt.elapsed_s, attempt.cpu_s, attempt.max_rss_kb = ended.elapsed_s, ended.cpu_s, ended.max_rss_kb
        attempt.exit_code, attempt.signal, attempt.result = ended.exit_code, ended.signal, ended.result
        if ended.error:
            attempt.detail = ended.error
        attempt.reason = attempt.reason or ended.reason
        self._end_log(slot, attempt)
        kind = "succeeded" if ended.exit_code == 0 else "failed"
        # What ended well in the very moment it was to be stopped has ended well.
        if slot.stopped_as and kind == "succeeded":
            attempt.reason = None
        elif slot.stopped_as:
            kind = slot.stopped_as
        self._next_try = min(self._next_try, time.monotonic())
        self._record(slot, attempt, kind)

    def _end_log(self, slot: _Slot, attempt: Attempt) -> None:
        if slot.log is not None:
            end = slot.log.size()
            if end > slot.log_first:
                attempt.log = (slot.index, slot.log_first, end)

    def _record(self, slot: _Slot, attempt: Attempt, kind: str) -> None:
        """Write the outcome to the journal, then move the task; the slot is free."""
        claim, definition = slot.claim, slot.definition
        options = slot.options
        self._clear(slot)
        if claim is None:
            return
        if not attempt.elapsed_s:
            attempt.elapsed_s = time.monotonic() - attempt.started
        outcome = decide(claim.name, options, self._store.settings, self._member.name, attempt, kind)
        self._summary.count(outcome.outcome)
        if self._options.verbose or outcome.outcome == "failed":
            self._options.report(f"task {claim.name.id} {outcome.outcome}: {outcome.how()} ({attempt.elapsed_s:.3f} s)")
        unsaved = _Unsaved(claim, outcome, definition, attempt.detail)
        try:
            self._save(unsaved)
        except StorageError as error:
            self._unsaved.append(unsaved)
            self._trouble(error)

    def _save(self, unsaved: _Unsaved) -> None:
        outcome = unsaved.outcome
        if not unsaved.journaled:
            self._member.journal.append(outcome)
            unsaved.journaled = True
        if outcome.result is not None or self._store.paranoid:
            self._member.journal.sync()
        source = f"{self._member.directory}/{unsaved.claim.file}"
        if not complete(self._store, source, outcome, unsaved.definition, unsaved.detail):
            self._next_scan = 0.0  # not where it was: fenced, or moved by hand; the listing tells
        if outcome.outcome == "killed":
            self._store.unlink(f"{self._member.directory}/{unsaved.claim.name}.kill")

    def _save_again(self, now: float) -> None:
        if now < self._next_try and not self._stopping:
            return
        try:
            while self._unsaved:
                self._save(self._unsaved[0])
                self._unsaved.pop(0)
            self._options.report("the outcomes are recorded now")
        except StorageError as error:
            self._trouble(error)

    def _clear(self, slot: _Slot) -> None:
        slot.run = slot.claim = slot.definition = slot.attempt = None
        slot.options = _NO_OPTIONS
        slot.stop_at = slot.kill_at = float("inf")
        slot.stopped_as = ""


_NO_OPTIONS = Options()


def _function_slots(spec: str) -> Callable[[], FunctionSlot]:
    """Import a function by name, once; returns what makes a forked child for it."""
    from fsqdo.functions import FunctionSlot, load_function

    function = load_function(spec)
    return lambda: FunctionSlot(function)


def _wait_fds(slots: list[_Slot]) -> list[int]:
    return [slot.run.wait_fd for slot in slots if slot.run is not None and slot.run.wait_fd is not None]



