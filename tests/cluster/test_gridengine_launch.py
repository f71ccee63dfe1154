"""`fsqdo launch` and its kin on a real Grid Engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.gridengine import GridEngine
from tests.cluster.queues import Work
from tests.cluster.site import Site

UNTIL_GO = "until [ -e go ]; do sleep 0.1; done"


@pytest.fixture
def site(grid_engine: GridEngine, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The Grid Engine, under a profile `here`."""
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("FSQDO_CONFIG", str(path))
    return Site(grid_engine, work, path, "system: sge\ncores_per_node: 8")


def _go(site: Site) -> None:
    (site.work.directory / "go").touch()


def test_three_jobs(site: Site) -> None:
    """What `jobs` and `status` say from the submission to the end."""
    site.work.add(4, UNTIL_GO)
    site.launch("3")
    site.work.wait_for_running(3)
    site.wait_for_states("running", "running", "running")
    assert [(len(job["workers"]), job["running"]) for job in site.jobs()] == [(1, 1)] * 3
    assert site.work.counts() == {"Pending": 1, "Running": 3}
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended", "ended", "ended")
    assert sum(job["succeeded"] for job in site.jobs()) == 4
    site.work.assert_all_succeeded_once(4)


def test_pack(site: Site) -> None:
    """One job with one worker in the parallel environment smp."""
    site.work.add(4, UNTIL_GO)
    (job,) = site.launch("4", "--pack", "--walltime", "1:00:00")
    site.work.wait_for_running(4)
    (row,) = [text.split() for text in site.cluster.run("qstat").stdout.splitlines() if text.split()[:1] == [job["batch_id"]]]
    assert row[-1] == "4"
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(4)


def test_array(site: Site) -> None:
    site.work.add(3, UNTIL_GO)
    site.launch("3", "--array")
    site.work.wait_for_running(3)
    (job,) = site.jobs()
    assert (job["state"], len(job["workers"]), job["running"]) == ("running", 3, 3)
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(3)


@pytest.mark.parametrize("words", [(), ("--batchopts", "-V")])
def test_cancel(site: Site, words: tuple[str, ...]) -> None:
    """Running jobs give their tasks back before Grid Engine kills them, waiting ones are gone."""
    site.work.add(2, UNTIL_GO)
    site.launch("2", "--pack", *words)
    site.work.wait_for_running(2)
    site.launch("1", "--batchopts", "-h", *words)
    assert site.states() == ["running", "queued"]
    site.fsqdo("cancel-jobs", site.name)
    site.wait_for_states("ended", "ended")
    assert site.work.alive() == []
    assert site.work.counts() == {"Pending": 2}
    site.launch("2")
    _go(site)
    site.work.wait_for_end()
    site.work.assert_all_succeeded_once(2)


def test_refused(site: Site) -> None:
    site.work.add(1, "true")
    refused = site.run("launch", site.name, "1", "--batchqueue", "none.q")
    assert refused.returncode == 1
    assert 'unknown queue "none.q"' in refused.stderr


@pytest.mark.parametrize("where", ["a'b", "$(touch pwned)", "a b", 'a"b', "ü", "-n", "a;b"])
def test_hostile_directories(grid_engine: GridEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A queue's directory that Grid Engine cannot be told is refused; any current directory will do."""
    top = tmp_path / where
    top.mkdir()
    monkeypatch.setenv("FSQDO_DIR", str(top / "queues"))
    monkeypatch.setenv("FSQDO_CONFIG", str(tmp_path / "config.yaml"))
    site = Site(grid_engine, Work(top), tmp_path / "config.yaml", "system: sge")
    site.work.add(1, "pwd > where")
    done = site.run("launch", site.name, "1", cwd=top)
    if done.returncode == 0:
        site.work.wait_for_end()
        site.work.assert_all_succeeded_once(1)
    else:
        assert "Grid Engine cannot be told" in done.stderr
        assert site.jobs() == []
    assert not list(tmp_path.rglob("pwned"))
