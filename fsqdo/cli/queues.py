"""The commands about queues as a whole: `create`, `list`, `status`, `pause`, `resume`, `delete`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fsqdo.cli.options import ACTION, DURATION, ENDS, LIMIT, command, joined_actions, json_option, queue_argument
from fsqdo.cli.output import aligned, complain, json_line, printable, say, write_lines
from fsqdo.errors import FsqdoError

_COUNTS = ("Waiting", "Pending", "Running", "Succeeded", "Failed")


@command(
    "create",
    """
fsqdo create Blat
fsqdo create Blat --max-retries 2 --time-limit 1h
fsqdo create Blat --max-retries 2 --no-retry-on 2,SIGSEGV --exit-codes 85=restart
""",
)
@queue_argument
@click.option("--max-retries", type=int, metavar="N", help="Run a failed task again up to N times.")
@click.option("--retry-delay", "retry_delay_s", type=DURATION, help="Pause before the first of them; doubled each time.")
@click.option("--max-interruptions", type=int, metavar="N", help="A task taken from dead workers more often than this fails.")
@click.option(
    "--retry-on", type=ENDS, metavar="LIST", help="Run them again only after these exit codes and signals: 75,64-78,SIGBUS."
)
@click.option("--no-retry-on", type=ENDS, metavar="LIST", help="Do not run them again after these.")
@click.option(
    "--exit-codes",
    type=ACTION,
    multiple=True,
    metavar="CODE=ACTION",
    help="What an exit code means: succeed, fail, retry, restart or pause. Repeatable.",
)
@click.option(
    "--time-limit",
    type=LIMIT,
    multiple=True,
    help="Stop tasks after this time (90, 30m, 1:30:00) or this part of the median so far (300%). Repeatable.",
)
@click.option("--success-check", metavar="COMMAND", help="After a task that ended well; it must exit 0, too.")
@click.option("--max-fails", type=int, metavar="N", help="Pause the queue when N tasks have failed for good.")
@click.option("--health-check", metavar="COMMAND", help="Workers run it first, and end when it does not exit 0.")
@click.option("--interrupted-first", is_flag=True, help="Interrupted tasks run before others of their priority.")
@click.option("--time-request", "time_request_s", type=DURATION, help="How long tasks are expected to need.")
@click.option("--time-request-auto", "time_request", flag_value="auto", help="Learn that from the tasks that ran so far.")
@click.option("--requires", type=click.Choice(["succeed", "finish"]), help="What a required task must do.")
@click.option("--no-pack", "pack", is_flag=True, help="Leave each task a file of its own when its shard has ended.")
@click.option("--durability", type=click.Choice(["normal", "paranoid"]), help="paranoid: sync every move.")
def create_command(queue: str, **settings: Any) -> None:
    """Create an empty queue.

    The options are what its tasks get that do not say otherwise themselves.
    """
    from fsqdo.queue import create

    made = create(queue, **_given_settings(settings))
    say(f"{made.name} created in {made.directory}")


def _given_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, as `create` wants them."""
    found = {key: value for key, value in settings.items() if value is not None and value != () and value is not False}
    if found.pop("pack", False):
        found["pack"] = False  # --no-pack was given
    for limit in found.pop("time_limit", ()):
        found["time_limit" if isinstance(limit, str) else "time_limit_s"] = limit
    if "exit_codes" in found:
        found["exit_codes"] = joined_actions(found["exit_codes"])
    return found


@command("list", "fsqdo list\nfsqdo list --json")
@json_option
def list_command(as_json: bool) -> int:
    """List the queues, with their tasks counted by state.

    A directory that is no queue, or one that cannot be read, is reported and does not stop the others.
    """
    from fsqdo.queue import connect, queue_names, queues_dir

    found, code = [], 0
    for name in queue_names():
        try:
            found.append(connect(name).status())
        except FsqdoError as error:
            complain(str(error))
            code = 1
    write_lines(map(json_line, found) if as_json else table(found))
    if not found and not os.path.lexists(queues_dir()):  # a slip of the pen in FSQDO_DIR looks like this
        say(f"there is no directory {printable(queues_dir())} yet; the first queue makes it")
    return code


@command(
    "status",
    """
fsqdo status Blat
fsqdo status Blat --json
""",
)
@queue_argument
@json_option
def status_command(queue: str, as_json: bool) -> None:
    """Show one queue, with its tasks counted by state."""
    from fsqdo.queue import connect

    if as_json:
        print(json_line(connect(queue).status()))
        return
    from fsqdo.cli.status import print_status

    print_status(queue)


def table(statuses: Sequence[Mapping[str, Any]]) -> list[str]:
    """The queues as a table: a column of Killed and a word on blocked ones only where there are any."""
    columns = list(_COUNTS)
    if any(status["ntasks"].get("Killed") for status in statuses):
        columns.append("Killed")
    rows = [["QueueName", "State", *columns]]
    rows += [[s["name"], s["state"], *(str(s["ntasks"].get(column, 0)) for column in columns)] for s in statuses]
    lines = aligned(rows, range(2, len(rows[0])))
    blocked = ["", *(f"  {s['blocked']} blocked" if s.get("blocked") else "" for s in statuses)]
    reasons = ["", *(f"  paused: {printable(s['reason'])}" if s.get("reason") else "" for s in statuses)]
    return [line + more + why for line, more, why in zip(lines, blocked, reasons, strict=True)]


@command(
    "pause",
    """
fsqdo pause Blat
fsqdo pause Blat --reason "the licence server is down"
""",
)
@queue_argument
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who look at its status.")
def pause_command(queue: str, reason: str) -> None:
    """Have workers claim no more tasks of a queue.

    What runs is finished. A queue that is paused already keeps the reason it has.
    """
    from fsqdo.queue import connect

    connect(queue).pause(reason)
    say(f"{queue} is paused")


@command("resume", "fsqdo resume Blat")
@queue_argument
def resume_command(queue: str) -> None:
    """Let workers claim tasks of a paused queue again.

    What has failed so far does not count towards --max-fails any more, and the trouble that status shows is forgotten.
    """
    from fsqdo.queue import connect

    connect(queue).resume()
    say(f"{queue} is active")


@command("delete", "fsqdo delete Blat --force")
@queue_argument
@click.option("--force", is_flag=True, help="Do it: nothing of the queue is kept.")
def delete_command(queue: str, force: bool) -> None:
    """Delete a queue with all its tasks.

    Needs --force, since nothing of it is kept: tasks, outcomes and logs.
    """
    from fsqdo.queue import connect

    found = connect(queue)
    if not force:
        raise click.UsageError(f"delete keeps nothing of {queue}, neither tasks nor logs: say --force")
    found.delete()
    say(f"{queue} deleted")
