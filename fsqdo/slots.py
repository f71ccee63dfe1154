"""The slots of a worker: in each runs one task at a time, with its log, its environment, its clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fsqdo import allocation
from fsqdo.checks import Check, CheckedRun, announcing, well_ended
from fsqdo.claims import Claim
from fsqdo.errors import TaskError
from fsqdo.journal import log_path
from fsqdo.member import Member
from fsqdo.policy import Attempt, begin
from fsqdo.resources import UNBOUND, Resources, Share, parallel_command, pinned
from fsqdo.rules import TIME_LIMIT
from fsqdo.runner import Ended, Prepared, Run, Spawner, first_ended
from fsqdo.settings import Settings
from fsqdo.store import Appender, Store
from fsqdo.task import Definition, command_from
from fsqdo.taskoptions import Options

if TYPE_CHECKING:
    from fsqdo.functions import FunctionSlot

NEVER = float("inf")
NO_OPTIONS = Options()


class Ready(NamedTuple):
    """A task that the worker holds and has not begun.

    Attributes
    ----------
    prepared
        What `Launcher.prepare` made of it: for a command a `runner.Prepared`, for a function its environment.
    """

    claim: Claim
    definition: Definition
    prepared: Any = None


class Launcher:
    """Starts tasks as processes, for all slots of a worker: as they are, through a script, or by a function's name.

    Parameters
    ----------
    script, func
        As in `WorkerOptions`.
    variables
        Environment variables that are the same for all tasks.
    resources, mpirun
        What the worker has, and the words that start its parallel tasks.
    settings
        Of the queue; `success_check` is the one that counts here.

    Attributes
    ----------
    spawner
        What starts its commands.
    """

    def __init__(
        self,
        script: str | None,
        func: str | None,
        variables: dict[str, str],
        resources: Resources,
        mpirun: Sequence[str],
        settings: Settings,
    ) -> None:
        self._script = script
        self._resources = resources
        self._mpirun = mpirun
        self._sets_threads = not allocation.threads_are_set(os.environ)
        self._variables = variables
        # The batch job is the worker's, not the task's: a worker started by a task must not claim to be in it.
        environ = {key: value for key, value in os.environ.items() if key != "FSQDO_JOB"}
        self.spawner = Spawner({**environ, **variables})
        self._check: Check | None = None
        if settings.success_check is not None:
            self._check = Check(settings.success_check, self.spawner, well_ended(settings))
        self._new_function_slot = None if func is None else _function_slots(func)
        self._same: tuple[Options | None, str, Any] = (None, "", None)

    @property
    def plain(self) -> bool:
        """Whether each task is one process from its start to its end, a child of this one."""
        return self._check is None and self._new_function_slot is None

    def prepare(self, claim: Claim, definition: Definition, worker: str) -> Ready:
        """Do for a task what can be done before a slot is free for it.

        Raises
        ------
        SpawnError, TaskError
            It can never run.
        """
        options = definition.options
        if self._new_function_slot is not None:
            if options.parallel:
                raise TaskError(
                    "a function cannot be run by mpirun", "add a command that calls it, or leave out ranks and nodes"
                )
            own = {"FSQDO_TASK_ID": str(definition.id), "FSQDO_ATTEMPT": str(claim.name.attempt)}
            return Ready(claim, definition, {**self._variables, **self._environ(options, worker), **own})
        if options is not self._same[0] or worker != self._same[1]:  # the tasks of a load share their options
            self._same = (options, worker, self.spawner.prepare("", self._environ(options, worker), options.cwd))
        prepared = self.spawner.like(self._same[2], self._command(definition))
        prepared.environ[b"FSQDO_TASK_ID"] = b"%d" % definition.id
        prepared.environ[b"FSQDO_ATTEMPT"] = b"%d" % claim.name.attempt
        return Ready(claim, definition, prepared)

    def _environ(self, options: Options, worker: str) -> dict[str, str]:
        """What the environments of tasks with the same options have in common."""
        env = {**options.env, "FSQDO_WORKER": worker, "FSQDO_CORES": str(options.cores), "FSQDO_GPUS": str(options.gpus)}
        if self._sets_threads:
            env.setdefault("OMP_NUM_THREADS", env["FSQDO_CORES"])
        return env

    def start(self, slot: Slot, ready: Ready, log: Appender) -> Any:
        """Start a task in a slot; returns its run.

        Raises
        ------
        SpawnError, TaskError
            It cannot run, now or later.
        BusyError
            The machine is short of something; give the task back.
        """
        if self._new_function_slot is not None:
            return self._start_function(slot, ready, log)
        run, prepared = self._start_command(slot, ready, log)
        return run if self._check is None else self._checked(self._check, run, prepared, log)

    def _start_command(self, slot: Slot, ready: Ready, log: Appender) -> tuple[Any, Prepared]:
        share, prepared = slot.share, ready.prepared
        prepared.environ[b"FSQDO_SLOT"] = slot.number
        if share is None:
            return self.spawner.start_prepared(prepared, log.fd), prepared
        if share.gpus:
            self._resources.apply(share, prepared.environ)
        whole = self._parallel(prepared, ready.definition.options, share) if ready.definition.options.parallel else prepared
        if not share.cpus:
            return self.spawner.start_prepared(whole, log.fd), prepared
        with pinned(share.cpus):
            return self.spawner.start_prepared(whole, log.fd), prepared

    def _parallel(self, prepared: Prepared, options: Options, share: Share) -> Prepared:
        """The same command, run in all its ranks."""
        for key, value in UNBOUND.items():
            prepared.environ.setdefault(key.encode(), value.encode())
        command = parallel_command(prepared.command, options, share, self._mpirun, os.environ)
        return prepared._replace(command=command, words=None)

    def _start_function(self, slot: Slot, ready: Ready, log: Appender) -> Any:
        slot.function = slot.function or self._new_function_slot()  # type: ignore[misc]
        definition, share = ready.definition, slot.share
        env = {**ready.prepared, "FSQDO_SLOT": str(slot.index)}
        if share is not None:
            env |= self._resources.variables(share)
        cpus = () if share is None else share.cpus
        with pinned(cpus):
            run = slot.function.start(definition.task, log.fd, env, definition.options.cwd, cpus)
        if self._check is None:
            return run
        return self._checked(self._check, run, self.spawner.prepare("", env, definition.options.cwd), log)

    def check(self, ready: Ready, ended: Ended, worker: str, log: Appender) -> CheckedRun | None:
        """Check what a function of this process did; None when there is no `success_check`."""
        if self._check is None:
            return None
        claim, definition, _ = ready
        env = {**definition.options.env, "FSQDO_WORKER": worker, "FSQDO_TASK_ID": str(definition.id)}
        env["FSQDO_ATTEMPT"] = str(claim.name.attempt)
        return self._checked(self._check, ended, self.spawner.prepare("", env, definition.options.cwd), log)

    @staticmethod
    def _checked(check: Check, run: Run | Ended, prepared: Prepared, log: Appender) -> CheckedRun:
        started = run.started if isinstance(run, Run) else time.monotonic() - run.elapsed_s
        return CheckedRun(run, check, lambda code: check.start(prepared.environ, prepared.cwd, log.fd, code), started)

    def _command(self, definition: Definition) -> str:
        if self._script is not None:
            return command_from(definition.task, self._script)
        if isinstance(definition.task, str):
            return definition.task
        raise TaskError("an object is no command", "give the worker a script or a function: --script, --func")


def _function_slots(spec: str) -> Callable[[], FunctionSlot]:
    """Import a function by name, once; returns what makes a forked child for it."""
    from fsqdo.functions import FunctionSlot, load_function

    function = load_function(spec)
    return lambda: FunctionSlot(function)


class Slot:
    """One place in which a task runs.

    Attributes
    ----------
    claim, definition, options, attempt
        What it has; `claim` is None when it is free.
    share
        What its task has of the worker's resources, until it is free again.
    run
        The process; None when there is none.
    stopped_as
        "" or how the attempt counts because it was told to stop: "failed" (time limit), "interrupted", "killed".
    limit_s
        The time limit of what runs.
    due
        When its clock wants something, on the monotonic clock.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.number = str(index).encode()
        self.function: FunctionSlot | None = None
        self._log: Appender | None = None
        self._log_first = self._log_end = 0
        self.share: Share | None = None
        self.clear()

    def clear(self) -> None:
        """Make it free."""
        if self.share is not None:
            self.share.free()
            self.share = None
        self.claim: Claim | None = None
        self.definition: Definition | None = None
        self.options = NO_OPTIONS
        self.attempt: Attempt | None = None
        self.run: Run | Any | None = None
        self.stopped_as = ""
        self._was_over = False
        self.limit_s = NEVER
        self._stop_at = self._kill_at = NEVER
        self._log_first = self._log_end  # what was written so far is no later attempt's

    @property
    def due(self) -> float:
        """The earlier of its time limit and the end of its grace."""
        return min(self._stop_at, self._kill_at)

    def begin(self, ready: Ready, store: Store, member: Member, launcher: Launcher, limit_s: float) -> None:
        """Start the process of a task; errors as of `Launcher.start`."""
        self.run = launcher.start(self, ready, self._open_log(store, member))
        self.limit_s = limit_s
        self._stop_at = self.run.started + limit_s
        if self.claim is not None and self.attempt is not None:
            member.journal.started(self.claim.key, self.attempt.started_at, self.index, self._log_first, self.run.pid)
        if isinstance(self.run, CheckedRun):
            self._announce(self.run, member)

    def begin_check(self, ready: Ready, store: Store, member: Member, launcher: Launcher, ended: Ended, limit_s: float) -> bool:
        """Begin the check of what a function of this process did; False when there is none."""
        self.run = launcher.check(ready, ended, member.name, self._open_log(store, member))
        if self.run is None:
            return False
        self.limit(limit_s)
        self._announce(self.run, member)
        return True

    def _announce(self, run: CheckedRun, member: Member) -> None:
        """Have the process of the check stand in the journal, too, for those who clear up after a worker that died."""
        if self.claim is not None and self.attempt is not None:
            note, key, started_at, first = member.journal.started, self.claim.key, self.attempt.started_at, self._log_first
            run.announce = announcing(lambda pid: note(key, started_at, self.index, first, pid))

    def limit(self, limit_s: float) -> None:
        """Set the time limit of what runs, counted from its start; nothing when it was told to stop already."""
        self.limit_s = limit_s
        if self.run is not None and not self.stopped_as:
            self._stop_at = self.run.started + limit_s

    def _open_log(self, store: Store, member: Member) -> Appender:
        if self._log is None:
            store.make_directories(f"logs/{member.name}")
            self._log = Appender(store, log_path(member.name, self.index))
            self._log_end = self._log.size()
        # One task at a time writes to it, and nothing of a task's process group outlives it.
        self._log_first = self._log_end
        return self._log

    def stop(self, kind: str, why: str, grace_s: float) -> None:
        """Send SIGTERM to the task's process group, and SIGKILL when `grace_s` is over; once.

        From then on it was stopped, whatever its exit code: programs that write a checkpoint at SIGTERM exit with 0.
        """
        if self.stopped_as or self.run is None:
            return
        # One that ended well by itself just before is no less a success for that. But when the worker is to end, so may all of
        # its tasks have been told by the same signal: what exited with 0 then may have saved a checkpoint.
        self._was_over = not self.run.terminate() and kind != "interrupted"
        self.stopped_as = kind
        if self.attempt is not None:
            self.attempt.reason = why
        self._stop_at = NEVER
        self._kill_at = time.monotonic() + grace_s

    def kill(self) -> None:
        """Send SIGKILL now."""
        self._kill_at = NEVER
        if self.run is not None:
            self.run.kill()

    def enforce(self, now: float, limit: str, grace_s: float) -> None:
        """Do what its clock wants: stop at the time limit, kill when the grace is over."""
        if now >= self._kill_at:
            self.kill()
        elif now >= self._stop_at:
            self.stop("failed", limit, grace_s)
            if self.attempt is not None:
                self.attempt.cause = TIME_LIMIT

    def poll(self) -> tuple[Attempt, str] | None:
        """How the attempt ended, as (attempt, kind); None while it runs."""
        ended: Ended | None = None if self.run is None else self.run.poll()
        if ended is None:
            return None
        attempt = self.attempt or begin(self.index)
        attempt.elapsed_s, attempt.cpu_s, attempt.max_rss_kb = ended.elapsed_s, ended.cpu_s, ended.max_rss_kb
        attempt.exit_code, attempt.signal, attempt.result = ended.exit_code, ended.signal, ended.result
        attempt.detail = ended.error or ""
        if self._was_over and ended.exit_code == 0:
            self.stopped_as, attempt.reason, attempt.cause = "", None, ""
        attempt.reason = attempt.reason or ended.reason
        attempt.cause = attempt.cause or ended.cause
        self.note_output(attempt)
        return attempt, self.stopped_as or ("succeeded" if ended.exit_code == 0 else "failed")

    def note_output(self, attempt: Attempt) -> None:
        """Note which bytes of the log are this attempt's."""
        if self._log is not None:
            self._log_end = self._log.size()
            if self._log_end > self._log_first:
                attempt.log = (self.index, self._log_first, self._log_end)

    def close(self) -> None:
        """End its function's child, close its log."""
        if self.function is not None:
            self.function.close()
            self.function = None
        if self._log is not None:
            self._log.close()
            self._log = None


class Slots:
    """The slots of a worker together. What the loop asks each time costs no look at each of them, for there may be many.

    Attributes
    ----------
    all
        Every slot.
    due
        When the first clock of a slot wants something; never too late. Told by `changed`.
    """

    def __init__(self, count: int, plain: bool) -> None:
        self.all = [Slot(index) for index in range(count)]
        self.due = NEVER
        self._plain = plain

    def __len__(self) -> int:
        return len(self.all)

    def busy(self) -> list[Slot]:
        """The slots that have a process."""
        return [slot for slot in self.all if slot.run is not None]

    def changed(self, slot: Slot) -> None:
        """Note that the clock of a slot was set."""
        self.due = min(self.due, slot.due)

    def enforce(self, now: float, words: Callable[[Slot], str], grace_s: float) -> None:
        """Do what the clocks want, where one is due."""
        if now < self.due:
            return
        for slot in self.busy():
            if now >= slot.due:
                slot.enforce(now, words(slot), grace_s)
        self.due = min((slot.due for slot in self.busy()), default=NEVER)

    def ended(self, look_at_all: bool) -> Iterator[Slot]:
        """Yield the slots whose process has perhaps ended; each is to be polled before the next is asked for.

        Parameters
        ----------
        look_at_all
            Trust nobody: another part of this program may have collected a child.
        """
        if look_at_all or not self._plain:
            yield from self.busy()
            return
        by_pid = {slot.run.pid: slot for slot in self.all if slot.run is not None}
        try:
            while by_pid and (pid := first_ended()) is not None:
                yield by_pid.pop(pid)
        except (KeyError, ChildProcessError):
            # A child of another part of this program, which hides all others; or such a part has collected ours.
            yield from self.busy()

    def wait_fds(self) -> list[int]:
        """Descriptors that become readable when a slot is to be polled, beside the ends of children."""
        return [] if self._plain else wait_fds(self.busy())


def wait_fds(slots: list[Slot]) -> list[int]:
    """Descriptors that become readable when one of these slots is to be polled."""
    return [slot.run.wait_fd for slot in slots if slot.run is not None and slot.run.wait_fd is not None]
