"""Which tasks a worker takes, and what each gets of it: never one that does not fit, never more at once than there is."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsqdo
from fsqdo.allocation import Gpus
from fsqdo.durations import SAMPLES, Durations
from fsqdo.errors import InputError, StorageError
from fsqdo.resources import Resources, Share, parallel_command, pinned
from fsqdo.store import Store
from fsqdo.taskoptions import Options
from fsqdo.workeroptions import WorkerOptions
from tests.test_allocation import BATCH_VARIABLES, HANG_S

MPIEXEC = shutil.which("mpiexec")
# A Python that has mpi4py need not be the one that runs the tests.
MPI_PYTHON = "/usr/bin/python3"


@pytest.fixture(autouse=True)
def no_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may run in a batch job themselves."""
    for name in list(os.environ):
        if name.startswith(BATCH_VARIABLES):
            monkeypatch.delenv(name)


@pytest.fixture
def queue(root: Path) -> Iterator[fsqdo.Queue]:
    yield (made := fsqdo.create("Blat"))
    made.close()


def node(cores: int = 4, gpus: int = 0, mem_mb: int = 1000, hosts: int = 1, cpus: tuple[int, ...] = ()) -> Resources:
    """The resources of a worker."""
    return Resources(cores, Gpus(names=tuple(map(str, range(gpus)))), mem_mb, [f"n{i}" for i in range(1, hosts + 1)], cpus)


def taken(resources: Resources, **options: Any) -> Share:
    """What a task gets, which it must get."""
    share = resources.take(Options(**options))
    assert share is not None
    return share


# ---------------------------------------------------------------- packing
def test_cores_gpus_and_memory_are_taken_and_given_back() -> None:
    here = node(cores=4, gpus=2, mem_mb=1000)
    first = taken(here, cores=3, gpus=1, mem_mb=600)
    assert first.gpus == ("0",)
    assert here.take(Options(cores=2)) is None
    assert here.take(Options(gpus=2)) is None
    assert here.take(Options(mem_mb=401)) is None
    second = taken(here, gpus=1, mem_mb=400)
    assert second.gpus == ("1",)
    first.free()
    first.free()
    assert taken(here, cores=3, gpus=1).gpus == ("0",)
    assert here.take(Options()) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cores": 5}, "it needs 5 cores and this worker has 4"),
        ({"gpus": 2}, "it needs 2 gpus and this worker has 1"),
        ({"mem_mb": 1001}, "it needs 1001 MiB of memory and this worker has 1000"),
        ({"nodes": 3}, "it needs 3 nodes and this worker has 2"),
        ({"ranks": 5, "cores": 2}, "it needs 3 nodes for 5 ranks of 2 cores and this worker has 2"),
        ({"ranks": 10, "nodes": 2}, "it needs 5 cores on each node and this worker has 4"),
        ({"cores": 4, "gpus": 1, "mem_mb": 1000}, ""),
        ({"ranks": 8}, ""),
        ({"nodes": 2, "cores": 4}, ""),
    ],
)
def test_what_never_fits(options: dict[str, int], why: str) -> None:
    assert node(gpus=1, hosts=2).never(Options(**options)) == why


def test_parallel_tasks_are_packed_or_take_whole_nodes() -> None:
    here = node(cores=4, hosts=3)
    small = taken(here, ranks=3)
    assert (small.hosts, small.local) == (("n1",), True)
    second = taken(here, ranks=2)
    assert (second.hosts, second.local) == (("n2",), False)
    assert here.take(Options(nodes=2)) is None  # only n3 is wholly free
    assert here.take(Options(cores=2)) is None  # not by mpirun, so on n1 alone
    assert here.fits_now(Options(cores=1))
    small.free()
    both = taken(here, nodes=2, ranks=2)
    assert both.hosts == ("n1", "n3")
    assert here.take(Options()) is None  # the nodes are its own
    assert here.fits_now(Options(ranks=2))
    both.free()
    second.free()
    assert taken(here, ranks=12).hosts == ("n1", "n2", "n3")


task_options = st.builds(
    Options,
    cores=st.integers(1, 6),
    gpus=st.integers(0, 3),
    mem_mb=st.none() | st.integers(1, 1200),
    ranks=st.none() | st.integers(1, 20),
    nodes=st.just(None) | st.just(1),
)


@given(st.lists(st.tuples(task_options, st.integers(0, 5)), max_size=30), st.integers(1, 3))
def test_nothing_is_given_twice_and_all_comes_back(steps: list[tuple[Options, int]], hosts: int) -> None:
    here = node(cores=4, gpus=2, hosts=hosts, cpus=(0, 1, 2, 3))
    running: list[Share] = []
    for options, ends in steps:
        share = here.take(options)
        assert share is None or not here.never(options)
        if share is not None:
            running.append(share)
        on_first = [share for share in running if share.hosts[0] == "n1"]
        for what in ("gpus", "cpus"):
            given_out = list(itertools.chain.from_iterable(getattr(share, what) for share in on_first))
            assert len(given_out) == len(set(given_out))
        if ends < len(running):
            running.pop(ends).free()
    for share in running:
        share.free()
    assert taken(here, cores=4, gpus=2, mem_mb=1000).cpus == (0, 1, 2, 3)


# ---------------------------------------------------------------- mpirun
def test_the_command_of_a_parallel_task() -> None:
    here = node(cores=4, hosts=2, gpus=2)
    options = Options(ranks=6, cores=1, gpus=1, mem_mb=500)
    share = taken(here, ranks=6, cores=1, gpus=1, mem_mb=500)
    hostile = "echo '$(touch x)' \"a b\"; `id`\n# \\"
    srun = parallel_command(hostile, options, share, ("srun", "--mpi=pmix"), {})
    words = shlex.split(srun)
    assert words[:9] == [
        "exec", "srun", "--mpi=pmix", "--ntasks=6", "--nodes=2", "--cpus-per-task=1", "--ntasks-per-node=3",
        "--nodelist=n1,n2", "--mem=500",
    ]  # fmt: skip
    assert words[9:] == ["--kill-on-bad-exit=1", "--exact", "--gpus-per-node=1", "/bin/sh", "-c", hostile]
    assert "--overlap" in parallel_command("x", options, share, ("srun",), {"SLURM_STEP_ID": "0"})
    assert shlex.split(parallel_command(hostile, options, share, ("mpiexec",), {})) == [
        "exec", "mpiexec", "-n", "6", "--host", "n1:3,n2:3", "/bin/sh", "-c", hostile,
    ]  # fmt: skip
    share.free()
    alone = taken(here, ranks=2)
    assert parallel_command("a", Options(ranks=2), alone, ("mpiexec",), {}) == "exec mpiexec -n 2 /bin/sh -c a"


def test_mpirun_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerOptions().mpirun == ("mpiexec",)
    assert WorkerOptions(mpirun="mpiexec --map-by 'a b'").mpirun == ("mpiexec", "--map-by", "a b")
    for bad in ("", "'", "a\0b", ()):
        with pytest.raises(InputError, match="mpirun"):
            WorkerOptions(mpirun=bad)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert WorkerOptions().mpirun == ("srun",)


def fake_mpiexec(directory: Path) -> str:
    """A command that says with what it was started, then runs one rank."""
    path = directory / "mpiexec"
    path.write_text('#!/bin/sh\necho "$*"\nwhile [ "$1" != /bin/sh ]; do shift; done\nexec "$@"\n')
    path.chmod(stat.S_IRWXU)
    return str(path)


def test_a_parallel_task_is_run_by_mpirun(queue: fsqdo.Queue, tmp_path: Path) -> None:
    queue.add("echo $OMP_NUM_THREADS $FSQDO_CORES 'a  b'", ranks=2, cores=2)
    summary = queue.do(slots=2, cores=4, mpirun=fake_mpiexec(tmp_path))
    assert summary.succeeded == 1
    command = "echo $OMP_NUM_THREADS $FSQDO_CORES 'a  b'"
    assert queue.log(1).decode() == f"-n 2 /bin/sh -c {command}\n2 2 a  b\n"


def test_a_function_is_not_run_by_mpirun(queue: fsqdo.Queue) -> None:
    queue.add({"a": 1}, ranks=2)
    assert queue.do("tests.test_calls:nothing", cores=2, report=lambda text: None).failed == 1
    assert "cannot be run by mpirun" in queue.show(1)["story"]


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec is installed")
def test_open_mpi(queue: fsqdo.Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank writes a file of its own: mpiexec may mix what they print."""
    for variable in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"):
        monkeypatch.setenv(variable, "1")
    code = "from mpi4py import MPI; c = MPI.COMM_WORLD; print(c.allreduce(c.rank), c.size, file=open(f'sum{c.rank}', 'w'))"
    has_mpi4py = subprocess.run([MPI_PYTHON, "-c", "import mpi4py"], check=False, capture_output=True).returncode == 0
    good = f"{MPI_PYTHON} -c {shlex.quote(code)}" if has_mpi4py else "echo 1 $OMPI_COMM_WORLD_SIZE > sum$OMPI_COMM_WORLD_RANK"
    queue.add(good, ranks=2, env={"PYTHONPATH": ""}, cwd=tmp_path)
    queue.add('[ "$OMPI_COMM_WORLD_RANK" = 0 ] && exec sleep 600; exit 3', ranks=2)
    queue.add("sleep 600", ranks=2, time_limit_s=1)
    summary = queue.do(cores=2, report=lambda text: None)
    assert (summary.succeeded, summary.failed) == (1, 2)
    assert [(tmp_path / f"sum{rank}").read_text() for rank in (0, 1)] == ["1 2\n"] * 2
    assert queue.task(2).exitcode == 3  # one rank's failure ends all
    assert "time limit" in queue.show(3)["attempts"][-1]["reason"]


# ---------------------------------------------------------------- what a task finds
def test_what_tasks_are_told(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    said = "echo ${OMP_NUM_THREADS-none} ${CUDA_VISIBLE_DEVICES-none} $FSQDO_CORES $FSQDO_GPUS"
    queue.add(said, cores=2, gpus=1)
    queue.add(said, gpus=2)
    queue.add(said, env={"OMP_NUM_THREADS": "9"})
    queue.do(cores=2)
    assert [queue.log(i).decode().strip() for i in (1, 2, 3)] == ["2 4 2 1", "1 4,7 1 2", "9 4,7 1 0"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    queue.add(said, cores=2)
    queue.do(cores=2)
    assert queue.log(4).decode().strip() == "3 4,7 2 0"


def read_gpus(task: object) -> str:
    """The function of a test."""
    return os.environ["CUDA_VISIBLE_DEVICES"] + " " + os.environ["OMP_NUM_THREADS"]


def test_what_functions_are_told(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    queue.add({"a": 1}, gpus=1, cores=2)
    queue.add({"a": 2}, gpus=2)
    queue.do("tests.test_resources:read_gpus", cores=2)
    assert dict(queue.results()) == {1: "GPU-a 2", 2: "GPU-a,GPU-b 1"}


def test_two_at_once_have_different_gpus(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """Four tasks of one gpu each on two gpus: the two that run meet in a fifo, so they do run at once."""
    os.mkfifo(tmp_path / "meet")
    queue.add(f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/meet", gpus=1)
    queue.add(f"read other < {tmp_path}/meet; echo $other $CUDA_VISIBLE_DEVICES", gpus=1)
    assert queue.do(slots=4, gpus=2).succeeded == 2
    assert sorted(queue.log(2).split()) == [b"0", b"1"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
@pytest.mark.parametrize("func", [None, "tests.test_resources:allowed_cpus"])
def test_pinned_tasks_have_processors_of_their_own(queue: fsqdo.Queue, func: str | None) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    command = f"{sys.executable} -c 'import os; print(sorted(os.sched_getaffinity(0)))'"
    queue.add({"a": 1} if func else command)
    queue.add({"a": 2} if func else command, cores=2)
    queue.do(func, cores=len(cpus), pin=True)
    found = dict(queue.results()) if func else {i: json.loads(queue.log(i)) for i in (1, 2)}
    assert found == {1: cpus[:1], 2: cpus[:2]}
    assert sorted(os.sched_getaffinity(0)) == cpus


def allowed_cpus(task: object) -> list[int]:
    """The function of a test."""
    return sorted(os.sched_getaffinity(0))


def test_pinning_is_given_up_with_a_word(queue: fsqdo.Queue) -> None:
    said: list[str] = []
    queue.add("true")
    queue.do(cores=1000, pin=True, report=said.append)
    assert any("not pinned" in line for line in said)
    before = os.sched_getaffinity(0)
    for gone in ((), (100_000,)):
        with pinned(gone):
            assert os.sched_getaffinity(0) == before


# ---------------------------------------------------------------- what is claimed
def pending_files(queue: fsqdo.Queue) -> list[str]:
    """The names of the pending tasks; `.r1` in one says that somebody had it."""
    return sorted(path.name for path in Path(queue.directory).glob("pending/*/*/*.json"))


def test_what_does_not_fit_is_never_claimed(queue: fsqdo.Queue) -> None:
    """Neither the first nor any other, loose or from a pack, and others run all the same."""
    queue.add("true", cores=3)
    queue.add_multiple(["true"] * 1500)
    queue.add_multiple(["true"] * 20, gpus=1)
    queue.add("true", mem_mb=10**9)
    queue.add("true", nodes=2)
    queue.add("true", time_request_s=7200)
    said: list[str] = []
    summary = queue.do(slots=2, cores=2, runtime_s=3600, report=said.append)
    assert summary.succeeded == 1500
    assert summary.why == "24 tasks are left to other workers (task 1: it needs 3 cores and this worker has 2)"
    assert len(pending_files(queue)) == 24
    assert not [name for name in pending_files(queue) if ".r" in name]
    assert queue.do(slots=2, cores=3, gpus=1, mem_mb=10**9).succeeded == 23
    assert said == []


def test_the_second_look_finds_what_came_late(queue: fsqdo.Queue) -> None:
    """A worker that leaves tasks to others goes on with those that fit, however many of the others stand before them."""
    queue.add_multiple(["true"] * 450, cores=2, priority=5)
    queue.add_multiple(["true"] * 10)
    assert queue.do(cores=1).succeeded == 10
    assert queue.do(cores=2).succeeded == 450


def test_a_big_task_is_overtaken_but_does_not_starve(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """Two cores, two slots: while one is held, the task of two cores waits and as many small ones as slots go before it."""
    os.mkfifo(tmp_path / "go")
    queue.add(f"read line < {tmp_path}/go", priority=9)
    queue.add(f"date +%s.%N > {tmp_path}/big", cores=2, priority=8)
    queue.add_multiple([f"date +%s.%N > {tmp_path}/small{i}" for i in range(6)], priority=7)
    process = subprocess.Popen(
        [sys.executable, "-m", "fsqdo", "do", "Blat", "-j", "2", "--cores", "2"], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + HANG_S
    while queue.status()["ntasks"]["Succeeded"] < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    (tmp_path / "go").write_text("\n")
    assert process.wait(HANG_S) == 0
    began = {path.name: float(path.read_text()) for path in tmp_path.glob("[bs]*") if path.is_file()}
    before = [name for name, at in began.items() if at < began["big"]]
    assert sorted(before) == ["small0", "small1"]
    assert queue.status()["ntasks"]["Succeeded"] == 8


def test_tasks_are_run_as_memory_allows(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """Eight slots, and memory for two: never are there three."""
    count = f"cd {tmp_path}; mkdir run.$$; ls -d run.* | wc -l >> most; sleep 0.05; rmdir run.$$"
    queue.add_multiple([count] * 12, mem_mb=400)
    assert queue.do(slots=8, mem_mb=1000).succeeded == 12
    assert max(map(int, (tmp_path / "most").read_text().split())) == 2


def test_what_waits_in_a_worker_goes_back_when_it_drains(queue: fsqdo.Queue, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    queue.add(f"read line < {tmp_path}/go", priority=9)
    queue.add("true", cores=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "fsqdo", "do", "Blat", "-j", "2", "--cores", "2"], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + HANG_S
    while len(list(Path(queue.directory).glob("running/*/0*.json"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    queue.drain()
    while not pending_files(queue):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert pending_files(queue) == ["000000002.r1.json"]
    (tmp_path / "go").write_text("\n")
    assert process.wait(HANG_S) == 0


def test_what_a_failed_start_took_comes_back(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot be opened once: the task is found again in the worker's directory, and both cores are free for it."""
    monkeypatch.setattr("fsqdo.worker.SCAN_S", 0.1)
    failed: list[str] = []
    make_directories = Store.make_directories

    def once(self: Store, relative: str) -> list[str]:
        if relative.startswith("logs/") and not failed:
            failed.append(relative)
            raise StorageError(OSError(errno.ENOSPC, "No space left on device"), "mkdir", relative)
        return make_directories(self, relative)

    monkeypatch.setattr(Store, "make_directories", once)
    queue.add("true", cores=2)
    summary = queue.do(slots=2, cores=2, timeout=5.0, report=lambda text: None)
    assert failed
    assert summary.succeeded == 1
    assert queue.status()["ntasks"]["Succeeded"] == 1


# ---------------------------------------------------------------- time
def test_a_queue_s_request_holds_for_tasks_without_one(queue: fsqdo.Queue) -> None:
    queue.configure(time_request_s=3000)
    queue.add_multiple(["true"] * 3)
    queue.add("true", time_request_s=10)
    summary = queue.do(runtime_s=600)
    assert summary.succeeded == 1
    assert "asks for 3e+03 s and this worker has 590 s left" in summary.why
    assert queue.do(runtime_s=6000).succeeded == 3


def write_journal(store: Store, worker: str, elapsed: list[float]) -> None:
    """What another worker has recorded."""
    lines = [
        f'{{"name":"{i:09d}","outcome":"succeeded","to":"x","elapsed_s":{seconds}}}\n' for i, seconds in enumerate(elapsed, 1)
    ]
    store.write(f"outcomes/{worker}.jsonl", "".join([*lines, '{"torn']).encode())


def test_durations_are_learnt_from_journals(store: Store) -> None:
    write_journal(store, "a-1-x", [100.0] * (SAMPLES - 1))
    assert Durations(store).p90_s() is None
    write_journal(store, "b-1-x", [50.0] * 30)
    assert Durations(store).p90_s() == 100.0
    own = Durations(store)
    for _ in range(200):
        own.note(1.0)
    assert own.p90_s() == 1.0


@pytest.mark.parametrize(("number", "p90"), [(20, 18), (100, 90), (21, 19)])
def test_nine_of_ten(store: Store, number: int, p90: int) -> None:
    durations = Durations(store)
    for seconds in range(1, number + 1):
        durations.note(float(seconds))
    assert durations.p90_s() == p90


def test_journals_are_read_rarely(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        write_journal(store, f"a-{i}-x", [1.0])
    reads: list[str] = []
    read = Store.read_tail
    monkeypatch.setattr(Store, "read_tail", lambda self, path, most: reads.append(path) or read(self, path, most))
    durations = Durations(store)
    for _ in range(100):
        assert durations.p90_s() is None
    assert len(reads) == 16


def test_auto(queue: fsqdo.Queue) -> None:
    """What ran so far took 50 s: a worker of 30 s leaves all but what says that it is short."""
    queue.configure(time_request="auto", time_request_s=1)
    write_journal(queue.store, "a-1-x", [50.0] * 30)
    queue.add_multiple(["true"] * 3)
    queue.add("true", time_request_s=10)
    assert queue.do(runtime_s=30).succeeded == 1
    assert queue.do(runtime_s=300).succeeded == 3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_128_slots_are_cheap(queue: fsqdo.Queue, tmp_path: Path) -> None:
    """Under 40 MiB while 128 tasks run."""
    os.mkfifo(tmp_path / "go")
    held = os.open(tmp_path / "go", os.O_RDWR)
    queue.add_multiple([f"read line < {tmp_path}/go"] * 128)
    process = subprocess.Popen([sys.executable, "-m", "fsqdo", "do", "Blat", "-j", "128"], stderr=subprocess.DEVNULL)
    end = time.monotonic() + HANG_S
    while queue.status()["ntasks"]["Running"] < 128:
        assert time.monotonic() < end
        time.sleep(0.05)
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    os.write(held, b"\n" * 128)
    assert process.wait(HANG_S) == 0
    os.close(held)
    assert resident_kb < 40 * 1024
    assert queue.status()["ntasks"]["Succeeded"] == 128


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="time_request is 'often', but must be one of auto, null"):
        fsqdo.create("Bad", time_request="often")
    with pytest.raises(InputError, match="ranks is 2, but must be at least as many as the 3 nodes"):
        Options(ranks=2, nodes=3)
    for bad in ({"gpus": -1}, {"mem_mb": 0}, {"nodes": 0}, {"stagger_s": -1}, {"grace_s": "x"}, {"gpus": True}):
        with pytest.raises(InputError, match=next(iter(bad))):
            WorkerOptions(**bad)


def test_a_staggered_start(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    queue.add("true")
    began = time.monotonic()
    assert queue.do(stagger_s=0.5, timeout=0.0).succeeded == 1
    assert time.monotonic() - began >= 0.5


def test_too_little_is_said(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    said: list[str] = []
    queue.add("true")
    queue.do(gpus=2, nodes=3, report=said.append)
    assert said[0] == "of 2 gpus this worker was to have, CUDA_VISIBLE_DEVICES names only 1"
    assert said[1].startswith("of 3 nodes this worker was to have, only 1 are known")
