"""The commands about workers: `do`, `workers`, `drain`, `recover`, `promote`."""

from __future__ import annotations

from typing import Any

import click

from fsqdo.cli.options import DURATION, SLOTS, command, dry_run_option, is_verbose, json_option, queue_argument, verbose_option
from fsqdo.cli.output import aligned, complain, counted, json_line, printable, write_lines
from fsqdo.cli.work import work


@command(
    "do",
    """
fsqdo do Blat
fsqdo do Blat -j auto --timeout 60 --runtime 8h
fsqdo do Blat --script "analyze -a {a} -b {b}"
""",
)
@queue_argument
@click.option("-j", "--slots", type=SLOTS, help="Tasks to run at once, or auto: one for each core. Without it 1.")
@click.option(
    "--timeout",
    "timeout",
    type=DURATION,
    help="Exit after this time without a task, instead of when the queue is drained: 60, 10m.",
)
@click.option("--max-tasks", type=int, metavar="N", help="Exit after N tasks.")
@click.option("--runtime", "runtime_s", type=DURATION, help="Stop everything and exit after this time: 90, 8h, 1:30:00.")
@click.option("--script", metavar="TEXT", help="Run TEXT with the task after it, or with {key} filled in from an object task.")
@click.option("--func", metavar="MODULE:NAME", help="Call this Python function with each task.")
@click.option("--cores", type=int, metavar="N", help="Cores its tasks may use in all. Without it what is allocated.")
@click.option("--gpus", type=int, metavar="N", help="The same for GPUs.")
@click.option("--mem", "mem_mb", type=int, metavar="MIB", help="The same for memory, in MiB.")
@click.option("--nodes-per-worker", "nodes", type=int, metavar="K", help="Nodes of the batch job it has for parallel tasks.")
@click.option("--mpirun", metavar="WORDS", help="What starts parallel tasks: srun, mpiexec --oversubscribe.")
@click.option("--pin", is_flag=True, default=None, help="Keep each task on processors of its own.")
@click.option("--stagger", "stagger_s", type=DURATION, help="Wait at random up to this time before the first task.")
@click.option("--grace", "grace_s", type=DURATION, help="Time that stopped tasks have to end. Without it 10, or less.")
@click.option("--max-fails", type=int, metavar="K", help="Claim no more after K of its tasks failed for good.")
@click.option("--health-check", metavar="COMMAND", help="Run it first; exit with 1 when it does not exit 0.")
@click.option(
    "--bad-node-after", type=int, metavar="K", help="Exit when the first K tasks all fail at once; 0: never. Without it 5."
)
@click.option("--chain", is_flag=True, help="If time ends it, launch what the queue lacks then, like `fsqdo autoscale`.")
@verbose_option
def do_command(queue: str, chain: bool, **options: Any) -> int:
    """Work: run tasks of a queue until there are no more.

    Exits when nothing is pending and nothing runs that a task waits for. SIGTERM, SIGINT and SIGUSR1 stop it in order: running
    tasks are stopped and go back to pending. In a batch job it does that by itself before the job's time is over; SIGUSR1
    then only says that this is near: it claims no more. The exit code is 1 when it ended because something was wrong: the
    health check, too many failures, or a machine on which everything fails.
    """
    return work(queue, chain, is_verbose(), **options)


@command(
    "workers",
    """
fsqdo workers Blat
fsqdo workers Blat --json
""",
)
@queue_argument
@json_option
def workers_command(queue: str, as_json: bool) -> None:
    """List the workers of a queue.

    The first column is yes for a worker that is known to be alive, no for one proven dead (recover takes its tasks back), and
    ? where neither is known. Those that ended because something was wrong are named on stderr, until the queue is resumed.
    """
    from fsqdo.queue import connect

    found = connect(queue)
    workers = found.workers()
    if as_json:
        write_lines(map(json_line, workers))
        return
    rows = [["Alive", "Worker", "Host", "Pid", "Slots", "Started", "Running"]]
    rows += [[_alive(w["alive"]), w["name"], *map(_cell, _columns(w)), _running(w["running"])] for w in workers]
    write_lines(aligned(rows, (3, 4)))
    for text in found.troubles():
        complain(f"ended: {text}")


def _columns(worker: dict[str, Any]) -> list[object]:
    return [worker.get(key) for key in ("host", "pid", "slots", "started_at")]


def _cell(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _alive(alive: bool | None) -> str:
    return "?" if alive is None else "yes" if alive else "no"


def _running(ids: list[int]) -> str:
    from fsqdo.ids import IdSet

    return str(IdSet.of(ids)) or "-"


@command(
    "drain",
    """
fsqdo drain Blat
fsqdo drain Blat node17-4711-a0b1c2
""",
)
@queue_argument
@click.argument("worker", nargs=-1)
def drain_command(queue: str, worker: tuple[str, ...]) -> None:
    """Have workers finish what they run and claim no more.

    Without a WORKER all that there are now; new ones are not affected (pause is what stops those). A worker looks for this
    order every 5 seconds.
    """
    from fsqdo.queue import connect

    number = connect(queue).drain(list(worker) or None)
    print(f"{counted(number, 'worker')} told to drain")


@command(
    "recover",
    """
fsqdo recover Blat
fsqdo recover Blat --dry-run
""",
)
@queue_argument
@click.option("--force", is_flag=True, help="Take the tasks of all workers, even of those that may be alive.")
@dry_run_option
def recover_command(queue: str, force: bool, dry_run: bool) -> None:
    """Put tasks left running by dead workers back to pending.

    Only workers that are proven dead are touched; each is named with the proof.
    """
    from fsqdo.queue import connect

    total = 0
    for found in connect(queue).recover(force=force, dry_run=dry_run):
        total += found.tasks
        print(f"{found.worker}: {found.reason}; {counted(found.tasks, 'task')}")
    print(f"{counted(total, 'task')} {'would be ' if dry_run else ''}reset to pending")


@command("promote", "fsqdo promote Blat")
@queue_argument
def promote_command(queue: str) -> None:
    """Put waiting tasks whose requirements are met to pending.

    Workers do this by themselves; by hand it helps after files were moved with mv. What was moved to where it is in no state,
    a level too shallow or under the name of a directory that was not there, is put right.
    """
    from fsqdo.queue import connect

    print(f"{counted(connect(queue).promote(), 'task')} promoted")
