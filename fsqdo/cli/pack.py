"""The commands that keep a large queue's tree small: `pack`, `unpack`, `tidy`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fsqdo.cli.options import command, dry_run_option, ids_argument, joined, json_option, queue_argument
from fsqdo.cli.output import complain, counted, json_line, write_lines
from fsqdo.ids import IdSet


@command(
    "pack",
    """
fsqdo pack Blat
fsqdo pack Blat --no-wait
""",
)
@queue_argument
@click.option("--no-wait", is_flag=True, help="Do what can be done now; without it, it may wait for two minutes.")
@dry_run_option
def pack_command(queue: str, no_wait: bool, dry_run: bool) -> None:
    """Make one file of each thousand tasks that succeeded.

    Workers do this by themselves, unless the queue was created with --no-pack. All commands work on packed tasks as on others;
    those that move them unpack them first.
    """
    from fsqdo.queue import connect

    packed = connect(queue).pack(wait=not no_wait, report=complain, dry_run=dry_run)
    print(f"{counted(packed, 'task')} {'would be ' if dry_run else ''}packed")


@command(
    "unpack",
    """
fsqdo unpack Blat
fsqdo unpack Blat 17,2000-2999
""",
)
@queue_argument
@ids_argument
@dry_run_option
def unpack_command(queue: str, ids: Sequence[IdSet], dry_run: bool) -> None:
    """Make files of packed tasks again, one each, for ls, cat and mv.

    Whole shards are unpacked: with IDS those that hold any of these. Workers that pass by pack them again, unless the queue was
    created with --no-pack.
    """
    from fsqdo.queue import connect

    unpacked = connect(queue).unpack(joined(ids) if ids else None, dry_run=dry_run)
    print(f"{counted(unpacked, 'task')} {'would be ' if dry_run else ''}unpacked")


@command(
    "tidy",
    """
fsqdo tidy Blat --dry-run
fsqdo tidy Blat --logs succeeded
""",
)
@queue_argument
@click.option("--logs", type=click.Choice(["succeeded"]), help="Remove what attempts wrote that succeeded.")
@click.option("--no-wait", is_flag=True, help="Do what can be done now; without it, it may wait for two minutes.")
@dry_run_option
@json_option
def tidy_command(queue: str, logs: str | None, no_wait: bool, dry_run: bool, as_json: bool) -> None:
    """Remove litter, and put together what ended workers left.

    What killed processes left half done is finished or removed, and the journals and logs of workers that have ended become
    a few files. No task is touched; all commands find outcomes and output as before, but for the output that --logs removes.
    """
    from fsqdo.queue import connect
    from fsqdo.tidy import words

    done = connect(queue).tidy(dry_run=dry_run, logs=logs, wait=not no_wait, report=complain)
    write_lines([json_line(done)] if as_json else words(done, dry_run))
