"""Workers in jobs of a real Slurm, with scripts written by hand: whatever happens, no task is lost or done twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fsqdo.liveness import process_start
from tests.cluster.queues import Work
from tests.cluster.slurm import Slurm

# Ends soon once it may, and never before.
UNTIL_GO = "until [ -e go ]; do sleep 0.1; done"


def _submit(slurm: Slurm, script: Path, *options: str) -> str:
    return slurm.submit(script, "-o", f"{script.parent}/job-%j.out", "--open-mode=append", *options)


def _go(work: Work) -> None:
    (work.directory / "go").touch()


def test_plain(slurm: Slurm, work: Work) -> None:
    work.add(20, "true")
    job = _submit(slurm, work.script("-j", "2"))
    assert slurm.wait_for(job) == "COMPLETED"
    work.assert_all_succeeded_once(20)


@pytest.mark.parametrize("cluster", ["slurm", "slurm_with_cgroups"])
def test_scancel(cluster: str, work: Work, request: pytest.FixtureRequest) -> None:
    """The tasks' processes are ended by the worker (Slurm with pgid does not find them), and run again as interrupted ones."""
    slurm: Slurm = request.getfixturevalue(cluster)
    work.add(4, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "3"))
    work.wait_for_running(3)
    slurm.tell("scancel", job)
    assert slurm.wait_for(job) == "CANCELLED"
    assert work.alive() == []
    assert work.counts() == {"Pending": 4}
    assert work.interruptions() == {1: 1, 2: 1, 3: 1}
    _go(work)
    _submit(slurm, work.script("-j", "3"))
    work.wait_for_end()
    work.assert_all_succeeded_once(4)


def test_scancel_with_tasks_that_do_not_obey(slurm: Slurm, work: Work) -> None:
    """KillWait is 5 s here: the worker's grace is the half of that, and it has given all back before it is killed."""
    work.add(2, f"trap '' TERM; {UNTIL_GO}")
    job = _submit(slurm, work.script("-j", "2"))
    work.wait_for_running(2)
    slurm.tell("scancel", job)
    slurm.wait_for(job)
    assert work.counts() == {"Pending": 2}
    assert work.interruptions() == {1: 1, 2: 1}
    assert work.alive() == []


def test_a_grace_that_is_too_long(slurm: Slurm, work: Work) -> None:
    """The worker is killed before its grace is over, and the next one cleans up after it."""
    work.add(2, f"trap '' TERM; {UNTIL_GO}")
    job = _submit(slurm, work.script("-j", "2", "--grace", "10"))
    work.wait_for_running(2)
    before = work.alive()
    slurm.tell("scancel", job)
    slurm.wait_for(job)
    next_job = _submit(slurm, work.script("-j", "2"))
    work.wait_for("the tasks were started again", lambda: len(work.pids()) == 4)
    assert not set(before) & set(work.alive())
    _go(work)
    work.wait_for_end()
    assert slurm.wait_for(next_job) == "COMPLETED"
    work.assert_all_succeeded_once(2)


@pytest.mark.parametrize("before", ["exec", "srun -n 1"])
def test_killed_worker(slurm: Slurm, work: Work, before: str) -> None:
    """SIGKILL leaves a worker no time; `recover` proves it dead, ends what it left running, and gives its tasks back."""
    work.add(3, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "3", before=before))
    work.wait_for_running(3)
    if before == "exec":
        # As the kernel does when memory is short. `scancel -s KILL` of a whole job sends SIGTERM first.
        os.kill(work.queue.workers()[0]["pid"], signal.SIGKILL)
    else:
        slurm.tell("scancel", "-s", "KILL", f"{job}.0")
    slurm.wait_for(job)
    assert work.counts() == {"Running": 3}
    (found,) = work.queue.recover()
    assert (found.tasks, "is gone" in found.reason) == (3, True)
    work.wait_for("nothing of it runs", lambda: work.alive() == [])
    assert work.interruptions() == {1: 1, 2: 1, 3: 1}
    _go(work)
    _submit(slurm, work.script("-j", "3"))
    work.wait_for_end()
    work.assert_all_succeeded_once(3)


def test_walltime(slurm: Slurm, work: Work) -> None:
    """The job's limit is moved to a few seconds from now. Slurm looks at limits every half minute."""
    work.add(4, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "2"))
    work.wait_for_running(2)
    slurm.tell("scontrol", "update", f"JobId={job}", "EndTime=now+3")
    assert slurm.wait_for(job, within_s=90) == "TIMEOUT"
    assert work.alive() == []
    assert work.counts() == {"Pending": 4}
    assert sorted(work.interruptions().values()) == [1, 1]
    _go(work)
    _submit(slurm, work.script("-j", "4"))
    work.wait_for_end()
    work.assert_all_succeeded_once(4)


def test_requeue(slurm: Slurm, work: Work) -> None:
    """Slurm stops the worker and starts the same job again: it goes on where it was stopped."""
    work.add(3, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "2"), "--requeue")
    work.wait_for_running(2)
    slurm.tell("scontrol", "requeue", job)
    work.wait_for("the tasks are given back", lambda: work.counts() == {"Pending": 3})
    assert work.alive() == []
    _go(work)
    work.wait_for_end()
    assert slurm.wait_for(job) == "COMPLETED"
    assert sorted(work.interruptions().values()) == [1, 1]
    work.assert_all_succeeded_once(3)


def test_slurmd_killed_and_back(slurm: Slurm, work: Work) -> None:
    """A node's slurmd dies and comes back: the job and its worker go on, as if nothing had been."""
    work.add(4, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "2"))
    work.wait_for_running(2)
    node = slurm.node_of(job)
    slurm.kill_node(node)
    slurm.start_node(node)
    _go(work)
    work.wait_for_end()
    assert slurm.wait_for(job) == "COMPLETED"
    assert work.interruptions() == {}
    work.assert_all_succeeded_once(4)


def _lose_node(slurm: Slurm, work: Work) -> tuple[str, str]:
    """Start a job with two of four tasks, and lose its node: Slurm starts it again elsewhere. The job and the node."""
    work.add(4, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "2"), "--requeue")
    work.wait_for_running(2)
    node = slurm.node_of(job)
    slurm.kill_node(node)
    return job, node


def test_lost_node(slurm: Slurm, work: Work) -> None:
    """Slurm gives up a node that does not answer and starts its job on another one, while the first worker still works."""
    job, node = _lose_node(slurm, work)
    try:
        work.wait_for("the other worker runs the other tasks", lambda: len(work.alive()) == 4)
        assert slurm.node_of(job) != node
        assert len(work.queue.workers()) == 2
        _go(work)
        work.wait_for_end()
        # Before the node is back: its slurmd kills what it finds there of a job that was started elsewhere.
        work.wait_for_no_workers()
    finally:
        slurm.start_node(node)
    slurm.wait_for(job)
    work.wait_for(f"{node} is back", lambda: slurm.node_state(node) == "idle")
    assert work.interruptions() == {}
    work.assert_all_succeeded_once(4)


def test_lost_node_is_back_too_early(slurm: Slurm, work: Work) -> None:
    """The slurmd that is back kills the first worker, without a warning, and the second one runs its tasks as well."""
    job, node = _lose_node(slurm, work)
    try:
        work.wait_for("the other worker runs the other tasks", lambda: len(work.alive()) == 4)
        first = next(worker for worker in work.queue.workers() if worker["restarts"] is None)
    finally:
        slurm.start_node(node)
    work.wait_for("the first worker is killed", lambda: process_start(first["pid"]) is None)
    _go(work)
    work.wait_for("two tasks were started again", lambda: len(work.pids()) == 6)
    assert slurm.wait_for(job) == "COMPLETED"
    assert sorted(work.interruptions().items()) == [(task, 1) for task in sorted(first["running"])]
    work.assert_all_succeeded_once(4)


def test_worker_frozen_and_declared_dead(slurm: Slurm, work: Work) -> None:
    """A node that hung comes back after others took its tasks: nothing it does late changes anything."""
    work.add(2, UNTIL_GO)
    job = _submit(slurm, work.script("-j", "2"))
    work.wait_for_running(2)
    (frozen,) = work.queue.workers()
    os.kill(frozen["pid"], signal.SIGSTOP)
    before = work.alive()
    assert [found.tasks for found in work.queue.recover(force=True)] == [2]
    next_job = _submit(slurm, work.script("-j", "2"))
    work.wait_for("the tasks run again", lambda: len(set(work.alive()) - set(before)) == 2)
    os.kill(frozen["pid"], signal.SIGCONT)
    work.wait_for("the first worker kills its copies", lambda: not set(before) & set(work.alive()))
    _go(work)
    work.wait_for_end()
    assert slurm.wait_for(job) == slurm.wait_for(next_job) == "COMPLETED"
    work.assert_all_succeeded_once(2)
