"""The commands about batch jobs: `launch`, `jobs`."""

from __future__ import annotations

from typing import Any

import click

from fsqdo.cli.options import DURATION, SLOTS, command, dry_run_option, json_option, queue_argument, verbose_option
from fsqdo.cli.output import aligned, json_line, say, write_lines


@command(
    "launch",
    """
fsqdo launch Blat 24
fsqdo launch Blat 24 --pack --walltime 2:00:00
fsqdo launch Blat 8 --dry-run
""",
)
@queue_argument
@click.argument("n", type=click.IntRange(min=1))
@click.option("--profile", metavar="NAME", help="Profile of the configuration file. Without it its default, else local.")
@click.option("--pack", is_flag=True, help="All N workers in one batch job.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="J", help="J such packed batch jobs, of N workers each.")
@click.option("--nodes", type=click.IntRange(min=1), metavar="K", help="Nodes of a batch job.")
@click.option("--workers-per-node", type=click.IntRange(min=1), metavar="K", help="Workers on each node.")
@click.option("-j", "--slots", type=SLOTS, help="Tasks that each worker runs at once, or auto.")
@click.option("--cores-per-worker", type=click.IntRange(min=1), metavar="K", help="Cores that each worker may use.")
@click.option("--walltime", metavar="TIME", help="Limit of a batch job: h:m:s, m:s, or minutes.")
@click.option("--batchqueue", metavar="NAME", help="Queue or partition of the batch system.")
@click.option("--batchopts", multiple=True, metavar="TEXT", help='More options for its submit command: "-A m1". Repeatable.')
@click.option("--script", metavar="TEXT", help="As for do.")
@click.option("--func", metavar="MODULE:NAME", help="As for do.")
@click.option("--keep-env", is_flag=True, help="Give the workers the present environment.")
@click.option("--timeout", type=DURATION, help="Workers exit after this time without a task.")
@click.option("--runtime", type=DURATION, help="Workers stop everything and exit after this time.")
@click.option("--wait", is_flag=True, help="Return only when all of them have ended.")
@dry_run_option
@verbose_option
def launch_command(queue: str, n: int, wait: bool, **options: Any) -> None:
    """Start N workers, as batch jobs or on this machine.

    Without a configuration file they are started here, in the background: the profile `local`. N is always the number of
    tasks that run at once.
    """
    raise NotImplementedError


@command("jobs", "fsqdo jobs Blat")
@queue_argument
@json_option
def jobs_command(queue: str, as_json: bool) -> None:
    """List the batch jobs launched for a queue."""
    raise NotImplementedError
