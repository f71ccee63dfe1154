"""The commands that add tasks: `add`, `load`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from fsqdo.cli.options import QUEUE, command, given, task_options
from fsqdo.cli.output import counted, say
from fsqdo.errors import InputError

_BAR_AFTER_S = 1.0
_BAR_EVERY_S = 0.1


class AddCommand(click.Command):
    """`add`, which reminds of the quotes when the command's own options are taken for those of fsqdo."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            said = error.format_message().rstrip(".")
            raise click.UsageError(f"{said} (is it one of the task's command? Then quote the command)", ctx) from None


@command(
    "add",
    """
fsqdo add Blat "analyze blat.dat"
fsqdo add Blat "merge all" --requires 1-16 --priority 5
fsqdo add Blat --json '{"a": 1, "b": 2}'
""",
    cls=AddCommand,
)
@click.argument("queue", type=QUEUE)
@click.argument("task", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="TASK is JSON: an object task, or an object as a line of load --json.")
@task_options
def add_command(queue: str, task: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Add one task and print its id.

    The queue is created if it does not exist. TASK is one argument: a command line, in quotes.
    """
    from fsqdo.queue import connect
    from fsqdo.task import encode_task
    from fsqdo.taskoptions import Options

    if len(task) > 1:
        raise click.UsageError(f"the task is {len(task)} words, but must be one: quote it, as in {_quoted(queue, task)}")
    values = given(options)
    Options.of(**values)  # before the queue is created
    if as_json:
        print(_add_json(queue, task[0], values))
        return
    encode_task(task[0])
    print(connect(queue, create_ok=True).add(task[0], **values))


def _quoted(queue: str, task: tuple[str, ...]) -> str:
    import shlex

    return f"fsqdo add {shlex.quote(queue)} {shlex.quote(' '.join(task))}"


def _add_json(queue: str, text: str, options: dict[str, Any]) -> int:
    """Add what a line of `load --json` can be; returns its id."""
    import json

    from fsqdo.inputs import Lines
    from fsqdo.queue import connect

    try:
        line = json.dumps(json.loads(text))
    except ValueError as error:
        raise InputError(f"the task is not JSON: {error}", "an object is written like '{\"a\": 1}'") from None
    items = list(Lines([line.encode()], "the task", as_json=True))
    return connect(queue, create_ok=True).add_multiple(items, **options)[0]


@command(
    "load",
    """
fsqdo load Blat commands.txt
seq 0 8038 | fsqdo load Blat -
fsqdo load --priority -10 --dedupe Blat commands.txt
""",
)
@click.argument("queue", type=QUEUE)
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--json", "json", is_flag=True, help="Each line is JSON: a task, or an object of a task and its options.")
@click.option("--dedupe", is_flag=True, help="Leave out what the queue already has.")
@task_options
def load_command(queue: str, file: str, json: bool, dedupe: bool, **options: Any) -> None:
    """Add a task for each line of a file and print their ids.

    FILE may be - for standard input. Blank lines and those beginning with # are skipped. The queue is created if it does
    not exist. All tasks are added, or none is.

    With --json a line is a task, or an object {"task": ..., "name": ..., "priority": ..., "requires": [...]} with the options
    of the Python API, where "requires" holds ids or names of tasks in the same file.
    """
    from fsqdo.inputs import open_source
    from fsqdo.queue import connect
    from fsqdo.taskoptions import Options

    values = given(options)
    Options.of(**values)
    source = open_source(file)  # before the queue is created
    progress = Progress()
    try:
        ids = connect(queue, create_ok=True).loadfile(
            source, json=json, dedupe=dedupe, progress=progress if sys.stderr.isatty() else None, **values
        )
    finally:
        progress.clear()
        if file != "-":
            source.close()  # type: ignore[attr-defined]
    if len(ids):
        print(f"{ids[0]}-{ids[-1]}" if len(ids) > 1 else ids[0])
        sys.stdout.flush()
    nothing = f"nothing to add in {file}{': the queue has all of it already' if dedupe else ''}"
    say(f"{counted(len(ids), 'task')} loaded" if len(ids) else nothing)


class Progress:
    """A line on the terminal that counts tasks, once that has taken longer than a second."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._visible = False

    def __call__(self, done: int) -> None:
        """Show how many tasks are done."""
        now = time.monotonic()
        if now - self._started < _BAR_AFTER_S or now - self._shown < _BAR_EVERY_S:
            return
        self._shown, self._visible = now, True
        rate = done / (now - self._started)
        sys.stderr.write(f"\r\x1b[K{done} tasks, {rate:.0f} a second")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
