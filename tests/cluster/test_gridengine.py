"""A real Grid Engine: workers in its jobs, and the answers on which fsqdo's code for it rests."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from tests.cluster.daemons import wait_until
from tests.cluster.gridengine import GridEngine
from tests.cluster.queues import Work

UNTIL_GO = "until [ -e go ]; do sleep 0.1; done"
# The notice goes to every process of the job: only the shell must act on it.
NOTICED = "trap 'kill -TERM $pid' USR2; (trap '' USR2; exec {worker}) & pid=$!; wait; wait\n"


def _submit(grid: GridEngine, script: Path, *options: str) -> str:
    return grid.submit(script, "-S", "/bin/sh", "-V", "-cwd", "-j", "y", "-o", f"{script.parent}/job.out", *options)


def _script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.sh"
    path.write_text(f"{text}\n")
    return path


# ---------------------------------------------------------------- workers
def test_plain(grid_engine: GridEngine, work: Work) -> None:
    work.add(20, "true")
    job = _submit(grid_engine, work.script("-j", "2"))
    grid_engine.wait_for(job)
    work.assert_all_succeeded_once(20)


def test_array_of_workers(grid_engine: GridEngine, work: Work) -> None:
    work.add(9, "sleep 0.5")
    job = _submit(grid_engine, work.script(), "-t", "1-3")
    work.wait_for_end()
    grid_engine.wait_for(job.partition(".")[0])
    assert job.endswith(".1-3:1")
    work.assert_all_succeeded_once(9)


def test_qdel_without_notice(grid_engine: GridEngine, work: Work) -> None:
    """The worker is killed at once, its tasks are not (unless execd_params has ENABLE_ADDGRP_KILL): the next one ends them."""
    work.add(2, UNTIL_GO)
    job = _submit(grid_engine, work.script("-j", "2"))
    work.wait_for_running(2)
    left = work.alive()
    grid_engine.tell("qdel", job)
    grid_engine.wait_for(job)
    assert work.counts() == {"Running": 2}
    _submit(grid_engine, work.script("-j", "2"))
    work.wait_for("the tasks were started again", lambda: len(work.pids()) == 4)
    assert not set(left) & set(work.alive())
    (work.directory / "go").touch()
    work.wait_for_end()
    assert work.interruptions() == {1: 1, 2: 1}
    work.assert_all_succeeded_once(2)


def test_qdel_with_notice(grid_engine: GridEngine, work: Work) -> None:
    """With `-notify` SIGUSR2 comes 10 s before SIGKILL (as the queue says): time enough to give everything back."""
    work.add(2, UNTIL_GO)
    script = work.script("-j", "2", before="")
    first, second, worker = script.read_text().splitlines()
    script.write_text("\n".join([first, second, NOTICED.format(worker=worker.strip())]))
    job = _submit(grid_engine, script, "-notify")
    work.wait_for_running(2)
    grid_engine.tell("qdel", job)
    work.wait_for("the tasks are given back", lambda: work.counts() == {"Pending": 2})
    assert work.alive() == []
    grid_engine.wait_for(job)
    (work.directory / "go").touch()
    _submit(grid_engine, work.script("-j", "2"))
    work.wait_for_end()
    work.assert_all_succeeded_once(2)


# ---------------------------------------------------------------- facts
def test_environment_of_a_job(grid_engine: GridEngine, tmp_path: Path) -> None:
    """SGE_TASK_ID is always there: outside arrays it is the word `undefined`."""
    job = _submit(grid_engine, _script(tmp_path, "env"), "-N", "a-name", "-pe", "smp", "2")
    grid_engine.wait_for(job)
    wait_until("it has written", lambda: "JOB_ID=" in (tmp_path / "job.out").read_text())
    env = dict(line.split("=", 1) for line in (tmp_path / "job.out").read_text().splitlines() if "=" in line)
    found = {name: env.get(name) for name in ("JOB_ID", "JOB_NAME", "SGE_TASK_ID", "NSLOTS", "QUEUE", "RESTARTED")}
    expected = {
        "JOB_ID": job,
        "JOB_NAME": "a-name",
        "SGE_TASK_ID": "undefined",
        "NSLOTS": "2",
        "QUEUE": "all.q",
        "RESTARTED": "0",
    }
    assert found == expected


def test_what_submission_prints(grid_engine: GridEngine, tmp_path: Path) -> None:
    script = str(_script(tmp_path, "true"))
    said = grid_engine.tell("qsub", "-h", "-cwd", script)
    job = said.split()[2]
    assert said == f'Your job {job} ("script.sh") has been submitted\n'
    assert grid_engine.tell("qsub", "-h", "-cwd", "-terse", script) == f"{int(job) + 1}\n"
    assert grid_engine.tell("qsub", "-h", "-cwd", "-terse", "-t", "1-3", script) == f"{int(job) + 2}.1-3:1\n"
    refused = grid_engine.run("qsub", "-terse", "-q", "none.q", script)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == 'Unable to run job: Job was rejected because job requests unknown queue "none.q"\nExiting.\n'
    grid_engine.tell("qdel", job, str(int(job) + 1), str(int(job) + 2))


def test_states(grid_engine: GridEngine, tmp_path: Path) -> None:
    """qstat shows what waits and runs, as text and as XML, and nothing of what has ended."""
    script = _script(tmp_path, "sleep 600")
    running, held = _submit(grid_engine, script), _submit(grid_engine, script, "-h")
    grid_engine.wait_for(running, "r")
    assert grid_engine.state(held) == "hqw"
    jobs = ET.fromstring(grid_engine.tell("qstat", "-u", "*", "-xml")).iter("job_list")
    states = {job.findtext("JB_job_number"): (job.get("state"), job.findtext("state")) for job in jobs}
    assert states == {running: ("running", "r"), held: ("pending", "hqw")}
    grid_engine.tell("qdel", running, held)
    grid_engine.wait_for(running)
    assert grid_engine.run("qstat", "-u", "*").stdout == ""


def test_states_of_ended_and_unknown_jobs(grid_engine: GridEngine, tmp_path: Path) -> None:
    """Both are unknown to qstat; an ended one is in the accounting, a second later."""
    ended = _submit(grid_engine, _script(tmp_path, "exit 3"))
    grid_engine.wait_for(ended)
    for job in (ended, "99999"):
        answer = grid_engine.run("qstat", "-j", job)
        assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", f"Following jobs do not exist: \n{job}\n")
    wait_until("it is in the accounting", lambda: grid_engine.run("qacct", "-j", ended).returncode == 0)
    fields = dict(line.split(None, 1) for line in grid_engine.tell("qacct", "-j", ended).splitlines()[1:])
    assert (fields["jobnumber"].strip(), fields["exit_status"].strip(), fields["failed"].strip()) == (ended, "3", "0")
    unknown = grid_engine.run("qacct", "-j", "99999")
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (1, "", "error: job id 99999 not found\n")


def test_cancelling(grid_engine: GridEngine, tmp_path: Path) -> None:
    """Unlike with Slurm what has ended is an error, though the others on the line are cancelled."""
    held = _submit(grid_engine, _script(tmp_path, "true"), "-h")
    answer = grid_engine.run("qdel", held, "99999")
    assert (answer.returncode, answer.stderr) == (1, "")
    assert answer.stdout == f'root has deleted job {held}\ndenied: job "99999" does not exist\n'


def test_failed_start_stays_in_the_queue(grid_engine: GridEngine, tmp_path: Path) -> None:
    """A job whose output file cannot be made is not run and not ended: its state is Eqw until somebody deletes it."""
    job = grid_engine.submit(_script(tmp_path, "true"), "-o", f"{tmp_path}/none/output")
    grid_engine.wait_for(job, "Eqw")
    grid_engine.tell("qdel", job)
