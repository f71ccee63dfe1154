"""One queue, many sources: jobs of two batch systems, a worker typed on a laptop, and what cron launches, at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsqdo.launch import fsqdo_command
from tests.cluster.gridengine import GridEngine
from tests.cluster.queues import Work
from tests.cluster.slurm import Slurm

CONFIG = """
default_profile: slurm
profiles:
  slurm: {system: slurm, cores_per_node: 4, max_nodes: 2, max_walltime: "1:00:00"}
  sge: {system: sge, cores_per_node: 8}
"""
# Begun and in sight until the test says go: so all four have work at the same time.
UNTIL_GO = "until [ -e go ]; do sleep 0.1; done"


def test_two_batch_systems_a_laptop_and_cron(
    slurm: Slurm, grid_engine: GridEngine, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    monkeypatch.setenv("FSQDO_CONFIG", str(config))
    name = work.queue.name

    def told(run: Callable[..., subprocess.CompletedProcess[str]], *words: str) -> str:
        done = run(*fsqdo_command(), *words, cwd=work.directory)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    work.queue.configure(time_request_s=1800)  # so that what is launched by hand is less than cron finds lacking
    work.add(40, UNTIL_GO)
    told(slurm.run, "launch", name, "2")
    told(grid_engine.run, "launch", name, "2", "--pack", "--profile", "sge")
    laptop = subprocess.Popen([*fsqdo_command(), "do", name, "-j", "2"], stderr=subprocess.DEVNULL)
    try:
        work.wait_for_running(6)
        told(slurm.run, "launch", name, "--auto", "--nodes", "1")  # as a line of a crontab
        work.wait_for_running(7)
        rows = [json.loads(line) for line in told(slurm.run, "workers", name, "--json").splitlines()]
        assert {row["job"] is None for row in rows} == {True, False} and len(rows) >= 5
        (work.directory / "go").touch()
        work.wait_for_end()
        assert laptop.wait(60) == 0
    finally:
        laptop.kill()
        laptop.wait()
    jobs = [json.loads(line) for line in told(slurm.run, "jobs", name, "--json").splitlines()]
    assert {job["system"] for job in jobs} == {"slurm", "sge"} and len(jobs) >= 4
    assert all(job["workers"] for job in jobs[:3]) and any(job["workers"] for job in jobs[3:])
    assert sum(job["succeeded"] for job in jobs) < 40  # the laptop did some
    work.assert_all_succeeded_once(40)


def test_parallel_tasks_by_srun(slurm: Slurm, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of several ranks and nodes, side by side, as steps of one job."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    monkeypatch.setenv("FSQDO_CONFIG", str(config))
    rank = 'echo "$SLURMD_NODENAME $SLURM_NTASKS" > rank.$FSQDO_TASK_ID.$SLURM_PROCID'
    wide = work.queue.add(rank, ranks=4, nodes=2, cwd=work.directory)
    small = work.queue.add_multiple([rank] * 4, ranks=2, cwd=work.directory)
    bad = work.queue.add("exit $SLURM_PROCID", ranks=2, cwd=work.directory)
    done = slurm.run(*fsqdo_command(), "launch", work.queue.name, "8", "--nodes-per-worker", "2")
    assert done.returncode == 0, done.stderr
    work.wait_for_end(120)

    def ranks(task_id: int) -> list[list[str]]:
        return [path.read_text().split() for path in sorted(work.directory.glob(f"rank.{task_id}.*"))]

    assert len(ranks(wide)) == 4 and {size for _, size in ranks(wide)} == {"4"}
    assert len({node for node, _ in ranks(wide)}) == 2
    assert [len(ranks(task_id)) for task_id in small] == [2] * 4
    states = {task.id: task.state for task in work.queue.tasks()}
    assert states.pop(bad) == "Failed" and set(states.values()) == {"Succeeded"}
