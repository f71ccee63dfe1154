"""The commands that change many tasks: `retry`, `rerun`, `kill`, `reprioritize`. All take the one selector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fsqdo.cli.options import DURATION, PRIORITY, command, dry_run_option, queue_argument, selection, selector
from fsqdo.cli.output import complain, counted, say


def _report(number: int, done: str, dry_run: bool, takes: str) -> None:
    print(f"{counted(number, 'task')} {'would be ' if dry_run else ''}{done}")
    if number == 0 and takes:
        say(f"of the tasks asked for none is {takes}; `fsqdo tasks` with the same selection shows their states")


@contextmanager
def _said_when_interrupted() -> Iterator[None]:
    """Unlike a load, these are not whole or not at all: who stops one half-way is told so."""
    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted: some tasks may be changed already, and stay so; `fsqdo status` counts them")
        raise


@command(
    "retry",
    """
fsqdo retry Blat
fsqdo retry Blat --exit-code 137 --dry-run
fsqdo retry Blat 5,9-12
""",
)
@queue_argument
@selector
@dry_run_option
def retry_command(queue: str, dry_run: bool, **selected: Any) -> None:
    """Put failed tasks back to pending.

    Killed ones, too, when --state Killed selects them.
    """
    from fsqdo.queue import connect

    with _said_when_interrupted():
        number = connect(queue).retry(dry_run=dry_run, **selection(selected))
    states = " or ".join(state.lower() for state in selected["state"]) or "failed (killed ones are taken with --state Killed)"
    _report(number, "reset to pending", dry_run, states)


@command(
    "rerun",
    """
fsqdo rerun Blat --force
fsqdo rerun Blat --exit-code 0 --match '^analyze' --dry-run
fsqdo rerun Blat --state Killed
""",
)
@queue_argument
@selector
@click.option("--force", is_flag=True, help="Do it: what succeeded is run again, too.")
@dry_run_option
def rerun_command(queue: str, force: bool, dry_run: bool, **selected: Any) -> None:
    """Put all tasks that have ended back to pending.

    Needs --force where what succeeded is run again, too: not with --state Failed or --state Killed.
    """
    from fsqdo.queue import connect
    from fsqdo.task import State

    states = [State.read(word) for word in selected["state"]]
    if not force and not dry_run and (not states or State.SUCCEEDED in states):
        raise click.UsageError("rerun also runs again what succeeded: say --force, or look first with --dry-run")
    with _said_when_interrupted():
        number = connect(queue).rerun(dry_run=dry_run, **selection(selected))
    _report(number, "reset to pending", dry_run, "succeeded, failed or killed")


@command(
    "kill",
    """
fsqdo kill Blat 17
fsqdo kill Blat --match 'blat3[0-9]' --dry-run
""",
)
@queue_argument
@selector
@click.option("--wait", "wait_s", type=DURATION, help="Wait this long for running tasks to be stopped: 30, 2m.")
@dry_run_option
def kill_command(queue: str, wait_s: float | None, dry_run: bool, **selected: Any) -> None:
    """Take tasks out; stop those that run.

    Waiting and pending tasks are killed at once, running ones are stopped by their worker within seconds. Needs a selection;
    all there are is `--match .`
    """
    from fsqdo.queue import connect

    with _said_when_interrupted():
        told: list[str] = []
        number = connect(queue).kill(dry_run=dry_run, wait_s=wait_s or 0.0, report=told.append, **selection(selected))
    for text in told:
        say(text)
    _report(number, "killed", dry_run, "" if told else "waiting, pending or running")


@command(
    "reprioritize",
    """
fsqdo reprioritize Blat 10 5,9-12
fsqdo reprioritize Blat -10 --match calibrate
""",
    context_settings={"ignore_unknown_options": True},  # -10 is a priority; what is none is refused by the types
)
@queue_argument
@click.argument("priority", type=PRIORITY)
@selector
@dry_run_option
def reprioritize_command(queue: str, priority: int, dry_run: bool, **selected: Any) -> None:
    """Give waiting and pending tasks another priority.

    PRIORITY is an integer, which may be negative; larger runs earlier.
    """
    from fsqdo.queue import connect

    with _said_when_interrupted():
        number = connect(queue).reprioritize(priority, dry_run=dry_run, **selection(selected))
    _report(number, f"set to priority {priority}", dry_run, "waiting or pending")
