"""What the batch systems' commands print: ids and states, from whole cycles on fake commands and from odd text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.batch import BatchSystem, JobSpec, JobState, Reply, get_system
from fsqdo.errors import BatchError
from fsqdo.jobs import UnclearError, run
from tests.fake_batch.fake import COMMANDS

FAKE = Path(__file__).parent / "fake_batch/fake.py"
SYSTEMS = sorted(COMMANDS)
# A job's words for: waits, runs, has ended.
WORDS = {
    "slurm": ("PENDING", "RUNNING", "TIMEOUT"),
    "pbs": ("H", "R", "F"),
    "torque": ("Q", "E", "C"),
    "sge": ("hqw", "dr", "gone"),
    "lsf": ("PEND", "SSUSP", "EXIT"),
    "htcondor": ("5", "2", "4"),
    "flux": ("DEPEND", "CLEANUP", "INACTIVE"),
}


class Fake:
    """The commands of a system on PATH, and the jobs they know."""

    def __init__(self, system: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.system: BatchSystem = get_system(system)
        self._jobs = directory / "jobs.json"
        self._directory = directory
        self._monkeypatch = monkeypatch
        bin_dir = directory / "bin"
        bin_dir.mkdir()
        for command in COMMANDS[system]:
            path = bin_dir / command
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {system} {command} "$@"\n')
            path.chmod(0o755)
        monkeypatch.setenv("FAKE_STATE", str(self._jobs))
        monkeypatch.setenv("PATH", f"{bin_dir}:/usr/local/bin:/usr/bin:/bin")

    def submit(self, array: int | None = None) -> str:
        spec = JobSpec("q-1", "/q", ("worker",), "/q/log", "/", array=array)
        script_path = self._directory / "job script.sh"
        script_path.write_text(self.system.script(spec))
        return self.system.job_id(run(self.system.submit_command(spec, str(script_path))))

    def states(self, *batch_ids: str) -> list[JobState]:
        found = self.system.states(batch_ids, run(self.system.status_command(batch_ids)))
        return [found[batch_id] for batch_id in batch_ids]

    def put(self, *words: str) -> None:
        """Put the jobs, in their order, into these states."""
        jobs = json.loads(self._jobs.read_text())
        for job, word in zip(jobs.values(), words, strict=True):
            job["state"] = word
        self._jobs.write_text(json.dumps(jobs))

    def mode(self, mode: str) -> None:
        self._monkeypatch.setenv("FAKE_MODE", mode)


@pytest.fixture(params=SYSTEMS)
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(request.param, tmp_path, monkeypatch)


def _unknown(fake: Fake, batch_id: str) -> str:
    """An id like this one, of a job that there is not."""
    return batch_id.replace("5", "77", 1)


# ---------------------------------------------------------------- whole cycles
def test_from_submission_to_cancellation(fake: Fake) -> None:
    first, second = fake.submit(), fake.submit()
    assert first != second
    assert fake.states(first, second) == [JobState.QUEUED] * 2
    waits, runs, ended = WORDS[fake.system.name]
    fake.put(runs, waits)
    assert fake.states(first, second) == [JobState.RUNNING, JobState.QUEUED]
    fake.put(ended, runs)
    assert fake.states(first, second) == [JobState.ENDED, JobState.RUNNING]
    # The first one has ended already, which is no error.
    cancelled = run(fake.system.cancel_command([first, second]))
    assert cancelled.returncode == 0, cancelled
    after = fake.states(first, second)
    assert after[0] is JobState.ENDED
    # What is cancelled may run a little longer, but never waits.
    assert after[1] is JobState.ENDED


def test_one_unknown_job_hides_no_other(fake: Fake) -> None:
    known = fake.submit()
    other = _unknown(fake, known)
    states = fake.states(other, known)
    assert states[1] is JobState.QUEUED
    # The docstrings of `states` say why these may know that it has ended.
    gone = fake.system.name in ("slurm", "pbs", "torque", "sge")
    assert states[0] is (JobState.ENDED if gone else JobState.UNKNOWN)
    assert fake.states(other) == states[:1]


@pytest.mark.parametrize("mode", ["fail", "garbage", "empty"])
def test_an_answer_that_is_none_means_unknown(fake: Fake, mode: str) -> None:
    first, second = fake.submit(), fake.submit()
    fake.mode(mode)
    if mode == "empty" and fake.system.name == "sge":
        assert fake.states(first, second) == [JobState.ENDED] * 2  # so does a real one look that has no jobs at all
    else:
        assert fake.states(first, second) == [JobState.UNKNOWN] * 2


@pytest.mark.parametrize("mode", ["garbage", "empty"])
def test_a_submission_without_an_id_is_an_error(fake: Fake, mode: str) -> None:
    fake.mode(mode)
    with pytest.raises(BatchError):
        fake.submit()


def test_a_refused_submission_or_cancellation_tells_so(fake: Fake, tmp_path: Path) -> None:
    batch_id = fake.submit()
    fake.mode("fail")
    spec = JobSpec("q-1", "/q", ("worker",), "/q/log", "/")
    refused = run(fake.system.submit_command(spec, str(tmp_path / "job script.sh")))
    assert refused.returncode != 0 and "cannot connect" in refused.stderr
    refused = run(fake.system.cancel_command([batch_id]))
    assert refused.returncode != 0 and "cannot connect" in refused.stderr


def test_a_system_that_does_not_answer_is_no_answer(fake: Fake) -> None:
    batch_id = fake.submit()
    fake.mode("hang")
    with pytest.raises(UnclearError):
        run(fake.system.status_command([batch_id]), timeout_s=0.3)


def test_a_banner_of_the_site_is_passed_over(fake: Fake) -> None:
    fake.mode("banner")
    batch_id = fake.submit()
    if fake.system.name == "sge":
        assert fake.states(batch_id, "77") == [JobState.QUEUED, JobState.UNKNOWN]
    else:
        assert fake.states(batch_id) == [JobState.QUEUED]


def test_the_elements_of_an_array_are_one_job(fake: Fake) -> None:
    if "array" not in fake.system.options:
        pytest.skip(f"{fake.system.name} has no arrays of batch jobs")
    batch_id = fake.submit(array=3)
    assert fake.states(batch_id) == [JobState.QUEUED]
    fake.put(WORDS[fake.system.name][1])
    assert fake.states(batch_id) == [JobState.RUNNING]


def test_queries_are_rare_and_ask_for_all_at_once(fake: Fake) -> None:
    assert fake.system.poll_s[0] >= 30
    ids = [fake.submit() for _ in range(3)]
    assert fake.states(*ids) == [JobState.QUEUED] * 3


def test_ids_that_are_none_reach_no_command(fake: Fake) -> None:
    hostile = ["", "-x9", "5; touch pwned", "$(x)", "5\n6", "everything", "5 6"]
    assert fake.system.cancel_command(hostile)[-1] in ("true", "cancel")
    assert not set(hostile) & set(fake.system.status_command(hostile))
    states = fake.system.states(hostile, Reply(0, "", ""))
    assert set(states.values()) == {JobState.UNKNOWN}


# ---------------------------------------------------------------- Slurm: is it gone?
@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake("slurm", tmp_path, monkeypatch)


def test_what_slurmctld_has_forgotten_sacct_knows(slurm: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = slurm.submit(), slurm.submit()
    slurm.put("ARCHIVED", "FORGOTTEN")
    monkeypatch.setenv("FAKE_ACCOUNTING", "yes")
    # There is accounting, and it has nothing of the second one: nobody knows.
    assert slurm.states(first, second) == [JobState.ENDED, JobState.UNKNOWN]


@pytest.mark.parametrize(
    ("private", "state"), [("none", "ended"), ("cloud,users", "ended"), ("jobs", "unknown"), ("", "unknown")]
)
def test_without_accounting_absence_counts_where_nothing_is_hidden(
    slurm: Fake, monkeypatch: pytest.MonkeyPatch, private: str, state: str
) -> None:
    batch_id = slurm.submit()
    slurm.put("FORGOTTEN")
    monkeypatch.setenv("FAKE_PRIVATE", private)
    assert slurm.states(batch_id) == [JobState(state)]
    assert slurm.states(batch_id.partition(";")[0]) == [JobState.UNKNOWN]  # of which cluster is not known


def test_elements_of_one_array_in_several_states() -> None:
    system = get_system("slurm")
    lines = {
        "5|COMPLETED\n5|PENDING\n": "queued",
        "5|COMPLETED\n5|RUNNING\n5|PENDING": "running",
        "5|FAILED\n5|COMPLETED": "ended",
        "5|COMPLETED\n5|REVOKED": "unknown",
        "5|COMPLETED\n5|RUNN": "unknown",
        "": "unknown",
    }
    for said, state in lines.items():
        assert system.states(["5"], Reply(0, said)) == {"5": JobState(state)}


# ---------------------------------------------------------------- ids
@pytest.mark.parametrize(
    ("system", "printed", "expected"),
    [
        ("slurm", "123\n", "123"),
        ("slurm", "123;cluster-1\n", "123;cluster-1"),
        ("slurm", "sbatch: lua: your account was set\n123\n", "123"),
        ("slurm", "Submitted batch job 123\n", "123"),
        ("pbs", "123.server\n", "123.server"),
        ("pbs", "123[].server.example.org\n", "123[].server.example.org"),
        ("pbs", "Job will be charged to 2024.\n\n 7.s \n", "7.s"),
        ("torque", "123[].server\n", "123[].server"),
        ("sge", "7\n", "7"),
        ("sge", "7.1-3:1\n", "7"),
        ("sge", 'Your job 7 ("x") has been submitted\n', "7"),
        ("sge", 'Your job-array 7.1-10:1 ("x y") has been submitted\n', "7"),
        ("lsf", "Job <5> is submitted to queue <q>.\n", "5"),
        ("lsf", "warning: <project> is missing\nJob <5> is submitted to default queue <normal>.\n", "5"),
        ("lsf", "El trabajo <5> se ha enviado a la cola <normal>.\n", "5"),
        ("htcondor", "5.0 - 5.3\nhost login.example\n", "5@login.example"),
        ("htcondor", "5.0\nhost h\n", "5@h"),
        ("flux", "ƒ2oLkTLb\n", "ƒ2oLkTLb"),
        ("flux", "f2oLkTLb\n", "f2oLkTLb"),
    ],
)
def test_the_id_is_found(system: str, printed: str, expected: str) -> None:
    assert get_system(system).job_id(Reply(0, printed)) == expected


@pytest.mark.parametrize(
    ("system", "printed"),
    [
        ("slurm", "123\n124\n"),
        ("slurm", "job 123\n"),
        ("slurm", "-1\n"),
        ("pbs", "1.a\n2.a\n"),
        ("pbs", "qsub: done\n"),
        ("sge", "Unable to run job\n"),
        ("sge", "7.1\n"),
        ("lsf", "Job <x> is submitted to queue <q>.\n"),
        ("lsf", "Job <5> and <6>\nJob <7> is submitted to queue <q>.\nJob <8> is submitted to queue <q>.\n"),
        ("htcondor", "5.0 - 6.3\nhost h\n"),
        ("htcondor", "5.0 - 5.3\n"),
        ("flux", "flux-batch: ERROR\n"),
        ("flux", "ƒ0OIl\n"),
    ],
)
def test_what_could_be_several_or_none_is_an_error(system: str, printed: str) -> None:
    with pytest.raises(BatchError, match=r"printed|did not end well"):
        get_system(system).job_id(Reply(0, printed))


# ---------------------------------------------------------------- any text at all
IDS = {
    "slurm": "5;fake", "pbs": "5.s", "torque": "5.s", "sge": "5", "lsf": "5", "htcondor": "5@h", "flux": "ƒ5",
}  # fmt: skip
PIECES = [
    *IDS.values(), "|", "<", ">", "(", "-----", "[]", "4", "0.5", "R", "F", "RUNNING", "DONE", "EXIT", "INACTIVE", "RUN", "é",
    "history", "queue", "qw", "Job", " ", "\n", "\t", "\r", "Job Id: ", "    job_state = ", "11/22/2026 23:52:59",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=40)


@pytest.mark.parametrize("system", SYSTEMS)
@given(stdout=TEXT, stderr=TEXT, code=st.sampled_from([0, 1, 255]))
def test_no_text_is_too_odd(system: str, stdout: str, stderr: str, code: int) -> None:
    answers = get_system(system)
    asked = [IDS[system], "nothing like an id"]
    states = answers.states(asked, Reply(code, stdout, stderr))
    assert list(states) == asked
    assert states["nothing like an id"] is JobState.UNKNOWN
    if states[IDS[system]] is JobState.ENDED:
        # Something must have said so: a word for it, or a listing that came whole (Grid Engine).
        said = any(word in stdout + stderr for word in ("F", "DONE", "EXIT", "INACTIVE", "history", "Unknown Job Id"))
        assert said or (system == "sge" and code == 0 and not stderr.strip())
    try:
        answers.job_id(Reply(code, stdout, stderr))
    except BatchError:
        pass


def test_a_job_of_two_states_is_unknown_to_pbs() -> None:
    """A variable with line breaks in it can look like another job."""
    said = "Job Id: 5.s\n    job_state = R\n    Variable_List = A=\nJob Id: 5.s\n    job_state = F\n"
    assert get_system("pbs").states(["5.s"], Reply(0, said)) == {"5.s": JobState.UNKNOWN}
