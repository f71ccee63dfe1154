"""A full disk: real small file systems that run out of space or of inodes, at every call where that can happen.

`Disk.fill(kind, left)` leaves just so many pages or inodes. An action is tried with 0, 1, 2, … of them left until it succeeds:
each time another call is the first to find nothing left. Then there is room again, and it has to go on. What is in the tree is
judged by `checker`, which knows the format alone. Needs root, for mount(8).
"""

# ruff: noqa: B023  (what is defined in a round of a loop is called in that round)
from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import packing, worker
from fsqdo.cli import main
from fsqdo.errors import FsqdoError, StorageError
from fsqdo.store import Store
from tests.checker import Report, read_queue
from tests.conftest import memory_dir

CHECKOUT = Path(__file__).resolve().parent.parent
SIZE = 6 << 20
INODES = 320
HANG_S = 60
MOST = 2000


class Disk:
    """A small file system of its own, and what fills it up."""

    def __init__(self, path: Path, typ: str) -> None:
        self.path = path
        self.typ = typ
        self.filler = path / "filler"
        self.queues = path / "queues"

    def mount(self, image: Path) -> None:
        self.path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes={INODES}", "none"]
        if self.typ == "ext4":
            with image.open("wb") as file:
                file.truncate(SIZE)
            made = subprocess.run(["mkfs.ext4", "-q", "-m0", f"-N{INODES}", image], check=False, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"mkfs.ext4: {made.stderr}")
            words = ["mount", "-o", "loop", str(image)]
        mounted = subprocess.run([*words, self.path], check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"{self.typ} cannot be mounted here: {mounted.stderr}")
        self.filler.mkdir()
        self.queues.mkdir()

    def unmount(self) -> None:
        for words in (["umount"], ["umount", "--lazy"]):
            if subprocess.run([*words, self.path], check=False, capture_output=True).returncode == 0:
                return

    def fill(self, kind: str, left: int) -> None:
        """Leave so many inodes, or so many blocks of 4096 bytes."""
        fd = os.open(self.path, os.O_RDONLY)
        os.fsync(fd)  # ext4 gives back what was removed when its journal is written
        os.close(fd)
        now = os.statvfs(self.path)
        if kind == "inodes":
            first = len(os.listdir(self.filler))
            for n in range(first, first + now.f_favail - left):
                (self.filler / str(n)).touch()
            return
        size = now.f_bavail * now.f_frsize - left * 4096
        with (self.filler / "space").open("wb") as file:
            offset = 0
            while size >= now.f_frsize:
                try:
                    os.posix_fallocate(file.fileno(), offset, size)
                    offset += size
                except OSError:  # blocks that say where the others are
                    size //= 2
                    continue
                now = os.statvfs(self.path)
                size = now.f_bavail * now.f_frsize - left * 4096

    def free(self) -> None:
        """There is room again."""
        for file in self.filler.iterdir():
            file.unlink()

    def clear(self) -> None:
        """As new."""
        self.free()
        shutil.rmtree(self.queues)
        self.queues.mkdir()


@pytest.fixture(scope="module", params=["tmpfs", "ext4"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    for program in ("mount", "mkfs.ext4")[: 1 + (request.param == "ext4")]:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    disk = Disk(tmp_path_factory.mktemp("full") / "disk", request.param)
    with tempfile.TemporaryDirectory(prefix="fsqdo-test-", dir=memory_dir()) as images:
        try:
            disk.mount(Path(images) / "image")
            yield disk
        finally:
            disk.unmount()


@pytest.fixture
def disk(mounted: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setenv("FSQDO_DIR", str(mounted.queues))
    monkeypatch.setattr(worker, "_TROUBLE_MOST_S", 0.001)
    mounted.clear()
    yield mounted
    mounted.clear()


KINDS = pytest.mark.parametrize("kind", ["space", "inodes"])


def sound(name: str, last: int, **state: int) -> Report:
    """Every task up to `last` is there once, and in these states."""
    report = read_queue(f"{os.environ['FSQDO_DIR']}/{name}")
    assert report.problems(range(1, last + 1)) == []
    assert {key: n for key, n in report.counts().items() if n} == state
    return report


def well_said(error: FsqdoError | str, kind: str) -> None:
    """The message names a path of the queue, says what is full, and what to do."""
    text = str(error)
    assert f"{os.environ['FSQDO_DIR']}" in text, text
    assert ("no inodes are left" if kind == "inodes" else "no space is left") in text, text
    assert "remove" in text and "nothing was lost" in text, text
    if isinstance(error, FsqdoError):
        assert error.exit_code == 1
        assert isinstance(error, StorageError) and error.full, repr(error)


def until_it_fits(
    disk: Disk,
    kind: str,
    prepare: Callable[[], Any],
    act: Callable[[Any], Any],
    after: Callable[[Any, Any], Any],
    most: int = 60,
    step: int = 1,
) -> int:
    """Try an action with ever more room until there is enough; `after(prepared, error)` is called when there is room again."""
    failed = 0
    for left in range(0, most, step):
        disk.clear()
        prepared = prepare()
        disk.fill(kind, left)
        error = None
        try:
            act(prepared)
        except StorageError as caught:
            error = caught
            well_said(caught, kind)
            failed += 1
        after(prepared, error)
        if error is None:
            assert failed or (disk.typ, kind) == ("tmpfs", "space"), "it was never refused"
            return failed
    raise AssertionError(f"it did not fit into {most} either")


@KINDS
def test_create(disk: Disk, kind: str) -> None:
    def after(_: Any, error: Any) -> None:
        if error:
            assert os.listdir(disk.queues) == []
            disk.free()
            fsqdo.create("Q")
        sound("Q", 0)

    until_it_fits(disk, kind, lambda: None, lambda _: fsqdo.create("Q"), after)


@KINDS
def test_add(disk: Disk, kind: str) -> None:
    def after(queue: fsqdo.Queue, error: Any) -> None:
        disk.free()
        if error:
            sound("Q", 0)
            assert os.listdir(f"{queue.directory}/tmp") == []
            queue.add("true")
        report = read_queue(queue.directory)
        assert report.problems() == [] and report.counts()["pending"] == 1

    until_it_fits(disk, kind, lambda: fsqdo.create("Q"), lambda queue: queue.add("true"), after)


@KINDS
@pytest.mark.parametrize("count", [7, 5000])
def test_load(disk: Disk, kind: str, count: int) -> None:
    def after(queue: fsqdo.Queue, error: Any) -> None:
        disk.free()
        report = read_queue(queue.directory)
        assert report.problems() == []
        if error:
            assert report.counts()["pending"] in (0, count), report.counts()
            assert os.listdir(f"{queue.directory}/tmp") == []
            if report.counts()["pending"] == 0:
                assert "again" not in str(error)
                queue.add_multiple(["true"] * count)
            else:
                committed.append(str(error))
                assert f"tasks 1-{count} are in the queue all the same: do not load them again" in str(error)
                queue.promote()
        report = read_queue(queue.directory)
        assert report.problems() == [] and report.counts()["pending"] == count

    committed: list[str] = []
    step = (29 if kind == "space" else 3) if count == 5000 else 1
    until_it_fits(disk, kind, lambda: fsqdo.create("Q"), lambda queue: queue.add_multiple(["true"] * count), after, 300, step)
    if kind == "inodes" and count == 7:
        assert committed, "it was never refused after the commit"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first shard has ended when its first six ids have."""
    monkeypatch.setattr(
        packing, "ids_of", lambda shard: range(1, 7) if shard == 0 else range(shard * 1000, shard * 1000 + 1000)
    )


def drained(**settings: Any) -> fsqdo.Queue:
    """A queue of which six tasks have succeeded, each of another priority."""
    queue = fsqdo.create("Q", pack=False, **settings)
    for n in range(6):
        queue.add({"n": n, "text": "x" * 900}, priority=n)
    queue.do(func=lambda task: task["n"])
    return queue


@KINDS
def test_pack(disk: Disk, kind: str, small: None) -> None:
    def after(queue: fsqdo.Queue, error: Any) -> None:
        sound("Q", 6, succeeded=6)
        disk.free()
        assert queue.pack() == (6 if error else 0)
        sound("Q", 6, succeeded=6)
        assert sorted(queue.results()) == [(n + 1, n) for n in range(6)]

    until_it_fits(disk, kind, drained, lambda queue: queue.pack(), after)


@KINDS
def test_unpack(disk: Disk, kind: str, small: None) -> None:
    def prepare() -> fsqdo.Queue:
        queue = drained()
        queue.pack()
        return queue

    def after(queue: fsqdo.Queue, error: Any) -> None:
        sound("Q", 6, succeeded=6)
        disk.free()
        assert queue.unpack() == (6 if error else 0)
        queue.close()
        sound("Q", 6, succeeded=6)
        assert len(os.listdir(f"{queue.directory}/succeeded/000000")) == 6

    until_it_fits(disk, kind, prepare, lambda queue: queue.unpack(), after)


@pytest.mark.parametrize("form", ["packed", "loose"])
@KINDS
def test_rerun(disk: Disk, kind: str, form: str, small: None) -> None:
    def prepare() -> fsqdo.Queue:
        queue = drained()
        if form == "packed":
            queue.pack()
        return queue

    def after(queue: fsqdo.Queue, error: Any) -> None:
        moved = read_queue(queue.directory).counts()["pending"]
        sound("Q", 6, **{k: v for k, v in (("pending", moved), ("succeeded", 6 - moved)) if v})
        if error:
            assert (f"{moved} tasks were moved before that" in str(error)) == bool(moved)
        disk.free()
        assert queue.rerun() == 6 - moved
        queue.close()
        sound("Q", 6, pending=6)

    until_it_fits(disk, kind, prepare, lambda queue: queue.rerun(), after)


class Reports:
    """What a worker said; there is room again after so many lines about a full disk."""

    def __init__(self, disk: Disk, kind: str, patience: int) -> None:
        self.disk, self.kind, self.patience = disk, kind, patience
        self.lines: list[str] = []
        self.full = 0

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        if "No space left" in text:
            well_said(text, self.kind)
            self.full += 1
            assert self.full < MOST, "there is room, and it does not go on"
            if self.full == self.patience:
                self.disk.free()


@KINDS
def test_a_worker_opens_packs(disk: Disk, kind: str) -> None:
    said = 0
    for left in (0, 1, 3, 5):
        disk.clear()
        queue = fsqdo.create("Q")
        queue.add_multiple([fsqdo.NewTask(n, priority=5 if n < 100 else 0) for n in range(1001)])
        queue.add("fill", priority=10)
        reports = Reports(disk, kind, 8)
        ran: Counter[Any] = Counter()

        def func(task: Any) -> None:
            ran[task] += 1
            if task == "fill":
                disk.fill(kind, left)

        summary = queue.do(func=func, report=reports, max_tasks=90)
        assert summary.succeeded == 90 and set(ran.values()) == {1}
        report = sound("Q", 1002, pending=912, succeeded=90)
        assert not [p.path for places in report.places.values() for p in places if re.search(r"\.\w*[is]\d", p.path)]
        said += reports.full
    assert said > 0


@KINDS
@pytest.mark.parametrize("how", ["function", "command"])
def test_a_worker_finishes(disk: Disk, kind: str, how: str) -> None:
    said, count = 0, 40 if how == "command" else 8
    for left in range(8):
        disk.clear()
        queue = fsqdo.create("Q", max_retries=1, retry_delay_s=0)
        queue.add_multiple([f"echo {n}; exit {int(n == 3)}" for n in range(count)])
        reports = Reports(disk, kind, 3)
        ran: Counter[Any] = Counter()

        def func(task: Any) -> Any:
            ran[task] += 1
            if sum(ran.values()) == 2:
                disk.fill(kind, left)
            if task[-1] == "1":
                raise ValueError("x" * 3000)
            return "y" * 1000

        if how == "function":
            summary = queue.do(func=func, report=reports)
            assert sum(ran.values()) == 9
        else:

            def report(text: str) -> None:
                if text.startswith("task 2 starts"):
                    disk.fill(kind, left)
                reports(text)

            summary = queue.do(slots=2, report=report, verbose=True, bad_node_after=0)
        assert summary.succeeded == count - 1 and summary.failed == 1, (summary, reports.lines)
        report_ = sound("Q", count, succeeded=count - 1, failed=1)
        # A line that was cut just before its newline is written again, the same.
        lines = {(raw["name"], raw["outcome"], raw["to"]) for _, raw in report_.outcomes if raw["outcome"] != "started"}
        assert len({name for name, _, _ in lines}) == len(lines) == count + 1
        said += reports.full
    assert said > 0


@KINDS
def test_a_check_that_cannot_be_started(disk: Disk, kind: str) -> None:
    queue = fsqdo.create("Q", success_check="true")
    queue.add_multiple(range(5))
    reports = Reports(disk, kind, 4)

    def func(task: Any) -> None:
        if task == 0 and not reports.full:
            disk.fill(kind, 0)

    assert queue.do(func=func, report=reports).succeeded == 5
    assert reports.full == 4 or kind == "space"
    sound("Q", 5, succeeded=5)


@KINDS
def test_output_that_does_not_fit_is_the_affair_of_its_task(disk: Disk, kind: str) -> None:
    queue = fsqdo.create("Q")
    queue.add("true")  # the log is there
    queue.add("head -c 2000000 /dev/zero || exit 9")
    queue.add("true")
    reports = Reports(disk, kind, -1)  # `report` makes room

    def report(text: str) -> None:
        if text.startswith("task 2 starts"):
            disk.fill(kind, 0)
        elif text.startswith(("task 2 failed", "task 2 succeeded")):
            disk.free()
        reports(text)

    queue.do(report=report, verbose=True, bad_node_after=0)
    expected = {"succeeded": 2, "failed": 1} if kind == "space" else {"succeeded": 3}
    report_ = sound("Q", 3, **expected)
    assert [raw["exit_code"] for _, raw in report_.outcomes if raw["outcome"] == "failed"] == ([9] if kind == "space" else [])


@KINDS
def test_a_worker_stopped_while_the_disk_is_full(disk: Disk, kind: str) -> None:
    for left in range(4):
        disk.clear()
        queue = fsqdo.create("Q")
        queue.add_multiple(range(6))
        lines: list[str] = []

        def func(task: Any) -> str:
            if task == 1 and not lines:
                disk.fill(kind, left)
            return "y" * 2500

        def report(text: str) -> None:
            if not lines:
                well_said(text, kind)
                os.kill(os.getpid(), signal.SIGTERM)
            lines.append(text)

        try:
            summary = queue.do(func=func, report=report)
            stopped = "SIGTERM" in summary.why
            assert stopped == bool(lines)
            assert summary.trouble == any("could not be recorded" in line for line in lines)
        except StorageError as error:
            well_said(error, kind)
        assert read_queue(queue.directory).problems(range(1, 7)) == []
        disk.free()
        queue.recover(force=True)
        assert queue.do(func=lambda task: None).trouble is False
        sound("Q", 6, succeeded=6)


FILL = {
    "space": 'head -c 50M /dev/zero > "$FILLER/space" 2> /dev/null; exit 0',
    "inodes": 'n=0; while true > "$FILLER/$n"; do n=$((n+1)); done 2> /dev/null; exit 0',
}
# A worker as `fsqdo do` makes it, that does not wait so long.
HASTY = "import fsqdo.worker as w; w._TROUBLE_MOST_S = 0.01; from fsqdo.cli import main; raise SystemExit(main())"


@KINDS
def test_a_task_fills_the_disk_and_the_same_process_goes_on(
    disk: Disk, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FILLER", str(disk.filler))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    queue = fsqdo.create("Q")
    queue.add(FILL[kind])
    queue.add_multiple(['echo "$FSQDO_TASK_ID" >> "$RAN"; echo "$PATH"; exit 0'] * 60, requires=1)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-c", HASTY, "do", "Q", "-j", "2"]
    with subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            first = next(line for line in process.stderr if "No space left" in line)
            well_said(first, kind)
            disk.free()
            _, said = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "61 succeeded" in said.splitlines()[-1]
    sound("Q", 61, succeeded=61)
    assert sorted((tmp_path / "ran").read_text().split(), key=int) == [str(n) for n in range(2, 62)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # `load` leaves its file open as it ends
def test_what_every_command_says(
    disk: Disk, capsys: pytest.CaptureFixture[str], small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained().pack()
    queue = fsqdo.create("R")
    for n in range(4):
        queue.add(n, priority=n)

    def func(task: int) -> None:
        if task:
            raise ValueError

    queue.do(func=func)
    (tmp_path / "tasks").write_text("true\n" * 3000)
    loaded = fsqdo.create("S")
    loaded.add_multiple([fsqdo.NewTask("true", priority=5 if n < 100 else 0) for n in range(1001)])
    capsys.readouterr()
    commands = [
        "create T", "add R true", f"load R {tmp_path}/tasks", "do S", "retry R", "rerun R --force", "rerun Q --force",
        "unpack Q", "kill S 3", "reprioritize S 7", "reprioritize S 7 1,4", "pause S",
    ]  # fmt: skip
    for words in commands:
        disk.fill("inodes", 0)
        assert main(words.split()) == 1, words
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("fsqdo: ") and said.err.count("\n") == 1, said.err
        well_said(said.err, "inodes")
    disk.free()
    for words in commands:
        if words not in ("pause S", "do S"):
            assert main(words.split()) == 0, (words, capsys.readouterr())
    for name, count in (("Q", 6), ("R", 3005), ("S", 1001), ("T", 0)):
        report = read_queue(disk.queues / name)
        assert report.problems() == [] and sum(report.counts().values()) == count


@KINDS
def test_a_worker_ends_though_there_is_no_room_to_pack(disk: Disk, kind: str, small: None) -> None:
    refused = False
    for left in range(4):
        disk.clear()
        queue = fsqdo.create("Q")
        queue.add_multiple(["x" * 900] * 6)
        reports = Reports(disk, kind, 5)
        ran: list[Any] = []

        def func(task: Any) -> None:
            ran.append(task)
            if len(ran) == 6:
                disk.fill(kind, left)

        summary = queue.do(func=func, report=reports)
        assert summary.succeeded == len(ran) == 6 and not summary.trouble
        refused |= any(line.startswith("finished tasks are not packed now") for line in reports.lines) and reports.full < 5
        sound("Q", 6, succeeded=6)
        disk.free()
        queue.pack()
        sound("Q", 6, succeeded=6)
    assert refused or kind == "inodes"  # each bundle that is empty gives one back


@KINDS
def test_a_state_that_could_not_be_set_can_be_set_again(disk: Disk, kind: str) -> None:
    for left in range(3):
        disk.clear()
        queue = fsqdo.create("Q")
        queue.add_multiple(range(2))
        task = queue.get()
        assert task is not None
        disk.fill(kind, left)
        try:
            task.set_state("Failed", err=3, message="x" * 9000)
        except StorageError as error:
            well_said(error, kind)
            disk.free()
            task.set_state("Failed", err=3, message="x" * 9000)
        disk.free()
        queue.close()
        sound("Q", 2, failed=1, pending=1)


def test_what_a_limit_that_df_does_not_show_is_called(tmp_path: Path) -> None:
    path = str(tmp_path / "not" / "there")
    said = str(StorageError(OSError(errno.ENOSPC, ""), "write", f"/nowhere -> {path}"))
    assert path in said and "df shows room here" in said and "nothing was lost" in said
    said = str(StorageError(OSError(errno.EDQUOT, ""), "write", path))
    assert path in said and "your quota" in said and "nothing was lost" in said


def test_output_of_a_command_that_does_not_fit(store: Store) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    words = [sys.executable, "-m", "fsqdo", "add", "q", "true"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, check=False, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "fsqdo: the output cannot be written: No space left on device; send it elsewhere, what was to be changed is changed\n"
    )
    assert read_queue(store.directory).counts()["pending"] == 1
