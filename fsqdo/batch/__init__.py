"""Batch systems: each is six pure answers, in a small module of its own.

The script of a job, the command that submits it, the job's id in what that command printed, the command that cancels, the
command that asks for the states of many jobs at once, the states in what that one printed. Nothing here runs a command or
touches a file: `launch` does. The text of a script comes from a file beside the module (`local.sh`), for people to read.

Into a script go words of the shell (quoted here), lines (refused when they have a line break or control character in them)
and shell code from the configuration (taken as it is). `JobSpec` and `render` see to that for all systems; what a system can
say in its own directive lines is checked in its module, with `fsqdo.batch.common`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Protocol, cast

from fsqdo.errors import BatchError, ConfigError, InputError

_VARIABLE = re.compile(r"\{\{([a-z_]+)\}\}")
# Module and class of each system.
_SYSTEMS = {
    "local": ("local", "Local"),
    "slurm": ("slurm", "Slurm"),
    "pbs": ("pbs", "Pbs"),
    "torque": ("pbs", "Torque"),
    "sge": ("sge", "Sge"),
    "lsf": ("lsf", "Lsf"),
    "htcondor": ("htcondor", "HTCondor"),
    "flux": ("flux", "Flux"),
}
# Some systems look for directives in the whole script, also inside quotes: Grid Engine and LSF at the beginning of any line,
# Flux behind any punctuation. A line of a value that could be taken for one is begun with an expansion that yields nothing.
_DIRECTIVE_LIKE = re.compile(r"\n(?=\s*#|\W*(?:flux|FLUX):)")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)


class JobState(str, Enum):
    """State of a batch job. UNKNOWN is an answer of its own: it never means ENDED."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class JobSpec:
    """All that a batch system needs to know of one job.

    Attributes
    ----------
    name
        What the job is called in the batch system: one line.
    queue_dir
        Absolute path of the queue.
    command
        The worker: a program and its arguments.
    output_path
        Absolute path of the file for what the job prints.
    directory
        Absolute path of the directory it starts in.
    env
        Environment variables it gets.
    prologue, epilogue
        Shell code that runs before and after the workers, taken as it is.
    slots
        Tasks that each worker runs at once.
    walltime_s
        Its limit in seconds; None: the batch system's own.
    nodes, workers_per_node
        Whole nodes of the job, and workers on each; more than one worker in all is started by `mpirun`.
    cores_per_worker, gpus_per_worker, mem_mb_per_worker
        What each worker is to get; None: nothing is said of it.
    account, batch_queue, constraint
        What the batch system is told under these words; `batch_queue` is a partition, queue or pool.
    directives
        Further directive lines, without the system's prefix (`--exclusive`, not `#SBATCH --exclusive`).
    batch_options
        Words added to the submit command.
    wrap
        Words before the worker's own: a container's command.
    mpirun
        Words that start one worker in each place of a job of several; None: as is usual with the system; empty: nothing does,
        and the job has one worker however many nodes it has.
    keep_env
        Whether the job sees the environment of the one who launches.
    array
        Number of like jobs submitted as one; None: a single job.
    after
        Id of the batch job that must have ended first.
    warn_s
        So many seconds before its limit the job is sent SIGUSR1, where the system can do that.
    template
        The whole text of the script, from the profile; None: the built-in one.

    Raises
    ------
    InputError
        When a value can be written into no script.
    """

    name: str
    queue_dir: str
    command: tuple[str, ...]
    output_path: str
    directory: str
    env: Mapping[str, str] = field(default_factory=dict)
    prologue: tuple[str, ...] = ()
    slots: int = 1
    walltime_s: int | None = None
    epilogue: tuple[str, ...] = ()
    nodes: int = 1
    workers_per_node: int = 1
    cores_per_worker: int | None = None
    gpus_per_worker: int | None = None
    mem_mb_per_worker: int | None = None
    account: str | None = None
    batch_queue: str | None = None
    constraint: str | None = None
    directives: tuple[str, ...] = ()
    batch_options: tuple[str, ...] = ()
    wrap: tuple[str, ...] = ()
    mpirun: tuple[str, ...] | None = None
    keep_env: bool = True
    array: int | None = None
    after: str | None = None
    warn_s: int = 60
    template: str | None = None

    def __post_init__(self) -> None:
        line("the name of a job", self.name)
        if not self.command:
            raise InputError("a job needs a command")
        for value in (self.queue_dir, self.output_path, self.directory):
            if not value.startswith("/"):
                raise InputError(f"{value!r} is not an absolute path")
        for name in self.env:
            if not _ENV_NAME.match(name):
                raise InputError(f"{name!r} cannot be the name of an environment variable")
        for what in ("account", "batch_queue", "constraint", "after"):
            value = getattr(self, what)
            if value is not None and not line(f"the {what.replace('_', ' ')} of a job", value).strip():
                raise InputError(f"the {what.replace('_', ' ')} of a job is empty", "leave it out")
        for text in self.directives:
            line("a directive of a job", text)
        self._check_texts()
        self._check_numbers()

    def _check_texts(self) -> None:
        lists = (
            self.command,
            self.env.values(),
            self.prologue,
            self.epilogue,
            self.wrap,
            self.mpirun or (),
            self.batch_options,
        )
        texts = [self.queue_dir, self.output_path, self.directory, self.template or ""]
        for text in (*texts, *(item for items in lists for item in items)):
            if "\0" in text:
                raise InputError(f"{text!r} has a NUL byte in it, which no script can hold")

    def _check_numbers(self) -> None:
        at_least_one = ("slots", "nodes", "workers_per_node", "cores_per_worker", "walltime_s", "array", "mem_mb_per_worker")
        for what, least in [*((what, 1) for what in at_least_one), ("gpus_per_worker", 0), ("warn_s", 0)]:
            value = getattr(self, what)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InputError(f"{what} of a job is {value!r}, but must be an integer of at least {least}")

    @property
    def workers(self) -> int:
        """How many workers the job has in all."""
        return 1 if self.mpirun == () else self.nodes * self.workers_per_node

    def variables(self) -> dict[str, str | Sequence[str] | None]:
        """What a template may use of the job itself; the table is in docs/batch.md.

        The name, account, queue, constraint and directives are lines; prologue and epilogue are code; numbers are numbers;
        everything else is words of the shell. `env`, `prologue`, `epilogue` and `directives` are lists: a line that uses one
        is written once for each item. A system puts its own form of some of them in their place (`common.script`).
        """
        return {
            "name": self.name,
            "queue_dir": quote(self.queue_dir),
            "command": " ".join(map(quote, (*self.wrap, *self.command))),
            "output_path": quote(self.output_path),
            "directory": quote(self.directory),
            "env": [f"{name}={quote(value)}" for name, value in self.env.items()],
            "prologue": self.prologue,
            "epilogue": self.epilogue,
            "slots": str(self.slots),
            "walltime_s": _number(self.walltime_s),
            "nodes": str(self.nodes),
            "workers": str(self.workers),
            "workers_per_node": str(self.workers_per_node),
            "cores_per_worker": _number(self.cores_per_worker),
            "cores_per_node": _number(self.on_node(self.cores_per_worker)),
            "gpus_per_worker": _number(self.gpus_per_worker or None),
            "gpus_per_node": _number(self.on_node(self.gpus_per_worker) or None),
            "mem_mb_per_worker": _number(self.mem_mb_per_worker),
            "mem_mb_per_node": _number(self.on_node(self.mem_mb_per_worker)),
            "account": self.account,
            "batch_queue": self.batch_queue,
            "constraint": self.constraint,
            "directives": self.directives,
            "after": self.after,
            "array": _number(self.array),
            "array_last": None if self.array is None else str(self.array - 1),
            "warn_s": _number(self.warned_s()),
        }

    def on_node(self, each: int | None) -> int | None:
        """What the workers of a node need together."""
        return None if each is None else each * self.workers_per_node

    def warned_s(self) -> int | None:
        """Seconds before the end for the warning: `warn_s`, but at most half of the walltime; None for none.

        A job of one minute that is warned a minute before its end would drain before it has begun.
        """
        limit = self.warn_s if self.walltime_s is None else min(self.warn_s, self.walltime_s // 2)
        return limit or None


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True)
class Reply:
    """What a command of the batch system answered."""

    returncode: int
    stdout: str
    stderr: str = ""


class BatchSystem(Protocol):
    """The six answers, and what is known of the system beforehand."""

    @property
    def name(self) -> str:
        """Its name in a profile."""

    @property
    def options(self) -> frozenset[str]:
        """The options of `launch` that mean something to it; of the others it is said that they have no effect."""

    @property
    def poll_s(self) -> tuple[float, float]:
        """The shortest and the longest pause between two queries, in seconds."""

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script, which is a file by then."""

    def job_id(self, reply: Reply) -> str:
        """Read the job's id in what the submit command printed; BatchError when there is none."""

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs; one that has ended already is no error."""

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the one command that asks for the states of all these jobs."""

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the state of each of these jobs in what the status command printed; UNKNOWN where it does not tell."""


def get_system(name: str) -> BatchSystem:
    """The batch system of this name.

    Raises
    ------
    BatchError
        When this release knows none of that name.
    """
    if name not in _SYSTEMS:
        raise BatchError(f"this fsqdo knows no batch system {name!r}", f"the systems are {', '.join(_SYSTEMS)}")
    module, cls = _SYSTEMS[name]
    return cast(BatchSystem, getattr(import_module(f"fsqdo.batch.{module}"), cls)())


def quote(text: str) -> str:
    """A word of the shell, of which no line looks like a directive of a batch system."""
    return _DIRECTIVE_LIKE.sub("""\n'"${0##*}"'""", shlex.quote(text))


def line(what: str, value: str) -> str:
    """Return the value if it can stand in a line of a script as it is.

    Raises
    ------
    InputError
        When it has a line break or another control character in it, which would begin a line of its own.
    """
    if not value.isprintable():
        raise InputError(f"{what} is {value!r}, which cannot stand on one line", "leave out line breaks and control characters")
    return value


def render(template: str, variables: Mapping[str, str | Sequence[str] | None]) -> str:
    """Fill in the `{{variables}}` of a script's template.

    A line whose variable is unset (None, or an empty list) falls away. A line that uses a list is written once for each
    item. Values are put in as they are and not looked through for variables again.

    Raises
    ------
    ConfigError
        For variables that there are not, with the line and the names there are.
    """
    lines: list[str] = []
    problems: list[str] = []
    for number, text in enumerate(template.split("\n"), 1):
        used = _VARIABLE.findall(text)
        unknown = [name for name in used if name not in variables]
        problems += [f"line {number}: there is no variable {name!r}; there are {', '.join(variables)}" for name in unknown]
        if not unknown:
            lines += _filled(text, {name: variables[name] for name in used})
    if problems:
        raise ConfigError("the template of the job script cannot be filled in:", problems)
    return "\n".join(lines)


def _filled(text: str, values: Mapping[str, str | Sequence[str] | None]) -> list[str]:
    """The lines that one line of a template becomes."""
    choices: list[dict[str, str]] = [{}]
    for name, value in values.items():
        items = [value] if isinstance(value, str) else value or []
        choices = [{**chosen, name: item} for chosen in choices for item in items]
    # The pieces at odd places are the names of variables.
    pieces = _VARIABLE.split(text)
    return ["".join(chosen[piece] if at % 2 else piece for at, piece in enumerate(pieces)) for chosen in choices]
