"""Launching: what is written before a job runs, real jobs of the profile local, and hostile values on the way into a script."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import fsqdo
from fsqdo import jobs as jobs_module
from fsqdo import launch as launch_module
from fsqdo.batch import BatchSystem, JobSpec, JobState, Reply, get_system, render
from fsqdo.batch.local import Local
from fsqdo.config import Config, Profile
from fsqdo.errors import BatchError, ConfigError, InputError, StorageError
from fsqdo.jobs import Job, UnclearError, jobs, run, wait_for
from fsqdo.launch import Launched, launch
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from fsqdo.store.system import System
from fsqdo.workerwords import fsqdo_command

LOCAL = Config(dir="/nowhere", default_profile="local", profiles={"local": Profile("local", "local")})
HOSTILE = [
    "a b",
    "a'b",
    'a"b',
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb",
    "{{command}}",
    "-n",
    "*",
    "~",
    "a\\",
    "ü",
    "#",
    "",
    " ",
]


@dataclass(frozen=True)
class FakeQueue:
    """The part of a queue that launching needs."""

    store: Store

    @property
    def name(self) -> str:
        return os.path.basename(self.store.directory)

    @property
    def directory(self) -> str:
        return self.store.directory


@pytest.fixture
def queue(store: Store) -> FakeQueue:
    return FakeQueue(store)


@pytest.fixture
def started() -> Iterator[list[Job]]:
    """Jobs that a test started for real; what is left of them is ended by their ids."""
    found: list[Job] = []
    yield found
    left = [job.batch_id for job in found if job.batch_id]
    run(Local().cancel_command(left))
    states = Local().states(left, run(Local().status_command(left)))
    for batch_id in left:
        if states[batch_id] is JobState.RUNNING:
            os.kill(int(batch_id.partition(".")[0]), 9)


class FakeSystem(Local):
    """The script of `local`, and commands that a test chooses."""

    name = "fake"

    def __init__(self, submit: str, status: str = "exit 1") -> None:
        self.submit, self.status, self.asked = submit, status, 0

    def submit_command(self, spec: JobSpec, script_path: str) -> list[str]:
        return ["/bin/sh", "-c", self.submit, "submit", script_path, spec.queue_dir]

    def job_id(self, reply: Reply) -> str:
        if not reply.stdout.strip().isdigit():
            raise BatchError(f"{reply.stdout!r} holds no job id")
        return reply.stdout.strip()

    def status_command(self, batch_ids: Sequence[str]) -> list[str]:
        self.asked += 1
        return ["/bin/sh", "-c", self.status, "status", *batch_ids]

    def states(self, batch_ids: Sequence[str], reply: Reply) -> dict[str, JobState]:
        said = dict(line.split() for line in reply.stdout.splitlines())
        return {name: JobState(said[name]) for name in batch_ids if name in said}


def _use(monkeypatch: pytest.MonkeyPatch, system: BatchSystem) -> BatchSystem:
    for module in (launch_module, jobs_module):
        monkeypatch.setattr(module, "get_system", lambda name: system)
    return system


def _launch(queue: FakeQueue, n: int, command: str = "exec sleep 600", **options: Any) -> Launched:
    return launch(queue, n, config=LOCAL, worker_command=("/bin/sh", "-c", command), **options)


def _record(queue: FakeQueue, number: int) -> dict[str, Any]:
    record = json.loads(queue.store.read(f"jobs/{number}.json") or b"")
    assert isinstance(record, dict)
    return record


def _log_when_ended(queue: FakeQueue, job: Job) -> str:
    assert [ended.state for ended in wait_for(queue, [job])] == [JobState.ENDED]
    return Path(job.log_path).read_text()


# ---------------------------------------------------------------- the plan
@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (3, {}, [1, 1, 1]),
        (3, {"slots": 1}, [1, 1, 1]),
        (8, {"slots": 4}, [4, 4]),
        (9, {"slots": 4}, [4, 4, 1]),
        (3, {"slots": 4}, [3]),
        (24, {"pack": True}, [24]),
        (24, {"pack": True, "slots": 2}, [24]),
        (24, {"pack": True, "jobs": 2}, [24, 24]),
        (24, {"jobs": 2}, [24, 24]),
        (3 * len(os.sched_getaffinity(0)), {"slots": "auto"}, [len(os.sched_getaffinity(0))] * 3),
    ],
)
def test_n_is_tasks_at_once(queue: FakeQueue, n: int, options: dict[str, Any], expected: list[int]) -> None:
    assert [job.slots for job in _launch(queue, n, dry_run=True, **options)] == expected


@pytest.mark.parametrize(
    ("n", "options"),
    [(0, {}), (-1, {}), (True, {}), (1.0, {}), ("3", {}), (1, {"slots": 0}), (1, {"slots": "many"}), (10**9, {}),
     (1, {"pack": True, "jobs": 0}), (None, {}), (None, {"pack": True})],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_refused(queue: FakeQueue, n: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        _launch(queue, n, **options)
    assert queue.store.names("jobs") == []


def test_the_plan_is_told(queue: FakeQueue) -> None:
    assert _launch(queue, 9, slots=4, dry_run=True).plan == (
        "2 jobs with one worker of 4 slots and 1 job with one worker of 1 slot: 9 tasks at once; profile local (local)"
    )


# ---------------------------------------------------------------- options
def _worker_words(queue: FakeQueue, **options: Any) -> list[str]:
    (job,) = launch(queue, 1, config=LOCAL, dry_run=True, **options)
    words = shlex.split(job.script.splitlines()[-1])
    assert words[0] == "exec"
    assert words[1:3] == list(fsqdo_command())
    return words[3:]


def test_the_worker_is_do_with_its_options(queue: FakeQueue) -> None:
    assert _worker_words(queue) == ["do", "q", "-j", "1"]
    assert _worker_words(queue, script="-x {a} 'b'", func="m:f", timeout=0, runtime_s=1234567.5) == [
        "do", "q", "-j", "1", "--script=-x {a} 'b'", "--func=m:f", "--timeout=0", "--runtime=1234567.5",
    ]  # fmt: skip


def test_the_shorter_of_walltime_and_runtime_counts(queue: FakeQueue) -> None:
    assert _worker_words(queue, walltime="30:00")[-1] == "--runtime=1800"
    assert _worker_words(queue, walltime="30:00", runtime_s=60)[-1] == "--runtime=60"
    assert _worker_words(queue, walltime="1:00", runtime_s=90)[-1] == "--runtime=60"


@pytest.mark.parametrize("name", ["cores_per_worker", "workers_per_node", "nodes"])
def test_options_that_size_a_job_ask_for_packing(queue: FakeQueue, name: str) -> None:
    options: dict[str, Any] = {name: 8}
    launched = _launch(queue, 256, dry_run=True, **options)
    assert [job.slots for job in launched] == [256]
    assert launched.notes == [f"--{name.replace('_', '-')} has no effect on profile local (system local)"]


def test_batch_options_are_accepted_and_said_to_have_no_effect(queue: FakeQueue) -> None:
    launched = _launch(queue, 1, dry_run=True, batchqueue="debug", batchopts=("-A m1",), keep_env=True, walltime="0:30:00")
    assert launched.notes == [
        "--batchqueue has no effect on profile local (system local)",
        "--batchopts has no effect on profile local (system local)",
        "--keep-env has no effect on profile local (system local)",
        "--walltime on profile local (system local) is kept by the workers themselves: they end after 0:30:00, by --runtime",
    ]


def test_options_that_were_not_given_are_not_spoken_of(queue: FakeQueue) -> None:
    assert _launch(queue, 1, dry_run=True, batchqueue=None, batchopts=(), keep_env=False, nodes=None).notes == []


def test_an_unknown_option_is_refused_with_the_nearest(queue: FakeQueue) -> None:
    with pytest.raises(InputError, match=r"no option 'batchque'.*did you mean 'batchqueue'"):
        _launch(queue, 1, batchque="x")
    assert queue.store.names("jobs") == []


@pytest.mark.parametrize(
    "options",
    [{"func": len}, {"script": " "}, {"script": "a\0"}, {"timeout": -1}, {"timeout": float("nan")}, {"runtime_s": 0},
     {"walltime": "never"}, {"profile": "nowhere"}, {"script": "\ud800"}],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_starts_and_writes_nothing(queue: FakeQueue, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        launch(queue, 1, config=LOCAL, **options)
    assert queue.store.names("jobs") == []


def test_a_dry_run_shows_what_would_be_and_writes_nothing(queue: FakeQueue, started: list[Job]) -> None:
    shown = _launch(queue, 2, "true", dry_run=True)
    assert queue.store.names("jobs") == queue.store.names("logs") == []
    assert [job.number for job in shown] == [1, 2]
    done = _launch(queue, 2, "true")
    started += done
    assert [(job.command, job.script) for job in shown] == [(job.command, job.script) for job in done]


def test_the_worker_command_is_this_fsqdo_whatever_lies_in_the_current_directory(tmp_path: Path) -> None:
    for name in ("random", "queue", "token", "fsqdo"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this module hides another')\n")
    said = subprocess.run([*fsqdo_command(), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


# ---------------------------------------------------------------- scripts
def _spec(directory: str, **changes: Any) -> JobSpec:
    spec = JobSpec(name="j", queue_dir="/q", command=("true",), output_path="/q/log", directory=directory)
    return replace(spec, **changes)


def _said_by(spec: JobSpec, cwd: str) -> list[str]:
    """What a script's worker, which prints its words and V, says."""
    said = subprocess.run(["/bin/sh", "-c", Local().script(spec)], cwd=cwd, capture_output=True, check=True)
    assert said.stderr == b""
    assert not os.path.exists(f"{cwd}/pwned")
    return os.fsdecode(said.stdout).split("\0")[:-1]


_PRINT = ("/bin/sh", "-c", 'printf "%s\\0" "$PWD" "$V" "$@"', "print")
_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@hypothesis_settings(max_examples=60)
@given(_texts, st.lists(_texts, max_size=3))
@example("$(touch pwned)\n", HOSTILE)
@example("'; touch pwned; '", ["\n#"])
def test_any_text_reaches_the_worker_unchanged(value: str, words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as cwd:
        spec = _spec(cwd, command=(*_PRINT, *words), env={"V": value})
        assert _said_by(spec, cwd) == [cwd, value, *words]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.strip()])
def test_a_hostile_directory_is_only_a_directory(tmp_path: Path, name: str) -> None:
    cwd = tmp_path / name
    cwd.mkdir()
    assert _said_by(_spec(str(cwd), command=_PRINT, env={"V": ""}), str(tmp_path)) == [str(cwd), ""]


@pytest.mark.parametrize(
    "changes",
    [{"name": "a\nb"}, {"name": "a\rb"}, {"name": "a\u2028b"}, {"name": "a\0"}, {"command": ()}, {"command": ("a\0",)},
     {"env": {"A B": "c"}}, {"env": {"A\n": "c"}}, {"env": {"": "c"}}, {"env": {"A": "\0"}}, {"directory": "here"},
     {"output_path": "log"}, {"queue_dir": ""}, {"prologue": ("a\0",)}],
)  # fmt: skip
def test_what_no_script_can_hold_is_refused(changes: dict[str, Any]) -> None:
    spec = _spec("/")
    with pytest.raises(InputError):
        replace(spec, **changes)


def test_the_script_reads_like_its_template() -> None:
    spec = _spec(
        "/my dir", name="fsqdo-q-1", env={"A": "1", "B": "x y"}, prologue=("ulimit -c 0", "umask 7"), command=("w", "a b")
    )
    assert Local().script(spec).splitlines()[3:] == [
        "cd -- '/my dir' || exit 1",
        "export A=1",
        "export B='x y'",
        "ulimit -c 0",
        "umask 7",
        "exec w 'a b'",
    ]
    bare = Local().script(_spec("/"))
    assert bare.splitlines()[0] == "#!/bin/sh"
    assert bare.splitlines()[3:] == ["cd -- / || exit 1", "exec true"]


def test_the_shell_script_beside_the_module_is_sound() -> None:
    script = Local().submit_command(_spec("/"), "/x")[1]
    subprocess.run(["/bin/sh", "-n", script], check=True)
    assert run(["/bin/sh", script, "dance"]).returncode == 1


def test_lines_of_unset_variables_fall_away() -> None:
    assert (
        render("a {{x}}\nb {{y}} {{x}}\nc {{z}}\n{{z}}{{x}}", {"x": "1", "y": None, "z": ["p", "q"]}) == "a 1\nc p\nc q\np1\nq1"
    )
    assert render("{{z}}\n", {"z": []}) == ""


def test_values_are_not_filled_in_again() -> None:
    assert render("{{x}} {{y}}", {"x": "{{y}}", "y": "{{x}}"}) == "{{y}} {{x}}"


def test_unknown_variables_are_all_named_with_their_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        render("{{a}}\n{{x}}\n{{b}}", {"x": ""})
    assert caught.value.problems == [
        "line 1: there is no variable 'a'; there are x",
        "line 3: there is no variable 'b'; there are x",
    ]


# ---------------------------------------------------------------- real jobs
def test_local_jobs_run_in_sessions_of_their_own(queue: FakeQueue, started: list[Job]) -> None:
    started += _launch(queue, 3)
    assert [job.number for job in started] == [1, 2, 3]
    assert [job.state for job in jobs(queue)] == [JobState.RUNNING] * 3
    pids = [int((job.batch_id or "").partition(".")[0]) for job in started]
    assert [(os.getsid(pid), os.getpgid(pid)) for pid in pids] == [(pid, pid) for pid in pids]
    assert [os.readlink(f"/proc/{pid}/fd/0") for pid in pids] == ["/dev/null"] * 3

    reply = run(Local().cancel_command([started[0].batch_id or "", started[2].batch_id or ""]))
    assert (reply.returncode, reply.stderr) == (0, "")
    assert [job.state for job in wait_for(queue, [started[0], started[2]])] == [JobState.ENDED] * 2
    assert [job.state for job in jobs(queue)] == [JobState.ENDED, JobState.RUNNING, JobState.ENDED]
    assert run(Local().cancel_command([started[0].batch_id or ""])).returncode == 0, "an ended job is no error"


def test_a_job_knows_its_number_and_inherits_no_ignored_signal(queue: FakeQueue, started: list[Job], tmp_path: Path) -> None:
    config = replace(LOCAL, profiles={"local": Profile("local", "local", {"A": "it's"}, ("B=$A; export B",))})
    command = 'echo "$FSQDO_JOB $FSQDO_DIR $B"; pwd; grep SigIgn /proc/$$/status; echo oops >&2; exec "$@"'
    started += launch(queue, 1, config=config, worker_command=("/bin/sh", "-c", command, "sh", "true"))
    first, directory, ignored, last = _log_when_ended(queue, started[0]).splitlines()
    assert (first, directory, last) == (f"1 {tmp_path}/queues it's", os.getcwd(), "oops")
    # 32 and 33 are glibc's own signals, which its posix_spawn leaves ignored in whoever make or Python started. What was
    # ignored before Python came (under nohup SIGHUP) no shell can undo; what Python ignores for itself nobody else is to.
    before = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN] + [32, 33]
    ours = {signal.SIGPIPE, signal.SIGXFSZ}
    assert int(ignored.removeprefix("SigIgn:"), 16) & ~sum(1 << (n - 1) for n in before if n not in ours) == 0


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.strip()])
def test_queues_in_hostile_directories_are_launched(tmp_path: Path, started: list[Job], name: str) -> None:
    (tmp_path / name).mkdir()
    queue = FakeQueue(create(str(tmp_path / name / "q"), Settings()))
    started += _launch(queue, 1, 'printf "%s" "$FSQDO_DIR"; ls "$FSQDO_DIR"/q/jobs')
    assert _log_when_ended(queue, started[0]) == f"{tmp_path}/{name}1.json\n1.sh\n"
    assert sorted(os.listdir(tmp_path)) == sorted(["home", name])


def test_launch_can_wait_for_its_jobs(queue: FakeQueue) -> None:
    launched = _launch(queue, 2, "echo done", wait=True)
    assert [job.state for job in launched] == [JobState.ENDED] * 2
    assert [Path(job.log_path).read_text() for job in launched] == ["done\n"] * 2


def test_wait_for_follows_a_job_to_its_end(queue: FakeQueue, started: list[Job], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    started += _launch(queue, 1, f"read line <{tmp_path}/go; echo $line")
    assert [job.state for job in wait_for(queue, started, timeout_s=0)] == [JobState.RUNNING]
    with ThreadOf(lambda: (tmp_path / "go").write_text("now\n")):
        assert _log_when_ended(queue, started[0]) == "now\n"


class ThreadOf:
    """A thread that lives as long as a with block."""

    def __init__(self, target: Any) -> None:
        self._thread = threading.Thread(target=target)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def test_a_script_that_fails_at_once_is_an_ended_job_with_a_log(queue: FakeQueue, started: list[Job]) -> None:
    config = replace(LOCAL, profiles={"local": Profile("local", "local", {}, ("exit 3",))})
    started += launch(queue, 1, config=config, worker_command=("true",))
    assert _log_when_ended(queue, started[0]) == ""
    started += _launch(queue, 1, "no-such-program")
    assert "no-such-program" in _log_when_ended(queue, started[1])


def test_the_workers_of_launch_do_the_tasks(tmp_path: Path, started: list[Job]) -> None:
    queue = fsqdo.create("real")
    queue.add_multiple(["echo $FSQDO_QUEUE", "true", "true"])
    started += launch(queue, 2, config=LOCAL, wait=True)
    assert [job.state for job in started] == [JobState.ENDED] * 2
    assert queue.status()["ntasks"]["Succeeded"] == 3
    assert sorted(os.listdir(tmp_path / "queues/real/jobs")) == ["1.json", "1.sh", "2.json", "2.sh"]


# ---------------------------------------------------------------- ids of the profile local
@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def _start_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _place() -> str:
    return f"{Path('/proc/sys/kernel/hostname').read_text().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"


def _local_state(batch_id: str) -> JobState:
    return Local().states([batch_id], run(Local().status_command([batch_id])))[batch_id]


def test_a_recycled_pid_is_never_the_job(sleeper: subprocess.Popen[bytes]) -> None:
    start = _start_of(sleeper.pid)
    assert _local_state(f"{sleeper.pid}.{start}@{_place()}") is JobState.RUNNING
    earlier = f"{sleeper.pid}.{start - 1}@{_place()}"
    assert _local_state(earlier) is JobState.ENDED
    assert run(Local().cancel_command([earlier])).returncode == 0
    assert sleeper.poll() is None


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _local_state(f"{child.pid}.{_start_of(child.pid)}@{_place()}") is JobState.ENDED
    child.wait()


def test_a_pid_that_is_gone_has_ended() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert _local_state(f"{child.pid}.1@{_place()}") is JobState.ENDED


@pytest.mark.parametrize("place", ["another-host:1", "localhost"])
def test_a_pid_elsewhere_is_unknown_and_not_signalled(sleeper: subprocess.Popen[bytes], place: str) -> None:
    batch_id = f"{sleeper.pid}.{_start_of(sleeper.pid)}@{place}"
    assert _local_state(batch_id) is JobState.UNKNOWN
    reply = run(Local().cancel_command([batch_id]))
    assert reply.returncode == 1
    assert f"job {batch_id} is not on this machine" in reply.stderr
    assert sleeper.poll() is None


def test_names_of_processes_confuse_nobody(tmp_path: Path) -> None:
    program = tmp_path / "x) S 1 (y"
    program.symlink_to("/bin/sh")
    child = subprocess.Popen([program, "-c", "read x; true"], stdin=subprocess.PIPE)
    assert _local_state(f"{child.pid}.{_start_of(child.pid)}@{_place()}") is JobState.RUNNING
    child.communicate()


@pytest.mark.parametrize(
    "batch_id", ["", "1", "0.1@h:1", "1.1@", "a.1@h", "1.1@h h", "$(touch pwned)", "-1.5@h:1", "../..", "1.1@h\n"]
)
def test_an_id_that_is_none_is_unknown_and_reaches_no_command(batch_id: str) -> None:
    assert len(Local().status_command([batch_id])) == len(Local().cancel_command([batch_id])) == 3
    assert _local_state(batch_id) is JobState.UNKNOWN


@pytest.mark.parametrize("printed", ["", "12", "12.5", "sh: not found", "12.5@h:1 extra", "12.5@h:1\n13.5@h:1"])
def test_an_answer_without_an_id_is_refused(printed: str) -> None:
    with pytest.raises(BatchError):
        Local().job_id(Reply(0, printed))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("1.2@h:3 S 2", JobState.RUNNING),
        ("1.2@h:3 R 2\n", JobState.RUNNING),
        ("1.2@h:3 Z 2", JobState.ENDED),
        ("1.2@h:3 S 3", JobState.ENDED),
        ("1.2@h:3 gone", JobState.ENDED),
        ("", JobState.UNKNOWN),
        ("1.2@h:3", JobState.UNKNOWN),
        ("1.2@h:3 S", JobState.UNKNOWN),
        ("1.2@h:3 S x", JobState.UNKNOWN),
        ("1.2@h:4 gone", JobState.UNKNOWN),
        ("\0\n 1.2@h:3", JobState.UNKNOWN),
    ],
)
def test_only_a_clear_answer_means_ended(printed: str, expected: JobState) -> None:
    assert Local().states(["1.2@h:3"], Reply(1, printed)) == {"1.2@h:3": expected}


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(BatchError, match="no batch system 'abacus'"):
        get_system("abacus")


# ---------------------------------------------------------------- records
def test_script_and_record_are_there_before_the_submission(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem('cat "$1" "$2/jobs/1.json" >"$2/tmp/seen"; echo 17'))
    (job,) = _launch(queue, 1)
    assert (job.batch_id, job.system) == ("17", "fake")
    seen = (queue.store.read("tmp/seen") or b"").decode()
    assert seen.startswith(job.script)
    before = json.loads(seen.removeprefix(job.script))
    after = _record(queue, 1)
    assert (before["state"], before["batch_id"], before["submitted_at"]) == ("prepared", None, None)
    assert (after["state"], after["batch_id"]) == ("submitted", "17")
    assert after["submitted_at"] == job.submitted_at
    assert after["command"] == before["command"] == list(job.command)
    assert Path(job.script_path).read_text() == job.script


def test_a_refusal_says_what_was_run_and_what_it_said(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem('case "$1" in */2.sh) echo "account m1 is used up" >&2; exit 4;; esac; echo 17'))
    with pytest.raises(BatchError) as caught:
        _launch(queue, 3)
    message = str(caught.value)
    for part in ("job 2 was not submitted", "/bin/sh -c", "jobs/2.sh", "exit code 4", "account m1 is used up",
                 "1 of 3 jobs were submitted before it", "the profile 'local'"):  # fmt: skip
        assert part in message
    assert "account m1 is used up" in _record(queue, 2)["error"]
    assert [(job.number, job.state, job.batch_id) for job in jobs(queue)] == [
        (1, JobState.UNKNOWN, "17"),
        (2, JobState.ENDED, None),
    ]
    assert wait_for(queue, jobs(queue)[1:])[0].error


@pytest.mark.parametrize("submit", ["echo garbage", "true"])
def test_an_unreadable_answer_may_be_a_running_job(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, submit: str) -> None:
    _use(monkeypatch, FakeSystem(submit))
    with pytest.raises(UnclearError, match="holds no job id"):
        _launch(queue, 1)
    assert _record(queue, 1)["state"] == "unclear"
    assert [job.state for job in jobs(queue)] == [JobState.UNKNOWN]


def test_a_command_that_is_missing_or_silent_is_an_error() -> None:
    with pytest.raises(BatchError, match="no-such-sbatch cannot be run: No such file"):
        run(["no-such-sbatch"])
    with pytest.raises(UnclearError, match=r"sleep did not answer for 0\.01 s"):
        run(["sleep", "600"], timeout_s=0.01)


def test_a_submission_that_cannot_be_recorded_tells_the_id(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem("echo 17"))
    replace_file = queue.store.replace

    def full(relative: str, data: bytes, token: str, *, sync: bool = True) -> None:
        if b'"submitted"' in data:
            raise StorageError(OSError(errno.ENOSPC, ""), "write", relative)
        replace_file(relative, data, token, sync=sync)

    monkeypatch.setattr(queue.store, "replace", full)
    with pytest.raises(BatchError, match=r"was submitted as 17 .* could not be recorded: .*No space left"):
        _launch(queue, 1)


@pytest.mark.parametrize("status", ["exit 1", "echo 1 ended; exec sleep 600", "exit 0"])
def test_a_query_that_fails_means_unknown(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    _use(monkeypatch, FakeSystem('x=${1##*/}; echo "${x%.sh}"', status))
    _launch(queue, 2)
    real_run = launch_module.run
    for module in (launch_module, jobs_module):
        monkeypatch.setattr(module, "run", lambda command: real_run(command, timeout_s=0.2))
    assert [job.state for job in jobs(queue)] == [JobState.UNKNOWN] * 2


def test_a_system_is_asked_once_for_all_its_jobs(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    system = FakeSystem('x=${1##*/}; echo "${x%.sh}"', "echo 1 ended; echo 2 running; echo 3 queued")
    _use(monkeypatch, system)
    _launch(queue, 4)
    assert [str(job.state) for job in jobs(queue)] == ["ended", "running", "queued", "unknown"]
    assert system.asked == 1


def test_a_damaged_record_hides_no_other(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem('x=${1##*/}; echo "${x%.sh}"'))
    _launch(queue, 1)
    for number, text in enumerate([b"", b"{", b"[]", b"{}", b'{"system": 3}', b"\xff", b"[" * 100_000], 2):
        queue.store.write(f"jobs/{number}.json", text)
    queue.store.write("jobs/notes.txt", b"")
    found = jobs(queue)
    assert [job.number for job in found] == list(range(1, 9))
    assert found[0].error is None
    assert [job.error for job in found[1:]] == [
        f"{queue.directory}/jobs/{n}.json is not the record of a job" for n in range(2, 9)
    ]
    json.dumps([job.to_json() for job in found])


def test_a_job_of_a_system_from_elsewhere_is_unknown(queue: FakeQueue, started: list[Job]) -> None:
    started += _launch(queue, 1)
    queue.store.write("jobs/2.json", json.dumps({**_record(queue, 1), "number": 2, "system": "abacus"}).encode())
    assert [job.state for job in jobs(queue)] == [JobState.RUNNING, JobState.UNKNOWN]


def test_jobs_name_their_workers(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem("echo 17"))
    _launch(queue, 2)
    for worker, text in (("here-1-a", '{"job": "1"}'), ("here-2-b", '{"job": 2}'), ("here-3-c", "{}"), ("here-4-d", "torn")):
        queue.store.write(f"running/{worker}/worker.json", text.encode(), make=True)
    queue.store.write("outcomes/gone-5-e.jsonl", b'{"worker":"gone-5-e","job":"1"}\n{"name":"000000001"}\n')
    queue.store.write("outcomes/gone-6-f.jsonl", b'{"name":"000000001","outcome":"succeeded"}\n')
    assert [job.workers for job in jobs(queue)] == [("here-1-a", "gone-5-e"), ("here-2-b",)]


def test_a_queue_without_jobs_has_none(queue: FakeQueue) -> None:
    assert jobs(queue) == []


# ---------------------------------------------------------------- numbers
def test_numbers_are_never_used_twice(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem("echo 17"))
    _launch(queue, 1)
    queue.store.write("jobs/9.sh", b"")  # somebody was killed when they had the number
    assert [job.number for job in _launch(queue, 2)] == [10, 11]


def test_launchers_at_the_same_time_take_different_numbers(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakeSystem("echo 17"))
    start = threading.Barrier(4)
    numbers: list[int] = []

    def one() -> None:
        start.wait()
        numbers.extend(job.number for job in _launch(queue, 5))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))
    assert sorted(_record(queue, number)["number"] for number in numbers) == sorted(numbers)


def test_a_name_is_claimed_once(store: Store) -> None:
    assert store.claim_name("jobs/1.sh")
    assert not store.claim_name("jobs/1.sh")


def test_a_claim_whose_answer_is_lost_leaves_a_gap_and_nothing_else(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, seam: System
) -> None:
    _use(monkeypatch, FakeSystem("echo 17"))
    claims = 0

    def once_lost(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal claims
        fd = os.open(path, flags, mode)
        if flags & os.O_EXCL:
            claims += 1
            if claims == 1:
                os.close(fd)
                raise FileExistsError(errno.EEXIST, "", path)
        return fd

    vars(seam)["open"] = once_lost
    assert [job.number for job in _launch(queue, 2)] == [2, 3]
    assert queue.store.names("jobs") == ["1.sh", "2.json", "2.sh", "3.json", "3.sh"]


def test_a_name_that_cannot_be_claimed_is_an_error(store: Store, seam: System) -> None:
    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        raise OSError(errno.ENOSPC, "", path)

    vars(seam)["open"] = refuse
    with pytest.raises(StorageError, match="No space left"):
        store.claim_name("jobs/1.sh")


def test_the_package_is_found_where_the_worker_looks() -> None:
    assert fsqdo_command() == (sys.executable, os.path.dirname(launch_module.__file__))
