"""README.md is run as it stands: its terminal sessions, its Python, its configuration; what it names is there.

In a `console` block a line that begins with `$ ` is typed, the others are what it must print; `...` stands for anything. Each
line is typed into a shell of its own, all in one scratch directory. A `python` block that begins with `# name.py` is
saved under that name.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fsqdo.cli.commands import COMMANDS
from fsqdo.config import load_config
from fsqdo.queue import Queue
from tests import terminal

README = (terminal.CHECKOUT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Typed(NamedTuple):
    """A line of a session, and what it must print."""

    line: int
    command: str
    expected: str


def blocks(kind: str) -> Iterator[tuple[int, str]]:
    """The blocks of a kind, each with the number of its first line."""
    for found in FENCE.finditer(README):
        if found[1] == kind:
            yield README.count("\n", 0, found.start(2)) + 1, found[2]


def session(first_line: int, text: str) -> Iterator[Typed]:
    """What is typed in a block."""
    assert text.startswith("$ "), f"README.md:{first_line}"
    line = first_line
    for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = piece.partition("\n")
        yield Typed(line, command, expected)
        line += piece.count("\n")


def matches(expected: str, printed: str) -> bool:
    """Whether the text is as shown; `...` is anything, on a line of its own any number of lines."""
    pattern = re.escape(expected).replace(re.escape("...\n"), "\0").replace(re.escape("..."), ".*")
    return re.fullmatch(re.sub(r"(?m)^\0", r"(?s:.*)", pattern).replace("\0", ".*\n"), printed) is not None


def test_the_sessions_and_programs(tmp_path: Path) -> None:
    cwd = tmp_path / "scratch"
    cwd.mkdir()
    env = terminal.environment(tmp_path / "bin")
    for _, text in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", text)
        assert name, text
        (cwd / name[1]).write_text(text)
    typed = [one for block in blocks("console") for one in session(*block)]
    assert len(typed) > 20
    for line, command, expected in typed:
        code, printed = terminal.run(command, cwd, env)
        assert matches(expected, printed), f"README.md:{line}: {command}\nexit code {code}, printed:\n{printed}"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a ... c\n", "a b c\n", True),
        ("a ... c\n", "a b\nb c\n", False),
        ("a\n...\nc\n", "a\nb\nb\nc\n", True),
        ("a\n...\n", "a\n", True),
        ("...\nc\n", "b\nc\n", True),
        ("a...\nc\n", "ab\nc\n", True),
        ("a.c\n", "abc\n", False),
    ],
)
def test_the_wildcard(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, text),) = blocks("yaml")
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("FSQDO_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.delenv("FSQDO_DIR")
    config = load_config()
    assert config.dir == str(tmp_path / "home/queues")
    profile = config.profile()
    assert (profile.name, profile.system, dict(profile.env)) == ("threads", "local", {"OMP_NUM_THREADS": "4"})
    assert profile.prologue == ("ulimit -c 0",)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_targets_of_make() -> None:
    ((_, text),) = blocks("sh")
    targets = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert targets == ["demo", "test"]
    subprocess.run(["make", "--dry-run", *targets], cwd=terminal.CHECKOUT, check=True, stdout=subprocess.DEVNULL)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (terminal.CHECKOUT / target).exists()] == []


def test_the_methods_named_are_there() -> None:
    listed = re.search(r"The methods of a queue are (.*?), most of them a command", README, re.DOTALL)
    assert listed
    methods = re.findall(r"`(\w+)`", listed[1])
    assert [name for name in methods if not callable(getattr(Queue, name, None))] == []
    commands = {name.replace("-", "_") for name in COMMANDS}
    # Whose other names stand beside these, or that have none.
    assert commands - set(methods) == {"create", "list", "load", "config", "bench"}
