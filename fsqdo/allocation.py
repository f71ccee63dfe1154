"""What a worker can know of the batch allocation it runs in: its end, its cores, gpus, memory and nodes.

All of it stands in the environment, but for the end, which most batch systems tell only to those who ask: one command, with
a time-out, before the first claim. What cannot be learnt is unknown, never an error. Read once: an allocation does not grow.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

QUERY_S = 5.0
# What a system answers for "no limit" is larger than this.
_NO_LIMIT_S = 1e8
_LEAST_GRACE_S = 0.5
_MIB = 1 << 20
_CLOCK = re.compile(r"(?:([0-9]+)-)?([0-9]+(?::[0-9]+){1,3})\Z")
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")

Environ = Mapping[str, str]
Ask = Callable[[list[str]], str]


class Gpus(NamedTuple):
    """Gpus that may be used: the variable that names them to a program, and the names in it."""

    variable: str = _GPU_VARIABLES[0]
    names: tuple[str, ...] = ()


# ---------------------------------------------------------------- how long
def ask(words: list[str]) -> str:
    """What a command prints; "" when it fails, is not there, or takes longer than `QUERY_S`."""
    import subprocess

    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=QUERY_S, check=False, text=True, errors="replace"
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def time_left_s(environ: Environ, ask: Ask = ask) -> float | None:
    """Seconds until the batch system ends this allocation; None where there is none, no limit, or no answer.

    Notes
    -----
    An end in the past is taken for no answer: the variables are those of a job that has ended, kept in some shell.
    """
    for variable, find in _WAYS:
        if environ.get(variable):
            try:
                left_s = find(environ, ask)
            except (ValueError, OverflowError):  # not the answer it should be
                left_s = None
            return left_s if left_s is not None and 0 < left_s < _NO_LIMIT_S else None
    return None


def ends_in_s(environ: Environ, runtime_s: float | None) -> float | None:
    """Seconds until a worker must have ended: the earlier of its own limit and the end of its allocation; None: neither."""
    limits = [limit_s for limit_s in (runtime_s, time_left_s(environ)) if limit_s is not None]
    return min(limits, default=None)


def grace_s(environ: Environ, usual_s: float, ask: Ask = ask) -> float:
    """Seconds that stopped tasks may take to end: half of what the batch system leaves before it kills, if that is less.

    Only Slurm says what that is (`KillWait`).
    """
    if not environ.get("SLURM_JOB_ID"):
        return usual_s
    said = re.search(r"^KillWait\s*=\s*([0-9]+)", ask(["scontrol", "show", "config"]), re.MULTILINE)
    return usual_s if said is None else min(usual_s, max(_LEAST_GRACE_S, int(said[1]) / 2))


def _slurm(environ: Environ, ask: Ask) -> float | None:
    end = environ.get("SLURM_JOB_END_TIME", "")
    if end.isascii() and end.isdigit():
        return int(end) - time.time()
    job = environ["SLURM_JOB_ID"]
    array, index = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and index:
        job = f"{array}_{index}"  # the array's last job has the array's own id, which would name them all
    return clock_s(ask(["squeue", "-h", "-j", job, "-o", "%L"]))


def _pbs(environ: Environ, ask: Ask) -> float | None:
    walltime = environ.get("PBS_WALLTIME", "")  # Torque
    if walltime.isascii() and walltime.isdigit():
        return int(walltime) - session_age_s()
    said = ask(["qstat", "-f", environ["PBS_JOBID"]])
    left = _field(said, "Walltime.Remaining")
    if left is not None:
        return float(left)
    limit_s = clock_s(_field(said, "Resource_List.walltime") or "")
    if limit_s is None:
        return None
    used_s = clock_s(_field(said, "resources_used.walltime") or "") or 0.0
    # What the server says was used is minutes old: this job's own shell is as old as the job, but for the site's prologue.
    return limit_s - max(used_s, session_age_s())


def _lsf(environ: Environ, ask: Ask) -> float | None:
    job, index = environ["LSB_JOBID"], environ.get("LSB_JOBINDEX", "0")
    if index not in ("", "0"):
        job = f"{job}[{index}]"
    said = ask(["bjobs", "-noheader", "-o", "time_left", job]).split()
    # "hours:minutes L"; E is an estimate, X is exceeded
    if len(said) < 2 or said[1] != "L":
        return None
    return clock_s(said[0] + ":00")


def _flux(environ: Environ, ask: Ask) -> float | None:
    said = ask(["flux", "job", "timeleft"]).strip()
    return float(said) if said else None


def _sge(environ: Environ, ask: Ask) -> float | None:
    limits = re.search(r"^hard resource_list:\s*(.*)$", ask(["qstat", "-j", environ.get("JOB_ID", "")]), re.MULTILINE)
    found = re.findall(r"\b[hs]_rt=([0-9:]+)", limits[1] if limits else "")
    seconds = [float(text) if text.isdigit() else clock_s(text) for text in found]
    known = [limit_s for limit_s in seconds if limit_s is not None]
    return min(known) - session_age_s() if known else None


# The variable by which a system is known, and how it is asked.
_WAYS: tuple[tuple[str, Callable[[Environ, Ask], float | None]], ...] = (
    ("SLURM_JOB_ID", _slurm),
    ("PBS_JOBID", _pbs),
    ("LSB_JOBID", _lsf),
    ("FLUX_JOB_ID", _flux),
    ("SGE_TASK_ID", _sge),
)


def in_batch_job(environ: Environ) -> bool:
    """Whether this process belongs to an allocation of a batch system."""
    return any(environ.get(variable) for variable in (*(variable for variable, _ in _WAYS), "_CONDOR_SCRATCH_DIR"))


def clock_s(text: str) -> float | None:
    """Seconds from `[days-][hours:]minutes:seconds`, or `days:hours:minutes:seconds`; None for anything else."""
    match = _CLOCK.match(text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match[2].split(":")]
    days = int(match[1] or 0)
    if len(parts) == 4:
        days += parts.pop(0)
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + part
    return float(days * 86400 + seconds)


def _field(said: str, name: str) -> str | None:
    match = re.search(rf"^\s*{re.escape(name)} = (.*)$", said, re.MULTILINE)
    return match[1].strip() if match else None


def session_age_s() -> float:
    """For how long the leader of this process' session has been there, which in a batch job is the job's shell; 0: unknown."""
    try:
        with open(f"/proc/{os.getsid(0)}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


# ---------------------------------------------------------------- how much, on this node
def cores(environ: Environ) -> int:
    """Cores that this process may use: those the kernel lets it, and no more than the allocation has on this node."""
    allowed = len(os.sched_getaffinity(0))
    given = _number(environ, *_core_variables(environ)) or _own_slots(environ)
    return min(allowed, given) if given else allowed


def _core_variables(environ: Environ) -> tuple[str, ...]:
    if environ.get("SLURM_JOB_ID"):
        # In a step of srun the worker is one of its tasks, in the script it has all that the job has on this node.
        return ("SLURM_CPUS_PER_TASK",) if environ.get("SLURM_STEP_ID") else ("SLURM_CPUS_ON_NODE",)
    if environ.get("PBS_JOBID"):
        return ("NCPUS", "PBS_NUM_PPN")
    if environ.get("SGE_TASK_ID") and environ.get("NHOSTS", "1") == "1":
        return ("NSLOTS",)
    return ()


def _own_slots(environ: Environ) -> int | None:
    """Slots on this host of an LSF job: LSB_MCPU_HOSTS is `host slots host slots …`."""
    words = environ.get("LSB_MCPU_HOSTS", "").split() if environ.get("LSB_JOBID") else []
    for host, slots in zip(words[::2], words[1::2], strict=False):
        if _same_host(host, os.uname().nodename) and slots.isdigit():
            return int(slots)
    return None


def mem_mb(environ: Environ) -> int:
    """Memory that the tasks of this node may use, in MiB: the allocation's where it says so, else all that the machine has."""
    if environ.get("SLURM_JOB_ID"):
        node = _number(environ, "SLURM_MEM_PER_NODE")
        core = _number(environ, "SLURM_MEM_PER_CPU")
        if node:
            return node
        if core:
            return core * cores(environ)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB


def gpus(environ: Environ, number: int | None = None) -> Gpus:
    """The gpus that this process may use.

    Parameters
    ----------
    number
        Use so many; where the environment does not name them they are called 0, 1, …
    """
    found = _named_gpus(environ)
    if found is None and number is None and not in_batch_job(environ):
        found = Gpus(names=_devices())
    if found is None:
        return Gpus(names=tuple(map(str, range(number or 0))))
    return found if number is None else found._replace(names=found.names[:number])


def _named_gpus(environ: Environ) -> Gpus | None:
    for variable in _GPU_VARIABLES:
        if variable in environ:
            names = tuple(word.strip() for word in environ[variable].split(",") if word.strip())
            return Gpus(variable, () if names and names[0] in ("-1", "NoDevFiles") else names)
    for variable in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if environ.get(variable):
            return Gpus(names=tuple(expand_numbers(environ[variable])))
    return None


def _devices() -> tuple[str, ...]:
    """The gpus of a machine of one's own."""
    count = 0
    while os.path.exists(f"/dev/nvidia{count}"):
        count += 1
    return tuple(map(str, range(count)))


def expand_numbers(text: str) -> list[str]:
    """`0-2,5` as a list; leading zeros are kept. What is no number stands as it is."""
    found = []
    for word in text.split(","):
        low, dash, high = word.partition("-")
        if dash and low.isdigit() and high.isdigit() and int(high) - int(low) < 100_000:
            found += [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
        elif word:
            found.append(word)
    return found


def threads_are_set(environ: Environ) -> bool:
    """Whether somebody chose OMP_NUM_THREADS; PBS and HTCondor set it for the whole job, which is nobody's choice."""
    threads = environ.get("OMP_NUM_THREADS")
    if threads is None:
        return False
    by_pbs = bool(environ.get("PBS_JOBID")) and threads == environ.get("NCPUS")
    return not (by_pbs or environ.get("_CONDOR_SCRATCH_DIR"))


def job_number(environ: Environ, queue_dir: str) -> str | None:
    """Number of the job of this queue that this process runs in; None when it runs in none, or in one of another queue."""
    return environ.get("FSQDO_JOB") if environ.get("FSQDO_QUEUE_DIR", queue_dir) == queue_dir else None


def restarts(environ: Environ) -> int | None:
    """How often this batch job was requeued and started anew; None in the first run, or where nobody counts."""
    return _number(environ, "SLURM_RESTART_COUNT")


def _number(environ: Environ, *variables: str) -> int | None:
    for variable in variables:
        text = environ.get(variable, "")
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
    return None


# ---------------------------------------------------------------- the other nodes
def hosts(environ: Environ) -> list[str]:
    """Names of all nodes of the allocation, in its order; [] where it does not tell."""
    if environ.get("SLURM_JOB_NODELIST"):
        return expand_hosts(environ["SLURM_JOB_NODELIST"])
    for variable in ("PBS_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE"):
        if environ.get(variable):
            return _first_words(environ[variable])
    return list(dict.fromkeys(environ.get("LSB_HOSTS", "").split()))


def _first_words(path: str) -> list[str]:
    """The first word of each line, each once."""
    try:
        with open(path, errors="replace") as file:
            return list(dict.fromkeys(line.split()[0] for line in file if line.strip()))
    except OSError:
        return []


def expand_hosts(text: str) -> list[str]:
    """Host names from Slurm's short form: `login,n[1-3,07],r[0-1]c[1-2]`."""
    found: list[str] = []
    for group in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        expanded = [""]
        for piece in re.findall(r"\[[^\]]*\]|[^\[\]]+", group):
            ends = expand_numbers(piece[1:-1]) if piece.startswith("[") else [piece]
            expanded = [start + end for start in expanded for end in ends]
        found += expanded
    return found


def own_hosts(environ: Environ, count: int) -> list[str]:
    """The nodes of a worker that has `count` of them: this one, and those after it in the allocation."""
    here = environ.get("SLURMD_NODENAME") or os.uname().nodename
    every = hosts(environ)
    at = next((at for at, host in enumerate(every) if _same_host(host, here)), None)
    return [here] if at is None else every[at : at + count]


def _same_host(one: str, other: str) -> bool:
    return one == other or one.partition(".")[0] == other.partition(".")[0]
