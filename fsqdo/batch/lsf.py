"""LSF: `bsub`, `bjobs`, `bkill`. The script is made from `lsf.sh`.

Lines of `#BSUB` are looked for in the whole script and split like words of a shell; `%` begins a pseudo variable in a log's
path. A "slot" of LSF is taken to be a core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import InputError

_ID = re.compile(r"[1-9][0-9]*")
_PRINTED = re.compile(rf"^Job <(?P<id>{_ID.pattern})> is submitted to ", re.MULTILINE)
_TRANSLATED = re.compile(rf"^[^<>\n]*<(?P<id>{_ID.pattern})>[^<>\n]*<[^<>\n]+>[^<>\n]*$", re.MULTILINE)
_LINE = re.compile(r"([1-9][0-9]*)\|([A-Z]+)\s*\Z")
_QUEUED = ("PEND", "PSUSP", "WAIT", "PROV")
_RUNNING = ("RUN", "USUSP", "SSUSP")
_ENDED = ("DONE", "EXIT")


class Lsf:
    """The answers for LSF 10."""

    name = "lsf"
    options = common.SUBMIT_OPTIONS | {"array", "after"}
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        log = common.free_of("the path of the job's log", spec.output_path, r"""["'`$\\%]""", "LSF")
        name = common.mended(spec.name, 200)
        cores = (spec.cores_per_worker or 1) * spec.workers_per_node
        own = {
            "name": f'"{name}[1-{spec.array}]"' if spec.array else name,
            "output": f'"{log}.%I"' if spec.array else f'"{log}"',
            "account": common.word("account", spec.account),
            "batch_queue": common.word("batch queue", spec.batch_queue),
            "constraint": common.free_of("the constraint", spec.constraint, r"""["'`$\\]""", "LSF"),
            "cores": str(cores * spec.nodes),
            "cores_on_node": str(cores) if cores * spec.nodes > 1 else None,
            "walltime": common.minutes(spec.walltime_s),
            "warn_min": _warn_min(spec),
            "after": None if spec.after is None else _checked(spec.after),
            "export": '"all"' if spec.keep_env else '"none"',
            "directives": common.directives(spec, "#BSUB"),
            "hosts": _hosts(spec),
        }
        return common.script("lsf", spec, own, 'blaunch -z "$fsqdo_hosts"')

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script: only what comes on stdin is looked through for directives."""
        return ["/bin/sh", "-c", 'exec bsub "$@" <"$0"', script_path, *spec.batch_options]

    def job_id(self, reply: Reply) -> str:
        """Read the id: `Job <5> is submitted to queue <normal>.`, or that sentence in another language."""
        pattern = _PRINTED if _PRINTED.search(reply.stdout) else _TRANSLATED
        return common.only_id(pattern, reply.stdout, "bsub")

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs."""
        return common.cancel(
            ["bkill"], "is being terminated|already finished|no matching job|is not found", common.well_formed(_ID, batch_ids)
        )

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks for these jobs, of whatever user; ended ones are known for CLEAN_PERIOD (1 h)."""
        asked = common.well_formed(_ID, batch_ids)
        return ["bjobs", "-noheader", "-a", "-u", "all", "-o", "jobid stat delimiter='|'", *asked]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states, a line for each element of an array, whatever the exit code: it is 255 if one id is unknown.

        Notes
        -----
        "Job <5> is not found" stays UNKNOWN: a site may hide the jobs of others (SECURE_INFODIR_USER_ACCESS,
        SECURE_JOB_INFO_LEVEL), and then it says the same of a job that runs.
        """
        found: dict[str, list[JobState]] = {}
        for text in reply.stdout.splitlines():
            if match := _LINE.match(text.strip()):
                found.setdefault(match[1], []).append(_state(match[2]))
        return {batch_id: common.joint_state(found.get(batch_id, ())) for batch_id in batch_ids}


def _state(said: str) -> JobState:
    for state, names in ((JobState.QUEUED, _QUEUED), (JobState.RUNNING, _RUNNING), (JobState.ENDED, _ENDED)):
        if said in names:
            return state
    return JobState.UNKNOWN


def _warn_min(spec: JobSpec) -> str | None:
    """Minutes before the limit for the warning; none where the limit leaves no time before it."""
    warned, limit = common.minutes(spec.warned_s()), common.minutes(spec.walltime_s)
    return warned if warned and limit and int(warned) < int(limit) else None


def _hosts(spec: JobSpec) -> str | None:
    """The hosts for blaunch, each as often as it has workers, out of `host cores host cores ...`."""
    if spec.workers == 1 or spec.mpirun is not None:
        return None
    loop = f'{{ for (i = 1; i < NF; i += 2) for (n = 0; n < {spec.workers_per_node}; n++) printf "%s ", $i }}'
    return f"fsqdo_hosts=$(echo \"$LSB_MCPU_HOSTS\" | awk '{loop}')"


def _checked(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise InputError(f"{batch_id!r} is no id of an LSF job", "an id is a number")
    return batch_id
