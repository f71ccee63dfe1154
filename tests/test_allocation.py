"""What a worker learns of its allocation: from the environment, and from what the batch systems answer, garbage included."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import allocation
from fsqdo.allocation import Gpus, clock_s, expand_hosts, expand_numbers, grace_s, time_left_s

HANG_S = 60
BATCH_VARIABLES = ("SLURM_", "PBS_", "LSB_", "FLUX_", "SGE_", "_CONDOR", "CUDA_", "ROCR_", "HIP_", "ZE_", "OMP_", "NCPUS")


@pytest.fixture(autouse=True)
def no_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may run in a batch job themselves."""
    for name in list(os.environ):
        if name.startswith(BATCH_VARIABLES):
            monkeypatch.delenv(name)


def answering(answers: dict[str, str]) -> tuple[Callable[[list[str]], str], list[list[str]]]:
    """A batch system that prints these, by the command's first word, and what it was asked."""
    asked: list[list[str]] = []

    def ask(words: list[str]) -> str:
        asked.append(words)
        return answers.get(words[0], "")

    return ask, asked


# ---------------------------------------------------------------- how long
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:59", 59),
        ("1:00:00", 3600),
        ("2-03:04:05", 183845),
        ("1:02:03:04", 93784),
        (" 59:59\n", 3599),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
        ("90", None),
        ("1:2:3:4:5", None),
        ("-1:00", None),
        ("²:00", None),
    ],
)
def test_clock(text: str, seconds: float | None) -> None:
    assert clock_s(text) == seconds


def test_without_a_batch_system_nothing_is_asked() -> None:
    ask, asked = answering({})
    assert time_left_s({"HOME": "/"}, ask) is None
    assert asked == []


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("KillOnBadExit           = 0\nKillWait                = 30 sec\n", 10),
        ("KillWait                = 5 sec\n", 2.5),
        ("KillWait                = 0 sec\n", 0.5),
        ("UnkillableStepTimeout = 60 sec\nOverKillWait = 4", 10),
        ("garbage", 10),
        ("", 10),
    ],
)
def test_the_grace_is_half_of_what_slurm_leaves(said: str, seconds: float) -> None:
    ask, asked = answering({"scontrol": said})
    assert grace_s({"SLURM_JOB_ID": "7"}, 10.0, ask) == seconds
    assert grace_s({}, 10.0, ask) == 10.0
    assert len(asked) == 1


def test_slurm_says_its_end_in_the_environment() -> None:
    ask, asked = answering({"squeue": "1:00"})
    left_s = time_left_s({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 100)}, ask)
    assert left_s is not None
    assert 98 <= left_s <= 100
    assert asked == []


def test_an_end_in_the_past_is_that_of_another_job() -> None:
    assert time_left_s({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1000"}) is None


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({"SLURM_JOB_ID": "7"}, "7"),
        # the last of an array has the array's id
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
def test_slurm_is_asked_once(environ: dict[str, str], job: str) -> None:
    ask, asked = answering({"squeue": "1:30\n"})
    assert time_left_s(environ, ask) == 90
    assert asked == [["squeue", "-h", "-j", job, "-o", "%L"]]


@pytest.mark.parametrize(
    "said", ["", "INVALID\n", "UNLIMITED\n", "1:30\n1:30\n", "slurm_load_jobs error: Unable to contact", "\0"]
)
def test_what_slurm_does_not_know(said: str) -> None:
    ask, _ = answering({"squeue": said})
    assert time_left_s({"SLURM_JOB_ID": "7"}, ask) is None


def test_torque_says_how_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "session_age_s", lambda: 25.0)
    ask, asked = answering({})
    assert time_left_s({"PBS_JOBID": "1.s", "PBS_WALLTIME": "3600"}, ask) == 3575
    assert asked == []


PBS = """Job Id: 17.server
    Job_Name = fsqdo
    Resource_List.walltime = 01:00:00
    resources_used.walltime = 00:10:00
    Variable_List = PBS_O_HOME=/home/me,PBS_O_LANG=C
"""


@pytest.mark.parametrize(("age_s", "left_s"), [(0.0, 3000), (620.0, 2980)])
def test_pbs_knows_what_was_used_but_late(monkeypatch: pytest.MonkeyPatch, age_s: float, left_s: float) -> None:
    monkeypatch.setattr(allocation, "session_age_s", lambda: age_s)
    ask, asked = answering({"qstat": PBS})
    assert time_left_s({"PBS_JOBID": "17.server"}, ask) == left_s
    assert asked == [["qstat", "-f", "17.server"]]


def test_pbs_that_says_what_remains() -> None:
    ask, _ = answering({"qstat": PBS + "    Walltime.Remaining = 42\n"})
    assert time_left_s({"PBS_JOBID": "17.server"}, ask) == 42


@pytest.mark.parametrize(
    "said", ["", "qstat: Unknown Job Id", "    Walltime.Remaining = soon", "Resource_List.walltime = long"]
)
def test_what_pbs_does_not_know(said: str) -> None:
    ask, _ = answering({"qstat": said})
    assert time_left_s({"PBS_JOBID": "17.server"}, ask) is None


@pytest.mark.parametrize(
    ("said", "left_s"), [("0:30 L\n", 1800), ("01:05 L", 3900), ("0:30 E", None), ("0:0 X", None), ("-", None)]
)
def test_lsf(said: str, left_s: float | None) -> None:
    ask, asked = answering({"bjobs": said})
    assert time_left_s({"LSB_JOBID": "5", "LSB_JOBINDEX": "2"}, ask) == left_s
    assert asked == [["bjobs", "-noheader", "-o", "time_left", "5[2]"]]


@pytest.mark.parametrize(("said", "left_s"), [("3599\n", 3599), ("4294967295", None), ("0", None), ("", None), ("nan", None)])
def test_flux(said: str, left_s: float | None) -> None:
    ask, _ = answering({"flux": said})
    assert time_left_s({"FLUX_JOB_ID": "ƒ1"}, ask) == left_s


@pytest.mark.parametrize(
    ("said", "left_s"),
    [
        ("hard resource_list:         h_rt=3600,s_rt=3500\n", 3400),
        ("job_number: 4\nhard resource_list:         h_vmem=2G,h_rt=1:00:00\n", 3500),
        ("hard resource_list:         h_vmem=2G\n", None),
        ("Following jobs do not exist: 4", None),
    ],
)
def test_grid_engine(monkeypatch: pytest.MonkeyPatch, said: str, left_s: float | None) -> None:
    monkeypatch.setattr(allocation, "session_age_s", lambda: 100.0)
    ask, asked = answering({"qstat": said})
    assert time_left_s({"JOB_ID": "4", "SGE_TASK_ID": "undefined"}, ask) == left_s
    assert asked == [["qstat", "-j", "4"]]


def test_the_age_of_a_session() -> None:
    code = "import time; time.sleep(0.2); from fsqdo.allocation import session_age_s; print(session_age_s())"
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True, check=True)
    assert 0.1 < float(done.stdout) < HANG_S


@pytest.mark.parametrize("script", ["exit 1", "echo 1:00; exit 1", "printf '\\377\\376'", "kill -9 $$"])
def test_a_command_that_fails_is_no_answer(tmp_path: Path, script: str) -> None:
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(stat.S_IRWXU)
    assert clock_s(allocation.ask([str(program)])) is None
    assert allocation.ask([str(tmp_path / "none")]) == ""


def test_a_command_that_hangs_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "QUERY_S", 0.05)
    assert allocation.ask(["sleep", "60"]) == ""


# ---------------------------------------------------------------- how much
def test_cores_are_those_of_the_kernel_and_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "b.site", "", "", "")))
    slurm = {"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}
    assert allocation.cores({}) == 64
    assert allocation.cores(slurm) == 16
    assert allocation.cores({**slurm, "SLURM_STEP_ID": "0"}) == 4
    assert allocation.cores({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "128"}) == 64
    assert allocation.cores({"PBS_JOBID": "1", "NCPUS": "8"}) == 8
    assert allocation.cores({"NCPUS": "8"}) == 64
    assert allocation.cores({"SGE_TASK_ID": "undefined", "NSLOTS": "6"}) == 6
    assert allocation.cores({"SGE_TASK_ID": "undefined", "NSLOTS": "6", "NHOSTS": "2"}) == 64
    assert allocation.cores({"LSB_JOBID": "1", "LSB_MCPU_HOSTS": "a 3 b 5"}) == 5
    assert allocation.cores({"PBS_JOBID": "1", "NCPUS": "many"}) == 64


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert allocation.mem_mb({}) == everything
    assert allocation.mem_mb({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "5000"}) == 5000
    assert allocation.mem_mb({"SLURM_JOB_ID": "1", "SLURM_MEM_PER_CPU": "700"}) == 1400
    assert allocation.mem_mb({"SLURM_JOB_ID": "1"}) == everything


@pytest.mark.parametrize(
    ("environ", "number", "found"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, None, Gpus("CUDA_VISIBLE_DEVICES", ("2", "3"))),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f2a, GPU-77"}, 1, Gpus("CUDA_VISIBLE_DEVICES", ("GPU-8f2a",))),
        ({"CUDA_VISIBLE_DEVICES": ""}, None, Gpus()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 2, Gpus()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None, Gpus()),
        ({"ROCR_VISIBLE_DEVICES": "0,1"}, None, Gpus("ROCR_VISIBLE_DEVICES", ("0", "1"))),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0-2,5"}, None, Gpus(names=("0", "1", "2", "5"))),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0-2", "SLURM_STEP_GPUS": "1"}, None, Gpus(names=("1",))),
        ({"SLURM_JOB_ID": "1"}, None, Gpus()),
        ({}, 2, Gpus(names=("0", "1"))),
    ],
)
def test_gpus(environ: dict[str, str], number: int | None, found: Gpus) -> None:
    assert allocation.gpus(environ, number) == found


def test_who_chose_the_number_of_threads() -> None:
    assert not allocation.threads_are_set({})
    assert allocation.threads_are_set({"OMP_NUM_THREADS": "4"})
    assert not allocation.threads_are_set({"OMP_NUM_THREADS": "4", "PBS_JOBID": "1", "NCPUS": "4"})
    assert allocation.threads_are_set({"OMP_NUM_THREADS": "2", "PBS_JOBID": "1", "NCPUS": "4"})
    assert not allocation.threads_are_set({"OMP_NUM_THREADS": "4", "_CONDOR_SCRATCH_DIR": "/tmp"})


# ---------------------------------------------------------------- nodes
@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-3],login", ["n1", "n2", "n3", "login"]),
        ("n[08-10,12]", ["n08", "n09", "n10", "n12"]),
        ("r[0-1]c[1-2]-ib", ["r0c1-ib", "r0c2-ib", "r1c1-ib", "r1c2-ib"]),
        ("", []),
        ("n[", ["n"]),
    ],
)
def test_slurm_s_short_form_of_hosts(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


def test_numbers_that_are_none_stay() -> None:
    assert expand_numbers("0-1,x,3-") == ["0", "1", "x", "3-"]
    assert expand_numbers("0-999999999") == ["0-999999999"]


def test_hosts(tmp_path: Path) -> None:
    nodefile = tmp_path / "nodes"
    nodefile.write_text("a\na\nb\n\n")
    hostfile = tmp_path / "pe"
    hostfile.write_text("a.site 4 all.q@a UNDEFINED\nb.site 2 all.q@b UNDEFINED\n")
    assert allocation.hosts({"PBS_NODEFILE": str(nodefile)}) == ["a", "b"]
    assert allocation.hosts({"PE_HOSTFILE": str(hostfile)}) == ["a.site", "b.site"]
    assert allocation.hosts({"PE_HOSTFILE": str(tmp_path / "none")}) == []
    assert allocation.hosts({"LSB_HOSTS": "a a b"}) == ["a", "b"]
    assert allocation.hosts({"SLURM_JOB_NODELIST": "n[1-2]"}) == ["n1", "n2"]
    assert allocation.hosts({}) == []


def test_a_worker_s_nodes_are_its_own_and_the_next() -> None:
    environ = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURMD_NODENAME": "n3"}
    assert allocation.own_hosts(environ, 1) == ["n3"]
    assert allocation.own_hosts(environ, 2) == ["n3", "n4"]
    assert allocation.own_hosts(environ, 3) == ["n3", "n4"]
    assert allocation.own_hosts({}, 2) == [os.uname().nodename]


# ---------------------------------------------------------------- real workers
class Rig:
    """A queue, and workers in a batch job whose system answers as it is told."""

    def __init__(self, tmp_path: Path) -> None:
        self.queue = fsqdo.create("Blat")
        self.path = tmp_path / "system"
        self.path.mkdir()

    def answers(self, program: str, script: str) -> None:
        """Make a command of the batch system."""
        (self.path / program).write_text(f"#!/bin/sh\n{script}\n")
        (self.path / program).chmod(stat.S_IRWXU)

    def worker(self, *options: str, **environ: str) -> subprocess.Popen[str]:
        """Start a worker in a job."""
        env = {**os.environ, **environ, "PATH": f"{self.path}:{os.environ['PATH']}"}
        return subprocess.Popen(
            [sys.executable, "-m", "fsqdo", "do", "Blat", *options], env=env, stderr=subprocess.PIPE, text=True
        )

    def said_by_worker(self) -> dict[str, Any]:
        """Its worker.json, once it is there."""
        end = time.monotonic() + HANG_S
        while not (found := list(Path(self.queue.directory).glob("running/*/worker.json"))):
            assert time.monotonic() < end
            time.sleep(0.01)
        said: dict[str, Any] = json.loads(found[0].read_text())
        return said

    def counts(self) -> dict[str, int]:
        """Numbers of tasks by state."""
        return {state: n for state, n in self.queue.status()["ntasks"].items() if n}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield (made := Rig(tmp_path))
    made.queue.close()


def finished(process: subprocess.Popen[str]) -> str:
    """What a worker said, once it has ended well."""
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, said
    return said


def test_a_worker_learns_its_deadline(rig: Rig, tmp_path: Path) -> None:
    rig.answers("squeue", f'echo "$*" > {tmp_path}/asked; echo 30:00')
    os.mkfifo(tmp_path / "go")
    rig.queue.add(f"echo $FSQDO_DEADLINE; read line < {tmp_path}/go")
    before = time.time()
    process = rig.worker(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="2")
    said = rig.said_by_worker()
    assert before + 1790 < said["deadline"] < time.time() + 1801
    assert said["restarts"] == 2
    (tmp_path / "go").write_text("\n")
    finished(process)
    assert (tmp_path / "asked").read_text() == "-h -j 7 -o %L\n"
    assert int(rig.queue.log(1)) == pytest.approx(said["deadline"], abs=2)


def test_the_earlier_end_counts(rig: Rig) -> None:
    rig.answers("squeue", "echo 30:00")
    rig.queue.add("echo $FSQDO_DEADLINE")
    finished(rig.worker("--runtime", "600", SLURM_JOB_ID="7"))
    assert int(rig.queue.log(1)) < time.time() + 601


@pytest.mark.parametrize("script", ["echo INVALID", "exit 1", "exec sleep 600"])
def test_a_system_that_does_not_answer_stops_nobody(rig: Rig, script: str) -> None:
    rig.answers("squeue", script)
    rig.queue.add("true")
    finished(rig.worker(SLURM_JOB_ID="7"))
    assert rig.counts() == {"Succeeded": 1}


def test_tasks_go_back_before_the_end(rig: Rig) -> None:
    """The job has four seconds: at three what runs is stopped, as an interruption; the next worker finishes it."""
    rig.answers("squeue", "echo 0:04")
    rig.queue.add("[ $FSQDO_ATTEMPT = 2 ] || exec sleep 600")
    began = time.monotonic()
    assert "1 interrupted; its time is over" in finished(rig.worker(SLURM_JOB_ID="7"))
    assert time.monotonic() - began < HANG_S
    assert rig.counts() == {"Pending": 1}
    finished(rig.worker())
    assert rig.counts() == {"Succeeded": 1}


def test_a_warning_starts_the_drain(rig: Rig, tmp_path: Path) -> None:
    """With a deadline SIGUSR1 is only a warning: what runs may end, nothing more is begun."""
    rig.answers("squeue", "echo 1:00:00")
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    rig.queue.add_multiple([f"echo now > {tmp_path}/begun; read line < {tmp_path}/go", "true"])
    process = rig.worker(SLURM_JOB_ID="7")
    (tmp_path / "begun").read_text()
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    (tmp_path / "go").write_text("\n")
    assert "1 succeeded, 0 failed; warned by SIGUSR1" in finished(process)
    assert rig.counts() == {"Pending": 1, "Succeeded": 1}


@pytest.mark.parametrize(("number", "deadline"), [(signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_other_signals_stop_at_once(rig: Rig, tmp_path: Path, number: int, deadline: bool) -> None:
    rig.answers("squeue", "echo 1:00:00")
    os.mkfifo(tmp_path / "begun")
    rig.queue.add(f"echo now > {tmp_path}/begun; exec sleep 600")
    process = rig.worker(**({"SLURM_JOB_ID": "7"} if deadline else {}))
    (tmp_path / "begun").read_text()
    process.send_signal(number)
    assert "1 interrupted; stopped by SIG" in finished(process)
    assert rig.counts() == {"Pending": 1}


def test_a_function_of_this_process_is_warned_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.queue.add_multiple([1, 2])

    def warned(task: int) -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return task

    summary = rig.queue.do(warned, runtime_s=3600)
    assert (summary.succeeded, summary.interrupted) == (1, 0)
    assert summary.why.startswith("warned by SIGUSR1")
    assert rig.queue.do(warned).interrupted == 1


def test_a_function_of_this_process_is_stopped_at_the_end(rig: Rig) -> None:
    rig.queue.add(1)
    summary = rig.queue.do(lambda task: time.sleep(HANG_S), runtime_s=1)
    assert (summary.interrupted, summary.failed) == (1, 0)
    assert rig.counts() == {"Pending": 1}
