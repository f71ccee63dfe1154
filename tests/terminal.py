"""What a person's terminal has: `fsqdo` and `python` on the PATH, and a current directory. For README and the examples."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HANG_S = 300


def environment(bin_dir: Path) -> dict[str, str]:
    """An environment whose PATH begins with the installed program, or where that is missing with one that acts like it."""
    beside = Path(sys.executable).parent
    if not ((beside / "fsqdo").exists() and (beside / "python").exists()):
        bin_dir.mkdir(exist_ok=True)
        _program(bin_dir / "python", "")
        _program(bin_dir / "fsqdo", "-m fsqdo")
        beside = bin_dir
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # On a terminal, too, what is written appears at once.
    return {**env, "PATH": f"{beside}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def _program(path: Path, words: str) -> None:
    python = f"PYTHONPATH={shlex.quote(str(CHECKOUT))} exec {shlex.quote(sys.executable)}"
    path.write_text(f'#!/bin/sh\n{python} {words} "$@"\n')
    path.chmod(0o755)


def run(command: str | list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command, in a shell if it is text; its exit code and all it wrote, in the order in which a terminal shows it."""
    words = ["sh", "-c", command] if isinstance(command, str) else command
    done = subprocess.run(
        words,
        check=False,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_S,
    )
    return done.returncode, done.stdout
