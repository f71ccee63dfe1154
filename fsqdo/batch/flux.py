"""Flux: `flux batch`, `flux jobs`, `flux cancel`. The script is made from `flux.sh`.

Lines of `#flux:` are split by Python's shlex, after runs of three quotes were looked for (RFC 36): values stand in double
quotes and have no quotes or backslashes themselves. `{{` begins a mustache in a log's path. The script runs in an instance of
its own; the workers are its job, also a single one, since it is to the jobs that an instance passes the warning on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import InputError

_ID = re.compile(r"[ƒf][1-9A-HJ-NP-Za-km-z]+|[0-9]+")
_PRINTED = re.compile(rf"^[ \t]*(?P<id>{_ID.pattern})[ \t\r]*$", re.MULTILINE)
_UNSPEAKABLE = r"""["'`$\\]|\{\{"""
_LINE = re.compile(rf"({_ID.pattern}) ([A-Z]+)\s*\Z")
_STATES = {
    **dict.fromkeys(("NEW", "DEPEND", "PRIORITY", "SCHED"), JobState.QUEUED),
    **dict.fromkeys(("RUN", "CLEANUP"), JobState.RUNNING),
    "INACTIVE": JobState.ENDED,
}


class Flux:
    """The answers for Flux."""

    name = "flux"
    options = common.SUBMIT_OPTIONS | {"after"}
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        if spec.array is not None:
            raise InputError("Flux has no arrays of batch jobs", "launch so many jobs instead, without --array")
        own = {
            "name": common.mended(spec.name, 200),
            "output": f'"{common.free_of("the path of the log", spec.output_path, _UNSPEAKABLE, "Flux")}"',
            "account": common.word("account", spec.account),
            "batch_queue": common.word("batch queue", spec.batch_queue),
            "constraint": _quoted("the constraint", spec.constraint),
            "walltime": common.clock(spec.walltime_s),
            "warn_s": common.number(spec.warned_s() if spec.walltime_s else None),
            "after": None if spec.after is None else _checked(spec.after),
            "export": '"*"' if spec.keep_env else '"-*"',
            "directives": common.directives(spec, "#flux:"),
        }
        return common.script("flux", spec, own, _run(spec), always=True)

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script."""
        return ["flux", "batch", *spec.batch_options, script_path]

    def job_id(self, reply: Reply) -> str:
        """Read the id: `ƒ2oLkTLb`, or `f2oLkTLb` where the locale has no `ƒ`."""
        return common.only_id(_PRINTED, reply.stdout, "flux batch")

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs."""
        return common.cancel(["flux", "cancel"], "job is inactive|unknown job", common.well_formed(_ID, batch_ids))

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks for these jobs, ended ones as well."""
        return ["flux", "jobs", "-n", "-o", "{id} {state}", *common.well_formed(_ID, batch_ids)]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states, whatever the exit code: it is 1 if one id is unknown.

        Notes
        -----
        An unknown job stays UNKNOWN: ids are those of one Flux instance, and the one that is asked may be another (a job's own,
        say), which knows nothing of it. Old jobs that were purged stay UNKNOWN, too.
        """
        found: dict[str, list[JobState]] = {}
        for text in reply.stdout.splitlines():
            if match := _LINE.match(text.strip()):
                found.setdefault(_plain(match[1]), []).append(_STATES.get(match[2], JobState.UNKNOWN))
        return {batch_id: common.joint_state(found.get(_plain(batch_id), ())) for batch_id in batch_ids}


def _run(spec: JobSpec) -> str:
    words = ["flux", "run", f"--nodes={spec.nodes if spec.workers > 1 else 1}", f"--ntasks={spec.workers}"]
    words += [f"--cores-per-task={spec.cores_per_worker}"] if spec.cores_per_worker else []
    words += [f"--gpus-per-task={spec.gpus_per_worker}"] if spec.gpus_per_worker else []
    return " ".join(words)


def _quoted(what: str, value: str | None) -> str | None:
    return None if value is None else f'"{common.free_of(what, value, _UNSPEAKABLE, "Flux")}"'


def _plain(batch_id: str) -> str:
    """An id as an ASCII locale has it."""
    return "f" + batch_id[1:] if batch_id.startswith("ƒ") else batch_id


def _checked(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise InputError(f"{batch_id!r} is no id of a Flux job", "an id is as flux printed it: ƒ2oLkTLb")
    return batch_id
