"""Longer stories on a real Slurm: a launch that meets its walltime, and the example of a month at many stations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import terminal
from tests.checker import read_queue
from tests.cluster.queues import Work
from tests.cluster.site import Site
from tests.cluster.slurm import Slurm

PROFILE = "system: slurm\ncores_per_node: 4\n"


def test_walltime(slurm: Slurm, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 s of tasks for each slot in jobs of a minute: what would not end in time is not begun, and nothing is interrupted."""
    monkeypatch.setenv("FSQDO_CONFIG", str(tmp_path / "config.yaml"))
    site = Site(slurm, work, tmp_path / "config.yaml", PROFILE)
    count = 4 * 20
    work.add(count, "sleep 5")
    site.launch("4", "--pack", "--walltime", "1")
    site.launch("4", "--pack", "--walltime", "1", "--after", "1")
    assert site.states() in (["queued", "queued"], ["running", "queued"])
    site.wait_for_states("ended", "running", within_s=150)
    site.wait_for_states("ended", "ended", within_s=150)
    done = [job["succeeded"] for job in site.jobs()]
    assert all(each >= 4 for each in done)
    assert work.counts() == {"Succeeded": sum(done), "Pending": count - sum(done)}
    assert work.interruptions() == {}
    site.launch("16", "--pack")
    work.wait_for_end()
    site.wait_for_states("ended", "ended", "ended")
    work.assert_all_succeeded_once(count)


def test_example_extract(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """832 tasks by 50 jobs of one worker, six failures, a retry, three jobs more: from one script."""
    config_path = tmp_path / "config.yaml"
    config_path.write_text("profiles:\n  cluster: {system: slurm, cores_per_node: 4}\n")
    monkeypatch.setenv("FSQDO_CONFIG", str(config_path))
    env = {**terminal.environment(tmp_path / "bin"), "SLURM_CONF": slurm.env["SLURM_CONF"]}
    (tmp_path / "here").mkdir()
    code, text = terminal.run(["sh", str(terminal.CHECKOUT / "examples/extract/run.sh"), "cluster"], tmp_path / "here", env)
    assert code == 0, text
    assert "832 tasks" in text
    assert "6 tasks reset to pending\n" in text
    report = read_queue(tmp_path / "queues/extract")
    assert report.problems(healed=True) == []
    assert {state: count for state, count in report.counts().items() if count} == {"succeeded": 832}
