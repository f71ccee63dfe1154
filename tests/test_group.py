"""A queue of a whole group: its members add, work, fail, are killed and recovered, each with their own user and umask."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import SoftFileLock

import fsqdo
from tests.checker import read_queue

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

GROUP = 54_321
ANN, BOB, CAT = 50_001, 50_002, 50_003
PRIVATE, USUAL, OPEN = 0o077, 0o022, 0o002


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of the group, as its administrator makes it: `chgrp GROUP; chmod 2770`."""
    top = Path(tempfile.mkdtemp(prefix="fsqdo-group-"))
    os.chown(top, 0, GROUP)
    top.chmod(0o2770)
    monkeypatch.setenv("FSQDO_DIR", str(top))
    monkeypatch.setenv("HOME", str(top))
    fsqdo.create("first").add("true")
    # All that a worker imports is imported now: the users may not be able to read this checkout, nor this Python.
    fsqdo.connect("first").do()
    SoftFileLock(top / "lock")
    fsqdo.connect("first").delete()
    yield top
    shutil.rmtree(top)


def as_user(user: int, umask: int, act: Callable[[], object], killed: bool = False) -> None:
    """Do something in a process of this user, a member of the group; `killed`: it kills itself in the end."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir("/")
            os.setgroups([GROUP])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.umask(umask)
            act()
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        except BaseException:
            os.write(write_fd, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    assert not said, said
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if killed else 0)


def test_a_group_s_queue(shared: Path) -> None:
    def add() -> None:
        queue = fsqdo.create("survey")
        first = queue.add_multiple(["true"] * 30)
        queue.add("true", requires=first)
        queue.add_multiple([f"test -e {shared}/mended"] * 3)

    def take_and_die() -> None:
        assert fsqdo.connect("survey").get() is not None

    def work() -> None:
        queue = fsqdo.connect("survey")
        queue.do()  # and recovers what Bob held, as every idle worker does
        assert queue.status()["ntasks"] == queue.status()["ntasks"] | {"Running": 0, "Succeeded": 31, "Failed": 3}

    def mend() -> None:
        (shared / "mended").touch()
        queue = fsqdo.connect("survey")
        assert queue.retry() == 3
        queue.pause()
        queue.resume()
        queue.reprioritize(5, state="pending")
        queue.do()

    as_user(ANN, USUAL, add)
    as_user(BOB, USUAL, take_and_die, killed=True)
    as_user(CAT, OPEN, work)
    as_user(ANN, USUAL, mend)
    queue = fsqdo.connect("survey")
    assert queue.status()["ntasks"]["Succeeded"] == 34
    assert not list(read_queue(queue.directory).problems(range(1, 35), healed=True))
    for top, directories, _ in os.walk(queue.directory):
        for directory in directories:
            mode = os.stat(f"{top}/{directory}")
            assert mode.st_gid == GROUP
            assert mode.st_mode & (stat.S_ISGID | stat.S_IWGRP) == stat.S_ISGID | stat.S_IWGRP, directory


def test_one_who_keeps_everything_private(shared: Path) -> None:
    """With umask 077 the directories still are the group's; the files are not, and a message says so."""

    def add() -> None:
        fsqdo.create("survey").add("true")

    def work() -> None:
        with pytest.raises(fsqdo.FsqdoError, match="permission"):
            fsqdo.connect("survey").do()

    as_user(ANN, PRIVATE, add)
    as_user(BOB, USUAL, work)
    as_user(ANN, PRIVATE, lambda: fsqdo.connect("survey").do())
    assert fsqdo.connect("survey").status()["ntasks"]["Succeeded"] == 1


def test_a_queue_that_is_not_shared_keeps_its_modes(shared: Path) -> None:
    def add() -> None:
        fsqdo.create("own").add("true")
        assert not os.stat(shared / "mine/own/pending").st_mode & stat.S_IWGRP

    (shared / "mine").mkdir()
    os.chown(shared / "mine", ANN, ANN)
    (shared / "mine").chmod(0o755)
    os.environ["FSQDO_DIR"] = str(shared / "mine")
    as_user(ANN, USUAL, add)
