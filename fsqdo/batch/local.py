"""No batch system: jobs are background processes on this machine, each in a session of its own.

A job's id is `<pid>.<start time>@<host>:<pid namespace>`, the start time in clock ticks since boot (field 22 of
/proc/PID/stat, proc(5)): a pid that was given to another process meanwhile is never mistaken for the job. A job on
another machine, or in another container, is unknown here, since a pid says nothing about it. The commands are those of
`local-jobs.sh`, the script is made from `local.sh`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common
from fsqdo.errors import BatchError

_ID = re.compile(r"([1-9][0-9]*)\.([0-9]+)@(\S+)\Z")
_JOBS = ("/bin/sh", f"{os.path.dirname(os.path.abspath(__file__))}/local-jobs.sh")


class Local:
    """The profile for a machine without a batch system."""

    name = "local"
    options: frozenset[str] = frozenset()
    poll_s = (0.05, 5.0)

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        own = {"output": None, "walltime": None, "export": None}
        return common.script("local", spec, own, common.mpiexec(spec))

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that starts the script in a session of its own and prints its id."""
        return [*_JOBS, "submit", script_path, spec.output_path]

    def job_id(self, reply: Reply) -> str:
        """Read the id that the new session printed."""
        printed = reply.stdout.strip()
        if not _ID.match(printed):
            raise BatchError(f"the job's id should have been printed, but it is {printed!r}")
        return printed

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that sends TERM to the process groups of these jobs; the worker does the rest."""
        return [*_JOBS, "cancel", *_well_formed(batch_ids)]

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that reads the process table for all these jobs."""
        return [*_JOBS, "status", *_well_formed(batch_ids)]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states: running while the process with the id's start time is there and no zombie."""
        said = {words[0]: words[1:] for text in reply.stdout.splitlines() if (words := text.split())}
        return {batch_id: _state(batch_id, said.get(batch_id, [])) for batch_id in batch_ids}


def _state(batch_id: str, said: list[str]) -> JobState:
    match = _ID.match(batch_id)
    if match is None or not said:
        return JobState.UNKNOWN
    if said == ["gone"]:
        return JobState.ENDED
    if len(said) != 2 or not said[1].isdigit():
        return JobState.UNKNOWN
    alive = said[1] == match[2] and said[0] not in ("Z", "X", "x")
    return JobState.RUNNING if alive else JobState.ENDED


def _well_formed(batch_ids: Sequence[str]) -> list[str]:
    """The ids that are ids: somebody may have edited the file they come from."""
    return [batch_id for batch_id in batch_ids if _ID.match(batch_id)]
