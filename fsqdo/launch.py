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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fsqdo.batch import BatchSystem, JobSpec, JobState, get_system
from fsqdo.config import Config, Profile, load_config
from fsqdo.configfile import did_you_mean, parse_memory_mb
from fsqdo.errors import BatchError, InputError, StorageError
from fsqdo.jobs import (
    Job,
    QueueLike,
    UnclearError,
    batch_id_of,
    log_name,
    next_number,
    note_submitted,
    record_name,
    run,
    script_name,
    wait_for,
)
from fsqdo.names import new_token
from fsqdo.plan import Plan, Request, Shape, plan
from fsqdo.texts import utc_now
from fsqdo.walltime import format_walltime
from fsqdo.workerwords import fsqdo_command, limit, read_walltime, shape_options, split_words, worker_options

# Options of launch that are a batch system's business. The first three also ask for packing.
_PACKING = ("cores_per_worker", "workers_per_node", "nodes")
_BATCH_OPTIONS = (
    *_PACKING,
    "batchqueue",
    "batchopts",
    "keep_env",
    "gpus_per_worker",
    "mem_per_worker",
    "nodes_per_worker",
    "array",
    "after",
)
_WORKER_OPTIONS = ("script", "func", "timeout", "stagger", "max_fails", "health_check", "chain")
# These mean something wherever the other one does.
_LIKE = {"nodes_per_worker": "nodes", "mem_per_worker": "cores_per_worker"}

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
    n: int | None = None,
    *,
    profile: str | None = None,
    pack: bool = False,
    jobs: int | None = None,
    slots: int | str | None = None,
    runtime_s: float | None = None,
    walltime: str | int | None = None,
    mpirun: str | Sequence[str] | None = None,
    cancel_when_drained: bool = False,
    wait: bool = False,
    dry_run: bool = False,
    config: Config | None = None,
    worker_command: Sequence[str] | None = None,
    **options: Any,
) -> Launched:
    """Start batch jobs with workers that run n tasks at once.

    Parameters
    ----------
    n
        Tasks at once; None with `nodes`: as many as these have cores.
    profile
        A profile of the configuration; None is its default one.
    pack
        One job sized for n, in place of n jobs with a worker of one slot each: one worker with many slots on each node.
    jobs
        So many packed jobs, of n slots each.
    slots
        Slots of each worker; "auto": the cores of a node of the profile, or on this machine those this process may use.
    runtime_s, walltime
        When a worker ends in any case: in seconds, and as `parse_walltime` reads it. The shorter one counts. The walltime is
        also the limit of the batch job.
    mpirun
        Words that start tasks of several processes, and workers in a job of several; None: those of the profile.
    cancel_when_drained
        Whether these jobs may be cancelled, while they wait in the batch system, by a worker that finds the queue drained.
    wait
        Return only when all jobs have ended.
    dry_run
        Start and write nothing; the jobs returned have the numbers, scripts and commands they would have now.
    config, worker_command
        In place of the configuration files, and of `fsqdo do` with its options.
    options
        For the workers, as for `do`: script, func, timeout, stagger, max_fails, health_check, chain.
        For the batch system: cores_per_worker, workers_per_node, nodes (these also mean pack), gpus_per_worker, mem_per_worker
        (each for one of the n), nodes_per_worker, batchqueue, batchopts (text, or a list of texts), keep_env, array, after (a
        job's number in this queue, or its id in the batch system). Those for which the system has no use stand in `notes`.

    Returns
    -------
    Launched
        A list of the jobs in the order of their numbers, with `plan` and `notes`.

    Raises
    ------
    InputError
        For a value that cannot be meant, or that does not fit the profile's limits. Nothing was started.
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
    packing = _check_options(options)
    chosen = (config or load_config()).profile(profile)
    system = get_system(chosen.system)
    used = {name: value for name, value in options.items() if _is_set(value) and _has_effect(name, system)}
    walltime_s = read_walltime(walltime)
    mpi = chosen.mpirun if mpirun is None else split_words("mpirun", mpirun)
    limit_s = limit(runtime_s, walltime_s)
    request = _request(n, slots, jobs, pack or packing or jobs is not None, walltime_s, used, chosen, system)
    planned = plan(request, chosen)
    after = used.get("after")
    launcher = _Launcher(
        queue=queue,
        profile=chosen,
        system=system,
        plan=planned,
        worker_command=tuple(worker_command or ()),
        worker_options=worker_options(options, mpi, limit_s),
        mpirun=mpi,
        directory=_current_directory(),
        batch_queue=used.get("batchqueue", chosen.queue),
        batch_options=split_words("batchopts", used.get("batchopts")),
        keep_env=chosen.keep_env or bool(used.get("keep_env")),
        after=None if after is None else batch_id_of(queue.store, str(after), chosen.system),
        cancel_when_drained=cancel_when_drained,
    )
    started = launcher.foresee() if dry_run else launcher.start()
    if wait and not dry_run:
        started = wait_for(queue, started)
    told = f"{planned}; profile {chosen.name} ({chosen.system})"
    return Launched(started, told, _notes(chosen, system, options, walltime_s), dry_run)


def _request(
    n: int | None,
    slots: int | str | None,
    jobs: int | None,
    packed: bool,
    walltime_s: int | None,
    used: Mapping[str, Any],
    profile: Profile,
    system: BatchSystem,
) -> Request:
    cores = used.get("cores_per_worker")
    return Request(
        n=n,
        packed=packed,
        jobs=1 if jobs is None else jobs,
        slots=_slots(slots, packed, cores or 1, profile, system),
        nodes=used.get("nodes"),
        workers_per_node=used.get("workers_per_node"),
        nodes_per_worker=used.get("nodes_per_worker"),
        cores=cores,
        gpus=used.get("gpus_per_worker"),
        mem_mb=_memory(used.get("mem_per_worker")),
        walltime_s=walltime_s,
        array=bool(used.get("array")),
        one_node="nodes" not in system.options,
        says_cores="cores_per_worker" in system.options,
    )


def _slots(slots: int | str | None, packed: bool, cores: int, profile: Profile, system: BatchSystem) -> int | None:
    """The slots of a worker; None: one, or in a packed job those that fit."""
    if isinstance(slots, int) or slots is None:
        return slots
    if slots != "auto":
        raise InputError(f"slots is {slots!r}, but must be an integer of at least 1, or auto")
    if system.name == "local":
        return len(os.sched_getaffinity(0))
    if packed:
        return None
    if profile.cores_per_node is None:
        raise InputError(
            f"the profile {profile.name!r} does not say how many cores a node has, which are the slots that are meant by auto",
            "give a number, or cores_per_node in the profile",
        )
    return max(1, profile.cores_per_node // cores)


def _memory(given: str | int | None) -> int | None:
    amount = None if given is None else parse_memory_mb(given)
    if given is not None and amount is None:
        raise InputError(f"mem_per_worker is {given!r}, but must be memory: 4000 (MiB), 4G")
    return amount


def _check_options(given: Mapping[str, Any]) -> bool:
    """Refuse options that there are not; tells whether those given ask for packing."""
    valid = (*_BATCH_OPTIONS, *_WORKER_OPTIONS)
    for name in given:
        if name not in valid:
            raise InputError(
                f"launch has no option {name!r}",
                f"the options for workers and batch systems are {', '.join(valid)}{did_you_mean(name, valid)}",
            )
    return any(given.get(name) for name in _PACKING)


def _is_set(value: object) -> bool:
    """Whether an option was given; 0 was, and is refused where it cannot be meant."""
    return value is not None and value is not False and value not in ("", (), [])


def _has_effect(name: str, system: BatchSystem) -> bool:
    """Whether an option means something to the system, or to the workers wherever they run."""
    return name in _WORKER_OPTIONS or _LIKE.get(name, name) in system.options


def _notes(profile: Profile, system: BatchSystem, options: Mapping[str, Any], walltime_s: int | None) -> list[str]:
    where = f"on profile {profile.name} (system {system.name})"
    notes = [
        f"--{name.replace('_', '-')} has no effect {where}"
        for name in _BATCH_OPTIONS
        if _is_set(options.get(name)) and not _has_effect(name, system)
    ]
    if walltime_s is not None and "walltime" not in system.options:
        after = format_walltime(walltime_s)
        notes.append(f"--walltime {where} is kept by the workers themselves: they end after {after}, by --runtime")
    return notes


@dataclass(frozen=True)
class _Launcher:
    """What the jobs of one launch have in common."""

    queue: QueueLike
    profile: Profile
    system: BatchSystem
    plan: Plan
    worker_command: tuple[str, ...]
    worker_options: list[str]
    mpirun: tuple[str, ...] | None
    directory: str
    batch_queue: str | None
    batch_options: tuple[str, ...]
    keep_env: bool
    after: str | None
    cancel_when_drained: bool

    def submissions(self) -> list[tuple[Shape, int | None]]:
        """The shape of each submission, and the number of elements where it is an array."""
        found: list[tuple[Shape, int | None]] = []
        for shape in self.plan.shapes:
            as_array = self.plan.array and shape.count > 1
            found += [(shape, shape.count)] if as_array else [(shape, None)] * shape.count
        return found

    def foresee(self) -> list[Job]:
        """The jobs as they would be."""
        first = next_number(self.queue.store)
        return [self.prepare(first + at, shape, array) for at, (shape, array) in enumerate(self.submissions())]

    def start(self) -> list[Job]:
        """Start them all."""
        started: list[Job] = []
        number = next_number(self.queue.store)
        wanted = self.submissions()
        self.prepare(number, *wanted[0])  # what no script can hold is refused here, before anything is written
        for shape, array in wanted:
            while not self.queue.store.claim_name(script_name(number)):
                number += 1
            try:
                started.append(self._submit(self.prepare(number, shape, array)))
            except BatchError as error:
                before = f"{len(started)} of {len(wanted)} jobs were submitted before it; " if started else ""
                raise type(error)(f"job {number} {error.message}", before + error.hint) from None
        note_submitted(self.queue.store, started)
        return started

    def prepare(self, number: int, shape: Shape, array: int | None) -> Job:
        """The job as it is before its submission; nothing is written."""
        spec = self._spec(number, shape, array)
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
            slots=shape.workers * shape.slots,
            command=tuple(self.system.submit_command(spec, script_path)),
            script_path=script_path,
            log_path=spec.output_path,
            script=script,
            nodes=shape.nodes,
            workers_per_node=shape.workers_per_node,
            slots_per_worker=shape.slots,
            nodes_per_worker=shape.nodes_per_worker,
            cores=shape.cores,
            walltime_s=self.plan.walltime_s,
            array=array,
            after=self.after,
            cancel_when_drained=self.cancel_when_drained,
        )

    def _spec(self, number: int, shape: Shape, array: int | None) -> JobSpec:
        directory = self.queue.store.directory
        root, _, name = directory.rpartition("/")
        sized = shape_options(shape, "cores_per_worker" in self.system.options)
        command = self.worker_command or (*fsqdo_command(), "do", name, *sized, *self.worker_options)
        profile = self.profile
        return JobSpec(
            name=f"fsqdo-{name}-{number}",
            queue_dir=directory,
            command=command,
            output_path=self.queue.store.path(log_name(number)),
            directory=self.directory,
            env={
                **profile.env,
                **_config_of_caller(),
                "FSQDO_DIR": root or "/",
                "FSQDO_QUEUE_DIR": directory,
                "FSQDO_JOB": str(number),
            },
            prologue=profile.prologue,
            epilogue=profile.epilogue,
            slots=shape.slots,
            walltime_s=self.plan.walltime_s,
            nodes=shape.nodes,
            workers_per_node=shape.workers_per_node,
            cores_per_worker=shape.cores,
            gpus_per_worker=shape.gpus,
            mem_mb_per_worker=shape.mem_mb,
            account=profile.account,
            batch_queue=self.batch_queue,
            constraint=profile.constraint,
            directives=profile.directives,
            batch_options=self.batch_options,
            wrap=profile.wrap,
            # One worker, on the first of its nodes: it starts its tasks on the others itself.
            mpirun=() if shape.nodes_per_worker else self.mpirun,
            keep_env=self.keep_env,
            array=array,
            after=self.after,
            template=profile.script,
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
            "nodes": job.nodes,
            "workers_per_node": job.workers_per_node,
            "slots_per_worker": job.slots_per_worker,
            "nodes_per_worker": job.nodes_per_worker,
            "cores": job.cores,
            "walltime_s": job.walltime_s,
            "array": job.array,
            "after": job.after,
            "cancel_when_drained": job.cancel_when_drained,
            "submitted_at": job.submitted_at,
            "host": socket.gethostname(),
            "user": _user(),
            "directory": self.directory,
            "queue": self.queue.directory,
            "command": list(job.command),
            "log": log_name(job.number),
            "error": job.error,
        }
        content = (json.dumps(record, indent=1) + "\n").encode()
        self.queue.store.replace(record_name(job.number), content, f"job.{new_token()}")


def _config_of_caller() -> dict[str, str]:
    """The configuration that this process was told to read, for what its workers launch (`--chain`)."""
    given = os.environ.get("FSQDO_CONFIG")
    return {"FSQDO_CONFIG": os.path.abspath(os.path.expanduser(given))} if given else {}


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
