"""Launching by need: real jobs of the profile local, a batch system that refuses or whose jobs die, limits, lock, commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fsqdo
from fsqdo import autoscale as autoscale_module
from fsqdo import jobs as jobs_module
from fsqdo import launch as launch_module
from fsqdo import scaleguard
from fsqdo.autoscale import Limits, Scaled, autoscale, may_chain, permit, watch
from fsqdo.batch import JobSpec, JobState, Reply
from fsqdo.batch.local import Local
from fsqdo.cli.group import group
from fsqdo.config import Config, Profile
from fsqdo.demand import Demand, TaskTime
from fsqdo.errors import BatchError, InputError
from fsqdo.jobs import jobs, wait_for
from fsqdo.queue import Queue
from fsqdo.scaleguard import failures
from tests.terminal import CHECKOUT

CLUSTER = Profile("big", "stub", cores_per_node=8, max_walltime_s=3600, max_nodes=4, max_jobs=6)
CONFIG = Config("/nowhere", "big", {"big": CLUSTER, "local": Profile("local", "local")})


class Stub(Local):
    """A batch system that says what a test has it say; its jobs never run."""

    name = "stub"
    options = frozenset(["walltime", "nodes"])

    def __init__(self) -> None:
        self.refuse = ""
        self.said: dict[str, JobState] = {}
        self.specs: list[JobSpec] = []

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        self.specs.append(spec)
        if self.refuse:
            return ["/bin/sh", "-c", 'echo "$0" >&2; exit 1', self.refuse]
        return ["/bin/echo", f"id{spec.name.rpartition('-')[2]}"]

    def job_id(self, reply: Reply) -> str:
        return reply.stdout.strip()

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        return ["/bin/true"]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        return {batch_id: self.said.get(batch_id, JobState.QUEUED) for batch_id in batch_ids}

    def all_end(self) -> None:
        self.said = {f"id{number}": JobState.ENDED for number in range(1, 1000)}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    system = Stub()
    for module in (launch_module, jobs_module):
        monkeypatch.setattr(module, "get_system", lambda name: Local() if name == "local" else system)
    return system


@pytest.fixture
def queue(root: Path) -> Queue:
    return fsqdo.create("q")


@pytest.fixture
def ended(queue: Queue) -> Iterator[None]:
    """What a test launched for real has ended when the test has."""
    yield
    wait_for(queue, jobs(queue), 60)


def scale(queue: Queue, **options: Any) -> Scaled:
    return autoscale(queue, config=CONFIG, **options)


def worked(queue: Queue, number: int, lines: int = 1) -> None:
    """A worker of this job, with so many lines in its journal after the first."""
    said = json.dumps({"worker": f"h-{number}-a", "job": str(number)}) + "\n"
    line = '{"name":"000000001","outcome":"succeeded","to":"x","elapsed_s":60.0,"ended_at":"2999-01-01T00:00:00Z"}\n'
    Path(queue.directory, "outcomes", f"h-{number}-a.jsonl").write_text(said + line * lines)


# ---------------------------------------------------------------- launching
@pytest.mark.usefixtures("ended")
def test_local_jobs_do_the_work(queue: Queue) -> None:
    queue.add_multiple(["true"] * 5)
    scaled = autoscale(queue)
    (job,) = scaled.jobs
    assert 1 <= job.slots <= 5 and "launched 1 job" in scaled.summary
    wait_for(queue, scaled.jobs, 60)
    assert queue.status()["ntasks"]["Succeeded"] == 5
    again = autoscale(queue)
    assert not again.jobs and again.drained and "drained" in again.summary


@pytest.mark.usefixtures("ended")
def test_local_jobs_take_no_more_than_the_free_cores(queue: Queue) -> None:
    cores = len(os.sched_getaffinity(0))
    release = Path(queue.directory, "..", "release")
    queue.add_multiple([f"until test -e {release}; do sleep 0.05; done"] * (3 * cores), time_request_s=3600)
    try:
        first = autoscale(queue, limits=Limits(most=1))
        assert [job.slots for job in first.jobs] == [1]
        second = autoscale(queue)
        assert [job.slots for job in second.jobs] == ([cores - 1] if cores > 1 else [])
        third = autoscale(queue)
        assert not third.jobs and not third.stopped
    finally:
        release.touch()


def test_jobs_get_the_shape_and_what_is_there_counts(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 1000, time_request_s=600)
    planned = scale(queue, dry_run=True)
    assert planned.jobs and queue.jobs() == [] and stub.specs
    stub.specs.clear()
    first = scale(queue)
    assert len(first.jobs) == len(planned.jobs) <= 6
    assert first.summary.removeprefix("launched") == planned.summary.removeprefix("would launch")
    spec = stub.specs[-1]
    assert spec.walltime_s is not None and 600 < spec.walltime_s <= 3600
    assert all(job.slots % 8 == 0 for job in first.jobs)
    more = [scale(queue) for _ in range(8)]
    assert not more[-1].jobs  # enough there, or as many as are permitted
    assert len(queue.jobs()) <= 6


def test_nothing_for_waiting_or_paused_tasks(queue: Queue, stub: Stub) -> None:
    assert scale(queue).drained
    first = queue.add("true")
    queue.add_multiple(["true"] * 50, requires=first)
    queue.pause()
    paused = scale(queue)
    assert not paused.jobs and not paused.drained and "paused" in paused.summary
    queue.resume()
    (job,) = scale(queue).jobs
    assert job.slots == 8  # one node for the one that is ready


def test_the_explanation_has_the_numbers(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 40, time_request_s=300)
    said = "\n".join(scale(queue, dry_run=True).explanation)
    for words in ("ready: 40 tasks", "their time requests", "12000 core s", "missing", "shape: ", "node hours useful", "not "):
        assert words in said


def test_more_is_wanted_than_the_limits_permit(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 5000, time_request_s=1200)
    assert len(scale(queue, limits=Limits(max_jobs=2, nodes=2, walltime="30:00")).jobs) == 2
    assert {(spec.nodes, spec.walltime_s) for spec in stub.specs} >= {(stub.specs[-1].nodes, 1800)}
    refused = scale(queue, limits=Limits(max_jobs=2))
    assert not refused.jobs and "2 jobs of profile big are there already, 2 are permitted" in refused.summary


def test_options_reach_the_worker(queue: Queue, stub: Stub) -> None:
    queue.add({"a": 1})
    scale(queue, script="echo {a}; 'x", timeout=5)
    assert "--script=echo {a}; 'x" in stub.specs[-1].command and "--timeout=5" in stub.specs[-1].command


def test_tasks_that_fit_nowhere_are_refused_with_the_arithmetic(queue: Queue, stub: Stub) -> None:
    queue.add("true", time_request_s=7200)
    with pytest.raises(InputError) as caught:
        scale(queue)
    assert "2:00:00" in str(caught.value) and "1:00:00" in str(caught.value)


# ---------------------------------------------------------------- limits
def test_what_the_profile_does_not_say_is_assumed_and_said() -> None:
    bare = Profile("bare", "slurm")
    permitted, notes = permit(bare, Limits(), Demand(1))
    assert (permitted.max_nodes, permitted.max_walltime_s, permitted.max_jobs) == (1, 86400, 10)
    assert all(any(word in note for note in notes) for word in ("cores_per_node", "max_walltime", "max_nodes", "max_jobs"))


def test_the_users_limits_only_narrow_the_profiles() -> None:
    wide = Limits(max_nodes=99, max_walltime="99:00:00", max_jobs=99, node_hours=2, finish_by_s=60)
    permitted, _ = permit(CLUSTER, wide, Demand(1, tasks=(TaskTime(1.0),)))
    assert (permitted.max_nodes, permitted.max_walltime_s, permitted.max_jobs) == (4, 3600, 6)
    assert (permitted.area_s, permitted.finish_by_s) == (7200, 60)
    narrow, _ = permit(CLUSTER, Limits(max_nodes=2, max_walltime=10, max_jobs=1, walltime=5, nodes=2, most=3), Demand(1))
    assert (narrow.max_nodes, narrow.max_walltime_s, narrow.max_jobs, narrow.max_slots) == (2, 300, 1, 3)
    assert (narrow.node_counts(), narrow.walltimes()) == ([2], [300])


@pytest.mark.parametrize(
    "wrong", [{"most": 0}, {"max_jobs": True}, {"node_hours": 0}, {"finish_by_s": float("nan")}, {"nodes": "2"}]
)
def test_limits_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Limits(**wrong)


# ---------------------------------------------------------------- the forecast
def test_slurm_is_asked_without_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "said"
    fake = tmp_path / "sbatch"
    line = "sbatch: Job 5 to start at 2026-01-01T10:00:00 using 1 processors on nodes n1"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\necho "{line}" >&2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(autoscale_module.time, "time", lambda: 0.0)
    hostile = Profile("s", "slurm", account="a b", queue="$(touch x)", directives=("--qos='x y'",))
    ask = autoscale_module._forecast(hostile, {"batchopts": ["--mail-user=me"]})
    assert ask is not None and (ask(2, 90) or 0) > 1e9
    assert said.read_text().splitlines() == [
        "--test-only", "--nodes=2", "--time=2", "--account=a b", "--partition=$(touch x)", "--qos=x y", "--mail-user=me",
        "--wrap=true",
    ]  # fmt: skip
    fake.write_text(f"#!/bin/sh\necho again >> {said}\nexit 1\n")
    said.unlink()
    assert ask(2, 90) is None and ask(1, 90) is None and said.read_text() == "again\n"  # not asked again
    assert autoscale_module._forecast(Profile("p", "pbs"), {}) is None


# ---------------------------------------------------------------- stopping
def test_after_three_refusals_it_stops_until_told(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 10)
    stub.refuse = "no such account"
    for _ in range(3):
        with pytest.raises(BatchError, match="no such account"):
            scale(queue)
    submitted = len(stub.specs)
    stub.refuse = ""
    stopped = scale(queue)
    assert "no such account" in stopped.stopped and "--reset" in stopped.summary
    assert scale(queue).stopped and len(stub.specs) == submitted
    assert scale(queue, dry_run=True, reset=True).jobs and scale(queue).stopped  # a dry run forgives nothing
    assert scale(queue, reset=True).jobs
    assert json.loads(Path(queue.directory, "jobs", "autoscale.json").read_text()) == {"forgiven": 3}


def test_after_three_jobs_that_died_at_once_it_stops_until_one_works(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 10)
    for _ in range(3):
        assert scale(queue).jobs
        stub.all_end()
    stopped = scale(queue)
    assert not stopped.jobs and "job 3 ended and no worker came of it" in stopped.stopped
    queue.launch(1, config=CONFIG)
    stub.all_end()
    assert scale(queue).stopped  # that one died, too
    queue.launch(1, config=CONFIG)
    worked(queue, 5)
    stub.all_end()
    assert scale(queue).jobs


def test_workers_that_begin_nothing_count_as_dead_unless_others_worked(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 10)
    for number in (1, 2, 3):
        assert scale(queue).jobs
        worked(queue, number, lines=0)
        stub.all_end()
    assert "without having begun a task" in scale(queue).stopped
    worked(queue, 99)  # a worker of none of these jobs: it may have left nothing for them
    assert not scale(queue).stopped


def test_what_waits_or_was_cancelled_is_no_failure(queue: Queue, stub: Stub) -> None:
    queue.add_multiple(["true"] * 10)
    for _ in range(3):
        queue.launch(1, config=CONFIG)
    assert failures(queue.store, queue.jobs()) == []
    stub.all_end()
    assert len(failures(queue.store, queue.jobs())) == 3
    path = Path(queue.directory, "jobs", "2.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "cancelled_at": "2026-01-01T00:00:00Z"}))
    assert failures(queue.store, queue.jobs()) == []
    assert failures(queue.store, queue.jobs(), forgiven=2) == []


# ---------------------------------------------------------------- two at once
def test_a_second_autoscaler_does_nothing_while_one_is_at_work(
    queue: Queue, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add_multiple(["true"] * 10)
    inner: list[Scaled] = []
    real = launch_module.launch

    def meanwhile(*args: Any, **options: Any) -> Any:
        inner.append(scale(queue))
        return real(*args, **options)

    monkeypatch.setattr(autoscale_module, "launch", meanwhile)
    assert len(scale(queue).jobs) == 1
    assert [one.jobs for one in inner] == [()] and "another autoscaler" in inner[0].summary
    assert queue.store.names("locks") == []
    assert len(queue.jobs()) == 1 and not scale(queue).jobs  # and the next one counts what is there


def test_at_the_turn_of_a_span_the_later_one_yields(queue: Queue) -> None:
    lock = scaleguard.one_at_a_time
    with lock(queue.store, lambda: 599.9) as first:
        assert first
        with lock(queue.store, lambda: 600.1) as second:
            assert not second
    # Both made their names before either listed: one of them goes on.
    listed = scaleguard._spans
    seen: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        answers = iter([[], [1, 2], [], [1, 2]])
        patch.setattr(scaleguard, "_spans", lambda store, span: next(answers))
        for at in (599.9, 600.1):
            with lock(queue.store, lambda at=at: at) as held:
                seen.append(held)
    assert seen == [True, False] and listed(queue.store, 1) == []


def test_a_lock_that_was_left_lapses(queue: Queue) -> None:
    assert queue.store.claim_name("locks/autoscale.5")
    lock = scaleguard.one_at_a_time
    with lock(queue.store, lambda: 5 * 300.0 + 1) as same, lock(queue.store, lambda: 6 * 300.0) as following:
        assert not same and not following
    with lock(queue.store, lambda: 7 * 300.0) as later:
        assert later
    assert queue.store.names("locks") == []


# ---------------------------------------------------------------- again and again
def test_watching_goes_on_over_trouble_and_ends_with_the_queue() -> None:
    looks: Iterator[Scaled | BatchError] = iter(
        [Scaled((), "nothing"), Scaled((), "nothing"), BatchError("refused"), BatchError("refused"), Scaled((), "nothing"),
         Scaled((), "the end", drained=True)]
    )  # fmt: skip
    said: list[str] = []
    waits: list[bool] = []

    def look() -> Scaled:
        found = next(looks)
        if isinstance(found, BatchError):
            raise found
        return found

    watch(look, lambda scaled: said.append(scaled.summary), said.append, lambda: bool(waits.append(True)))
    assert said == ["nothing", "refused", "nothing", "the end"] and len(waits) == 5


def test_watching_ends_when_it_is_told() -> None:
    said: list[str] = []
    watch(lambda: Scaled((), "nothing"), lambda scaled: said.append(scaled.summary), said.append, lambda: True)
    assert said == ["nothing"]


# ---------------------------------------------------------------- the commands
def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(group, list(words), catch_exceptions=True)
    return done.exit_code, done.stdout, done.stderr


def fsqdo_program(*words: str) -> list[str]:
    return [sys.executable, "-m", "fsqdo", *words]


@pytest.mark.usefixtures("ended")
def test_the_commands_explain_and_launch(queue: Queue) -> None:
    queue.add_multiple(["true"] * 3)
    code, out, err = run("launch", "q", "--auto", "--dry-run")
    assert code == 0 and "ready: 3 tasks" in out and "would launch 1 job" in err and queue.jobs() == []
    assert run("autoscale", "q", "--dry-run")[1] == out
    code, out, _ = run("launch", "q", "1", "--shape", "auto")
    (job,) = queue.jobs()
    assert code == 0 and out == f"1 {job.batch_id}\n" and job.slots == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch", "q"], "Missing argument 'N'"),
        (["launch", "q", "--auto", "--pack"], "--pack and --auto exclude each other"),
        (["launch", "q", "--auto", "--runtime", "5"], "--runtime and --auto"),
        (["launch", "q", "--auto", "--wait"], "--watch"),
        (["autoscale", "q", "--watch", "--interval", "29"], "at least 30 s"),
    ],
)
def test_usage(queue: Queue, words: list[str], said: str) -> None:
    code, _, err = run(*words)
    assert code == 2 and said in err


def test_watching_a_drained_queue_ends_at_once(queue: Queue) -> None:
    code, out, err = run("autoscale", "q", "--watch")
    assert (code, out) == (0, "") and "drained" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_watching(queue: Queue, number: signal.Signals) -> None:
    queue.add("true")
    queue.pause()
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(fsqdo_program("autoscale", "q", "--watch"), env=env, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stderr is not None
        assert "paused" in watcher.stderr.readline()
        watcher.send_signal(number)
        assert watcher.wait(60) == 0


@pytest.mark.parametrize(
    ("why", "goes_on"),
    [
        ("its time is over", True),
        ("stopped by SIGUSR1", True),
        ("3 tasks are left that do not fit this worker", True),
        ("the queue is drained", False),
        ("told to drain", False),
        ("stopped by SIGTERM", False),
        ("no task for 5 s", False),
        ("it started 3 tasks, as many as it may", False),
    ],
)
def test_when_a_worker_chains(why: str, goes_on: bool) -> None:
    assert may_chain(why) is goes_on


@pytest.mark.usefixtures("ended")
def test_a_worker_whose_time_is_over_launches_the_next_one(queue: Queue) -> None:
    marker = Path(queue.directory, "..", "second")
    # The first attempt outlasts its worker; the second one finds the marker and ends.
    queue.add(f"test -e {marker} || {{ touch {marker}; exec sleep 600; }}")
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        fsqdo_program("do", "q", "--runtime", "3", "--chain"), env=env, capture_output=True, text=True, check=True, timeout=120
    )
    assert "its time is over" in done.stderr and "launched 1 job" in done.stderr
    wait_for(queue, queue.jobs(), 60)
    assert queue.status()["ntasks"]["Succeeded"] == 1


def test_a_worker_without_chain_and_one_that_drained_launch_nothing(queue: Queue) -> None:
    queue.add("true")
    assert run("do", "q", "--chain")[0] == 0
    queue.add("true")
    assert run("do", "q", "--runtime", "0")[0] == 0
    assert queue.jobs() == []


def test_what_goes_wrong_while_chaining_is_said_and_no_more(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSQDO_CONFIG", "/nowhere/config.yaml")
    queue.add("true")
    code, _, err = run("do", "q", "--runtime", "0", "--chain")
    assert code == 0 and "nothing was launched to go on" in err and "/nowhere/config.yaml" in err
