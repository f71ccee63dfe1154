"""Fixtures of all tests: a queue root of their own, no configuration of the user's, and the seam to the operating system."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fsqdo.member import Member
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from fsqdo.store.system import System, fs

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    "print_blob": True,
}
# The same examples in every run; FSQDO_TEST_PROFILE=soak looks for new ones.
settings.register_profile("ci", derandomize=True, database=None, **_COMMON)
settings.register_profile("soak", max_examples=2000, database=None, **_COMMON)
settings.load_profile(os.environ.get("FSQDO_TEST_PROFILE", "ci"))

# A script that starts the tests in the background has them ignore ^C, and so would every process that they stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def memory_dir() -> str | None:
    """A directory in memory, where there is one: the suites that make thousands of small trees go there."""
    return "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK | os.X_OK) else None


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads the user's configuration or queues, and none inherits a task's or a worker's environment."""
    for name in list(os.environ):
        if name.startswith("FSQDO_") and name != "FSQDO_TEST_PROFILE":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("FSQDO_DIR", str(tmp_path / "queues"))
    yield
    fs.__dict__.clear()


@pytest.fixture(autouse=True)
def _hearts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The heartbeats of workers that a test leaves behind end with it: the fault suite forks, and waits for them before."""
    begun: list[Member] = []
    join = Member.__init__

    def noted(self: Member, *args: Any, **more: Any) -> None:
        join(self, *args, **more)
        begun.append(self)

    monkeypatch.setattr(Member, "__init__", noted)
    yield
    for member in begun:
        member._ended.set()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of the queues, FSQDO_DIR."""
    path = tmp_path / "queues"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def store(root: Path) -> Store:
    """The store of a new, empty queue."""
    return create(str(root / "q"), Settings())


@pytest.fixture
def seam() -> Iterator[System]:
    """The calls to the operating system; what a test sets on it is taken back afterwards."""
    yield fs
    fs.__dict__.clear()


@pytest.fixture
def fast_dir() -> Iterator[Path]:
    """A temporary directory, in memory where that is possible."""
    path = Path(tempfile.mkdtemp(prefix="fsqdo-test-", dir=memory_dir()))
    yield path
    shutil.rmtree(path, ignore_errors=True)
