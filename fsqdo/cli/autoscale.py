"""The command `autoscale`, and what `launch --auto` and `do --chain` have of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fsqdo.cli.options import DURATION, command, dry_run_option, given, is_verbose, queue_argument, verbose_option
from fsqdo.cli.output import complain, printable, say, write_lines
from fsqdo.errors import FsqdoError

if TYPE_CHECKING:
    from fsqdo.autoscale import Scaled
    from fsqdo.queue import Queue

COUNT = click.IntRange(min=1)
_LIMITS = ("most", "nodes", "walltime", "max_nodes", "max_walltime", "max_jobs", "node_hours", "finish_by_s")


@command(
    "autoscale",
    """
fsqdo autoscale Blat --dry-run
fsqdo autoscale Blat --watch --interval 10m
fsqdo autoscale Blat --max-nodes 4 --finish-by 8h
""",
)
@queue_argument
@click.option("--watch", "watching", is_flag=True, help="Look again and again, until the queue is drained.")
@click.option("--interval", "interval_s", type=DURATION, default=300.0, help="Pause between looks, from 30. Without it 5m.")
@click.option("--profile", metavar="NAME", help="Profile of the configuration file. Without it its default, else local.")
@click.option("--nodes", type=COUNT, metavar="K", help="Jobs of just K nodes.")
@click.option("--walltime", metavar="TIME", help="Jobs of just this walltime: h:m:s, m:s, or minutes.")
@click.option("--max-nodes", type=COUNT, metavar="K", help="At most K nodes a job.")
@click.option("--max-walltime", metavar="TIME", help="At most this walltime.")
@click.option("--max-jobs", type=COUNT, metavar="J", help="At most J jobs at once.")
@click.option("--most", type=COUNT, metavar="N", help="At most N tasks at once in the new jobs.")
@click.option("--node-hours", type=float, metavar="H", help="Launch no more than H node hours.")
@click.option("--finish-by", "finish_by_s", type=DURATION, help="All should be done in this time: 90m, 8h, 2d.")
@click.option("--batchqueue", metavar="NAME", help="As for launch.")
@click.option("--batchopts", multiple=True, metavar="TEXT", help="As for launch. Repeatable.")
@click.option("--script", metavar="TEXT", help="As for do.")
@click.option("--func", metavar="MODULE:NAME", help="As for do.")
@click.option(
    "--timeout",
    type=DURATION,
    help="Workers exit after this time without a task, instead of when the queue is drained.",
)
@click.option("--reset", is_flag=True, help="Forget that jobs failed before.")
@dry_run_option
@verbose_option
def autoscale_command(queue: str, watching: bool, interval_s: float, reset: bool, dry_run: bool, **options: Any) -> int:
    """Launch what a queue lacks, in jobs of the most efficient shape.

    Counts the work that is ready, less what the jobs there are will do, and launches the rest within the limits of the profile.
    After three jobs in a row that were refused or did nothing it stops until --reset.
    """
    from fsqdo.autoscale import SHORTEST_INTERVAL_S, watch
    from fsqdo.queue import connect

    if interval_s < SHORTEST_INTERVAL_S:
        raise click.UsageError(f"--interval is {interval_s:g} s, but must be at least {SHORTEST_INTERVAL_S:g} s")
    opened = connect(queue)
    asked = given(options)
    if not watching:
        return scale_once(opened, dry_run=dry_run, reset=reset, **asked)
    forgive = [reset]

    def look() -> Scaled:
        return _scale(opened, dry_run, forgive.pop() if forgive else False, asked)

    with _Ends() as wait:
        watch(look, lambda scaled: _report(scaled, dry_run), complain, lambda: wait(interval_s))
    return 0


def scale_once(queue: Queue, *, dry_run: bool = False, reset: bool = False, leaving: int | None = None, **asked: Any) -> int:
    """Look once and say what came of it.

    Returns
    -------
    int
        The exit code: 1 when it has stopped after failures.
    """
    scaled = _scale(queue, dry_run, reset, asked, leaving)
    _report(scaled, dry_run)
    return 1 if scaled.stopped else 0


def _scale(queue: Queue, dry_run: bool, reset: bool, asked: dict[str, Any], leaving: int | None = None) -> Scaled:
    from fsqdo.autoscale import Limits

    limits = Limits(**{key: asked[key] for key in _LIMITS if key in asked})
    rest = {key: value for key, value in asked.items() if key not in _LIMITS}
    return queue.autoscale(dry_run=dry_run, reset=reset, leaving=leaving, limits=limits, **rest)


def _report(scaled: Scaled, dry_run: bool) -> None:
    """The explanation is the data of a dry run; otherwise the jobs are, as lines with their number and id."""
    if dry_run:
        write_lines(printable(line) for line in scaled.explanation)
    elif is_verbose():
        for line in scaled.explanation:
            say(printable(line))
    if not dry_run:
        write_lines(f"{job.number} {printable(job.batch_id or '-')}" for job in scaled.jobs)
    say(printable(scaled.summary))


class _Ends:
    """SIGINT and SIGTERM end the waiting, not what is being done."""

    def __enter__(self) -> Callable[[float], bool]:
        import os
        import signal

        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before = [(n, signal.signal(n, lambda *_: None)) for n in (signal.SIGINT, signal.SIGTERM)]
        return self.wait

    def __exit__(self, *_: object) -> None:
        import os
        import signal

        for number, handler in self._before:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def wait(self, seconds: float) -> bool:
        """Wait; True when a signal came, now or before."""
        import select

        return bool(select.select([self._read_fd], [], [], seconds)[0])


def go_on(queue: Queue, why: str, **options: Any) -> None:
    """The last act of a worker that ended for this reason: one look, with the profile of its own job.

    What goes wrong is said and changes nothing else: the worker has done its work.
    """
    from fsqdo.autoscale import may_chain, own_job

    if not may_chain(why):
        return
    try:
        job = own_job(queue)
        if job is not None:
            options |= {"profile": job.profile, "leaving": job.number}
        scale_once(queue, **options)
    except FsqdoError as error:
        complain(f"nothing was launched to go on: {error}")
