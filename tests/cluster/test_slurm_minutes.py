"""What takes minutes of real time on a real Slurm, in a file of its own so that it can run beside everything else."""

from __future__ import annotations

from tests.cluster.queues import Work
from tests.cluster.slurm import Slurm

SLOTS = 8
TASK_S = 7


def test_work_of_two_minutes_in_jobs_of_one(slurm: Slurm, work: Work) -> None:
    """Jobs of one minute, one after the other, each of which ends in the middle of its tasks: nothing is lost."""
    count = SLOTS * (120 // TASK_S)
    work.add(count, f"sleep {TASK_S}")
    script = work.script("-j", str(SLOTS))
    output = f"{script.parent}/job-%j.out"
    jobs = [slurm.submit(script, "-J", "minute", "-d", "singleton", "--time=1", "-o", output) for _ in range(3)]
    for job in jobs:
        slurm.wait_for(job, within_s=150)
        assert work.alive() == []
    assert slurm.state(jobs[-1]) == "COMPLETED"
    assert sum(work.interruptions().values()) <= 2 * SLOTS
    work.assert_all_succeeded_once(count)
