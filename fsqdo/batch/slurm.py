"""Slurm: `sbatch`, `squeue` (then `sacct`), `scancel`, by way of `slurm-jobs.sh`. The script is made from `slurm.sh`.

Lines of `#SBATCH` are split like words of a shell: quotes group, a backslash escapes the next character anywhere, also within
single quotes, `#` begins a comment, and the letters `packjob` and `hetjob` mean something wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import InputError

_JOBS = common.helper("slurm-jobs.sh")
_ID = re.compile(r"[1-9][0-9]*(?:;[A-Za-z0-9_.][A-Za-z0-9_.-]*)?")
_PRINTED = re.compile(rf"^(?:Submitted batch job )?(?P<id>{_ID.pattern})[ \t\r]*$", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z0-9_./%:,+@=-]*\Z")
_LINE = re.compile(rf"({_ID.pattern})\|([A-Za-z_]+)(?: by [0-9]+|\+)?\s*\Z")
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
# REVOKED is missing on purpose: another cluster of a federation runs the job. "absent" is a word of slurm-jobs.sh.
_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "PREEMPTED",
          "LAUNCH_FAILED", "absent")  # fmt: skip


class Slurm:
    """The answers for Slurm 20.11 and later."""

    name = "slurm"
    options = common.SUBMIT_OPTIONS | {"array", "after"}
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        log = common.free_of("the path of the job's log", spec.output_path, r"\\", "Slurm") or ""
        log = log.replace("%", "%%") + (".%a" if spec.array else "")
        own = {
            "name": common.mended(spec.name, 200),
            "output": _quoted("the path of the job's log", log),
            "account": common.word("account", spec.account),
            "batch_queue": common.word("batch queue", spec.batch_queue),
            "constraint": None if spec.constraint is None else _quoted("the constraint", spec.constraint),
            "walltime": common.minutes(spec.walltime_s),
            "warn_s": str(min(seconds, 65535)) if (seconds := spec.warned_s()) else None,
            "after": None if spec.after is None else _number(spec.after),
            # Not NONE, with which the job begins with the time-consuming log-in of the user, and srun passes nothing on.
            "export": "ALL" if spec.keep_env else "NIL",
            "directives": common.directives(spec, "#SBATCH"),
        }
        return common.script("slurm", spec, own, common.srun(spec))

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script, and adds the name of the cluster to the id."""
        return [*_JOBS, "submit", "sbatch", "--parsable", *spec.batch_options, script_path]

    def job_id(self, reply: Reply) -> str:
        """Read the id: `123;cluster`, or `123` where the cluster would not say its name."""
        return common.only_id(_PRINTED, reply.stdout, "sbatch")

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels in each cluster."""
        return [*_JOBS, "cancel", *common.well_formed(_ID, batch_ids)]

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks `squeue` for these jobs by id, and `sacct` for those that it does not know.

        Notes
        -----
        By id and not by user: others may have launched for the same queue. slurmctld forgets an ended job after MinJobAge (300
        s by default), so that not being listed can mean that it has ended, that it is hidden from the one who asks, or that
        another cluster has it; `slurm-jobs.sh` has how these are told apart.
        """
        return [*_JOBS, "status", *common.well_formed(_ID, batch_ids)]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states; several lines of one id are the elements of an array."""
        found: dict[str, list[JobState]] = {}
        for text in reply.stdout.splitlines() if reply.returncode == 0 else ():
            if match := _LINE.match(text.strip()):
                found.setdefault(match[1], []).append(_state(match[2]))
        return {batch_id: common.joint_state(found.get(batch_id, ())) for batch_id in batch_ids}


def _quoted(what: str, value: str) -> str:
    common.free_of(what, value, "(?i)packjob|hetjob", "Slurm")
    return value if _PLAIN.match(value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _number(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise InputError(f"{batch_id!r} is no id of a Slurm job", "an id is a number")
    return batch_id.partition(";")[0]


def _state(said: str) -> JobState:
    for state, names in ((JobState.QUEUED, _QUEUED), (JobState.RUNNING, _RUNNING), (JobState.ENDED, _ENDED)):
        if said in names:
            return state
    return JobState.UNKNOWN
