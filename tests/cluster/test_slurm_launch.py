"""`fsqdo launch` and its kin on a real Slurm, from the configuration to the last task."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

from tests.cluster.daemons import wait_until
from tests.cluster.queues import Work
from tests.cluster.site import Site
from tests.cluster.slurm import NODES, Slurm

UNTIL_GO = "until [ -e go ]; do sleep 0.1; done"
NOTE_NODE = "echo $SLURMD_NODENAME > node.$FSQDO_TASK_ID"
PROFILE = """
system: slurm
cores_per_node: 4
max_walltime: "24:00:00"
max_nodes: 4
"""


@pytest.fixture
def site(slurm: Slurm, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The Slurm, under a profile `here`."""
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("FSQDO_CONFIG", str(path))
    return Site(slurm, work, path, PROFILE)


def _go(site: Site) -> None:
    (site.work.directory / "go").touch()


def _nodes(site: Site) -> set[str]:
    return {path.read_text().strip() for path in site.work.directory.glob("node.*")}


def test_three_jobs(site: Site, slurm: Slurm) -> None:
    """What `jobs`, `workers` and `status` say from the submission to the end."""
    site.work.add(4, UNTIL_GO)
    launched = site.launch("3")
    assert [job["number"] for job in launched] == [1, 2, 3]
    site.work.wait_for_running(3)
    jobs = site.jobs()
    assert [(job["state"], len(job["workers"]), job["running"]) for job in jobs] == [("running", 1, 1)] * 3
    assert slurm.tell("squeue", "-h", "-o", "%j", "-S", "i").split() == [f"fsqdo-work-{n}" for n in (1, 2, 3)]
    assert site.work.counts() == {"Pending": 1, "Running": 3}
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended", "ended", "ended")
    assert sum(job["succeeded"] for job in site.jobs()) == 4
    site.work.assert_all_succeeded_once(4)


def test_pack(site: Site, slurm: Slurm) -> None:
    """One job with one worker, which has the cores for all."""
    site.work.add(8, "sleep 0.2")
    site.work.add(1, UNTIL_GO)
    (job,) = site.launch("4", "--pack")
    site.work.wait_for_running(1)
    number = job["batch_id"].partition(";")[0]
    assert slurm.tell("squeue", "-h", "-o", "%D %C", "-j", number).split() == ["1", "4"]
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    (job,) = site.jobs()
    assert (len(job["workers"]), job["succeeded"]) == (1, 9)
    site.work.assert_all_succeeded_once(9)


def test_workers_on_nodes(site: Site) -> None:
    """srun starts the workers: two on each of two nodes."""
    site.work.add(4, f"{NOTE_NODE}; {UNTIL_GO}")
    site.launch("--nodes", "2", "--workers-per-node", "2", "-j", "1", "4")
    site.work.wait_for_running(4)
    (job,) = site.jobs()
    assert (job["state"], len(job["workers"]), job["running"]) == ("running", 4, 4)
    assert len(_nodes(site)) == 2
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(4)


def test_full_nodes(site: Site) -> None:
    """Without a number of tasks: as many as the nodes have cores, run by one worker on each."""
    site.work.add(8, f"{NOTE_NODE}; {UNTIL_GO}")
    site.launch("--nodes", "2")
    site.work.wait_for_running(8)
    (job,) = site.jobs()
    assert len(job["workers"]) == 2
    assert len(_nodes(site)) == 2
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(8)


def test_cancelled_job_of_several_nodes(site: Site) -> None:
    """scancel reaches the shell and srun; every worker gives its tasks back."""
    site.work.add(4, UNTIL_GO)
    site.launch("--nodes", "2", "--workers-per-node", "2", "-j", "1", "4")
    site.work.wait_for_running(4)
    site.fsqdo("cancel-jobs", site.name)
    site.wait_for_states("ended")
    assert site.work.alive() == []
    assert site.work.counts() == {"Pending": 4}
    assert site.work.queue.workers() == []


def test_array(site: Site, slurm: Slurm) -> None:
    site.work.add(3, UNTIL_GO)
    (job,) = site.launch("3", "--array")
    site.work.wait_for_running(3)
    (job,) = site.jobs()
    assert (job["state"], job["array"], len(job["workers"]), job["running"]) == ("running", 3, 3, 3)
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(3)


def test_after(site: Site) -> None:
    site.work.add(2, UNTIL_GO)
    site.launch("1")
    site.work.wait_for_running(1)
    site.launch("1", "--after", "1")
    assert site.states() == ["running", "queued"]
    site.fsqdo("cancel-jobs", site.name, "1")
    site.wait_for_states("ended", "running")
    _go(site)
    site.work.wait_for_end()
    site.work.assert_all_succeeded_once(2)


def test_queued_and_cancelled(site: Site) -> None:
    """Jobs that wait are queued, and gone when they are cancelled; `--queued-only` leaves the others alone."""
    site.work.add(2, UNTIL_GO)
    site.launch("1")
    site.work.wait_for_running(1)
    site.launch("2", "--batchopts", "--hold")
    assert site.states() == ["running", "queued", "queued"]
    assert site.fsqdo("cancel-jobs", site.name, "--queued-only").endswith("2 jobs cancelled\n")
    site.wait_for_states("running", "ended", "ended")
    _go(site)
    site.work.wait_for_end()


def test_cancelled_when_drained(site: Site) -> None:
    site.work.add(1, "true")
    site.launch("1", "--batchopts", "--hold", "--cancel-when-drained")
    site.launch("1")
    site.work.wait_for_end()
    site.wait_for_states("ended", "ended")
    site.work.assert_all_succeeded_once(1)


def test_random_scancel_and_a_killed_slurmd(site: Site, slurm: Slurm) -> None:
    """Whatever is cancelled while it waits, starts or works, and a node's slurmd with it: each task gets one outcome."""
    count = 80
    chance = random.Random(1)
    site.work.add(count, "sleep 1")
    for _ in range(3):
        site.launch("5", "-j", "1")
        wait_until("something runs", lambda: "running" in site.states())
        there = slurm.tell("squeue", "-h", "-o", "%A").split()
        slurm.tell("scancel", *chance.sample(there, min(2, len(there))))
        node = chance.choice(NODES)
        slurm.kill_node(node)
        slurm.start_node(node)
        assert not any(job["workers"] for job in site.jobs() if job["state"] == "queued")
    site.launch("16", "--pack")
    site.work.wait_for_end()
    wait_until("all jobs have ended", lambda: set(site.states()) == {"ended"}, 60)
    site.work.assert_all_succeeded_once(count)
    assert sum(job["succeeded"] for job in site.jobs()) == count


def test_requeue(site: Site, slurm: Slurm) -> None:
    site.work.add(2, UNTIL_GO)
    (job,) = site.launch("2", "--pack")
    site.work.wait_for_running(2)
    slurm.tell("scontrol", "requeue", job["batch_id"].partition(";")[0])
    site.work.wait_for("the tasks are given back", lambda: site.work.counts() == {"Pending": 2})
    assert site.states() in (["queued"], ["running"])
    _go(site)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(2)


def test_refused_by_slurm(site: Site) -> None:
    """What sbatch says is what the user reads, and the record keeps it."""
    site.work.add(1, "true")
    refused = site.run("launch", site.name, "1", "--batchqueue", "none")
    assert refused.returncode == 1
    assert "invalid partition specified: none" in refused.stderr
    (job,) = site.jobs()
    assert job["batch_id"] is None
    assert "invalid partition specified: none" in job["error"]


def test_clean_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env: clean` keeps the user's variables out, also those of a job of several nodes; `--keep-env` lets them in."""
    monkeypatch.setenv("OF_THE_USER", "there")
    site.configure(f"{PROFILE}env: clean\nvariables:\n  OF_THE_PROFILE: $HOME 'x'\n")
    text = 'printf \'%s|%s\\n\' "$OF_THE_USER" "$OF_THE_PROFILE" > env.$FSQDO_TASK_ID'
    for words in (("1",), ("--nodes", "2", "2"), ("1", "--keep-env")):
        site.work.add(1, text)
        site.launch(*words)
        site.work.wait_for_end()
        wait_until("its workers have left", lambda: set(site.states()) == {"ended"})
    found = [(site.work.directory / f"env.{n}").read_text() for n in (1, 2, 3)]
    assert found == ["|$HOME 'x'\n", "|$HOME 'x'\n", "there|$HOME 'x'\n"]


def test_prologue_epilogue_and_wrap(site: Site) -> None:
    """The site's own lines run around the worker, and its words before it; a signal still reaches the worker."""
    done = shlex.quote(str(site.work.directory / "epilogue"))
    site.configure(f"{PROFILE}prologue: ['export BEFORE=1']\nepilogue: ['echo $BEFORE > {done}']\nwrap: env WRAPPED=2\n")
    site.work.add(1, f"echo $BEFORE $WRAPPED > seen; {UNTIL_GO}")
    site.launch("1")
    site.work.wait_for_running(1)
    assert (site.work.directory / "seen").read_text() == "1 2\n"
    site.fsqdo("cancel-jobs", site.name)
    site.wait_for_states("ended")
    assert site.work.counts() == {"Pending": 1}
    wait_until("the epilogue has run", (site.work.directory / "epilogue").exists)


@pytest.mark.parametrize("where", ["a b", "a'b", 'a"b', "$(touch pwned)", "`touch pwned`", "a#b", "ü", "-n", "*", "50%j"])
def test_hostile_directories(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Queues and current directory under any name: the job runs there, and nothing in the name is executed."""
    top = tmp_path / where
    top.mkdir()
    monkeypatch.setenv("FSQDO_DIR", str(top / "queues"))
    monkeypatch.setenv("FSQDO_CONFIG", str(tmp_path / "config.yaml"))
    site = Site(slurm, Work(top), tmp_path / "config.yaml", PROFILE)
    site.work.add(1, "true")
    site.launch("1", cwd=top)
    site.work.wait_for_end()
    site.wait_for_states("ended")
    site.work.assert_all_succeeded_once(1)
    assert not list(tmp_path.rglob("pwned"))
    assert (Path(site.work.queue.directory) / "logs/job-1.log").exists()


@pytest.mark.parametrize(
    "line",
    [
        "account: 'a b'",
        'account: "a\\n#SBATCH --hold"',
        "queue: '$(touch pwned)'",
        "directives: ['--comment=x\\']",
        "directives: ['touch pwned']",
    ],
)
def test_hostile_words_are_refused(site: Site, slurm: Slurm, line: str) -> None:
    before = slurm.tell("squeue", "-h", "-t", "all", "-o", "%i")
    site.work.add(1, "true")
    site.configure(f"{PROFILE}{line}\n")
    refused = site.run("launch", site.name, "1")
    assert refused.returncode == 2
    assert refused.stderr.startswith("fsqdo: ")
    assert slurm.tell("squeue", "-h", "-t", "all", "-o", "%i") == before
    assert not list(site.work.directory.rglob("pwned"))


def test_hostile_text_in_job_and_task(site: Site) -> None:
    """A constraint that Slurm refuses, options with blanks, a task of any characters, variables of any value."""
    value = "a 'b' \"c\" $(touch pwned) `touch pwned` \\ # %j"
    site.configure(
        f"{PROFILE}variables:\n  VALUE: {_yaml(value)}\ndirectives: [{_yaml('--comment=' + shlex.quote('a b # c'))}]\n"
    )
    site.work.queue.add('printf "%s" "$VALUE" > value; printf "%s" ' + shlex.quote(value) + " > word", cwd=site.work.directory)
    site.launch("1", "--batchopts", "--nice=5 --mail-user='x y'")
    site.work.wait_for_end()
    assert (site.work.directory / "value").read_text() == value
    assert (site.work.directory / "word").read_text() == value
    assert not list(site.work.directory.rglob("pwned"))


def _yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
