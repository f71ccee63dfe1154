"""The command `bench`: what the file system does, what fsqdo does on it, and what that means."""

from __future__ import annotations

import os
import signal

import click

from fsqdo.bench import SECONDS, measure
from fsqdo.cli.options import DURATION, command, is_verbose, json_option
from fsqdo.cli.output import aligned, counted, json_line, printable, say, write_lines
from fsqdo.figures import Figure, Herd, Report, words


@command(
    "bench",
    """
fsqdo bench
fsqdo bench /scratch/me
fsqdo bench /scratch/me --json > scratch.json
""",
)
@click.argument("directory", required=False, metavar="[DIR]", type=click.Path())
@click.option("--seconds", type=DURATION, default=SECONDS, show_default=True, metavar="TIME", help="Measure for about so long.")
@json_option
def bench_command(directory: str | None, seconds: float, as_json: bool) -> None:
    """Measure a file system, and say what queues can do on it.

    Measures below DIR (without it: where the queues are) creates, renames, syncs and listings, and beside them loading, adding,
    and 1, 2, 8 and 64 workers on this machine that claim and finish tasks that do nothing. It makes a hidden directory
    of its own, with a queue of its own, and removes it at the end.
    """
    # A batch job that ends stops its processes so, and a terminal that closes: they, too, remove what was made.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    place = directory or _where_queues_are()
    say(f"measuring in {printable(place)}: about {seconds:.0f} s, and some more to remove what was made")
    report = measure(place, seconds, report=say if is_verbose() else lambda text: None)
    write_lines([json_line(report.to_json())] if as_json else text(report))


def _where_queues_are() -> str:
    """The directory of the queues; before there is one, the one below which it will be made."""
    from fsqdo.queue import queues_dir

    place = queues_dir()
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return place


def text(report: Report) -> list[str]:
    """The tables and the words."""
    machine = f"{report.machine}, {counted(report.processors, 'processor')}"
    where = f"{report.file_system} at {printable(report.directory)}"
    lines = [f"{where}; fsqdo {report.fsqdo}, Python {report.python}, {machine}", ""]
    rows = [["one process", "file system", "fsqdo", "times"]]
    rows.append(_row("create a file / load a task of many", report.create, report.load))
    rows.append(_row("create, rename, both synced / add a task", report.synced_create, report.add))
    rows.append(_row("list a name / count a loose task", report.list_name, report.count))
    lines += aligned(rows, (1, 2, 3))
    head = ["processes", "two renames", "claim and finish", "times", "median", "90 %", "99 %", "longest"]
    rows = [head, *map(_herd_row, report.renames, report.work)]
    lines += ["", *aligned(rows, range(1, len(head))), ""]
    return lines + [sentence[0].upper() + sentence[1:] + "." for sentence in words(report)]


def _row(what: str, floor: Figure, ours: Figure) -> list[str]:
    return [what, _us(floor.each_us), _us(ours.each_us), _times(floor.each_us, ours.each_us)]


def _herd_row(floor: Herd, ours: Herd) -> list[str]:
    spans = (_us(value) for value in (ours.median_us, ours.p90_us, ours.p99_us, ours.longest_us))
    return [str(ours.processes), _rate(floor.per_s), _rate(ours.per_s), _times(ours.per_s, floor.per_s), *spans]


def _us(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f} us" if value < 100 else f"{value:.0f} us"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}/s"


def _times(low: float | None, high: float | None) -> str:
    """How many times as much time it takes."""
    return f"{high / low:.2f}" if low and high else "?"
