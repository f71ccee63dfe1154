"""The commands that look at tasks: `tasks`, `show`, `explain`, `log`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from fsqdo.cli.options import command, json_option, queue_argument, selection, selector
from fsqdo.cli.output import fields, json_line, printable, say, task_text, write_lines


@command(
    "tasks",
    """
fsqdo tasks Blat --state=Failed
fsqdo tasks Blat --exit-code 137 --json
fsqdo tasks Blat --state Pending --older-than 2h --ids | wc -l
""",
)
@queue_argument
@selector
@click.option(
    "--blocked",
    is_flag=True,
    help="Only tasks that wait for one that failed or was killed (and, of several, for no other any more).",
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N of them.")
@click.option("-l", "--long", is_flag=True, help="Also the id, exit code and name.")
@click.option("--ids", "only_ids", is_flag=True, help="Only the ids, one a line.")
@json_option
def tasks_command(queue: str, limit: int | None, long: bool, only_ids: bool, as_json: bool, **selected: Any) -> None:
    """List tasks, a line each.

    The first column is the state, the second the task, in which newlines and other control characters are shown as escapes;
    --json gives it exactly.
    """
    from fsqdo.queue import connect
    from fsqdo.unpacking import refuse_damage

    header, line = _form(long, only_ids, as_json)
    there = connect(queue)
    rows: Iterator[Any] = there.iter_tasks(limit=limit, **selection(selected))
    write_lines(_headed(header, map(line, rows)))
    refuse_damage(there.store, "all others are listed")


def _headed(header: str, lines: Iterator[str]) -> Iterator[str]:
    """The header, where there is one, comes only with the first line: a bad selection is refused without output."""
    first = next(lines, None)
    if header:
        yield header
    if first is not None:
        yield first
        yield from lines


_SHORT = "{:<10} {}"
_LONG = "{:<10} {:>9} {:>4}  {:<12} {}"


def _form(long: bool, only_ids: bool, as_json: bool) -> tuple[str, Callable[[Any], str]]:
    """The header and what makes a line of a row."""
    if as_json:
        import json

        encode = json.JSONEncoder().encode
        return "", lambda row: encode(row.to_dict())
    if only_ids:
        return "", lambda row: str(row.id)
    if long:
        return _LONG.format("State", "Id", "Exit", "Name", "Task"), _long_line
    return _SHORT.format("State", "Task"), lambda row: _SHORT.format(row.state.value, printable(row.words()))


def _long_line(row: Any) -> str:
    exitcode = "-" if row.exitcode is None else row.exitcode
    return _LONG.format(row.state.value, row.id, exitcode, printable(row.name or "-"), printable(row.words()))


@command(
    "show",
    """
fsqdo show Blat 17
fsqdo show Blat 17 --json
""",
)
@queue_argument
@click.argument("task_id", metavar="ID", type=int)
@json_option
def show_command(queue: str, task_id: int, as_json: bool) -> None:
    """Show all that is known of one task."""
    from fsqdo.queue import connect

    known = connect(queue).show(task_id)
    if as_json:
        print(json_line(known))
        return
    attempts, story = known.pop("attempts", None) or [], known.pop("story", "")
    lines = _pairs(known)
    for attempt in attempts:
        lines += [f"attempt {printable(str(attempt.pop('name', '')))}:", *_pairs(attempt, "  ")]
    if story:
        lines += ["story:", *(f"  {printable(line)}".rstrip() for line in story.splitlines())]
    write_lines(lines)


def _pairs(known: dict[str, Any], indent: str = "") -> list[str]:
    return fields({key: task_text(value) for key, value in known.items() if value not in (None, [], (), {}, "")}, indent)


@command(
    "explain",
    """
fsqdo explain Blat 17
fsqdo explain Blat 17 --json
""",
)
@queue_argument
@click.argument("task_id", metavar="ID", type=int)
@json_option
def explain_command(queue: str, task_id: int, as_json: bool) -> None:
    """Say why a task is where it is, and what it waits for.

    Changes nothing.
    """
    from fsqdo.queue import connect

    known = connect(queue).explain(task_id)
    if as_json:
        print(json_line(known))
        return
    write_lines([f"task {known['id']} is {known['state']}", *(f"  {printable(line)}" for line in known["why"])])


@command(
    "log",
    """
fsqdo log Blat 17
fsqdo log Blat 17 --attempt 1
""",
)
@queue_argument
@click.argument("task_id", metavar="ID", type=int)
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="The output of attempt N. Without it the last one.")
def log_command(queue: str, task_id: int, attempt: int | None) -> None:
    """Print the output of one task.

    That is what it wrote to stdout and stderr, byte for byte.
    """
    from fsqdo.queue import connect

    content = connect(queue).log(task_id, attempt)
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    if not content:
        say(f"task {task_id} has written nothing")
