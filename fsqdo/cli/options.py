"""What the commands share: how they are declared, the types of their values, the options of tasks and the one selector."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fsqdo.errors import InputError
from fsqdo.ids import IdSet

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic only in newer releases of click

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    # Users of qdo type --cores_per_worker, everybody else --cores-per-worker.
    "token_normalize_func": lambda token: token.replace("_", "-"),
}


def command(name: str, example: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command of this name whose help ends with an example."""
    settings.setdefault("cls", click.Command)
    lines = "\n".join("  " + line for line in example.strip().splitlines())
    return click.command(name, epilog=f"\b\nExample:\n{lines}", **settings)


# ---------------------------------------------------------------- types
class QueueType(_Type):
    """The name of a queue."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what was meant as an option; the library judges the rest."""
        return _no_option(value, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The names of the queues there are."""
        from click.shell_completion import CompletionItem

        from fsqdo.errors import FsqdoError
        from fsqdo.queue import qlist

        try:
            return [CompletionItem(queue.name) for queue in qlist() if queue.name.startswith(incomplete)]
        except FsqdoError:
            return []


class IdsType(_Type):
    """Ids and ranges of ids: `5,9-12`."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the written form."""
        if isinstance(value, IdSet):
            return value
        _no_option(value, ctx)
        try:
            return IdSet.parse(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class PriorityType(_Type):
    """An integer that may be negative, even where an option could stand."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number."""
        try:
            return int(value)
        except ValueError:
            _no_option(value, ctx)
            self.fail(f"{value!r} is not an integer", param, ctx)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]*)?)([smhd])")


class DurationType(_Type):
    """A span of time, as seconds: `90`, `10m`, `1h30m`, `3d`, `01:30:00` (h:m:s), `30:00` (m:s)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read any of the forms."""
        seconds = value if isinstance(value, float) else read_duration_s(value)
        if seconds is None:
            self.fail(f"{value!r} is not a span of time, which is written like 90, 10m, 1h30m, 3d or 01:30:00", param, ctx)
        return seconds


def read_duration_s(text: str) -> float | None:
    """Seconds from text; None when it is not a span of time."""
    word = text.strip().lower()
    if re.fullmatch(r"[0-9]+(?::[0-9]+){1,2}", word):
        seconds = 0.0
        for part in word.split(":"):
            seconds = seconds * 60 + int(part)
        return seconds
    if re.fullmatch(r"[0-9]+(?:\.[0-9]*)?", word):
        return float(word)
    pieces = _PIECE.findall(word)
    if not pieces or "".join(map("".join, pieces)) != word:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in pieces)


class EnvType(_Type):
    """`NAME=VALUE`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split it."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        return key, text


class SlotsType(_Type):
    """A number of slots, or `auto`: one for each core."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number."""
        if value == "auto" or isinstance(value, int):
            return value
        if not value.isascii() or not value.isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a number of slots nor auto", param, ctx)
        return int(value)


def _no_option(value: str, ctx: click.Context | None) -> str:
    """Commands that take negative numbers let click pass unknown options on as arguments: they are refused here."""
    if isinstance(value, str) and value.startswith("-") and len(value) > 1 and not value[1:].isdigit():
        raise click.NoSuchOption(value.partition("=")[0], ctx=ctx)
    return value


class LimitType(DurationType):
    """A time limit: a span of time, or a percentage of the median as text: `300%`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read either; the library judges the percentage."""
        if isinstance(value, str) and value.strip().endswith("%"):
            return value.strip()
        return super().convert(value, param, ctx)


class EndsType(_Type):
    """Exit codes and signals: `75,64-78,SIGBUS`."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the list."""
        from fsqdo.rules import read_ends

        try:
            return read_ends(value, "the list")
        except InputError as error:
            self.fail(str(error), param, ctx)


class ActionType(_Type):
    """What exit codes mean: `85=restart`, or `85,SIGBUS=restart`."""

    name = "code=action"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one or several codes and their action."""
        from fsqdo.rules import read_actions

        if isinstance(value, tuple):
            return value
        codes, equals, action = str(value).rpartition("=")
        if not equals:
            self.fail(f"{value!r} is not of the form CODE=ACTION, as in 85=restart", param, ctx)
        words = [code.strip() for code in codes.split(",")]
        try:
            return tuple(read_actions(dict.fromkeys(words, action.strip()), "the option").items())
        except InputError as error:
            self.fail(str(error), param, ctx)


def joined_actions(given: Sequence[Sequence[tuple[str, str]]]) -> dict[str, str]:
    """The values of a repeated option of `ActionType` as one mapping.

    Raises
    ------
    InputError
        When one code is given two actions.
    """
    found: dict[str, str] = {}
    for code, action in (pair for pairs in given for pair in pairs):
        if found.setdefault(code, action) != action:
            raise InputError(f"--exit-codes says {found[code]} and {action} for {code}")
    return found


QUEUE = QueueType()
IDS = IdsType()
PRIORITY = PriorityType()
DURATION = DurationType()
ENV = EnvType()
SLOTS = SlotsType()
LIMIT = LimitType()
ENDS = EndsType()
ACTION = ActionType()

queue_argument = click.argument("queue", type=QUEUE)


# ---------------------------------------------------------------- shared options
_VERBOSE = "fsqdo.verbose"


def _listen(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value and not ctx.resilient_parsing:
        import logging
        import sys

        level = ctx.meta[_VERBOSE] = ctx.meta.get(_VERBOSE, 0) + value
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("fsqdo").setLevel(logging.INFO if level == 1 else logging.DEBUG)


def is_verbose() -> bool:
    """Whether -v was given, to the program or to its command."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


verbose_option = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_listen, help="Say on stderr what is done; twice: everything."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Change nothing, only say what would be done.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")

_TASK_OPTIONS = [
    click.option("--priority", type=PRIORITY, metavar="N", help="Larger runs earlier; may be negative. Without it 0."),
    click.option("--requires", type=IDS, multiple=True, help="Ids that must have succeeded first: 1-16,20. Repeatable."),
    click.option("--after", type=IDS, multiple=True, help="Ids that must have ended first, however. Repeatable."),
    click.option("--max-retries", type=int, metavar="N", help="Run it again up to N times when it fails."),
    click.option("--retry-on", type=ENDS, metavar="LIST", help="Only after these exit codes and signals: 75,64-78,SIGBUS."),
    click.option("--no-retry-on", type=ENDS, metavar="LIST", help="Not after these."),
    click.option("--time-limit", "time_limit_s", type=DURATION, help="Stop it after this time: 90, 30m, 1:30:00."),
    click.option("--time-request", "time_request_s", type=DURATION, help="How long it is expected to need."),
    click.option("--cores", type=int, metavar="N", help="Cores it uses. Without it 1."),
    click.option("--gpus", type=int, metavar="N", help="GPUs it uses."),
    click.option("--mem-mb", type=int, metavar="MIB", help="Memory it needs, in MiB."),
    click.option("--ranks", type=int, metavar="N", help="Run it by mpirun, in N processes of --cores each."),
    click.option("--nodes", type=int, metavar="N", help="Run it by mpirun, on N nodes of its worker."),
    click.option("--name", metavar="TEXT", help="A name, for people."),
    click.option("--tag", "tags", multiple=True, metavar="TEXT", help="A tag, for people. Repeatable."),
    click.option("--env", type=ENV, multiple=True, metavar="NAME=VALUE", help="An environment variable for it. Repeatable."),
    click.option("--cwd", type=click.Path(), help="Directory it runs in. Without it the current one."),
]
ids_argument = click.argument("ids", type=IDS, nargs=-1)
_SELECTOR = [
    ids_argument,
    click.option("--state", multiple=True, metavar="STATE", help="Only tasks in this state. Repeatable."),
    click.option("--exit-code", "--exitcode", "exitcode", type=int, metavar="N", help="Only tasks whose command ended with N."),
    click.option("--match", metavar="REGEX", help="Only tasks in whose text REGEX is found."),
    click.option("--older-than", "older_than_s", type=DURATION, help="Only tasks in their state for longer: 90, 10m, 2h, 3d."),
]


def _all_of(decorators: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


task_options = _all_of(_TASK_OPTIONS)
selector = _all_of(_SELECTOR)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as keyword arguments of the library, which has the defaults of the others."""
    found = {key: value for key, value in values.items() if value is not None and value != ()}
    for key in ("requires", "after"):
        if isinstance(found.get(key), tuple):  # the `--after` of launch is one job
            found[key] = joined(found[key])
    if "env" in found:
        found["env"] = dict(found["env"])
    return found


def selection(values: dict[str, Any]) -> dict[str, Any]:
    """What was selected, as keyword arguments of the library."""
    found = {key: value for key, value in values.items() if value is not None and value is not False and value != ()}
    if "ids" in found:
        found["id"] = joined(found.pop("ids"))
    if "state" in found:
        found["state"] = list(found["state"])
    return found


def joined(sets: Sequence[IdSet]) -> IdSet:
    """What was given as several words of ids."""
    return IdSet(span for ids in sets for span in ids.ranges)
