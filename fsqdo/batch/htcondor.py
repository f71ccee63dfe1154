"""HTCondor: `condor_submit`, `condor_q` (then `condor_history`), `condor_rm`. The script is made from `htcondor.sh`.

The script holds the submit description behind `#HTCONDOR`; `htcondor-jobs.sh` gives it to `condor_submit`. A line there is
`key = value` to its end, in which `$(NAME)` is expanded and `$(DOLLAR)` is a dollar sign. One job is one worker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsqdo.batch import JobSpec, JobState, Reply, common, line
from fsqdo.errors import BatchError, InputError

_ID = re.compile(r"[1-9][0-9]*@[A-Za-z0-9_.-]+")
_TERSE = re.compile(r"^[ \t]*(?P<id>[1-9][0-9]*)\.[0-9]+(?: - (?P=id)\.[0-9]+)?[ \t\r]*$", re.MULTILINE)
_HOST = re.compile(r"^host ([A-Za-z0-9_.-]+)\s*\Z", re.MULTILINE)
_LINE = re.compile(rf"({_ID.pattern}) ([0-9]) (queue|history)\s*\Z")
_DIRECTIVE = re.compile(r"(?!(?i:queue|include|use|if|elif|else|endif)\b)[+A-Za-z][\w.]*\s*=")
# 1 idle, 2 running, 3 removed, 4 completed, 5 held, 6 transferring output, 7 suspended
_QUEUED, _RUNNING, _ENDED = ("1", "5"), ("2", "3", "4", "6", "7"), ("3", "4")


class HTCondor:
    """The answers for HTCondor."""

    name = "htcondor"
    options = frozenset(("cores_per_worker", "gpus_per_worker", "batchopts", "keep_env", "walltime", "array"))
    poll_s = common.POLL_S

    def script(self, spec: JobSpec) -> str:
        """Return the text of the job's script."""
        if spec.workers > 1:
            raise InputError(
                f"a job of HTCondor has one worker, not {spec.workers}", "launch more jobs instead, or give it more slots"
            )
        if spec.after is not None:
            raise InputError("a job of HTCondor cannot wait for another one", "launch it when that one has ended")
        own = {
            "name": common.mended(spec.name, 200),
            "output": _value("the path of the job's log", spec.output_path) + (".$(Process)" if spec.array else ""),
            "account": common.word("account", spec.account),
            "batch_queue": None,
            "constraint": _value("the constraint", spec.constraint) if spec.constraint else None,
            "walltime": common.clock(spec.walltime_s),
            "export": str(spec.keep_env),
            "count": str(spec.array or 1),
            "directives": _directives(spec),
        }
        return common.script("htcondor", spec, own)

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        """Return the command that submits the script, as an argument of /bin/sh: it need not be executable then."""
        lines = ["executable = /bin/sh", "transfer_executable = False", f"arguments = {_argument(script_path)}"]
        appended = [word for text in lines for word in ("-append", text)]
        return [*common.helper("htcondor-jobs.sh"), "submit", script_path, *appended, *spec.batch_options]

    def job_id(self, reply: Reply) -> str:
        """Read the id: the cluster of `5.0 - 5.3`, and the host whose schedd has it."""
        host = _HOST.search(reply.stdout)
        if host is None:
            raise BatchError(f"condor_submit did not end well: {reply.stdout.strip()!r}")
        return f"{common.only_id(_TERSE, reply.stdout, 'condor_submit')}@{host[1]}"

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that ends these jobs, through the schedd that has them.

        Raises
        ------
        BatchError
            When they are of several hosts.
        """
        asked = common.well_formed(_ID, batch_ids)
        hosts = sorted({batch_id.partition("@")[2] for batch_id in asked})
        if len(hosts) > 1:
            raise BatchError(
                f"these jobs were submitted on several hosts: {', '.join(hosts)}", "cancel those of each by themselves"
            )
        clusters = [batch_id.partition("@")[0] for batch_id in asked]
        gone = "not found|couldn't find|have been marked for removal|no jobs|already"
        return common.cancel(["condor_rm", *(["-name", hosts[0]] if hosts else [])], gone, clusters)

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        """Return the command that asks the queue for these jobs, and the history for those that it does not have."""
        return [*common.helper("htcondor-jobs.sh"), "status", *common.well_formed(_ID, batch_ids)]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        """Read the states.

        Notes
        -----
        Processes of a cluster leave the queue one by one; while one is there, the cluster is not ended. ENDED is what only the
        history says: an empty queue may be that of a schedd that has just begun. A removed job (3) may still run for a moment.
        """
        found: dict[str, list[JobState]] = {}
        for text in reply.stdout.splitlines() if reply.returncode == 0 else ():
            if match := _LINE.match(text.strip()):
                found.setdefault(match[1], []).append(_state(match[2], match[3] == "queue"))
        return {batch_id: common.joint_state(found.get(batch_id, ())) for batch_id in batch_ids}


def _state(status: str, queued: bool) -> JobState:
    if not queued:
        return JobState.ENDED if status in _ENDED else JobState.UNKNOWN
    return JobState.QUEUED if status in _QUEUED else JobState.RUNNING if status in _RUNNING else JobState.UNKNOWN


def _value(what: str, value: str) -> str:
    """A value of a submit description; blanks at its ends would be cut off, a last backslash goes on with the next line."""
    text = line(what, value)
    if text != text.strip() or text.endswith("\\"):
        raise InputError(f"{what} is {value!r}, which HTCondor cannot be told", "no blank at its ends, no backslash at the end")
    return text.replace("$", "$(DOLLAR)")


def _argument(text: str) -> str:
    """One argument in HTCondor's newer syntax: in double quotes, within these in single ones; both are doubled."""
    word = line("the path of the script", text).replace("'", "''").replace('"', '""').replace("$", "$(DOLLAR)")
    return f"\"'{word}'\""


def _directives(spec: JobSpec) -> tuple[str, ...]:
    for text in spec.directives:
        if not _DIRECTIVE.match(text) or text.rstrip().endswith("\\") or "@=" in text:
            raise InputError(f"the directive {text!r} is no `key = value` of a submit description", "write one on each line")
    return spec.directives
