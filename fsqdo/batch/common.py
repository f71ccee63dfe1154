"""What the batch systems have in common: scripts from templates, what may stand in a directive line, ids and states.

A directive line is no shell: each system splits and unquotes it by rules of its own. So accounts, queues and names are
limited to plain characters, a name is mended, and a path or constraint that a system cannot be told is refused.
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence

from fsqdo.batch import JobSpec, JobState, line, quote, render
from fsqdo.errors import BatchError, ConfigError, InputError

POLL_S = (30.0, 120.0)
SUBMIT_OPTIONS = frozenset(
    ("cores_per_worker", "workers_per_node", "nodes", "batchqueue", "batchopts", "keep_env", "gpus_per_worker", "walltime")
)

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:/+-]*\Z")
_SHOWN = 300


# ---------------------------------------------------------------- scripts
def builtin(name: str) -> str:
    """The text of a file of this package."""
    content = pkgutil.get_data("fsqdo.batch", name)
    if content is None:
        raise ConfigError(f"the file {name} is missing in the package fsqdo.batch", ["install fsqdo again"])
    return content.decode()


def helper(name: str) -> list[str]:
    """The words that run a shell script of this package."""
    return ["/bin/sh", f"{_DIRECTORY}/{name}"]


def script(
    name: str, spec: JobSpec, own: Mapping[str, str | Sequence[str] | None], usual: str = "", always: bool = False
) -> str:
    """Fill in the profile's script, or the built-in one of the system.

    Parameters
    ----------
    own
        Variables in the form that this system needs.
    usual
        Shell code before the worker's command that starts all workers, where there are several and the profile says nothing.
    always
        Whether a single worker is started so, too.
    """
    variables = {**spec.variables(), **own}
    words = usual if always and spec.workers == 1 else _starter(spec, usual)
    variables["start"] = f"{words} {variables['command']}" if words else variables["command"]
    # One worker takes the place of this shell: a signal to the job is one to the worker.
    background = bool(words) or any(text.strip() for text in spec.epilogue)
    variables["exec"] = None if background else variables["command"]
    variables["clean"] = () if spec.keep_env else _lines(builtin("clean.sh"))
    parts = ["run.sh", "background.sh"] if background else ["run.sh"]
    variables["run"] = [text for part in parts for text in _lines(render(builtin(part), variables))]
    return render(builtin(f"{name}.sh") if spec.template is None else spec.template, variables)


def _lines(text: str) -> list[str]:
    # Not splitlines: a value may have a carriage return in it, or what else that takes for the end of a line.
    return text.removesuffix("\n").split("\n")


def _starter(spec: JobSpec, usual: str) -> str:
    """What starts the workers of a job that has several; nothing for a single one."""
    if spec.workers == 1:
        return ""
    if spec.mpirun is None:
        return usual
    program = os.path.basename(spec.mpirun[0])
    words = [*spec.mpirun]
    if len(words) == 1 and program == "srun":
        return srun(spec)
    if len(words) == 1 and program in ("mpiexec", "mpirun"):
        words += ["-n", str(spec.workers)]
    return " ".join(map(quote, words))


def srun(spec: JobSpec) -> str:
    """Slurm's srun for all workers: one that ends takes no others along, whatever the site has set."""
    words = [
        "srun",
        f"--nodes={spec.nodes}",
        f"--ntasks={spec.workers}",
        f"--ntasks-per-node={spec.workers_per_node}",
        *_each("--cpus-per-task", spec.cores_per_worker),
        *_each("--gpus-per-task", spec.gpus_per_worker),
        "--wait=0",
        "--kill-on-bad-exit=0",
        "--export=ALL",
    ]
    return " ".join(words)


def mpiexec(spec: JobSpec) -> str:
    """`mpiexec` for all workers; where they go it learns from the batch system."""
    return f"mpiexec -n {spec.workers}"


def _each(option: str, number: int | None) -> list[str]:
    return [f"{option}={number}"] if number else []


# ---------------------------------------------------------------- directive lines
def mended(name: str, longest: int) -> str:
    """A job's name as every system takes it: letters, digits and `_.-`, a letter first, at most so long.

    What is cut out of a name that is too long stands before its last `-`, behind which is the job's number.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if not plain[:1].isalpha():
        plain = f"j{plain}"
    if len(plain) <= longest:
        return plain
    head, dash, tail = plain.rpartition("-")
    room = longest - len(dash + tail)
    return head[:room] + dash + tail if dash and room > 0 else plain[:longest]


def word(what: str, value: str | None) -> str | None:
    """An account or queue: plain characters, which no system splits or takes for anything else.

    Raises
    ------
    InputError
        When it has others in it.
    """
    if value is not None and not _WORD.match(value):
        raise InputError(f"the {what} is {value!r}, which cannot stand in a directive", "use letters, digits and _ . @ : / + -")
    return value


def free_of(what: str, value: str | None, refused: str, system: str) -> str | None:
    """A value of a directive line, when nothing in it matches a pattern of what the system would misread.

    Raises
    ------
    InputError
        When it has, or is no line.
    """
    if value is None:
        return None
    found = re.search(refused, line(what, value))
    if found:
        raise InputError(f"{what} is {value!r}, and {system} cannot be told one with {found[0]!r} in it", "use another one")
    return value


def directives(spec: JobSpec, prefix: str) -> tuple[str, ...]:
    """The further directive lines of a job; each is one or more options.

    Raises
    ------
    InputError
        For one that is no option, or would go on in the next line.
    """
    for text in spec.directives:
        if not text.startswith("-") or text.endswith("\\"):
            raise InputError(
                f"the directive {text!r} is no option",
                f"write it as it stands after {prefix}, beginning with a dash and without a backslash at its end",
            )
    return spec.directives


def number(value: int | None) -> str | None:
    """A number as text."""
    return None if value is None else str(value)


def minutes(seconds: int | None) -> str | None:
    """Whole minutes, rounded up."""
    return None if seconds is None else str(-(-seconds // 60))


def clock(seconds: int | None) -> str | None:
    """Hours, minutes and seconds: `24:00:00`."""
    return None if seconds is None else f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


# ---------------------------------------------------------------- answers
def only_id(pattern: re.Pattern[str], stdout: str, command: str) -> str:
    """The one id (group `id`) that a submit command printed, among whatever else it printed.

    Raises
    ------
    BatchError
        When there is none, or there are several.
    """
    found = list(dict.fromkeys(match["id"] for match in pattern.finditer(stdout)))
    if len(found) != 1:
        shown = stdout.strip()[:_SHOWN]
        how = "has no job id" if not found else f"could mean any of the jobs {', '.join(found)}"
        raise BatchError(f"what {command} printed {how}: {shown!r}")
    return found[0]


def well_formed(pattern: re.Pattern[str], batch_ids: Iterable[str]) -> list[str]:
    """The ids that are ids: somebody may have edited the file they come from."""
    return [batch_id for batch_id in batch_ids if pattern.fullmatch(batch_id)]


def cancel(command: Sequence[str], ended: str, batch_ids: Sequence[str]) -> list[str]:
    """The command that cancels; messages that match the pattern `ended` (grep -E) mean jobs that have ended already."""
    # Without an id some of them would end everything.
    return [*helper("cancel.sh"), ended, *command, *batch_ids] if batch_ids else ["true"]


def joint_state(states: Iterable[JobState]) -> JobState:
    """The state of an array: running if any element is, else queued, ended only when all are known to have ended."""
    found = set(states)
    if JobState.RUNNING in found:
        return JobState.RUNNING
    for state in (JobState.QUEUED, JobState.UNKNOWN, JobState.ENDED):
        if state in found:
            return state
    return JobState.UNKNOWN
