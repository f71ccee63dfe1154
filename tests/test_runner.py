"""The runner on real processes: what a command finds, how its end is recorded, what is left of it."""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsqdo import spawn
from fsqdo.runner import BusyError, Ended, Run, Spawner, SpawnError, exit_or_signal

HANG_S = 30.0


def until_ended(run: Run) -> Ended:
    """Wait as a worker does, without its signals: the deadline only guards against a hang."""
    deadline = time.monotonic() + HANG_S
    pause = select.poll()
    while (ended := run.poll()) is None:
        assert time.monotonic() < deadline, "the command did not end"
        pause.poll(1)
    return ended


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    pause = select.poll()
    while not condition():
        assert time.monotonic() < deadline
        pause.poll(1)


def state_of(pid: int) -> str:
    """State letter of a process; "" when there is none. Orphans may stay zombies where nobody is there to wait for them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


class Bench:
    """A spawner and a log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "slot.log"
        self.log_fd = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.spawner = Spawner()

    def start(self, command: str, env: dict[str, str] | None = None, cwd: str | None = None) -> Run:
        return self.spawner.start(command, self.log_fd, env, cwd)

    def run(self, command: str, env: dict[str, str] | None = None, cwd: str | None = None) -> tuple[Ended, str]:
        before = os.fstat(self.log_fd).st_size
        ended = until_ended(self.start(command, env, cwd))
        return ended, self.path.read_bytes()[before:].decode(errors="replace")

    def script(self, name: str, text: str, mode: int = 0o755) -> str:
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def python(self, text: str) -> str:
        """A command without shell syntax that runs this program."""
        return f"{shlex.quote(sys.executable)} -IS {self.script('program.py', text)}"


@pytest.fixture(params=["posix_spawn", "subprocess"])
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Once with posix_spawn, once as in a Python whose posix_spawn makes no sessions. Brings the current directory back."""
    monkeypatch.chdir(tmp_path)
    if request.param == "subprocess":

        def unavailable(*args: object, **options: object) -> int:
            raise NotImplementedError("setsid is not supported on this system")

        monkeypatch.setattr(os, "posix_spawn", unavailable)
    bench = Bench(tmp_path)
    yield bench
    os.close(bench.log_fd)


# --- how it ended


@pytest.mark.parametrize(
    ("command", "exit_code", "number"),
    [
        ("true", 0, None),
        ("/bin/true", 0, None),
        ("/bin/false", 1, None),
        ("exit 7", 7, None),
        ("exit 126", 126, None),
        ("exit 127", 127, None),
        ("exit 128", 128, None),
        ("exit 130", None, 2),
        ("exit 137", None, 9),
        ("exit 192", None, 64),
        ("exit 193", 193, None),
        ("exit 255", 255, None),
        ("kill -KILL $$", None, 9),
        ("kill -SEGV $$", None, 11),
        ("sh -c 'kill -TERM $$'; exit $?", None, 15),
        ("no-such-program-anywhere", 127, None),
        ("no-such-program-anywhere | cat; no-such-program-anywhere", 127, None),
        ("./no/such/program", 127, None),
        ("/etc/passwd", 126, None),
        ("/", 126, None),
        ("/etc", 126, None),
        ("-x", 127, None),
        ("+x --version", 127, None),
        ("if", 2, None),
        (":", 0, None),
        ("# only a comment", 0, None),
    ],
)
def test_exit_code_and_signal(bench: Bench, command: str, exit_code: int | None, number: int | None) -> None:
    ended, _ = bench.run(command)
    assert (ended.exit_code, ended.signal) == (exit_code, number)
    assert ended.succeeded == (exit_code == 0)
    assert ended.reason is None


def test_exit_or_signal_of_every_code() -> None:
    for code in range(256):
        exit_code, number = exit_or_signal(code)
        assert (exit_code, number) == ((None, code - 128) if 128 < code <= 192 else (code, None))
    assert exit_or_signal(-9) == (None, 9)


@pytest.mark.parametrize("way", ["{}", "{};", "env {}"])
def test_a_program_that_dies_of_a_signal_is_recorded_the_same_either_way(bench: Bench, way: str) -> None:
    program = bench.python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    ended, _ = bench.run(way.format(program))
    assert (ended.exit_code, ended.signal) == (None, 15)


def test_scripts_that_sh_must_judge(bench: Bench) -> None:
    assert bench.run(bench.script("plain", "echo ran by $0\nexit 3\n"))[0].exit_code == 3
    assert bench.run(bench.script("empty", ""))[0].exit_code == 0
    broken = bench.script("broken", "#!/no/such/interpreter\n")
    expected = subprocess.run(["sh", "-c", broken], stderr=subprocess.DEVNULL, check=False).returncode
    assert bench.run(broken)[0].exit_code == expected in (126, 127)
    assert bench.run(bench.script("unexecutable", "#!/bin/sh\n", 0o644))[0].exit_code == 126


def test_not_found_is_said_in_the_log(bench: Bench) -> None:
    ended, text = bench.run("no-such-program-anywhere")
    assert ended.exit_code == 127
    assert "no-such-program-anywhere" in text
    assert "not found" in text


def test_what_it_used(bench: Bench) -> None:
    ended, _ = bench.run(bench.python("x = bytearray(60_000_000)\nfor i in range(300_000): i * i\n"))
    assert ended.cpu_s > 0.01
    assert ended.max_rss_kb > 55_000
    assert 0 < ended.elapsed_s < HANG_S


def test_the_end_stays_the_same_when_asked_again(bench: Bench) -> None:
    run = bench.start("exit 4")
    ended = until_ended(run)
    assert run.poll() is ended
    run.terminate()
    run.kill()
    assert run.wait_fd is None


def test_an_exit_status_taken_by_somebody_else_is_no_success(bench: Bench) -> None:
    run = bench.start("/bin/true")
    os.waitpid(run.pid, 0)
    ended = until_ended(run)
    assert not ended.succeeded
    assert ended.reason is not None


# --- what it finds


@pytest.mark.parametrize("suffix", ["", ";"])
def test_session_group_stdin_and_signals(bench: Bench, suffix: str) -> None:
    program = bench.python(
        "import os\n"
        f"print(os.getsid(0) == os.getpgrp() != {os.getpgrp()}, os.readlink('/proc/self/fd/0'))\n"
        "print(*os.listdir('/proc/self/fd'))\n"
        "print(*[l for l in open('/proc/self/status') if l.startswith('SigBlk')])\n"
    )
    given = {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_inheritable(fd)}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    leak = os.open("/etc/passwd", os.O_RDONLY)
    try:
        ended, text = bench.run(program + suffix)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        os.close(leak)
    assert ended.succeeded, text
    first, fds, mask = text.splitlines()[:3]
    assert first == "True /dev/null"
    # One is the descriptor of the listing itself. None of the worker's own is inherited, only what it was itself started with.
    assert len(set(map(int, fds.split())) - {0, 1, 2} - given) == 1
    assert int(mask.split()[1], 16) == 0


def test_no_signal_is_ignored_in_the_child(bench: Bench) -> None:
    ended, text = bench.run("/bin/grep SigIgn /proc/self/status")
    assert ended.succeeded
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not int(text.split()[1], 16) & 1 << (number - 1)
    ended, text = bench.run("yes | head -n 1")
    assert (ended.exit_code, text) == (0, "y\n")


def test_sigint_ignored_by_the_worker_is_not_ignored_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended, text = bench.run("/bin/grep SigIgn /proc/self/status")
    finally:
        signal.signal(signal.SIGINT, old)
        os.close(bench.log_fd)
    assert ended.succeeded
    ignored = int(text.split()[1], 16)
    # Not asked: 32 and 33, which belong to the C library and which it ignores in whatever it spawns.
    assert [number for number in signal.valid_signals() if ignored & 1 << (number - 1)] == []


def test_output_is_appended_to_the_log(bench: Bench) -> None:
    os.write(bench.log_fd, b"before\n")
    bench.run("echo out; echo err >&2")
    with open(bench.path, "ab") as other:
        other.write(b"between\n")
    bench.run("/bin/echo direct")
    assert bench.path.read_text() == "before\nout\nerr\nbetween\ndirect\n"


def test_environment(bench: Bench) -> None:
    env = {"FSQDO_TASK_ID": "17", "TEXT": "a b'\"\nü", "EMPTY": ""}
    program = bench.python(
        "import os; print(ascii([os.environ[k] for k in ('FSQDO_TASK_ID', 'TEXT', 'EMPTY')]), 'HOME' in os.environ)"
    )
    for command in (program, program + ";"):
        ended, text = bench.run(command, env)
        assert ended.succeeded, text
        assert text == ascii(["17", env["TEXT"], ""]) + " True\n"
    assert "FSQDO_TASK_ID" not in bench.run("env")[1]


def test_path_of_the_task_is_the_one_that_counts(bench: Bench) -> None:
    for name in ("one", "two"):
        (bench.directory / name).mkdir()
        bench.script(f"{name}/which-one", f"#!/bin/sh\necho {name}\n")
    for name in ("one", "two", "one"):
        path = f"{bench.directory / name}:{os.environ['PATH']}"
        assert bench.run("which-one a", {"PATH": path})[1] == f"{name}\n"
    (bench.directory / "one" / "which-one").unlink()  # remembered, and gone: sh finds the other
    both = f"{bench.directory / 'one'}:{bench.directory / 'two'}:{os.environ['PATH']}"
    assert bench.run("which-one a", {"PATH": both})[1] == "two\n"
    assert bench.run("which-one a", {"PATH": f"two::{os.environ['PATH']}"})[1] == "two\n"


def test_functions_exported_by_bash_go_through_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASH_FUNC_module%%", "() { echo loaded; }")
    spawner = Spawner()
    assert spawner._words("module load gcc") is None
    assert spawner._words("modules load gcc") == ["modules", "load", "gcc"]


# --- where it runs


def test_directory(bench: Bench) -> None:
    one, two = bench.directory / "one", bench.directory / "zwei ü\n"
    for directory in (one, two):
        directory.mkdir()
    home = os.getcwd()
    program = bench.python("import os; print(ascii([os.getcwd(), os.environ['PWD']]))")
    for cwd in (None, str(one), str(one), str(two), None, "one"):
        where = home if cwd is None else str(bench.directory / cwd)
        for command in (program, program + ";"):
            assert bench.run(command, cwd=cwd)[1] == ascii([where, where]) + "\n"


def test_a_missing_directory_is_the_attempt_s_failure(bench: Bench) -> None:
    missing = str(bench.directory / "missing")
    with pytest.raises(SpawnError) as caught:
        bench.start("/bin/true", cwd=missing)
    assert caught.value.message == f"the directory {missing} it is to run in does not exist"
    assert caught.value.task_exit_code is None
    with pytest.raises(SpawnError, match=r"cannot be entered: Not a directory"):
        bench.start("/bin/true", cwd=bench.script("file", ""))
    assert bench.run("/bin/pwd")[1] == f"{bench.directory}\n"
    os.mkdir(missing)
    assert bench.run("/bin/pwd", cwd=missing)[1] == f"{missing}\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every directory")
def test_a_directory_without_permission(bench: Bench) -> None:
    closed = bench.directory / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(SpawnError, match=r"cannot be entered: Permission denied"):
        bench.start("/bin/true", cwd=str(closed))


def test_a_directory_that_was_replaced_is_noticed(bench: Bench) -> None:
    place = bench.directory / "place"
    place.mkdir()
    bench.run("/bin/true", cwd=str(place))
    place.rename(bench.directory / "moved")
    bench.spawner._here_until = 0.0  # a second later
    with pytest.raises(SpawnError, match="does not exist"):
        bench.start("/bin/true", cwd=str(place))


# --- hostile commands


_HOSTILE_LIST = "a;b a=b {a,b} [a] $HOME `id` ü 日本語 -n -- \\n ' \" \\ * ? ~ # ! % ^ & | < > ( )"
_HOSTILE_WORDS = [*_HOSTILE_LIST.split(), "", " ", "a b", "\n", "\t", "\r", "\x01", "\u3000", "\xa0", "\u2028"]


@pytest.mark.parametrize("word", _HOSTILE_WORDS)
def test_words_arrive_as_quoted(bench: Bench, word: str) -> None:
    program = bench.python("import sys; print(ascii(sys.argv[1:]))")
    ended, text = bench.run(f"{program} {shlex.quote(word)} end")
    assert ended.succeeded, text
    assert text == ascii([word, "end"]) + "\n"


def test_small_scripts_of_several_lines(bench: Bench) -> None:
    ended, text = bench.run("set -e\nfor i in 1 2\ndo\n  echo $i\ndone\ncat <<E\nhere\nE\nfalse\necho never\n")
    assert (ended.exit_code, text) == (1, "1\n2\nhere\n")


@pytest.mark.parametrize("memory", [True, False])
def test_a_command_longer_than_an_argument_may_be(bench: Bench, memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    words = "abcdefghi " * 20_000
    ended, text = bench.run(f"echo {words}ü | wc -c; echo $0; exit 5")
    assert (ended.exit_code, text.split()) == (5, ["200003", "sh"])
    # Many words are no problem for a direct start, one long word is for everybody.
    ended, text = bench.run(f"{bench.python('import sys; print(len(sys.argv))')} {words}")
    assert (ended.exit_code, text) == (0, "20001\n")
    assert bench.run(f"/bin/true {'x' * 200_000}")[0].exit_code == 126


def test_an_environment_that_is_too_long(bench: Bench) -> None:
    with pytest.raises(SpawnError, match="environment") as caught:
        bench.start("/bin/true", {"LONG": "x" * 200_000})
    assert caught.value.task_exit_code == 126


@pytest.mark.parametrize(
    ("command", "env"), [("echo \0", {}), ("true", {"A=B": "c"}), ("true", {"A": "\0"}), ("echo \ud800", {})]
)
def test_what_no_program_can_be_given_is_refused(bench: Bench, command: str, env: dict[str, str]) -> None:
    with pytest.raises(SpawnError, match="cannot be given") as caught:
        bench.start(command, env)
    assert caught.value.task_exit_code == 126


# --- the machine is short of something


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_short_shortage_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(tmp_path)
    bench, real, failures = Bench(tmp_path), os.posix_spawn, [number, number]

    def short(*args: object, **options: object) -> int:
        if failures:
            raise OSError(failures.pop(), "short")
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "posix_spawn", short)
    assert bench.run("/bin/true")[0].succeeded
    failures.extend([number] * 100)
    with pytest.raises(BusyError):
        bench.start("/bin/true")
    assert len(failures) == 100 - len(spawn._BUSY_DELAYS_S) - 1  # not tried again by way of the shell
    os.close(bench.log_fd)


def test_no_shell_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "SHELL", str(bench.directory / "no-sh"))
    with pytest.raises(SpawnError, match="no-sh: No such file") as caught:
        bench.start("exit 1")
    assert caught.value.task_exit_code == 126


# --- stopping, and what is left behind


@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000; true", "sleep 1000 & sleep 1000"])
def test_terminate_and_kill_reach_the_group(bench: Bench, command: str) -> None:
    for stop, number in ((Run.terminate, 15), (Run.kill, 9)):
        run = bench.start(command)
        assert run.poll() is None
        stop(run)
        ended = until_ended(run)
        assert (ended.exit_code, ended.signal) == (None, number)


def test_a_command_may_catch_the_termination(bench: Bench) -> None:
    run = bench.start("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    until(lambda: "ready" in bench.path.read_text())
    run.terminate()
    assert until_ended(run).exit_code == 3
    assert "caught" in bench.path.read_text()


def test_what_a_command_leaves_in_its_group_is_killed(bench: Bench) -> None:
    ended, text = bench.run("sleep 1000 & echo $!; trap '' TERM; sleep 1000 & echo $!; exit 6")
    assert ended.exit_code == 6
    for pid in map(int, text.split()):
        until(lambda pid=pid: state_of(pid) in ("", "Z", "X"))  # type: ignore[misc]


def test_sigchld_tells_when_to_poll(bench: Bench) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    old_fd = signal.set_wakeup_fd(writing)
    old = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        run = bench.start("exit 9")
        assert select.select([reading], [], [], HANG_S)[0]
        ended = run.poll()
        assert ended is not None
        assert ended.exit_code == 9
    finally:
        signal.signal(signal.SIGCHLD, old)
        signal.set_wakeup_fd(old_fd)
        os.close(reading)
        os.close(writing)


# --- directly or by sh: the same outcome


def test_which_commands_need_no_shell() -> None:
    words = Spawner()._words
    assert words(" /bin/prog  -a --b=c,d\te:f@g%h+ 1.5 ") == ["/bin/prog", "-a", "--b=c,d", "e:f@g%h+", "1.5"]
    shell = [
        "A=b prog",
        "echo a",
        "test 1",
        "[ a ]",
        "cd /",
        "time ls",
        "exec ls",
        "{ ls",
        "! ls",
        "%1",
        "-x",
        " -x",
        "ls ü",
        "",
    ]
    for command in shell + [f"ls a{c}b" for c in "\n\r\v\f\0'\"\\~#*?[]{}$`&|;<>()!^\x7f\x1c\xa0"]:
        assert words(command) is None, command


# Nothing here can do harm, whatever follows it, and no word can become a command.
_PROGRAMS = ["ls", "/bin/ls", "expr", "cat", "true", "echo", "test", "printf", "basename", "nope", "./nope", "/", "if", "."]
_ODD_LIST = r"-a -- - + = a=b / /nope 1 2 -1 %d a:b x@y ~ * $x ' \ #"
_WORDS = st.one_of(
    st.sampled_from([*_ODD_LIST.split(), "", "'q r'"]),
    st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters="<>&|;`$("), max_size=5),
    st.text(st.characters(codec="utf-8", exclude_characters="\0<>&|;`$(\n"), max_size=3),
)


@settings(max_examples=150)
@given(program=st.sampled_from(_PROGRAMS), words=st.lists(_WORDS, max_size=3))
def test_direct_and_shell_agree(tmp_path_factory: pytest.TempPathFactory, program: str, words: list[str]) -> None:
    bench = Bench(tmp_path_factory.mktemp("agree"))
    directory = bench.directory / "here"  # not where the log is, which `*` would find
    directory.mkdir()
    (directory / "file").write_text("content\n")
    command = " ".join([program, *words])
    home = os.getcwd()
    try:
        ended, text = bench.run(command, cwd=str(directory))
        shell = subprocess.run(
            ["sh", "-c", command],
            executable="/bin/sh",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
            env={**os.environ, "PWD": str(directory)},
            check=False,
        )
    finally:
        os.chdir(home)
        os.close(bench.log_fd)
    assert (ended.exit_code, ended.signal) == exit_or_signal(shell.returncode)
    assert text == shell.stdout.decode(errors="replace")
