"""The command line, through the real program on real files: every form that users of qdo type, and every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo.cli import main
from fsqdo.cli.add import Progress
from fsqdo.cli.commands import COMMANDS, help_text
from fsqdo.cli.options import read_duration_s
from fsqdo.cli.output import printable
from fsqdo.cli.work import plain_options
from fsqdo.cli.workers import do_command
from fsqdo.errors import InputError
from fsqdo.store.system import System

HANG_S = 60
CHECKOUT = Path(fsqdo.__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "fsqdo"]
Done = subprocess.CompletedProcess[str]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def run(
    *words: object,
    text: str | None = None,
    program: list[str] | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> Done:
    """Run the program to its end; its input is `text`."""
    return subprocess.run(
        [*(program or PROGRAM), *map(str, words)],
        check=False,
        input=text,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env=env or _environment(),
        cwd=cwd,
    )


def ok(*words: object, text: str | None = None) -> str:
    """Run the program, which must succeed; what it wrote to stdout."""
    done = run(*words, text=text)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def refused(code: int, *words: object, text: str | None = None) -> str:
    """Run the program, which must end with this exit code and a message; the message."""
    done = run(*words, text=text)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    last = [line for line in done.stderr.splitlines() if not line.startswith("  ")][-1]
    assert last.startswith("fsqdo: "), done.stderr
    return done.stderr


def counts(queue: str = "Blat") -> dict[str, int]:
    return dict(fsqdo.connect(queue).status()["ntasks"])


@pytest.fixture
def blat(root: Path) -> Callable[..., fsqdo.Queue]:
    """Make a queue Blat of commands, and do them if asked."""

    def make(*commands: str, do: bool = False) -> fsqdo.Queue:
        queue = fsqdo.connect("Blat", create_ok=True)
        queue.add_multiple(commands)
        if do:
            queue.do(report=lambda text: None)
        return queue

    return make


# ---------------------------------------------------------------- help
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_command_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.split("\n")[2].strip() in COMMANDS[name][1] and said.startswith(f"Usage: fsqdo {name} ")
    example = said.partition("\n  Example:\n")[2].strip().splitlines()
    assert example and all(re.match(rf" *(.*\| )?fsqdo {name}\b", line) for line in example)
    assert COMMANDS[name][1] in " ".join(said.split())


def test_help_of_the_program() -> None:
    said = ok("--help")
    assert said == ok("-h") == ok() == help_text() + "\n"
    assert all(re.search(rf"^  {name} +{re.escape(line)}$", said, re.MULTILINE) for name, (_, line) in COMMANDS.items())
    assert max(map(len, said.splitlines())) < 80
    assert run("-v", "--help").stdout == said


@pytest.mark.parametrize("words", [["--help"], ["status", "Blat"]])
def test_short_commands_import_little(words: list[str], root: Path) -> None:
    fsqdo.create("Blat")
    code = f"import sys; from fsqdo.cli import main; main({words}); print(*sys.modules)"
    modules = set(run("-c", code, program=[sys.executable]).stdout.splitlines()[-1].split())
    assert not modules & {"click", "yaml", "logging", "subprocess", "asyncio", "fsqdo.worker", "fsqdo.runner", "fsqdo.launch"}


def test_a_command_imports_only_its_own_module(root: Path) -> None:
    code = "import sys; from fsqdo.cli import main; main(['create', 'Blat']); print(*sys.modules)"
    modules = run("-c", code, program=[sys.executable]).stdout.split()
    assert {m for m in modules if m.startswith("fsqdo.cli.")} == {
        f"fsqdo.cli.{m}" for m in ("commands", "group", "options", "output", "queues")
    }
    assert not {"yaml", "logging", "fsqdo.worker", "fsqdo.launch"} & set(modules)


def test_version() -> None:
    assert ok("--version") == fsqdo.__version__ + "\n"


def test_the_program_runs_from_a_checkout(tmp_path: Path) -> None:
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    link = tmp_path / "elsewhere" / "fsqdo"
    link.parent.mkdir()
    link.symlink_to(CHECKOUT / "bin" / "fsqdo")
    assert os.access(link, os.X_OK)
    for program in ([sys.executable, str(link)], [sys.executable, str(CHECKOUT / "fsqdo")]):
        assert run("add", "Blat", "true", program=program, env=bare, cwd=tmp_path).stdout.strip().isdigit()


def test_the_installed_program() -> None:
    installed = shutil.which("fsqdo", path=os.path.dirname(sys.executable))
    if installed is not None:
        assert run("--help", program=[installed]).stdout == help_text() + "\n"


def test_completion_names_commands_and_queues(root: Path) -> None:
    fsqdo.create("Blat")
    for typed, at, expected in (("fsqdo stat", 1, "status"), ("fsqdo status Bl", 2, "Blat")):
        env = {**_environment(), "_FSQDO_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(at)}
        assert run(env=env).stdout == f"plain,{expected}\n"


# ---------------------------------------------------------------- add and load
def test_add_creates_the_queue_and_prints_the_id() -> None:
    assert ok("add", "Blat", "analyze blat.dat") == "1\n"
    assert ok("add", "Blat", "analyze blat.dat") == "2\n"
    assert ok("tasks", "Blat").splitlines()[1:] == ["Pending    analyze blat.dat"] * 2


def test_add_takes_every_task_option(tmp_path: Path) -> None:
    ok("add", "Blat", "true")
    ok("add", "--requires", "1", "Blat", "--priority", -5, "x", "--requires=1", "--after", "1-1", "--max_retries", 2,
       "--time-limit", "1:30:00", "--time_request", "90", "--cores", 2, "--gpus", 1, "--mem_mb", 100, "--name", "n",
       "--tag", "a", "--tag", "b", "--env", "A=1", "--env", "B=x=y", "--cwd", tmp_path)  # fmt: skip
    task = json.loads(ok("show", "Blat", 2, "--json"))
    expected = {
        "id": 2, "task": "x", "state": "Waiting", "priority": -5, "requires": ["1"], "after": ["1"], "max_retries": 2,
        "time_limit_s": 5400, "time_request_s": 90, "cores": 2, "gpus": 1, "mem_mb": 100, "name": "n", "tags": ["a", "b"],
        "env": {"A": "1", "B": "x=y"}, "cwd": str(tmp_path),
    }  # fmt: skip
    assert {key: task.get(key) for key in expected} == expected


def test_add_json() -> None:
    assert ok("add", "Blat", "--json", '{"a": 1,\n "b": "x y"}') == "1\n"
    assert ok("add", "Blat", "--json", '{"task": {"a": 2}, "priority": 7}', "--tag", "t") == "2\n"
    assert ok("add", "--json", "Blat", '"plain"') == "3\n"
    rows = [json.loads(line) for line in ok("tasks", "Blat", "--json").splitlines()]
    assert {row["id"]: (row["task"], row["priority"]) for row in rows} == {
        1: ({"a": 1, "b": "x y"}, 0),
        2: ({"a": 2}, 7),
        3: ("plain", 0),
    }


def test_load_a_file(tmp_path: Path) -> None:
    file = tmp_path / "commands.txt"
    file.write_text("echo a\n\n# no task\n  echo b  \n")
    done = run("load", "Blat", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1-2\n", "2 tasks loaded\n")
    assert ok("load", "--priority", "-10", "Blat", file) == "3-4\n"
    assert ok("load", "Blat", file, "--priority=-10", "--requires", "1,3-4") == "5-6\n"
    assert json.loads(ok("show", "Blat", 5, "--json"))["requires"] == ["1", "3-4"]
    assert json.loads(ok("show", "Blat", 4, "--json"))["priority"] == -10


def test_load_standard_input() -> None:
    assert ok("load", "Blat", "-", text="".join(f"{n}\n" for n in range(8039))) == "1-8039\n"
    assert counts()["Pending"] == 8039
    assert ok("load", "Blat", "-", text="one\n") == "8040\n"


def test_names_of_what_dedupe_leaves_out_stand_for_what_is_there(root: Path) -> None:
    """A file that has grown is loaded again: its new lines may require the old ones, which are not added again."""
    rows = [{"task": "prepare", "name": "p"}, {"task": "run 1", "name": "r1", "requires": ["p"]}]
    more = [{"task": "run 2", "name": "r2", "requires": ["p"]}, {"task": "merge", "requires": ["r1", "r2"]}]
    again = [
        *rows,
        *more,
        {"task": "run 2", "name": "r2"},
        {"task": "run 1", "name": "too"},
        {"task": "look", "after": ["too"]},
    ]

    def load(lines: list[dict[str, Any]]) -> list[int]:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        return list(queue.loadfile(BytesIO(text.encode()), json=True, dedupe=True))

    queue = fsqdo.create("Blat")
    assert load(rows) == [1, 2]
    assert load(again) == [3, 4, 5]
    assert [str(task.requires | task.after) for task in sorted(queue.tasks(), key=lambda task: task.id)] == [
        "",
        "1",
        "1",
        "2-3",
        "2",
    ]
    with pytest.raises(InputError, match="the name 'p' is used twice"):
        load([*rows, {"task": "another", "name": "p"}])


def test_load_dedupe() -> None:
    ok("load", "Blat", "-", text="a\nb\n")
    assert ok("load", "Blat", "-", "--dedupe", text="b\nc\nc\na\n") == "3\n"
    done = run("load", "Blat", "-", "--dedupe", text="c\n")
    assert (done.returncode, done.stdout) == (0, "") and "nothing to add in -: the queue has all" in done.stderr


def test_load_json_with_names() -> None:
    lines = ['{"a": 1}', '{"task": "x", "name": "x"}', '{"task": "y", "requires": ["x", 1], "tags": ["t"]}', '"plain"']
    ok("add", "Blat", "first")
    assert ok("load", "Blat", "-", "--json", text="\n".join(lines)) == "2-5\n"
    fourth = json.loads(ok("show", "Blat", 4, "--json"))
    assert (fourth["state"], fourth["requires"], fourth["tags"]) == ("Waiting", ["1", "3"], ["t"])


# ---------------------------------------------------------------- looking
def test_list_and_status(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true", "false", do=True)
    queue = blat("true")
    queue.add("after the false one", requires=2)
    assert ok("list").splitlines() == [
        "QueueName  State   Waiting  Pending  Running  Succeeded  Failed",
        "Blat       Active        1        1        0          1       1  1 blocked",
    ]
    assert ok("status", "Blat").splitlines()[0] == "Blat is Active"
    assert [line.split()[:2] for line in ok("status", "Blat").splitlines()[1:]] == [
        ["Waiting", "1"], ["Pending", "1"], ["Running", "0"], ["Succeeded", "1"], ["Failed", "1"],
    ]  # fmt: skip
    assert "1 blocked" in ok("status", "Blat")
    assert ok("status", "Blat") == f"{queue}\n"
    queue.kill(id=3)
    assert ok("list").splitlines()[0].split()[-1] == "Killed"
    said = json.loads(ok("status", "Blat", "--json"))
    assert json.loads(ok("list", "--json")) == said
    assert said["ntasks"] == {"Waiting": 1, "Pending": 0, "Running": 0, "Succeeded": 1, "Failed": 1, "Killed": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("kill", "Blat", "1"), "waiting, pending or running"),
        (("retry", "Blat"), "failed"),
        (("rerun", "Blat", "2", "--force"), "succeeded, failed or killed"),
        (("reprioritize", "Blat", "5", "1"), "waiting or pending"),
    ],
)
def test_a_verb_that_changes_nothing_says_what_it_takes(words: tuple[str, ...], why: str) -> None:
    ok("add", "Blat", "true")
    ok("do", "Blat")
    ok("add", "Blat", "true")
    done = run(*words)
    assert done.returncode == 0 and done.stdout.startswith("0 tasks ")
    assert f"none is {why}" in done.stderr


def test_list_of_nothing() -> None:
    assert ok("list").split() == ["QueueName", "State", "Waiting", "Pending", "Running", "Succeeded", "Failed"]
    assert ok("list", "--json") == ""


def test_list_says_when_there_is_no_such_directory(root: Path) -> None:
    missing, file = root / "mising", root / "file"
    file.write_text("")
    done = run("list", env={**_environment(), "FSQDO_DIR": str(missing)})
    assert done.returncode == 0 and str(missing) in done.stderr
    for place in (file, file / "below"):
        for words in (["list"], ["list", "--json"]):
            done = run(*words, env={**_environment(), "FSQDO_DIR": str(place)})
            assert done.returncode == 1 and done.stdout == ""
            assert done.stderr.startswith(f"fsqdo: listdir {place}: Not a directory; a part of this path is a file")
            assert "FSQDO_DIR" in done.stderr and done.stderr.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_a_command(tmp_path: Path) -> None:
    file = tmp_path / "tasks"
    file.write_bytes(b"\xef\xbb\xbftrue 1\r\ntrue 2\r\n")
    assert ok("load", "Blat", file) == "1-2\n"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert ok("load", "Blat", file, "--json") == "3\n"
    assert [task.task for task in fsqdo.connect("Blat").tasks()] == ["true 1", "true 2", {"a": 1}]


def test_list_reports_what_it_cannot_read_and_goes_on(root: Path) -> None:
    for name in ("Ash", "Blat", "Cut"):
        fsqdo.create(name)
    (root / "Blat" / "queue.json").write_text("{}")
    (root / "stray").mkdir()
    (root / "a file").write_text("")
    done = run("list")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["QueueName", "Ash", "Cut"]
    said = done.stderr.splitlines()
    assert len(said) == 2 and all(line.startswith("fsqdo: ") for line in said)
    assert "Blat" in said[0] and "stray" in said[1]


def test_tasks(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true", "exit 3", "false", do=True)
    blat("later")
    assert ok("tasks", "Blat", "--state=Failed").splitlines() == ["State      Task", "Failed     exit 3", "Failed     false"]
    assert ok("tasks", "Blat", "--state", "failed", "--exit_code", 3, "--ids") == "2\n"
    assert ok("tasks", "--ids", "--exitcode=3", "Blat") == ok("tasks", "Blat", "--exit-code", "3", "--ids")
    assert ok("tasks", "Blat", "--match", "^(true|later)$", "--ids").split() == ["4", "1"]
    assert ok("tasks", "Blat", "1,3-4", "--ids", "--limit", 2).split() == ["4", "1"]
    assert ok("tasks", "Blat", "1", "3", "--ids").split() == ["1", "3"]
    assert ok("tasks", "Blat", "--older-than", "3d", "--ids") == ""
    assert ok("tasks", "Blat", "--state", "Pending", "--state", "SUCCEEDED", "--ids").split() == ["4", "1"]
    assert ok("tasks", "Blat", "-l", "2").splitlines()[1].split() == ["Failed", "2", "3", "-", "exit", "3"]
    assert [json.loads(line)["exitcode"] for line in ok("tasks", "Blat", "--json", "1-3").splitlines()] == [0, 3, 1]


def test_tasks_blocked(blat: Callable[..., fsqdo.Queue]) -> None:
    queue = blat("false", "true", do=True)
    queue.add_multiple(["waits for the first", "waits for the last"], requires=[[1], [queue.add("later")]])
    assert ok("tasks", "Blat", "--blocked").splitlines()[1:] == ["Waiting    waits for the first"]


def test_tasks_cannot_steer_the_terminal(blat: Callable[..., fsqdo.Queue]) -> None:
    hostile = "echo \x1b]0;title\x07 \x1b[2J\u202e\x9b\x7f\nnext line\t\u00e9"
    queue = blat(hostile)
    queue.add({"\x1b[31m": "\x9b"})
    for words in (
        ["tasks", "Blat"],
        ["tasks", "Blat", "-l"],
        ["show", "Blat", 1],
        ["show", "Blat", 2],
        ["tasks", "Blat", "--json"],
    ):
        said = ok(*words)
        assert all(c.isprintable() or c == "\n" for c in said)
    assert "\\x1b]0;title\\x07 \\x1b[2J\\u202e\\x9b\\x7f\\nnext line\\t\u00e9" in ok("tasks", "Blat", 1)
    assert len(ok("tasks", "Blat", 1).splitlines()) == 2
    assert json.loads(ok("tasks", "Blat", 1, "--json"))["task"] == hostile


def test_errors_cannot_steer_the_terminal(root: Path) -> None:
    said = refused(2, "status", "\x1b[2J")
    assert "\x1b" not in said


def test_show_and_log(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("printf 'out\\377\\n'; echo oops >&2; exit 5", do=True)
    said = ok("show", "Blat", 1)
    assert re.search(r"^state: +Failed$", said, re.MULTILINE) and re.search(r"^  exit_code: +5$", said, re.MULTILINE)
    known = json.loads(ok("show", "Blat", 1, "--json"))
    assert (known["exitcode"], known["attempts"][0]["exit_code"]) == (5, 5)
    raw = subprocess.run([*PROGRAM, "log", "Blat", "1"], capture_output=True, check=True, timeout=HANG_S, env=_environment())
    assert raw.stdout == b"out\xff\noops\n"
    ok("retry", "Blat")
    ok("do", "Blat", "--script", "echo second; exit 0;")
    assert ok("log", "Blat", 1) == "second\n"
    assert ok("log", "Blat", 1, "--attempt", 2) == "second\n"
    assert "attempt 3" in refused(1, "log", "Blat", 1, "--attempt", 3)
    blat("true", do=True)
    silent = run("log", "Blat", 2)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "task 2 has written nothing\n")


# ---------------------------------------------------------------- changing many
def test_retry_and_rerun(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true", *["false"] * 6, do=True)
    assert ok("retry", "Blat", "--dry-run") == "6 tasks would be reset to pending\n"
    assert ok("retry", "Blat", "--dry_run", 2) == "1 task would be reset to pending\n"
    assert counts()["Failed"] == 6
    assert ok("retry", "Blat") == "6 tasks reset to pending\n"
    assert counts() == {"Waiting": 0, "Pending": 6, "Running": 0, "Succeeded": 1, "Failed": 0, "Killed": 0}
    assert ok("retry", "Blat") == "0 tasks reset to pending\n"
    assert "--force" in refused(2, "rerun", "Blat")
    assert ok("rerun", "Blat", "--dry-run") == "1 task would be reset to pending\n"
    assert ok("rerun", "Blat", "--force") == "1 task reset to pending\n"


def test_rerun_wants_force_only_where_something_succeeded(blat: Callable[..., fsqdo.Queue]) -> None:
    queue = blat("true", "false", "true")
    queue.kill(id=3)
    queue.do(bad_node_after=0, report=lambda text: None)
    for states in ([], ["--state", "Succeeded"], ["--state", "Failed", "--state", "Succeeded"]):
        assert "--force" in refused(2, "rerun", "Blat", *states)
    assert ok("rerun", "Blat", "--state", "Killed") == "1 task reset to pending\n"
    assert ok("rerun", "Blat", "--state", "failed") == "1 task reset to pending\n"


@pytest.mark.parametrize(
    ("ids", "named"), [("4", "4"), ("99999999", "99999999"), ("1-6", "4-6"), ("0-1", "0"), ("0,2-3,5,9-12", "0,5,9-12")]
)
def test_ids_that_never_were_are_named(blat: Callable[..., fsqdo.Queue], ids: str, named: str) -> None:
    blat("true", "true", "true")
    for command in (["tasks"], ["reprioritize", "5"]):
        said = refused(1, command[0], "Blat", *command[1:], ids)
        assert said == f"fsqdo: queue Blat has no task {named}; ids below 4 were used: `fsqdo tasks Blat --long` shows them\n"


def test_a_gap_in_the_ids_is_no_empty_table(blat: Callable[..., fsqdo.Queue]) -> None:
    queue = blat("true")
    queue.store.take_ids(2)
    assert "has no task 2" in refused(1, "tasks", "Blat", "2")
    assert ok("tasks", "Blat", "1-3", "--ids") == "1\n"
    assert ok("tasks", "Blat", "1", "--state", "Failed", "--ids") == ""


def test_rerun_by_exit_code(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("exit 3", "exit 4", "true", do=True)
    assert ok("rerun", "Blat", "--force", "--exitcode", 3) == "1 task reset to pending\n"
    assert ok("rerun", "--exit-code=0", "Blat", "--force") == "1 task reset to pending\n"
    assert ok("retry", "Blat", "--match", "4", "--older-than", "1h") == "0 tasks reset to pending\n"
    assert ok("retry", "Blat", "--match", "4") == "1 task reset to pending\n"


def test_kill(blat: Callable[..., fsqdo.Queue]) -> None:
    blat(*"abcdef")
    assert ok("kill", "Blat", "2,4-5", "--dry-run") == "3 tasks would be killed\n"
    assert ok("kill", "Blat", "2,4-5") == "3 tasks killed\n"
    assert ok("kill", "Blat", "--match", "a") == "1 task killed\n"
    assert counts() == {"Waiting": 0, "Pending": 2, "Running": 0, "Succeeded": 0, "Failed": 0, "Killed": 4}
    assert ok("retry", "Blat", "--state", "killed", "4-6") == "2 tasks reset to pending\n"
    refused(2, "kill", "Blat")


@pytest.mark.parametrize(
    "words", [["Blat", -10, 5], ["--dry-run", "Blat", -10, 5], ["Blat", -10, "--match", "five"], ["--", "Blat", -10, 5]]
)
def test_reprioritize_takes_negative_numbers(words: list[object], blat: Callable[..., fsqdo.Queue]) -> None:
    queue = blat("one", "two", "three", "four", "five")
    would = "would be " if "--dry-run" in words else ""
    assert ok("reprioritize", *words) == f"1 task {would}set to priority -10\n"
    assert queue.task(5).priority == (0 if would else -10)


def test_reprioritize_still_refuses_unknown_options(blat: Callable[..., fsqdo.Queue]) -> None:
    queue = blat("one")
    for words in (
        ["Blat", -10, "--bogus"],
        ["Blat", "--bogus", 1],
        ["--bogus", "Blat", 1],
        ["Blat", 1, "-x"],
        ["Blat", 1, "-1"],
    ):
        refused(2, "reprioritize", *words)
    assert queue.task(1).priority == 0
    assert ok("reprioritize", "Blat", 10) == "1 task set to priority 10\n"


# ---------------------------------------------------------------- queues as a whole
def test_create_pause_resume_delete(root: Path) -> None:
    ok("create", "Blat", "--max_retries", 2, "--retry-delay", "10s", "--requires", "finish")
    settings = fsqdo.connect("Blat").settings
    assert (settings.max_retries, settings.retry_delay_s, settings.requires) == (2, 10, "finish")
    assert "already" in refused(1, "create", "Blat") or (root / "Blat").is_dir()
    ok("pause", "Blat")
    assert ok("status", "Blat").startswith("Blat is Paused\n")
    ok("resume", "Blat")
    assert ok("status", "Blat").startswith("Blat is Active\n")
    assert "--force" in refused(2, "delete", "Blat")
    assert (root / "Blat").is_dir()
    ok("delete", "Blat", "--force")
    assert not (root / "Blat").exists()
    assert "Blat" in refused(1, "delete", "Blat", "--force")


def test_promote(root: Path) -> None:
    queue = fsqdo.create("Blat")
    queue.add("b", requires=queue.add("a"))
    done = root / "Blat" / "succeeded" / "000000"
    done.mkdir()
    (root / "Blat" / "pending" / "0" / "000000" / "000000001.json").rename(done / "000000001.json")
    assert ok("promote", "Blat") == "1 task promoted\n"
    assert ok("promote", "Blat") == "0 tasks promoted\n"


# ---------------------------------------------------------------- working
def test_do(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true", "false", "true", "true")
    done = run("do", "Blat", "-j", 2, "--max-tasks", 3)
    assert (done.returncode, done.stdout) == (0, "")
    assert counts()["Pending"] == 1
    done = run("do", "--timeout", "0.1", "Blat", "--slots=auto", "--runtime", "1h")
    assert done.stderr.splitlines()[-1].startswith("1 succeeded, 0 failed; ")


def test_do_script_and_func(tmp_path: Path) -> None:
    ok("add", "Blat", "--json", '{"a": "x y", "b": 2}')
    ok("do", "Blat", "--script", "printf %s-%s {a} {b}")
    assert ok("log", "Blat", 1) == "x y-2"
    ok("rerun", "Blat", "--force")
    ok("do", "Blat", "--func", "json:dumps")
    assert counts()["Succeeded"] == 1
    assert list(fsqdo.connect("Blat").results()) == [(1, '{"a": "x y", "b": 2}')]


@pytest.fixture
def holding(blat: Callable[..., fsqdo.Queue], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker whose task has begun, and goes on until somebody stops it."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    blat(f"echo now > {begun}; exec sleep {HANG_S}")
    worker = subprocess.Popen([*PROGRAM, "do", "Blat"], stderr=subprocess.PIPE, text=True, env=_environment())
    try:
        assert begun.read_text() == "now\n"
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def test_workers_and_drain(holding: subprocess.Popen[str]) -> None:
    header, line = ok("workers", "Blat").splitlines()
    assert header.split() == ["Alive", "Worker", "Host", "Pid", "Slots", "Started", "Running"]
    known = json.loads(ok("workers", "Blat", "--json"))
    assert line.split()[:2] == ["yes", known["name"]] and line.split()[3:5] == [str(holding.pid), "1"]
    assert known["running"] == [1]
    assert ok("drain", "Blat", known["name"]) == "1 worker told to drain\n"
    assert ok("drain", "Blat") == "1 worker told to drain\n"
    refused(2, "drain", "Blat", "nobody-1-abc")
    assert ok("kill", "Blat", 1, "--wait", "30") == "1 task killed\n"
    assert holding.wait(HANG_S) == 0


def test_a_worker_that_is_interrupted_ends_in_order(holding: subprocess.Popen[str]) -> None:
    holding.send_signal(signal.SIGINT)
    _, said = holding.communicate(timeout=HANG_S)
    assert holding.returncode == 0 and "Traceback" not in said
    assert counts()["Pending"] == 1


def test_recover(holding: subprocess.Popen[str]) -> None:
    assert ok("recover", "Blat") == "0 tasks reset to pending\n"
    holding.kill()
    holding.wait(HANG_S)
    worker = json.loads(ok("workers", "Blat", "--json"))["name"]
    for words, total in ((["--dry-run"], "1 task would be reset to pending"), ([], "1 task reset to pending")):
        proof, last = ok("recover", "Blat", *words).splitlines()
        assert last == total and re.fullmatch(rf"{worker}: .+; 1 task", proof)
    assert counts()["Pending"] == 1


def test_recover_force(holding: subprocess.Popen[str]) -> None:
    assert ok("recover", "Blat", "--force", "--dry-run").splitlines()[-1] == "1 task would be reset to pending"
    assert ok("recover", "Blat", "--force").splitlines()[-1] == "1 task reset to pending"


# ---------------------------------------------------------------- launching
def test_launch(blat: Callable[..., fsqdo.Queue]) -> None:
    blat(*["true"] * 9, "false")
    done = run("launch", "Blat", 2, "--wait")
    assert done.returncode == 0 and "fsqdo status Blat" in done.stderr and done.stderr.endswith("2 jobs ended\n")
    assert [line.split()[:1] for line in done.stdout.splitlines()] == [["Job"], ["1"], ["2"]]
    assert counts() == {"Waiting": 0, "Pending": 0, "Running": 0, "Succeeded": 9, "Failed": 1, "Killed": 0}
    assert [line.split()[:3] for line in ok("jobs", "Blat").splitlines()[1:]] == [["1", "ended", "1"], ["2", "ended", "1"]]
    assert [json.loads(line)["state"] for line in ok("jobs", "Blat", "--json").splitlines()] == ["ended", "ended"]


def test_launch_packed_in_all_spellings(blat: Callable[..., fsqdo.Queue], tmp_path: Path) -> None:
    blat("a", "b c")
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\necho script $#\n")
    script.chmod(0o755)
    done = run("launch", "--wait", "Blat", 256, "--cores_per_worker", 8, "--walltime=00:30:00", "--batchqueue", "debug",
               "--keep_env", "--batchopts", "-A m1", "--batchopts=-q x", "--script", script, "-v")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "256 slots" in done.stderr and "local-jobs.sh submit" in done.stderr
    for name in ("cores-per-worker", "batchqueue", "batchopts", "keep-env"):
        assert f"--{name} has no effect" in done.stderr
    assert (ok("log", "Blat", 1), ok("log", "Blat", 2)) == ("script 1\n", "script 2\n")
    assert ok("retry", "Blat") == "0 tasks reset to pending\n"
    ok("rerun", "Blat", "--force")
    ok("launch", "Blat", 24, "--pack", "--wait")
    ok("launch", "Blat", 2, "--nodes", 1, "--workers-per-node", 2, "--jobs", 2, "--timeout", 5, "--runtime", "1h", "--wait")
    assert [json.loads(line)["slots"] for line in ok("jobs", "Blat", "--json").splitlines()] == [256, 24, 2, 2]


def test_launch_dry_run_starts_nothing(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true")
    done = run("launch", "Blat", 8, "--dry-run", "-j", 4)
    assert done.returncode == 0 and done.stdout.count("#!/bin/sh\n") == 2 and "2 jobs" in done.stderr
    assert "--dry-run" not in done.stdout and ok("jobs", "Blat", "--json") == ""
    assert counts()["Pending"] == 1


@pytest.mark.parametrize(
    "words", [["--walltime", "soon"], ["--profile", "nowhere"], ["-j", 0], ["--jobs", 0], ["--runtime", 0], ["--script", " "]]
)
def test_launch_refuses(words: list[object], blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true")
    refused(2, "launch", "Blat", 1, *words)
    assert ok("jobs", "Blat", "--json") == ""


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, ["add", "New", "analyze", "blat.dat"], "fsqdo add New 'analyze blat.dat'"),
        (2, ["add", "New", "ls", "-l"], "quote the command"),
        (2, ["add", "New", ""], "empty"),
        (2, ["add", "New", " \n"], "empty"),
        (2, ["add", "New"], "TASK"),
        (2, ["add", "New", "--json", "{"], "not JSON"),
        (2, ["add", "New", "--json", "null"], "empty"),
        (2, ["add", "New", "--json", '{"task": 1, "wrong": 2}'], "wrong"),
        (2, ["add", "New", "x", "--priority", "high"], "not an integer"),
        (2, ["add", "New", "x", "--priority", 10**10], "priority"),
        (2, ["add", "New", "x", "--requires", "1,x"], "not a task id"),
        (2, ["add", "New", "x", "--requires", "9-1"], "backwards"),
        (2, ["add", "New", "x", "--requires", 7], "does not exist"),
        (2, ["add", "New", "x", "--cores", 0], "cores"),
        (2, ["add", "New", "x", "--env", "A"], "NAME=VALUE"),
        (2, ["add", "New", "x", "--time-limit", "soon"], "span of time"),
        (2, ["add", "New", "x", "--name", "12"], "name"),
        (2, ["add", "New", "x", "--bogus"], "--bogus"),
        (2, ["load", "New", "/nonexistent"], "/nonexistent"),
        (2, ["load", "New", "/"], "/"),
        (2, ["load", "New"], "FILE"),
        (2, ["create", "../up"], "../up"),
        (2, ["create", "a/b"], "a/b"),
        (2, ["create", ".."], ".."),
        (2, ["create", "-x"], "-x"),
        (2, ["create", "--", "-x"], "-x"),
        (2, ["create", "a b"], "a b"),
        (2, ["create", ""], "name"),
        (2, ["create", "New", "--requires", "maybe"], "succeed"),
        (1, ["status", "Nowhere"], "Nowhere"),
        (1, ["status", "--json", "Nowhere"], "Nowhere"),
        (1, ["tasks", "Nowhere"], "Nowhere"),
        (1, ["do", "Nowhere"], "Nowhere"),
        (2, ["do", "Blat", "--script", "x", "--func", "y:z"], "script"),
        (2, ["do", "Blat", "-j", 0], "slots"),
        (2, ["do", "Blat", "-j", "many"], "slots"),
        (2, ["tasks", "Blat", "--state", "Broken"], "Waiting, Pending"),
        (2, ["tasks", "Blat", "--match", "("], "regular expression"),
        (2, ["tasks", "Blat", "--exit-code", "x"], "integer"),
        (2, ["tasks", "Blat", "--older-than", "yesterday"], "span of time"),
        (2, ["tasks", "Blat", "5-"], "5-"),
        (1, ["show", "Blat", 77], "77"),
        (2, ["show", "Blat", "x"], "integer"),
        (1, ["log", "Blat", 1], "not been started"),
        (1, ["kill", "Blat", 77], "77"),
        (1, ["retry", "Blat", "1-77"], "77"),
        (2, ["retry", "Blat", "--state", "Running"], "Running"),
        (2, ["reprioritize", "Blat", "high"], "high"),
        (2, ["reprioritize", "Blat"], "PRIORITY"),
        (2, ["launch", "Blat", 0], "0"),
        (2, ["launch", "Blat", "some"], "some"),
        (2, ["stattus", "Blat"], "did you mean status"),
        (2, ["--bogus"], "--bogus"),
        (2, ["status"], "QUEUE"),
        (2, ["status", "Blat", "Blat"], "extra"),
    ],
)  # fmt: skip
def test_bad_input(code: int, words: list[object], says: str, blat: Callable[..., fsqdo.Queue], root: Path) -> None:
    blat("a task")
    assert says in refused(code, *words)
    assert not (root / "New").exists() or not any(fsqdo.connect("New").tasks())
    assert counts() == {"Waiting": 0, "Pending": 1, "Running": 0, "Succeeded": 0, "Failed": 0, "Killed": 0}


def test_bad_lines_name_their_number_and_add_nothing(tmp_path: Path) -> None:
    ok("create", "Blat")
    for content, words, says in (
        (b"ok\n\nb\xffd\n", [], "line 3"),
        (b"a\x00b\n", [], "NUL"),
        (b'# first\n{"a": 1}\n\n{"a"\n', ["--json"], "line 4 is not JSON"),
            (b"1\n" + b"1" * 5000 + b"\n", ["--json"], "line 2 cannot be read as JSON"),
        (b'{"task": 1, "name": "n", "requires": ["m"]}\n{"task": 2, "name": "m", "requires": ["n"]}\n', ["--json"], "circle"),
        (b'{"task": "x", "requires": ["nobody"]}\n', ["--json"], "line 1: the required 'nobody' is no id"),
        (b'{"task": "x", "priority": "high"}\n', ["--json"], "line 1: priority 'high'"),
        (b"ok\n", ["--requires", "5"], "5"),
    ):  # fmt: skip
        file = tmp_path / "tasks"
        file.write_bytes(content)
        assert says in refused(2, "load", "Blat", file, *words)
    assert not any(counts().values())


def test_arguments_that_are_not_utf8(root: Path) -> None:
    done = run("add", "Blat", os.fsdecode(b"echo \xff"))
    assert done.returncode == 2 and done.stderr.startswith("fsqdo: ") and "UTF-8" in done.stderr


def test_directories_that_are_no_queues(root: Path) -> None:
    (root / "stray").mkdir()
    assert "stray" in refused(1, "status", "stray")
    assert "stray" in refused(1, "add", "stray", "x")
    fsqdo.create("Blat")
    text = (root / "Blat" / "queue.json").read_text()
    (root / "Blat" / "queue.json").write_text(text.replace('"format": 1', '"format": 99'))
    said = refused(1, "status", "Blat")
    assert "99" in said and "format 1" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(blat: Callable[..., fsqdo.Queue], root: Path) -> None:
    blat("a")
    (root / "Blat" / "pending").chmod(0)
    try:
        assert "pending" in refused(1, "status", "Blat")
    finally:
        (root / "Blat" / "pending").chmod(0o755)


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("dirr: /x\ndefault_profile: nowhere\n")
    env = {**_environment(), "FSQDO_CONFIG": str(file)}
    del env["FSQDO_DIR"]
    done = run("list", env=env)
    assert done.returncode == 2 and done.stderr.startswith("fsqdo: ") and "Traceback" not in done.stderr
    assert "dirr" in done.stderr and "nowhere" in done.stderr


# ---------------------------------------------------------------- streams
def test_a_reader_that_leaves_is_no_error(blat: Callable[..., fsqdo.Queue]) -> None:
    blat(*map(str, range(20_000)))
    for words, codes in (("tasks Blat", (0, 141)), ("tasks Blat --json", (0, 141)), ("tasks Blat --ids", (0, 141))):
        line = f"{' '.join(PROGRAM)} {words} | head -1; echo ${{PIPESTATUS[0]}}"
        done = run("-c", line, program=["bash"])
        assert done.stderr == "" and int(done.stdout.splitlines()[-1]) in codes
    for words in ("list", "--help", "tasks --help"):
        done = run("-c", f"{' '.join(PROGRAM)} {words} | true", program=["bash"])
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("a")
    for words in ("list", "--help", "status Blat", "tasks Blat", "log --help"):
        done = run("-c", f"{' '.join(PROGRAM)} {words} > /dev/full", program=["bash"])
        assert done.returncode == 1 and done.stderr.startswith("fsqdo: ") and "Traceback" not in done.stderr


def test_closed_streams(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("a")
    for redirection in (">&-", "2>&-", "<&- >&- 2>&-"):
        for words in ("list", "status Blat", "add Blat x"):
            done = run("-c", f"{' '.join(PROGRAM)} {words} {redirection}", program=["bash"])
            assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_only_ascii(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("echo \u00e9\u4e2d")
    done = run("tasks", "Blat", env={**_environment(), "PYTHONIOENCODING": "ascii"})
    assert done.stdout.splitlines()[1] == "Pending    echo \\xe9\\u4e2d"


def test_a_worker_of_a_paused_queue_says_what_it_waits_for(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true")
    ok("pause", "Blat")
    done = run("do", "Blat", "--timeout", "0")
    assert done.returncode == 0 and done.stderr.count("fsqdo: the queue is paused") == 1 and "resume" in done.stderr
    assert counts()["Pending"] == 1


def test_an_interrupt_while_loading_adds_nothing(root: Path) -> None:
    loader = subprocess.Popen(
        [*PROGRAM, "load", "Blat", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    )
    assert loader.stdin is not None
    loader.stdin.write(b"true\n" * 100_000)  # more than a pipe holds: when this returns, it is reading
    loader.stdin.flush()
    loader.send_signal(signal.SIGINT)
    _, said = loader.communicate(timeout=HANG_S)
    assert loader.returncode == 130 and b"Traceback" not in said
    assert not any(counts().values())


@pytest.mark.parametrize(
    "words", [["retry", "Blat"], ["rerun", "Blat", "--force"], ["kill", "Blat", "1"], ["reprioritize", "Blat", "5"]]
)
def test_an_interrupt_half_way_says_that_tasks_may_be_changed(
    words: list[str], blat: Callable[..., fsqdo.Queue], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    blat("true")
    monkeypatch.setattr(fsqdo.Queue, words[0], interrupted)
    assert main(words) == 130
    assert "changed already" in capsys.readouterr().err


@pytest.mark.parametrize(("moves", "there"), [(0, False), (1, True), (2, True), (3, True)])
def test_an_interrupted_load_says_whether_it_is_there(
    blat: Callable[..., fsqdo.Queue], tmp_path: Path, seam: System, capsys: pytest.CaptureFixture[str], moves: int, there: bool
) -> None:
    """^C after so many renames: of those the first takes the ids, and the second commits. Who is not told loads again."""
    blat("true")
    (tmp_path / "list").write_text("true\n" * 1500)
    done = 0

    def rename(source: str, target: str) -> None:
        nonlocal done
        System.rename(source, target)
        done += 1
        if done == moves + 1:
            raise KeyboardInterrupt

    seam.rename = rename  # type: ignore[method-assign]
    assert main(["load", "Blat", str(tmp_path / "list")]) == 130
    del seam.rename
    told = "tasks 2-1501 are in the queue all the same: do not load them again"
    assert (told in capsys.readouterr().err) is there
    fsqdo.connect("Blat").promote()
    assert counts()["Pending"] == (1501 if there else 1)
    assert fsqdo.connect("Blat").store.names("tmp") == []


# ---------------------------------------------------------------- small parts
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200), ("1h30m", 5400), ("1.5h", 5400),
     ("30:00", 1800), ("01:30:00", 5400), ("0:120:00", 7200), (" 5M ", 300)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert read_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "1h30", "-5", "1:2:3:4", "1h 30m", "nan", "inf", "1e3", "\u0665"])
def test_what_is_no_duration(text: str) -> None:
    assert read_duration_s(text) is None


def test_printable_keeps_what_can_be_printed() -> None:
    assert printable("caf\u00e9 \u4e2d a\\b") == "caf\u00e9 \u4e2d a\\b"
    assert printable("a\tb\x00\ud800") == "a\\tb\\x00\\ud800"


def test_progress_shows_itself_after_a_second_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("fsqdo.cli.add.time.monotonic", lambda: now[0])
    progress = Progress()
    for at in (100.5, 100.99):
        now[0] = at
        progress(1000)
    progress.clear()
    assert capsys.readouterr().err == ""
    now[0] = 102.0
    progress(3000)
    progress(3100)  # too soon after the last
    progress.clear()
    assert capsys.readouterr().err == "\r\x1b[K3000 tasks, 1500 a second\r\x1b[K"


def test_a_load_into_a_terminal_still_prints_only_the_ids(root: Path) -> None:
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, "load", "Blat", "-"], check=True, input=b"a\nb\n", stdout=subprocess.PIPE, stderr=theirs,
            timeout=HANG_S, env=_environment(),
        )  # fmt: skip
        assert done.stdout == b"1-2\n" and b"2 tasks loaded" in os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)


def test_verbose_before_and_after_the_command(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true", "true", "true")
    quiet = run("do", "Blat", "--max-tasks", 1).stderr
    for words in (["-v", "do", "Blat", "--max-tasks", 1], ["do", "Blat", "--verbose", "--max-tasks", 1]):
        assert len(run(*words).stderr.splitlines()) > len(quiet.splitlines())


# ---------------------------------------------------------------- a worker without click
PLAIN = [
    [],
    ["-j", "8"],
    ["-j", "128", "--cores=128", "--gpus=4", "--mem=512000", "--runtime=3600", "--timeout=60.5", "--stagger=5"],
    ["--script=./x.sh -a {a}", "--mpirun=srun --mpi=pmix", "--max-fails=3", "--health-check=test -d /scratch", "--chain"],
    ["--func=package.module:function", "--nodes-per-worker=2", "--script="],
]


@pytest.mark.parametrize("words", PLAIN)
def test_both_readers_of_a_worker_s_words_agree(words: list[str]) -> None:
    known = do_command.make_context("do", ["Blat", *words]).params
    assert plain_options(["Blat", *words]) == {key: value for key, value in known.items() if value is not None}


@pytest.mark.parametrize(
    "words",
    [["--help"], [], ["-j", "8"], ["Blat", "-j"], ["Blat", "-j", "auto"], ["Blat", "--runtime", "60"], ["Blat", "--runtime=8h"],
     ["Blat", "--cores=-1"], ["Blat", "-v"], ["Blat", "other"], ["Bl at"], ["-Blat"], ["Blat", "--script"],
     ["Blat", "--cores=٣"]],
)  # fmt: skip
def test_other_words_are_left_to_click(words: list[str]) -> None:
    assert plain_options(words) is None


def test_a_batch_job_s_worker_imports_no_click(blat: Callable[..., fsqdo.Queue]) -> None:
    blat("true")
    words = [sys.executable, "-X", "importtime", "-m", "fsqdo", "do", "Blat", "-j", "2", "--runtime=60"]
    done = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fsqdo.worker" in imported and not imported & {"click", "yaml", "fsqdo.cli.group"}
    assert fsqdo.connect("Blat").status()["ntasks"]["Succeeded"] == 1
