"""Batch jobs afterwards: their states and how often a system is asked, what they did, cancelling, and what recover learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import jobcache, recovery
from fsqdo import jobs as jobs_module
from fsqdo import launch as launch_module
from fsqdo.batch import JobSpec, JobState, Reply
from fsqdo.batch.local import Local
from fsqdo.config import Config, Profile
from fsqdo.errors import BatchError, InputError, StorageError
from fsqdo.jobs import batch_id_of, cancel_queued, ended_jobs, jobs
from fsqdo.launch import Launched, launch
from fsqdo.liveness import Observer
from fsqdo.queue import Queue
from fsqdo.store import Store

NODE = Profile("node", "fake", cores_per_node=8, max_walltime_s=3600)
CONFIG = Config(dir="/nowhere", default_profile="node", profiles={"node": NODE})


@dataclass
class FakeSystem(Local):
    """A batch system that is asked politely; what it says is up to a test."""

    name: str = "fake"
    options: frozenset[str] = frozenset(launch_module._BATCH_OPTIONS) | {"walltime"}
    poll_s: tuple[float, float] = (30.0, 120.0)
    said: dict[str, str] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    cancelled: list[list[str]] = field(default_factory=list)
    specs: list[JobSpec] = field(default_factory=list)
    cancel: str = "true"
    number: int = 100

    def script(self, spec: JobSpec) -> str:
        self.specs.append(spec)
        return super().script(spec)

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        return ["true"]

    def job_id(self, reply: Reply) -> str:
        self.number += 1
        return str(self.number)

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        self.asked.append(list(batch_ids))
        return ["true"]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        return {name: JobState(self.said[name]) for name in batch_ids if name in self.said}

    def cancel_command(self, batch_ids: Sequence[str]) -> list[str]:
        self.cancelled.append(list(batch_ids))
        return ["/bin/sh", "-c", self.cancel]


@pytest.fixture
def queue(root: Path) -> Queue:
    return fsqdo.create("q")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    made = FakeSystem()
    for module in (launch_module, jobs_module):
        monkeypatch.setattr(module, "get_system", lambda name: made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock of the cache, as the first item."""
    now = [1_000_000.0]
    monkeypatch.setattr(jobcache.time, "time", lambda: now[0])
    return now


def _launch(queue: Queue, n: int | None = 3, **options: Any) -> Launched:
    return launch(queue, n, config=CONFIG, **options)


def _said(queue: Queue) -> list[str]:
    return [str(job.state) for job in jobs(queue)]


def _written(number: int, **changes: Any) -> dict[str, Any]:
    """A record as launch writes it, of the fake system."""
    record = {"number": number, "state": "submitted", "batch_id": str(100 + number), "system": "fake", "profile": "node"}
    return {**record, "submitted_at": "2026-01-01T00:00:00Z", "slots": 1, "command": ["x"], **changes}


def _record(queue: Queue, number: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(queue.store.read(f"jobs/{number}.json") or b"")
    return record


# ---------------------------------------------------------------- what launch keeps and tells a system
def test_a_spec_says_all_that_was_asked_for_and_the_profile_has(queue: Queue, system: FakeSystem) -> None:
    profile = Profile(
        "p", "fake", {"A": "1"}, ("begin",), ("end",), cores_per_node=32, gpus_per_node=4, mem_per_node_mb=64000, account="m1",
        queue="regular", constraint="cpu", directives=("-x y",), wrap=("podman", "run"), mpirun=("mpiexec",), keep_env=False,
        script="whole",
    )  # fmt: skip
    config = Config("/nowhere", "p", {"p": profile})
    (job,) = launch(queue, 32, config=config, cores_per_worker=2, gpus_per_worker=1, mem_per_worker="1G", walltime="1:00:00",
                    batchopts=["-q 'a b'", "-r"], jobs=5, array=True, after="77", stagger=5.0, max_fails=3,
                    health_check="test -d /scratch", chain=True, timeout=60)  # fmt: skip
    (spec,) = system.specs[1:]
    assert (spec.nodes, spec.workers_per_node, spec.slots, spec.array, spec.after) == (8, 1, 4, 5, "77")
    assert (spec.cores_per_worker, spec.gpus_per_worker, spec.mem_mb_per_worker, spec.walltime_s) == (8, 4, 4096, 3600)
    assert (spec.account, spec.batch_queue, spec.constraint, spec.directives) == ("m1", "regular", "cpu", ("-x y",))
    assert (spec.batch_options, spec.wrap, spec.mpirun, spec.keep_env) == (
        ("-q", "a b", "-r"), ("podman", "run"), ("mpiexec",), False,
    )  # fmt: skip
    assert (spec.prologue, spec.epilogue, spec.template) == (("begin",), ("end",), "whole")
    assert spec.env == {"A": "1", "FSQDO_DIR": os.path.dirname(queue.directory), "FSQDO_QUEUE_DIR": queue.directory,
                        "FSQDO_JOB": "1"}  # fmt: skip
    assert list(spec.command[2:]) == [
        "do", "q", "-j", "4", "--cores=8", "--gpus=4", "--mem=4096", "--timeout=60", "--stagger=5", "--runtime=3600",
        "--mpirun=mpiexec", "--max-fails=3", "--health-check=test -d /scratch", "--chain",
    ]  # fmt: skip
    assert os.path.isabs(spec.command[0]), "PATH may be another one where the environment is clean"
    record = _record(queue, 1)
    for key, value in {"nodes": 8, "workers_per_node": 1, "slots": 32, "slots_per_worker": 4, "cores": 8,
                       "walltime_s": 3600, "array": 5,
                       "after": "77", "cancel_when_drained": False}.items():  # fmt: skip
        assert record[key] == value == getattr(job, key) == getattr(jobs(queue)[0], key)


def test_what_is_given_to_launch_comes_before_the_profile(
    queue: Queue, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSQDO_CONFIG", "~/mine.yaml")
    profile = Profile("p", "fake", queue="regular", mpirun=("srun",), keep_env=False)
    launch(queue, 1, config=Config("/", "p", {"p": profile}), dry_run=True, batchqueue="debug", mpirun="mpiexec -x 'A B'",
           keep_env=True)  # fmt: skip
    (spec,) = system.specs
    assert (spec.batch_queue, spec.mpirun, spec.keep_env) == ("debug", ("mpiexec", "-x", "A B"), True)
    assert spec.command[-1] == "--mpirun=mpiexec -x 'A B'"
    assert spec.env["FSQDO_CONFIG"] == os.path.expanduser("~/mine.yaml"), "for what the workers launch themselves"


def test_a_worker_with_nodes_of_its_own_is_started_once(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 2, nodes_per_worker=4, mpirun="srun", dry_run=True)
    assert [(spec.nodes, spec.mpirun) for spec in system.specs] == [(4, ())] * 2
    assert system.specs[0].command[2:] == ("do", "q", "-j", "1", "--cores=8", "--nodes-per-worker=4", "--mpirun=srun")


def test_an_array_is_one_record(queue: Queue, system: FakeSystem) -> None:
    made = _launch(queue, 9, slots=4, array=True)
    assert [(job.array, job.slots) for job in made] == [(2, 4), (None, 1)]
    assert made.plan.startswith("2 jobs (an array) with one worker of 4 slots")
    assert queue.store.names("jobs")[-4:] == ["1.json", "1.sh", "2.json", "2.sh"]


def test_options_without_effect_are_named(queue: Queue, system: FakeSystem) -> None:
    system.options = frozenset({"walltime", "array"})
    made = _launch(queue, 3, array=True, after="5", mem_per_worker="1G", nodes_per_worker=2, dry_run=True)
    assert made.notes == [
        f"--{name} has no effect on profile node (system fake)" for name in ("mem-per-worker", "nodes-per-worker", "after")
    ]
    assert [(spec.array, spec.after, spec.nodes) for spec in system.specs] == [(3, None, 1)]


@pytest.mark.parametrize(
    "options",
    [{"mem_per_worker": "much"}, {"batchopts": "it's"}, {"mpirun": "it's"}, {"walltime": "1:00:01"}, {"cores_per_worker": 9},
     {"max_fails": 0}, {"stagger": -1}, {"health_check": " "}, {"nodes": -1},
     {"cores_per_worker": 0}, {"gpus_per_worker": 0}, {"nodes_per_worker": True}],
)  # fmt: skip
def test_what_cannot_be_meant_writes_nothing(queue: Queue, system: FakeSystem, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        _launch(queue, 3, **options)
    assert queue.store.names("jobs") == []


def test_auto_slots_are_the_cores_of_a_node(queue: Queue, system: FakeSystem) -> None:
    assert [job.slots for job in _launch(queue, 16, slots="auto", dry_run=True)] == [8, 8]
    assert [(job.nodes, job.slots_per_node) for job in _launch(queue, 16, slots="auto", pack=True, dry_run=True)] == [(2, 8)]
    bare = Config("/", "b", {"b": Profile("b", "fake")})
    with pytest.raises(InputError, match="does not say how many cores a node has"):
        launch(queue, 16, slots="auto", config=bare)


def test_full_nodes_need_no_number(queue: Queue, system: FakeSystem) -> None:
    (job,) = _launch(queue, None, nodes=3, dry_run=True)
    assert (job.nodes, job.slots, job.slots_per_node) == (3, 24, 8)


def test_after_is_a_number_of_the_queue_or_an_id(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 1)
    assert batch_id_of(queue.store, "1", "fake") == "101"
    assert batch_id_of(queue.store, "2", "fake") == "2"
    assert batch_id_of(queue.store, "17.server", "fake") == "17.server"
    with pytest.raises(InputError, match="job 1 is one of fake"):
        batch_id_of(queue.store, "1", "slurm")
    queue.store.write("jobs/2.json", json.dumps({**_record(queue, 1), "batch_id": None}).encode())
    with pytest.raises(InputError, match="job 2 has no id"):
        _launch(queue, 1, after=2)


# ---------------------------------------------------------------- states
def test_a_system_is_asked_at_most_every_half_minute(queue: Queue, system: FakeSystem, clock: list[float]) -> None:
    _launch(queue, 3)
    system.said = {"101": "ended", "102": "running", "103": "queued"}
    assert _said(queue) == ["ended", "running", "queued"]
    system.said["103"] = "running"
    clock[0] += 29
    assert _said(queue) == ["ended", "running", "queued"]
    assert len(system.asked) == 1
    clock[0] += 2
    assert _said(queue) == ["ended", "running", "running"]
    assert system.asked == [["101", "102", "103"], ["102", "103"]], "that a job has ended is asked once"


def test_new_jobs_are_queued_until_the_system_is_asked_again(queue: Queue, system: FakeSystem, clock: list[float]) -> None:
    _launch(queue, 1)
    system.said = {"101": "running", "102": "running"}
    assert _said(queue) == ["running"]
    _launch(queue, 1)
    assert _said(queue) == ["running", "queued"]
    assert len(system.asked) == 1
    clock[0] += 30
    assert _said(queue) == ["running", "running"]


def test_a_query_that_failed_is_not_repeated_at_once_and_forgets_no_end(
    queue: Queue, system: FakeSystem, clock: list[float]
) -> None:
    _launch(queue, 2)
    system.said = {"101": "ended", "102": "running"}
    jobs(queue)
    system.said = {}
    clock[0] += 31
    assert _said(queue) == ["ended", "unknown"]
    assert _said(queue) == ["ended", "unknown"]
    assert len(system.asked) == 2


def test_a_clock_that_was_set_back_asks_again(queue: Queue, system: FakeSystem, clock: list[float]) -> None:
    _launch(queue, 1)
    jobs(queue)
    clock[0] -= 3600
    jobs(queue)
    assert len(system.asked) == 2


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"fake": 3}', b'{"fake": {"asked_at": 1e300, "states": {"101": "odd"}}}', b"\xff"]
)
def test_a_damaged_cache_is_none(queue: Queue, system: FakeSystem, text: bytes) -> None:
    _launch(queue, 1)
    system.said = {"101": "running"}
    queue.store.write(jobcache.CACHE, text)
    assert _said(queue) == ["running"]


def test_a_queue_that_cannot_be_written_can_be_asked_about(
    queue: Queue, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    _launch(queue, 1)
    system.said = {"101": "running"}

    def refuse(*_: object, **__: object) -> None:
        raise StorageError(PermissionError(13, "no"), "write", "x")

    monkeypatch.setattr(Store, "replace", refuse)
    assert _said(queue) == ["running"]


# ---------------------------------------------------------------- what they did
def test_jobs_tell_what_their_workers_did_and_do(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 2)
    journal = b'{"worker":"here-1-a","job":"1"}\n'
    for at in range(30_000):  # more than is read at once
        kind = b"failed" if at % 3 == 0 else b"succeeded"
        journal += b'{"name":"%09d","outcome":"%s","to":"x","result":{"name":"","outcome":"failed"}}\n' % (at, kind)
    journal += b'{"name":"000000001","outcome":"retry","to":"x"}\n{"name":"000000002","outcome":"succeeded","to'
    queue.store.write("outcomes/here-1-a.jsonl", journal)
    queue.store.write("outcomes/here-2-b.jsonl", b'{"worker":"here-2-b","job":"1"}\n{"name":"7","outcome":"failed","to":""}\n')
    queue.store.write("running/here-1-a/worker.json", b'{"job": "1"}', make=True)
    queue.store.write("running/here-1-a/000000003.json", b"{}")
    first, second = jobs(queue)
    assert (first.succeeded, first.failed, first.running) == (20_000, 10_001, 1)
    assert first.workers == ("here-1-a", "here-2-b")
    assert (second.succeeded, second.failed, second.running, second.workers) == (0, 0, 0, ())
    shown = first.to_json()
    assert (shown["succeeded"], shown["state"], shown["nodes"], shown["slots"]) == (20_000, "unknown", 1, 1)


def test_records_of_earlier_releases_are_read(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 1)
    old = {
        key: value for key, value in _record(queue, 1).items() if key not in ("nodes", "array", "after", "cancel_when_drained")
    }
    queue.store.write("jobs/1.json", json.dumps(old).encode())
    (job,) = jobs(queue)
    assert (job.error, job.nodes, job.array, job.cancel_when_drained) == (None, 1, None, False)


# ---------------------------------------------------------------- cancelling
def test_cancel_all_that_have_not_ended(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 4)
    system.said = {"101": "ended", "102": "running", "103": "queued"}
    assert [job.number for job in queue.cancel_jobs(dry_run=True)] == [2, 3, 4]
    assert system.cancelled == []
    assert [job.number for job in queue.cancel_jobs()] == [2, 3, 4]
    assert system.cancelled == [["102", "103", "104"]]
    assert [bool(job.cancelled_at) for job in jobs(queue)] == [False, True, True, True]


def test_cancel_some(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 3)
    assert [job.number for job in queue.cancel_jobs([3, 1])] == [1, 3]
    with pytest.raises(InputError, match="queue q has no job 4; `fsqdo jobs q` lists them"):
        queue.cancel_jobs([1, 4])
    assert system.cancelled == [["101", "103"]]


def test_queued_only_asks_the_system_now(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 3)
    system.said = {"101": "queued", "102": "queued"}
    jobs(queue)
    system.said["101"] = "running"
    assert [job.number for job in queue.cancel_jobs(queued_only=True)] == [2], "neither a running nor an unknown one"


def test_a_refusal_to_cancel_is_told(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 1)
    system.cancel = "echo no such user >&2; exit 3"
    with pytest.raises(BatchError, match="fake did not cancel all of jobs 1: exit code 3: no such user"):
        queue.cancel_jobs()
    assert jobs(queue)[0].cancelled_at is None


def test_a_drained_queue_cancels_only_what_was_launched_so_and_waits(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 2, cancel_when_drained=True)
    _launch(queue, 1)
    system.said = {"101": "running", "102": "queued", "103": "queued"}
    assert [job.number for job in cancel_queued(queue.store)] == [2]
    assert cancel_queued(queue.store) == [], "not by each worker that ends"
    assert system.cancelled == [["102"]]


def _do(queue: Queue, env: dict[str, str], code: str = "") -> str:
    """Run `do` in a process where the batch system is what the code makes of it; what it says."""
    program = (
        f"import sys; sys.path.insert(0, {os.getcwd()!r})\n{code}\nfrom fsqdo.cli import main\nsys.exit(main(['do', 'q']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **env}, check=True, capture_output=True, text=True
    )
    return done.stderr


def test_a_worker_of_a_job_that_finds_the_queue_drained_cancels_the_others(queue: Queue, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = f"""
import fsqdo.jobs
from tests.test_jobs import FakeSystem
system = FakeSystem(said={{"101": "running", "102": "queued"}}, cancel="echo cancelled >>{said}")
fsqdo.jobs.get_system = lambda name: system
"""
    for number in (1, 2):
        queue.store.write(f"jobs/{number}.json", json.dumps(_written(number, cancel_when_drained=True)).encode())
    queue.add("true")
    assert "cancelled" not in _do(queue, {}, code)
    assert not said.exists()
    assert "1 job cancelled that waited in the batch system" in _do(queue, {"FSQDO_JOB": "1"}, code)
    assert said.read_text() == "cancelled\n"
    said.unlink()
    assert "cancelled" not in _do(queue, {"FSQDO_JOB": "1", "FSQDO_QUEUE_DIR": "/of/another"}, code)
    assert not said.exists()
    assert [bool(_record(queue, number).get("cancelled_at")) for number in (1, 2)] == [False, True]


# ---------------------------------------------------------------- recover
def _dead_elsewhere(queue: Queue, job: str | None) -> None:
    """A worker of another machine, silent from now on, that holds a task."""
    queue.add("true")
    said = {"worker": "there-1-a", "host": "there", "boot_id": "other", "job": job}
    queue.store.write("running/there-1-a/worker.json", json.dumps(said).encode(), make=True)
    (entry,) = queue.store.entries(fsqdo.State.PENDING)
    queue.store.move(entry.path, f"running/there-1-a/{entry.name.file}")


def test_a_worker_whose_job_has_ended_is_dead(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 1)
    _dead_elsewhere(queue, "1")
    system.said = {"101": "running"}
    assert queue.recover() == []
    cache = queue.store.read(jobcache.CACHE)
    assert cache is not None
    queue.store.unlink(jobcache.CACHE)
    system.said = {"101": "ended"}
    (found,) = queue.recover()
    assert (found.worker, found.tasks) == ("there-1-a", 1)
    assert found.reason == "the batch system says that its job 1 has ended"
    assert queue.status()["ntasks"]["Pending"] == 1


@pytest.mark.parametrize("said", [{}, {"101": "unknown"}, {"101": "queued"}, {"101": "running"}])
def test_not_knowing_is_never_dead(queue: Queue, system: FakeSystem, said: dict[str, str]) -> None:
    _launch(queue, 1)
    _dead_elsewhere(queue, "1")
    system.said = said
    assert queue.recover() == []
    assert queue.status()["ntasks"]["Running"] == 1


@pytest.mark.parametrize("job", [None, "2", "01", "-"])
def test_a_worker_of_no_job_or_another_is_not_judged_by_it(queue: Queue, system: FakeSystem, job: str | None) -> None:
    _launch(queue, 1)
    _dead_elsewhere(queue, job)
    system.said = {"101": "ended"}
    assert queue.recover() == []


def test_the_batch_system_is_asked_once_and_only_when_nothing_else_tells(queue: Queue, system: FakeSystem) -> None:
    _launch(queue, 2)
    assert queue.recover() == []
    assert system.asked == []
    calls = []

    def ended() -> frozenset[str]:
        calls.append(1)
        return ended_jobs(queue.store)

    for worker in ("there-1-a", "there-2-b"):
        said = {"worker": worker, "host": "there", "boot_id": "other", "job": "1"}
        queue.store.write(f"running/{worker}/worker.json", json.dumps(said).encode(), make=True)
    assert recovery.recover(queue.store, observer=Observer(queue.store, ended_jobs=ended)) == []
    assert len(calls) == len(system.asked) == 1


def test_a_refused_job_proves_nothing(queue: Queue, system: FakeSystem) -> None:
    record = _written(1, state="refused", batch_id=None)
    queue.store.write("jobs/1.json", json.dumps(record).encode())
    assert jobs(queue)[0].state is JobState.ENDED
    assert ended_jobs(queue.store) == frozenset()


# ---------------------------------------------------------------- commands
def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsqdo", *words], env=dict(os.environ), check=False, capture_output=True, text=True, cwd="/"
    )


def test_the_commands_with_real_jobs(queue: Queue, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    queue.add(f"read x <{tmp_path}/go")
    assert _run("launch", "q", "1", "--cancel_when_drained").returncode == 0
    (job,) = jobs(queue)
    try:
        head, row = _run("jobs", "q").stdout.splitlines()
        assert head.split()[:8] == ["Job", "State", "Nodes", "Slots", "Workers", "Running", "Succeeded", "Failed"]
        assert row.split()[:4] == ["1", "running", "1", "1"]
        assert _run("cancel-jobs", "q", "--queued-only").stdout == "0 jobs cancelled\n"
        assert _run("cancel_jobs", "q", "1", "--dry-run").stdout.endswith("1 job would be cancelled\n")
        assert _run("cancel-jobs", "q", "2").returncode == 2
    finally:
        done = _run("cancel-jobs", "q", "1")
    assert done.stdout == f"job 1: running, {job.batch_id}\n1 job cancelled\n"
    assert [ended.state for ended in jobs_module.wait_for(queue, [job])] == [JobState.ENDED]
    assert queue.status()["ntasks"]["Succeeded"] == 0
    assert "cancelled; " in _run("jobs", "q").stdout
    assert json.loads(_run("jobs", "q", "--json").stdout)["cancelled_at"]


def test_launch_needs_a_number_or_nodes(queue: Queue) -> None:
    assert _run("launch", "q").returncode == 2
    assert "Missing" not in _run("launch", "q", "1", "--after", "17", "--dry-run").stderr
