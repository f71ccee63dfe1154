"""PBS Pro, OpenPBS (`pbs`) and Torque (`torque`): `qsub`, `qstat -f`, `qdel`. Scripts are made from `pbs.sh` and `torque.sh`.

Lines of `#PBS` are split at blanks; what stands in quotes there differs between releases, so nothing that would need them is
put into one. A log's path is `[host:]path` and has lists separated by commas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import InputError

_ID = re.compile(r"[0-9]+(?:\[\])?(?:\.[A-Za-z0-9_.-]+)?")
_PRINTED = re.compile(rf"^[ \t]*(?P<id>{_ID.pattern})[ \t\r]*$", re.MULTILINE)
_UNSPEAKABLE = r"""[\s:,"'`$\\#|&;<>()^*?!~]"""
_JOB = re.compile(r"^Job Id: (\S+)\s*$")
_STATE = re.compile(r"^[ \t]+job_state = ([A-Za-z])\s*$")
_GONE = re.compile(r"Unknown Job Id(?: Error)?:? (\S+)")
_LETTERS = {
    **dict.fromkeys("QHWT", JobState.QUEUED),
    **dict.fromkeys("RESUB", JobState.RUNNING),  # E exits, S and U are suspended, B is an array that has begun
    **dict.fromkeys("FXC", JobState.ENDED),  # M (moved to another server) is UNKNOWN here
}


class Pbs:
    """The answers for PBS Pro and OpenPBS."""

    name = "pbs"
    options = common.SUBMIT_OPTIONS | {"array", "after"}
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        log = common.free_of("the path of the job's log", spec.output_path, _UNSPEAKABLE, "PBS")
        own = {
            "name": common.mended(spec.name, 15),
            "output": f"{log}{self._element(spec)}",
            "account": common.word("account", spec.account),
            "batch_queue": common.word("batch queue", spec.batch_queue),
            "select": self._select(spec, common.free_of("the constraint", spec.constraint, r"""[\s"'`$\\#|&;<>()]""", "PBS")),
            "walltime": common.clock(spec.walltime_s),
            "array_last": self._last(spec),
            "mem_mb": None if spec.mem_mb_per_worker is None else str(spec.mem_mb_per_worker * spec.workers),
            "after": None if spec.after is None else _checked(spec.after),
            "export": "-V" if spec.keep_env else None,
            "directives": common.directives(spec, "#PBS"),
        }
        return common.script(self.name, spec, own, common.mpiexec(spec))

    def _select(self, spec: JobSpec, constraint: str | None) -> str:
        per_node: Mapping[str, object] = {
            "ncpus": (spec.cores_per_worker or 1) * spec.workers_per_node,
            "mpiprocs": spec.workers_per_node,
            "ngpus": spec.on_node(spec.gpus_per_worker),
            "mem": None if spec.mem_mb_per_worker is None else f"{spec.on_node(spec.mem_mb_per_worker)}mb",
        }
        chunk = [str(spec.nodes), *(f"{name}={value}" for name, value in per_node.items() if value)]
        return ":".join([*chunk, *([constraint] if constraint else [])])

    def _element(self, spec: JobSpec) -> str:
        """What tells the logs of an array's elements apart."""
        return ".^array_index^" if self._last(spec) else ""

    def _last(self, spec: JobSpec) -> str | None:
        # qsub refuses an array of one.
        return str(spec.array - 1) if spec.array and spec.array > 1 else None

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script."""
        return ["qsub", *spec.batch_options, script_path]

    def job_id(self, reply: Reply) -> str:
        """Read the id: `123.server`, of an array `123[].server`."""
        return common.only_id(_PRINTED, reply.stdout, "qsub")

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs."""
        gone = "unknown job id|job has finished|request invalid for state of job"
        return common.cancel(["qdel"], gone, common.well_formed(_ID, batch_ids))

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks for these jobs, ended ones (`-x`) as far as the server keeps them.

        Notes
        -----
        The text form: the JSON of some releases is no JSON where a variable of the job has quotes in it.
        """
        return ["qstat", "-x", "-f", *common.well_formed(_ID, batch_ids)]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states, whatever the exit code: it is that of the last id only.

        Notes
        -----
        "Unknown Job Id" is ENDED: the server says so only when it answers, keeps its jobs on disk, and names itself in the id.
        A job of two states is UNKNOWN: one of the lines is from a variable of some job, which may hold any text.
        """
        found: dict[str, set[JobState]] = {}
        job = ""
        for text in reply.stdout.splitlines():
            if match := _JOB.match(text):
                job = match[1]
            elif job and (match := _STATE.match(text)):
                found.setdefault(job, set()).add(_LETTERS.get(match[1], JobState.UNKNOWN))
        for gone in _GONE.findall(reply.stderr):
            found.setdefault(gone, set()).add(JobState.ENDED)
        return {batch_id: _one(found.get(batch_id, set())) for batch_id in batch_ids}


class Torque(Pbs):
    """The answers for Torque, where they differ."""

    name = "torque"

    def _select(self, spec: JobSpec, constraint: str | None) -> str:
        words = [str(spec.nodes), f"ppn={(spec.cores_per_worker or 1) * spec.workers_per_node}"]
        if spec.gpus_per_worker:
            words.append(f"gpus={spec.on_node(spec.gpus_per_worker)}")
        return ":".join([*words, *([constraint] if constraint else [])])

    def _element(self, spec: JobSpec) -> str:
        return ""  # Torque itself adds -<index>

    def _last(self, spec: JobSpec) -> str | None:
        return None if spec.array is None else str(spec.array - 1)

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks for these jobs; ended ones are known for `keep_completed` seconds.

        Notes
        -----
        An array is asked for as a whole by its id with `[]`.
        """
        return ["qstat", "-f", *common.well_formed(_ID, batch_ids)]


def _one(states: set[JobState]) -> JobState:
    return states.pop() if len(states) == 1 else JobState.UNKNOWN


def _checked(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise InputError(f"{batch_id!r} is no id of a PBS job", "an id is as qsub printed it: 123.server")
    return batch_id
