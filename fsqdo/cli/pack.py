"""The commands that keep a large queue's tree small: `pack`, `unpack`."""

from __future__ import annotations

import click

from fsqdo.cli.options import IDS, command, queue_argument
from fsqdo.cli.output import complain, counted


@command(
    "pack",
    """
fsqdo pack Blat
fsqdo pack Blat --no-wait
""",
)
@queue_argument
@click.option("--no-wait", is_flag=True, help="Do what can be done now; without it, it may wait for two minutes.")
def pack_command(queue: str, no_wait: bool) -> None:
    """Make one file of each thousand tasks that succeeded.

    Workers do this by themselves, unless the queue was created with --no-pack. All commands work on packed tasks as on others;
    those that move them unpack them first.
    """
    from fsqdo.queue import connect

    packed = connect(queue).pack(wait=not no_wait, report=complain)
    print(f"{counted(packed, 'task')} packed")


@command(
    "unpack",
    """
fsqdo unpack Blat
fsqdo unpack Blat 17,2000-2999
""",
)
@queue_argument
@click.argument("ids", required=False, type=IDS)
def unpack_command(queue: str, ids: object) -> None:
    """Make files of packed tasks again, one each, for ls, cat and mv.

    Whole shards are unpacked: with IDS those that hold any of these. Workers that pass by pack them again, unless the queue was
    created with --no-pack.
    """
    from fsqdo.queue import connect

    unpacked = connect(queue).unpack(ids)
    print(f"{counted(unpacked, 'task')} unpacked")
