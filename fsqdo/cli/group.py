"""The group of all commands, which imports only the module of the one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from fsqdo.cli.commands import COMMANDS, help_text
from fsqdo.cli.options import CONTEXT, verbose_option
from fsqdo.cli.output import ReaderGoneError, complain, say

PROGRAM = "fsqdo"


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None when there is none."""
        known = COMMANDS.get(cmd_name)
        if known is None:
            return None
        command = getattr(import_module(f"fsqdo.cli.{known[0]}"), f"{cmd_name.replace('-', '_')}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"fsqdo.cli.{known[0]}.{cmd_name}_command is no command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        args = [args[0].replace("_", "-"), *args[1:]]  # as options may be written
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """The help of the program, the same that `main` prints without click."""
        return help_text()

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse; a closed stdout (of --help) goes to `main`."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed stdout goes to `main`, since click would exit with 1 for it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fsqdo import __version__

        print(__version__)
        ctx.exit()


@click.group(cls=LazyGroup, name=PROGRAM, context_settings=CONTEXT)
@verbose_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
def group() -> None:
    """A queue of many small tasks that is nothing but files."""


def run(words: Sequence[str]) -> int:
    """Run the command that these words name.

    Returns
    -------
    int
        The exit code.
    """
    try:
        answer = group.main(list(words), prog_name=PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        _explain(error)
        return error.exit_code
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except click.Abort as error:
        interrupt = error.__cause__
        if isinstance(interrupt, KeyboardInterrupt) and interrupt.args:  # what is done already, and must not be done again
            complain(f"interrupted: {interrupt.args[0]}")
        return 130
    return answer if isinstance(answer, int) else 0


def _explain(error: click.UsageError) -> None:
    message = error.format_message().rstrip(".")
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    if error.ctx is None:
        complain(message)
        return
    say(error.ctx.get_usage())
    complain(f"{message}; see `{error.ctx.command_path} --help`")
