"""Batch systems: each is six pure answers, in a small module of its own.

The script of a job, the command that submits it, the job's id in what that command printed, the command that cancels, the
command that asks for the states of many jobs at once, the states in what that one printed. Nothing here runs a command or
touches a file: `launch` does. The text of a script comes from a file beside the module (`local.sh`), for people to read.

Into a script go words of the shell (quoted here), lines (refused when they have a line break or control character in them)
and shell code from the configuration (taken as it is). `JobSpec` and `render` see to that for all systems.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from fsqdo.errors import BatchError, ConfigError, InputError

_VARIABLE = re.compile(r"\{\{([a-z_]+)\}\}")
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
        Words that start one worker in each place of a job of several; None: as is usual with the system.
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
        texts = (self.queue_dir, self.output_path, self.directory, *self.command, *self.env.values(), *self.prologue)
        for text in texts:
            if "\0" in text:
                raise InputError(f"{text!r} has a NUL byte in it, which no script can hold")

    def variables(self) -> dict[str, str | Sequence[str] | None]:
        """What a template may use: the name as a line, the prologue as code, everything else as words of the shell.

        `env` and `prologue` are lists: a line that uses one is written once for each item.
        """
        return {
            "name": self.name,
            "queue_dir": shlex.quote(self.queue_dir),
            "command": shlex.join(self.command),
            "output_path": shlex.quote(self.output_path),
            "directory": shlex.quote(self.directory),
            "env": [f"{name}={shlex.quote(value)}" for name, value in self.env.items()],
            "prologue": self.prologue,
            "slots": str(self.slots),
            "walltime_s": None if self.walltime_s is None else str(self.walltime_s),
        }


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
    if name == "local":
        from fsqdo.batch.local import Local

        return Local()
    raise BatchError(f"this fsqdo knows no batch system {name!r}", "the systems are local")


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
