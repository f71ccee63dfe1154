"""Daemons of a test cluster: started in the foreground, each in a session of its own, and ended by their pids."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

# Under `.ci/run` a missing program is a failure: there they have been installed. Read here, since every test forgets FSQDO_*.
REQUIRED = bool(os.environ.get("FSQDO_TEST_CLUSTER"))
LOG_LINES = 20


class ClusterError(Exception):
    """A cluster did not come up, or something on it did not happen in time."""


def need(programs: Sequence[str], packages: str) -> None:
    """Skip the test where a program of a cluster is missing, or fail where all are required."""
    missing = [program for program in programs if shutil.which(program, path=search_path()) is None]
    reasons = [f"not installed: {', '.join(missing)} (apt-get install {packages})"] if missing else []
    if os.geteuid() != 0:
        reasons.append("its daemons need root")
    if not reasons:
        return
    if REQUIRED:
        pytest.fail("; ".join(reasons))
    pytest.skip("; ".join(reasons))


def search_path() -> str:
    """PATH with the directories of daemons, which not every user's has."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nobody listens now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(what: str, condition: Callable[[], bool], within_s: float = 30.0, every_s: float = 0.1) -> None:
    """Return as soon as a condition holds.

    Raises
    ------
    ClusterError
        When it does not within that time, which only guards against a hang.
    """
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise ClusterError(f"after {within_s:g} s still not so: {what}")
        time.sleep(every_s)


class Daemons:
    """A temporary directory and the daemons that live in it; leaving the `with` ends them, the last one first, and removes it.

    The directory is directly in /tmp since the path of a Unix socket has 107 characters at most, and pytest's directories are
    for their owner alone, while whoever submits a job must get to munge's socket.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"fsqdo-{name}-", dir="/tmp"))
        self.directory.chmod(0o755)
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for name in reversed(list(self._started)):
            self.stop(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a daemon, its output going to `<name>.log`."""
        with open(self.log_path(name), "ab") as log:
            daemon = subprocess.Popen(
                command,
                cwd=self.directory,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started[name] = daemon
        return daemon

    def log_path(self, name: str) -> Path:
        """The file with what a daemon printed."""
        return self.directory / f"{name}.log"

    def stop(self, name: str, number: int = signal.SIGTERM, within_s: float = 10.0) -> None:
        """End a daemon; one that does not obey in time is killed."""
        daemon = self._started.pop(name)
        if daemon.poll() is None:
            daemon.send_signal(number)
        try:
            daemon.wait(within_s)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(within_s)

    def wait_until(self, what: str, condition: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait while the cluster comes up; when it does not, the error tells what its daemons last said."""
        try:
            wait_until(what, lambda: self._check() and condition(), within_s)
        except ClusterError as error:
            raise ClusterError(f"{self.name}: {error}\n{self.last_words()}") from None

    def _check(self) -> bool:
        for name, daemon in self._started.items():
            if daemon.poll() is not None:
                raise ClusterError(f"{name} ended with {daemon.returncode}")
        return True

    def last_words(self) -> str:
        """The end of every log."""
        found = []
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
            found += [f"--- {path.name}", *lines]
        return "\n".join(found)


def run(command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of the cluster; its output as text, whatever its exit code."""
    return subprocess.run(
        command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
