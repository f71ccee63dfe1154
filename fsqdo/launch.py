"""Launching: batch jobs that run workers, what is kept of them under `jobs/`, and their states.

A job has a number n, unique in its queue. `jobs/<n>.sh` is its exact script, `jobs/<n>.json` its record: profile, system,
slots, the submit command, its id in the batch system, what went wrong. `logs/job-<n>.log` is what it prints. The number is
taken by making `jobs/<n>.sh`, empty, with O_EXCL; then the script and the record are put in place whole; only then is it
submitted, and the record replaced by one with the id. So whatever runs has its script and record in the queue.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fsqdo.batch import BatchSystem, JobSpec, JobState, get_system
from fsqdo.config import Config, Profile, load_config
from fsqdo.configfile import did_you_mean
from fsqdo.errors import BatchError, InputError, StorageError
from fsqdo.jobs import (
    Job,
    QueueLike,
    UnclearError,
    log_name,
    next_number,
    record_name,
    run,
    script_name,
    wait_for,
)
from fsqdo.names import new_token
from fsqdo.task import utc_now
from fsqdo.walltime import format_walltime, parse_walltime

MOST_JOBS = 10_000
# Options of launch that are a batch system's business. These three also ask for packing.
_PACKING = ("cores_per_worker", "workers_per_node", "nodes")
_BATCH_OPTIONS = (*_PACKING, "batchqueue", "batchopts", "keep_env", "gpus_per_worker")

_log = logging.getLogger(__name__)


class Launched(list[Job]):
    """The jobs that `launch` started, or would have.

    Attributes
    ----------
    plan
        What was planned, in one line.
    notes
        What the user should know beside: options that have no effect there.
    dry_run
        Whether nothing was started.
    """

    def __init__(self, jobs: Iterable[Job], plan: str, notes: Sequence[str], dry_run: bool) -> None:
        super().__init__(jobs)
        self.plan = plan
        self.notes = list(notes)
        self.dry_run = dry_run


# ---------------------------------------------------------------- launch
def launch(
    queue: QueueLike,
    n: int,
    *,
    profile: str | None = None,
    pack: bool = False,
    jobs: int | None = None,
    slots: int | str | None = None,
    script: str | None = None,
    func: str | None = None,
    timeout: float | None = None,
    runtime_s: float | None = None,
    walltime: str | int | None = None,
    wait: bool = False,
    dry_run: bool = False,
    config: Config | None = None,
    worker_command: Sequence[str] | None = None,
    **batch_options: Any,
) -> Launched:
    """Start batch jobs with workers that run n tasks at once.

    Parameters
    ----------
    profile
        A profile of the configuration; None is its default one.
    pack
        One job with one worker of n slots, in place of n jobs with a worker of one slot each.
    jobs
        So many packed jobs, of n slots each.
    slots
        Slots of each worker that is not packed, so that there are fewer of them; "auto": the cores this process may use.
    script, func
        As for `do`.
    timeout
        Seconds without a task after which a worker ends.
    runtime_s, walltime
        When a worker ends in any case: in seconds, and as `parse_walltime` reads it. The shorter one counts.
    wait
        Return only when all jobs have ended.
    dry_run
        Start and write nothing; the jobs returned have the numbers, scripts and commands they would have now.
    config, worker_command
        In place of the configuration files, and of `fsqdo do` with its options.
    batch_options
        cores_per_worker, workers_per_node, nodes (these also mean pack), batchqueue, batchopts, keep_env, gpus_per_worker. The
        profile local has no use for them, which stands in `notes`.

    Returns
    -------
    Launched
        A list of the jobs in the order of their numbers, with `plan` and `notes`.

    Raises
    ------
    InputError
        For a value that cannot be meant. Nothing was started.
    ConfigError
        When the configuration is wrong. Nothing was started.
    BatchError
        When a job could not be submitted; its record keeps the error, the jobs before it run.
    StorageError
        When the queue cannot be written.

    Notes
    -----
    For each job: `jobs/<n>.sh` made (takes the number), written, then `jobs/<n>.json`, then the submission, then
    `jobs/<n>.json` again with the id. A kill before the submission leaves a record without an id, whose job never runs; one
    between the submission and the last step leaves such a record of a job that runs: its workers name it.
    """
    packing = _check_options(batch_options)
    chosen = (config or load_config()).profile(profile)
    system = get_system(chosen.system)
    sizes = plan_slots(n, slots=slots, pack=pack or packing or jobs is not None, jobs=1 if jobs is None else jobs)
    limit_s = _limit(runtime_s, walltime)
    notes = _notes(chosen, system, batch_options, walltime)
    worker = _worker_options(script, func, timeout, limit_s)
    launcher = _Launcher(queue, chosen, system, tuple(worker_command or ()), worker, limit_s, _current_directory())
    if dry_run:
        first = next_number(queue.store)
        started = [launcher.prepare(first + at, size) for at, size in enumerate(sizes)]
    else:
        started = launcher.start(sizes)
    if wait and not dry_run:
        started = wait_for(queue, started)
    return Launched(started, _plan_text(sizes, chosen), notes, dry_run)


def plan_slots(n: int, *, slots: int | str | None = None, pack: bool = False, jobs: int = 1) -> list[int]:
    """The slots of the one worker of each job, for n tasks at once.

    Raises
    ------
    InputError
        For numbers that cannot be meant.
    """
    each = len(os.sched_getaffinity(0)) if slots == "auto" else 1 if slots is None else slots
    for name, value in (("the number of workers", n), ("slots", each), ("jobs", jobs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}, but must be an integer of at least 1")
    count = int(each)
    total = jobs if pack else -(-n // count)
    if total > MOST_JOBS:
        raise InputError(
            f"{total} jobs in one launch are more than {MOST_JOBS}", "pack them (--pack), or give workers more slots (-j)"
        )
    if pack:
        return [n] * jobs
    return [count] * (n // count) + ([n % count] if n % count else [])


def _plan_text(sizes: list[int], profile: Profile) -> str:
    jobs = "1 job" if len(sizes) == 1 else f"{len(sizes)} jobs"
    slots = "1 slot" if sizes[0] == 1 else f"{sizes[0]} slots"
    if sizes[-1] != sizes[0]:
        slots += f" (the last one {sizes[-1]})"
    if len(sizes) > 1:
        slots += " each"
    total = sum(sizes)
    at_once = "1 task at a time" if total == 1 else f"{total} tasks at once"
    return f"{jobs} with one worker of {slots}, profile {profile.name} ({profile.system}): {at_once}"


def _check_options(given: Mapping[str, Any]) -> bool:
    """Refuse options that there are not; tells whether those given ask for packing."""
    for name in given:
        if name not in _BATCH_OPTIONS:
            raise InputError(
                f"launch has no option {name!r}",
                f"the options for a batch system are {', '.join(_BATCH_OPTIONS)}{did_you_mean(name, _BATCH_OPTIONS)}",
            )
    return any(given.get(name) for name in _PACKING)


def _notes(profile: Profile, system: BatchSystem, options: Mapping[str, Any], walltime: str | int | None) -> list[str]:
    where = f"on profile {profile.name} (system {system.name})"
    notes = [
        f"--{name.replace('_', '-')} has no effect {where}"
        for name in _BATCH_OPTIONS
        if options.get(name) not in (None, False, "", (), []) and name not in system.options
    ]
    if walltime is not None and "walltime" not in system.options:
        limit = format_walltime(parse_walltime(walltime))
        notes.append(f"--walltime {where} is kept by the workers themselves: they end after {limit}, by --runtime")
    return notes


def _limit(runtime_s: float | None, walltime: str | int | None) -> float | None:
    """When a worker ends in any case, in seconds."""
    limits = [float(parse_walltime(walltime))] if walltime is not None else []
    if runtime_s is not None:
        limits.append(_seconds("runtime", runtime_s))
    return min(limits, default=None)


def _seconds(name: str, value: object, lowest: float = 1e-3) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value < 1e12:
        raise InputError(f"{name} is {value!r}, but must be a positive number of seconds")
    return float(value)


def _worker_options(script: str | None, func: str | None, timeout: float | None, limit_s: float | None) -> list[str]:
    """The options of `do`; each in one word with its value, which may begin with a dash."""
    words = []
    for name, value in (("script", script), ("func", func)):
        if value is None:
            continue
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            hint = "a function is named as package.module:function" if name == "func" else ""
            raise InputError(f"{name} is {value!r}, but must be text", hint)
        words.append(f"--{name}={value}")
    if timeout is not None:
        words.append(f"--timeout={_plain(_seconds('timeout', timeout, 0))}")
    if limit_s is not None:
        words.append(f"--runtime={_plain(limit_s)}")
    return words


def _plain(seconds: float) -> str:
    """Seconds to the millisecond, without an exponent."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def fsqdo_command() -> tuple[str, ...]:
    """The words that run this very fsqdo, installed or not.

    Notes
    -----
    The package's directory and not `-m fsqdo`, with which Python would look for every module in the current directory
    first: a `random.py` among somebody's scripts would end the worker.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    if os.path.isfile(f"{package}/__main__.py"):
        return (sys.executable, package)
    return (sys.executable, "-m", "fsqdo")


@dataclass(frozen=True)
class _Launcher:
    """What the jobs of one launch have in common."""

    queue: QueueLike
    profile: Profile
    system: BatchSystem
    worker_command: tuple[str, ...]
    worker_options: list[str]
    limit_s: float | None
    directory: str

    def start(self, sizes: list[int]) -> list[Job]:
        """Start a job of each size."""
        started: list[Job] = []
        number = next_number(self.queue.store)
        self.prepare(number, sizes[0])  # what no script can hold is refused here, before anything is written
        for size in sizes:
            while not self.queue.store.claim_name(script_name(number)):
                number += 1
            try:
                started.append(self._submit(self.prepare(number, size)))
            except BatchError as error:
                before = f"{len(started)} of {len(sizes)} jobs were submitted before it; " if started else ""
                raise type(error)(f"job {number} {error.message}", before + error.hint) from None
        return started

    def prepare(self, number: int, slots: int) -> Job:
        """The job as it is before its submission; nothing is written."""
        spec = self._spec(number, slots)
        script_path = self.queue.store.path(script_name(number))
        script = self.system.script(spec)
        try:
            os.fsencode(script)
        except UnicodeEncodeError as error:
            raise InputError(
                f"the job's script cannot be written: {error.object[error.start : error.end]!r} is no text here"
            ) from None
        return Job(
            number=number,
            system=self.system.name,
            profile=self.profile.name,
            batch_id=None,
            state=JobState.UNKNOWN,
            submitted_at=None,
            slots=slots,
            command=tuple(self.system.submit_command(spec, script_path)),
            script_path=script_path,
            log_path=spec.output_path,
            script=script,
        )

    def _spec(self, number: int, slots: int) -> JobSpec:
        directory = self.queue.store.directory
        root, _, name = directory.rpartition("/")
        command = self.worker_command or (*fsqdo_command(), "do", name, "-j", str(slots), *self.worker_options)
        return JobSpec(
            name=f"fsqdo-{name}-{number}",
            queue_dir=directory,
            command=command,
            output_path=self.queue.store.path(log_name(number)),
            directory=self.directory,
            env={**self.profile.env, "FSQDO_DIR": root or "/", "FSQDO_JOB": str(number)},
            prologue=self.profile.prologue,
            slots=slots,
            walltime_s=None if self.limit_s is None else max(1, int(self.limit_s)),
        )

    def _submit(self, job: Job) -> Job:
        store = self.queue.store
        store.replace(script_name(job.number), os.fsencode(job.script), f"job.{new_token()}")
        self._record(job, "prepared")
        try:
            batch_id = self._ask(job)
        except BatchError as error:
            self._record(replace(job, error=str(error)), "unclear" if isinstance(error, UnclearError) else "refused")
            raise
        _log.info("submit job=%d queue=%s system=%s id=%s", job.number, self.queue.name, job.system, batch_id)
        submitted = replace(job, batch_id=batch_id, state=JobState.QUEUED, submitted_at=utc_now())
        try:
            self._record(submitted, "submitted")
        except StorageError as error:
            raise BatchError(
                f"was submitted as {batch_id} ({job.system}), but that could not be recorded: {error.message}",
                error.hint,
            ) from None
        return submitted

    def _ask(self, job: Job) -> str:
        """Run the submit command; the job's id."""
        advice = (
            f"correct the profile {job.profile!r} or what the message names, then launch again; the script is {job.script_path}"
        )
        try:
            reply = run(job.command)
        except UnclearError as error:
            raise UnclearError(f"may have been submitted: {error.message}", self._look()) from None
        except BatchError as error:
            raise BatchError(f"was not submitted: {error.message}", advice) from None
        if reply.returncode == 0:
            try:
                return self.system.job_id(reply)
            except BatchError as error:
                raise UnclearError(f"may have been submitted: {error.message}", self._look()) from None
        said = (reply.stderr.strip() + "\n" + reply.stdout.strip()).strip() or "no output"
        raise BatchError(
            f"was not submitted: {shlex.join(job.command)} ended with exit code {reply.returncode}: {said}",
            advice,
        )

    def _look(self) -> str:
        return f"whether it runs, `fsqdo jobs {self.queue.name}` shows by its workers"

    def _record(self, job: Job, state: str) -> None:
        record = {
            "number": job.number,
            "state": state,
            "batch_id": job.batch_id,
            "profile": job.profile,
            "system": job.system,
            "slots": job.slots,
            "submitted_at": job.submitted_at,
            "host": socket.gethostname(),
            "user": _user(),
            "directory": self.directory,
            "command": list(job.command),
            "log": log_name(job.number),
            "error": job.error,
        }
        content = (json.dumps(record, indent=1) + "\n").encode()
        self.queue.store.replace(record_name(job.number), content, f"job.{new_token()}")


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise InputError(f"the current directory is gone: {error.strerror}", "go to one that is there") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such entry in the password database (containers)
        return str(os.getuid())
