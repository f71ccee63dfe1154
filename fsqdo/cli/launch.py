"""The commands about batch jobs: `launch`, `jobs`, `cancel-jobs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fsqdo.cli.options import (
    DURATION,
    SLOTS,
    command,
    dry_run_option,
    is_verbose,
    json_option,
    queue_argument,
    verbose_option,
)
from fsqdo.cli.output import aligned, counted, json_line, printable, say, write_lines

if TYPE_CHECKING:
    from fsqdo.jobs import Job
    from fsqdo.launch import Launched
    from fsqdo.queue import Queue

COUNT = click.IntRange(min=1)


@command(
    "launch",
    """
fsqdo launch Blat 24
fsqdo launch Blat 24 --pack --walltime 2:00:00
fsqdo launch Blat 256 --cores-per-worker 8 --profile big --dry-run
fsqdo launch Blat --auto
""",
)
@queue_argument
@click.argument("n", metavar="[N]", type=COUNT, required=False)
@click.option("--auto", is_flag=True, help="As many as the queue lacks (with N: at most N), in jobs of the best shape.")
@click.option("--shape", type=click.Choice(["auto"]), help="The same: the nodes and walltime of jobs are chosen.")
@click.option("--profile", metavar="NAME", help="Profile of the configuration file. Without it its default, else local.")
@click.option("--pack", is_flag=True, help="All N in one batch job.")
@click.option("--jobs", type=COUNT, metavar="J", help="J such packed batch jobs, of N each.")
@click.option("--nodes", type=COUNT, metavar="K", help="K full nodes in a batch job; packs. N may then be left out.")
@click.option("--workers-per-node", type=COUNT, metavar="K", help="Tasks at once on each node (with -j: workers); packs.")
@click.option("-j", "--slots", type=SLOTS, help="Tasks at once in each worker, so that there are fewer; or auto.")
@click.option("--cores-per-worker", type=COUNT, metavar="K", help="Cores for each of the N; packs.")
@click.option("--gpus-per-worker", type=COUNT, metavar="K", help="GPUs for each of the N.")
@click.option("--mem-per-worker", metavar="MEM", help="Memory for each of the N: 4000 (MiB), 4G.")
@click.option("--nodes-per-worker", type=COUNT, metavar="K", help="Nodes for each worker, over which its tasks span by mpirun.")
@click.option("--mpirun", metavar="TEXT", help="What starts such tasks: srun, mpiexec. Without it the profile's.")
@click.option("--walltime", metavar="TIME", help="Limit of a batch job: h:m:s, m:s, or minutes.")
@click.option("--array", is_flag=True, help="Submit jobs that are alike as one array.")
@click.option("--after", metavar="JOB", help="Start when JOB has ended: a number of `jobs`, or an id of the batch system.")
@click.option("--batchqueue", metavar="NAME", help="Queue or partition of the batch system.")
@click.option("--batchopts", multiple=True, metavar="TEXT", help='More options for its submit command: "-A m1". Repeatable.')
@click.option("--script", metavar="TEXT", help="As for do.")
@click.option("--func", metavar="MODULE:NAME", help="As for do.")
@click.option("--keep-env", is_flag=True, help="Give the workers the present environment.")
@click.option(
    "--timeout",
    "--idle-timeout",
    "timeout",
    type=DURATION,
    help="Workers exit after this time without a task, instead of when the queue is drained.",
)
@click.option("--runtime", "runtime_s", type=DURATION, help="Workers stop everything and exit after this time.")
@click.option("--stagger", type=DURATION, help="Workers begin at a random moment within this time.")
@click.option("--max-fails", type=COUNT, metavar="K", help="A worker exits after K failed tasks.")
@click.option("--health-check", metavar="COMMAND", help="Workers exit at once where this command fails.")
@click.option("--chain", is_flag=True, help="The last act of a worker is to launch what the queue still needs.")
@click.option("--cancel-when-drained", is_flag=True, help="Cancel those that still wait when the queue is drained.")
@click.option("--wait", is_flag=True, help="Return only when all of them have ended.")
@dry_run_option
@verbose_option
def launch_command(
    queue: str, n: int | None, wait: bool, dry_run: bool, auto: bool, shape: str | None, **options: Any
) -> int | None:
    """Start N workers, as batch jobs or on this machine.

    Without a configuration file they are started here, in the background: the profile `local`. N is always the number of
    tasks that run at once: in N batch jobs, or packed in one, with one worker on each node that runs many. What does not fit
    the limits of the profile is refused.
    """
    from fsqdo.jobs import wait_for
    from fsqdo.queue import connect

    asked = {key: value for key, value in options.items() if value is not None and value is not False and value != ()}
    by_need = auto or shape is not None
    if n is None and "nodes" not in asked and not by_need:
        raise click.UsageError("Missing argument 'N': how many tasks are to run at once, or --auto")
    opened = connect(queue)
    if by_need:
        return _launch_by_need(opened, n, wait, dry_run, asked)
    launched = opened.launch(n, dry_run=dry_run, **asked)
    for note in launched.notes:
        say(f"fsqdo: {note}")
    if is_verbose() or dry_run:
        _explain(launched)
    if dry_run:
        return None
    write_lines(_table(launched))
    say(f"{launched.plan}; watch with `fsqdo jobs {queue}`, `fsqdo workers {queue}` and `fsqdo status {queue}`")
    if wait:
        sys.stdout.flush()  # it may be long until there is more to read
        ended = wait_for(opened, launched)
        say(f"{counted(len(ended), 'job')} ended")
        mine = {job.number for job in ended}
        idle = [job for job in opened.jobs() if job.number in mine and not job.workers and job.cancelled_at is None]
        if idle:
            say(f"{counted(len(idle), 'job')} without a worker: {printable(idle[0].log_path)} may say why")
            return 1
    return None


def _launch_by_need(queue: Queue, n: int | None, wait: bool, dry_run: bool, wanted: dict[str, Any]) -> int:
    """`--auto`: the number, size and length of the jobs are not the user's, so the options that say them are refused."""
    from fsqdo.cli.autoscale import scale_once

    for key in ("pack", "workers_per_node", "slots", "cores_per_worker", "runtime_s", "array", "nodes_per_worker"):
        if wanted.pop(key, None) is not None:
            raise click.UsageError(f"--{key.removesuffix('_s').replace('_', '-')} and --auto exclude each other")
    if wait:
        raise click.UsageError("--wait and --auto exclude each other; use `fsqdo autoscale --watch`")
    if "jobs" in wanted:
        wanted["max_jobs"] = wanted.pop("jobs")
    if n is not None:
        wanted["most"] = n
    return scale_once(queue, dry_run=dry_run, **wanted)


def _explain(launched: Launched) -> None:
    """The plan; for each job the submit command, and in a dry run the script, which is then the data."""
    import shlex

    say(launched.plan)
    for job in launched:
        say(f"job {job.number}: {printable(shlex.join(job.command))}")
        if launched.dry_run:
            write_lines(job.script.splitlines())


@command(
    "jobs",
    """
fsqdo jobs Blat
fsqdo jobs Blat --json
""",
)
@queue_argument
@json_option
def jobs_command(queue: str, as_json: bool) -> None:
    """List the batch jobs launched for a queue.

    The state is what the batch system says (queued, running, ended, or unknown), which is asked at most twice a minute. Slots
    are tasks at once on each node; the next columns are the workers that were there, what they run, and how it ended.
    """
    from fsqdo.queue import connect

    jobs = connect(queue).jobs()
    write_lines((json_line(job.to_json()) for job in jobs) if as_json else _table(jobs))


@command(
    "cancel-jobs",
    """
fsqdo cancel-jobs Blat
fsqdo cancel-jobs Blat 3 4
fsqdo cancel-jobs Blat --queued-only --dry-run
""",
)
@queue_argument
@click.argument("number", nargs=-1, type=COUNT)
@click.option("--queued-only", is_flag=True, help="Only those that still wait in the batch system.")
@dry_run_option
def cancel_jobs_command(queue: str, number: tuple[int, ...], queued_only: bool, dry_run: bool) -> None:
    """Cancel batch jobs of a queue.

    Without a NUMBER all that have not ended. Tasks that run in them go back to pending.
    """
    from fsqdo.queue import connect

    cancelled = connect(queue).cancel_jobs(number or None, queued_only=queued_only, dry_run=dry_run)
    for job in cancelled:
        print(f"job {job.number}: {job.state}, {printable(job.batch_id or '-')}")
    print(f"{counted(len(cancelled), 'job')} {'would be ' if dry_run else ''}cancelled")


_HEAD = ("Job", "State", "Nodes", "Slots", "Workers", "Running", "Succeeded", "Failed", "Profile", "Submitted", "Id", "Note")


def _table(jobs: Sequence[Job]) -> list[str]:
    rows: list[Sequence[str]] = [_HEAD]
    rows += [
        (
            str(job.number),
            str(job.state),
            *map(str, _numbers(job)),
            *(printable(text or "-") for text in _words(job)),
            _note(job),
        )
        for job in jobs
    ]
    return aligned(rows, (0, 2, 3, 4, 5, 6, 7))


def _numbers(job: Job) -> tuple[int, ...]:
    return job.nodes, job.slots_per_node, len(job.workers), job.running, job.succeeded, job.failed


def _words(job: Job) -> tuple[str | None, ...]:
    return job.profile, job.submitted_at, job.batch_id


def _note(job: Job) -> str:
    """Why it did not start; else what is special about it, and where its output is."""
    if job.error:
        return printable(job.error)
    special = [f"array of {job.array}"] if job.array else []
    special += ["cancelled"] if job.cancelled_at else []
    # Most batch systems write a file for each element of an array.
    return printable("; ".join([*special, job.log_path + (".*" if job.array else "")]))
