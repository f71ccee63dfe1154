"""Grid Engine (Sun's and its heirs): `qsub`, `qstat`, `qdel`. The script is made from `sge.sh`.

Lines of `#$` are looked for in the whole script and split at blanks; `$` begins a pseudo variable in a log's path, which is
`[host:]path`. There is no standard way to ask for several cores: a parallel environment is named by the site. `smp` is taken
for one node; another one is named by a directive `-pe NAME`, to which the number of cores is added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import InputError

_ID = re.compile(r"[1-9][0-9]*")
_TERSE = re.compile(rf"^[ \t]*(?P<id>{_ID.pattern})(?:\.[0-9]+-[0-9]+:[0-9]+)?[ \t\r]*$", re.MULTILINE)
_LONG = re.compile(rf"^Your job(?:-array)? (?P<id>{_ID.pattern})(?:\.[0-9]+-[0-9]+:[0-9]+)? \(", re.MULTILINE)
_UNSPEAKABLE = r"""[\s:,"'`$\\#]"""
_ENVIRONMENT = re.compile(r"-pe\s+([\w.*-]+)(?:\s+([0-9-]+))?\s*\Z")
# qstat: job-ID prior name user state date time ...; a name may have blanks in it, a state and a date cannot.
_JOB = re.compile(r"\s*([1-9][0-9]*)\s+[0-9.]+\s.*\s([A-Za-z]{1,5})\s+[0-9]{2}/[0-9]{2}/[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_HEAD = re.compile(r"job-ID\s|-+\s*\Z")


class Sge:
    """The answers for Grid Engine."""

    name = "sge"
    options = (common.SUBMIT_OPTIONS | {"array", "after"}) - {"gpus_per_worker"}
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        log = common.free_of("the path of the job's log", spec.output_path, _UNSPEAKABLE, "Grid Engine")
        directives, environment = _environment(spec, common.directives(spec, "#$"))
        warned = spec.warned_s()
        own = {
            "name": common.mended(spec.name, 200),
            "output": f"{log}.$TASK_ID" if spec.array else log,
            "account": common.word("account", spec.account),
            "batch_queue": common.word("batch queue", spec.batch_queue),
            "constraint": common.free_of("the constraint", spec.constraint, r"""[\s"'`$\\#]""", "Grid Engine"),
            "environment": environment,
            "walltime": common.clock(spec.walltime_s),
            "soft_s": str(spec.walltime_s - warned) if spec.walltime_s and warned else None,
            "after": None if spec.after is None else _checked(spec.after),
            "export": "-V" if spec.keep_env else None,
            "directives": directives,
        }
        return common.script("sge", spec, own, common.mpiexec(spec))

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script."""
        return ["qsub", "-terse", *spec.batch_options, script_path]

    def job_id(self, reply: Reply) -> str:
        """Read the id: `7`, of an array `7.1-3:1`; or in the sentence that is printed without `-terse`."""
        pattern = _LONG if _LONG.search(reply.stdout) else _TERSE
        return common.only_id(pattern, reply.stdout, "qsub")

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs."""
        gone = "denied: job .* does not exist|registered the job .* for deletion|has deleted job|already in deletion"
        return common.cancel(["qdel"], gone, common.well_formed(_ID, batch_ids))

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that lists the jobs of all users: others may have launched for the same queue."""
        return ["qstat", "-u", "*"]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states.

        Notes
        -----
        The listing has every job that waits or runs, of everybody, and one is in it before qsub has printed its id. So a job
        that is not in a listing that came whole (exit code 0, nothing in it but jobs, nothing on stderr) has ended; `qacct`
        would know more of it, but only for one job in a call and some time later.
        """
        found: dict[str, list[JobState]] = {}
        whole = reply.returncode == 0 and not reply.stderr.strip()
        for text in reply.stdout.splitlines():
            match = _JOB.match(text)
            if match:
                found.setdefault(match[1], []).append(_state(match[2]))
            elif text.strip() and not _HEAD.match(text):
                whole = False
        absent = JobState.ENDED if whole else JobState.UNKNOWN
        known = set(common.well_formed(_ID, batch_ids))
        return {
            batch_id: common.joint_state(found.get(batch_id, [absent])) if batch_id in known else JobState.UNKNOWN
            for batch_id in batch_ids
        }


def _state(letters: str) -> JobState:
    """`qw`, `hqw`, `Eqw` wait; `r`, `t`, `dr`, `Rr` and suspended ones (`s`, `S`, `T`) run."""
    if "q" in letters:
        return JobState.QUEUED
    return JobState.RUNNING if set(letters) & set("rtsST") else JobState.UNKNOWN


def _environment(spec: JobSpec, directives: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """The directives without one for a parallel environment, and that one with its number of cores."""
    named = [match for text in directives if (match := _ENVIRONMENT.match(text))]
    others = tuple(text for text in directives if not _ENVIRONMENT.match(text))
    cores = spec.nodes * spec.workers_per_node * (spec.cores_per_worker or 1)
    if named:
        return others, f"{named[-1][1]} {named[-1][2] or cores}"
    if spec.nodes > 1:
        raise InputError(
            "Grid Engine gives several nodes only to a parallel environment", "name it in the profile: directives: ['-pe NAME']"
        )
    return others, f"smp {cores}" if cores > 1 else None


def _checked(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise InputError(f"{batch_id!r} is no id of a Grid Engine job", "an id is a number")
    return batch_id
