"""What fsqdo's code for Slurm rests on, asked of a real one: a release that answers otherwise is noticed here first."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsqdo.shape import parse_test_only
from tests.cluster.daemons import wait_until
from tests.cluster.slurm import Slurm, slurm_cluster

INVALID = "slurm_load_jobs error: Invalid job id specified\n"
STATES = ("squeue", "-h", "-t", "all", "-o", "%i %T", "-j")


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Slurm]:
    """A Slurm that forgets jobs as soon as they have ended."""
    with slurm_cluster(forget_s=2) as cluster:
        yield cluster


def _script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    return path


def _run(slurm: Slurm, tmp_path: Path, text: str, *options: str) -> str:
    """Run a script as a job to its end; what it printed."""
    output = tmp_path / "output"
    slurm.wait_for(slurm.submit(_script(tmp_path, text), "-o", str(output), *options))
    return output.read_text()


def test_environment_of_a_job(slurm: Slurm, tmp_path: Path) -> None:
    env = dict(line.split("=", 1) for line in _run(slurm, tmp_path, "env | grep '^SLURM'", "-N", "2").splitlines())
    assert {"SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_ON_NODE", "SLURMD_NODENAME"} <= set(env)
    assert env["SLURM_JOB_NUM_NODES"] == "2"
    assert not {"SLURM_JOB_END_TIME", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID"} & set(env)


def test_export_none_keeps_the_environment_out(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_USER", "there")
    assert _run(slurm, tmp_path, "echo $OF_THE_USER") == "there\n"
    assert _run(slurm, tmp_path, "echo $OF_THE_USER", "--export=NONE") == "\n"


def test_time_left_is_known_inside_the_job(slurm: Slurm, tmp_path: Path) -> None:
    """`%L %e`, asked inside the job, since nothing in its environment tells."""
    left, ends_at = _run(slurm, tmp_path, "squeue -h -j $SLURM_JOB_ID -o '%L %e'", "--time=2").split()
    assert re.fullmatch(r"[12]:\d\d", left)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", ends_at)


def test_time_is_rounded_up_to_minutes(slurm: Slurm, tmp_path: Path) -> None:
    given = {"00:00:20": "1:00", "0:90": "2:00", "90": "1:30:00", "1-2:03:04": "1-02:04:00"}
    script = _script(tmp_path, "true")
    for written, shown in given.items():
        job = slurm.submit(script, f"--time={written}", "--hold", "-o", "/dev/null")
        assert slurm.tell("squeue", "-h", "-o", "%l", "-j", job).strip() == shown
        slurm.tell("scancel", job)


@pytest.mark.parametrize(("option", "warned"), [("B:USR1@50", True), ("USR1@50", False)])
def test_warning_signal(slurm: Slurm, tmp_path: Path, option: str, warned: bool) -> None:
    """With `B:` the batch shell alone gets it (so that the worker must be that process), without it only srun's steps."""
    program = "trap 'echo warned; exit' USR1; touch up; while :; do sleep 0.1; done"
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\ncd {shlex.quote(str(tmp_path))}\nexec sh -c {shlex.quote(program)}\n")
    job = slurm.submit(script, "-o", f"{tmp_path}/output", f"--signal={option}", "--time=1")
    wait_until("the program runs", (tmp_path / "up").exists)
    if not warned:
        slurm.tell("scontrol", "update", f"JobId={job}", "EndTime=now+20")
    assert slurm.wait_for(job, within_s=90) == ("COMPLETED" if warned else "TIMEOUT")
    assert ("warned" in (tmp_path / "output").read_text()) is warned


def test_array(slurm: Slurm, tmp_path: Path) -> None:
    """An array has one id; its elements are asked for by it, and have an id of their own inside."""
    script = _script(tmp_path, "echo $SLURM_JOB_ID $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID; sleep 600")
    job = slurm.submit(script, "--array=0-2", "-o", f"{tmp_path}/%a")
    wanted = {f"{job}_{index} RUNNING" for index in range(3)}
    wait_until("all elements run", lambda: set(slurm.tell(*STATES, job).splitlines()) == wanted)
    outputs = [tmp_path / f"{index}" for index in range(3)]
    wait_until("they have written", lambda: all(path.exists() and path.read_text() for path in outputs))
    inside = [path.read_text().split() for path in outputs]
    assert [words[1:] for words in inside] == [[job, "0"], [job, "1"], [job, "2"]]
    assert len({words[0] for words in inside}) == 3
    slurm.tell("scancel", job)
    wait_until("all have ended", lambda: set(slurm.tell(*STATES, job).split()[1::2]) == {"CANCELLED"})


def test_array_that_waits_has_one_line(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(_script(tmp_path, "true"), "--array=0-2", "--hold", "-o", "/dev/null")
    assert slurm.tell(*STATES, job) == f"{job}_[0-2] PENDING\n"
    slurm.tell("scancel", job)


def test_states_of_ended_jobs(slurm: Slurm, tmp_path: Path) -> None:
    """`-t all` knows them for MinJobAge, without it they are as unknown as others."""
    failed = slurm.submit(_script(tmp_path, "exit 3"), "-o", "/dev/null")
    slurm.wait_for(failed)
    held = slurm.submit(_script(tmp_path, "true"), "--hold", "-o", "/dev/null")
    assert slurm.tell(*STATES, failed) == f"{failed} FAILED\n"
    assert slurm.tell("squeue", "-h", "-o", "%i %T", "-j", f"{failed},{held}") == f"{held} PENDING\n"
    slurm.tell("scancel", held)


def test_states_of_unknown_jobs(slurm: Slurm, tmp_path: Path) -> None:
    """One unknown id is an error, one among others is not; an id that is none spoils the whole question."""
    held = slurm.submit(_script(tmp_path, "true"), "--hold", "-o", "/dev/null")
    answers = {ids: slurm.run(*STATES, ids) for ids in ("99999", "99998,99999", f"{held},99999", f"{held},none")}
    said = {ids: (answer.returncode, answer.stdout, answer.stderr) for ids, answer in answers.items()}
    assert said == {
        "99999": (1, "", INVALID),
        "99998,99999": (0, "", ""),
        f"{held},99999": (0, f"{held} PENDING\n", ""),
        f"{held},none": (1, "", "squeue: error: Invalid job id: none\n"),
    }
    slurm.tell("scancel", held)


def test_forgotten_jobs_are_as_unknown_as_others(forgetful: Slurm, tmp_path: Path) -> None:
    script = _script(tmp_path, "true")
    jobs = [forgetful.submit(script, "-o", "/dev/null") for _ in range(2)]
    wait_until("they are forgotten", lambda: not forgetful.tell("squeue", "-h", "-t", "all"), 90)
    one, both = forgetful.run(*STATES, jobs[0]), forgetful.run(*STATES, ",".join(jobs))
    assert (one.returncode, one.stdout, one.stderr) == (1, "", INVALID)
    assert (both.returncode, both.stdout, both.stderr) == (0, "", "")


def test_cancelling_what_has_ended_or_never_was_is_no_error(slurm: Slurm, tmp_path: Path) -> None:
    ended = slurm.submit(_script(tmp_path, "true"), "-o", "/dev/null")
    slurm.wait_for(ended)
    for words, expected in (((ended,), 0), (("99999",), 0), ((ended, "99999"), 0), (("none",), 1)):
        answer = slurm.run("scancel", *words)
        assert (answer.returncode, answer.stderr) == (expected, "scancel: error: Invalid job id none\n" if expected else "")


def test_refused_submissions(slurm: Slurm, tmp_path: Path) -> None:
    script = str(_script(tmp_path, "true"))
    for option, said in (("--partition=none", "invalid partition specified: none"), ("--constraint=none", "Invalid feature")):
        refused = slurm.run("sbatch", "--parsable", option, script)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert said in refused.stderr


def test_forecast_of_a_start(slurm: Slurm, tmp_path: Path) -> None:
    """`autoscale` asks so when a job of some shape would start: here at once."""
    said = slurm.run("sbatch", "--test-only", "--nodes=2", "--time=10", str(_script(tmp_path, "true")))
    assert (said.returncode, said.stdout) == (0, "")
    in_s = parse_test_only(said.stderr, time.time())
    assert in_s is not None and in_s < 60, said.stderr


def test_dependency_on_a_failed_job(slurm: Slurm, tmp_path: Path) -> None:
    """An unmet afterok waits for ever without --kill-on-invalid-dep=yes."""
    failed = slurm.submit(_script(tmp_path, "exit 3"), "-o", "/dev/null", "--hold")
    script = _script(tmp_path, "true")
    ids = [
        slurm.submit(script, "-o", "/dev/null", f"--dependency={kind}:{failed}", *more)
        for kind, more in (("afterany", ()), ("afterok", ()), ("afterok", ("--kill-on-invalid-dep=yes",)))
    ]
    slurm.tell("scancel", failed)
    assert slurm.wait_for(ids[0]) == "COMPLETED"
    assert slurm.wait_for(ids[2]) == "CANCELLED"
    assert slurm.tell("squeue", "-h", "-o", "%T %r", "-j", ids[1]) == "PENDING DependencyNeverSatisfied\n"
    slurm.tell("scancel", ids[1])


def test_srun_starts_a_worker_in_each_place(slurm: Slurm, tmp_path: Path) -> None:
    """One that fails leaves the others running."""
    text = "srun sh -c 'echo $SLURMD_NODENAME; [ $SLURM_PROCID != 0 ] && sleep 1 && echo there'"
    words = _run(slurm, tmp_path, text, "-N", "2", "--ntasks-per-node=2").split()
    assert words.count("there") == 3
    nodes = [word for word in words if re.fullmatch(r"n\d", word)]
    assert len(nodes) == 4 and len(set(nodes)) == 2
