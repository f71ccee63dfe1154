"""`fsqdo bench`: that it measures within its time, what it says of the figures, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsqdo import bench, figures, floors
from fsqdo.cli.bench import text
from fsqdo.errors import FsqdoError, InputError
from fsqdo.figures import Figure, Herd, Report
from tests.conftest import memory_dir

CHECKOUT = Path(bench.__file__).resolve().parent.parent
HANG_S = 120
FIGURES = ("create", "synced_create", "list_name", "load", "add", "count")


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory, in memory where there is one."""
    path = Path(tempfile.mkdtemp(prefix="fsqdo-test-", dir=memory_dir()))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `fsqdo bench`: it forks, which is nothing for this process with its threads."""
    program = [sys.executable, "-m", "fsqdo", "bench", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(program, check=False, capture_output=True, text=True, timeout=HANG_S, env=env)


@pytest.fixture(scope="module")
def measured() -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """A directory in which was measured, and what the command said, as JSON."""
    path = Path(tempfile.mkdtemp(prefix="fsqdo-test-", dir=memory_dir()))
    (path / "mine").write_text("mine")
    yield path, run(path, "--seconds", "2", "--json")
    shutil.rmtree(path, ignore_errors=True)


def test_the_json_has_every_figure(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    place, done = measured
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert found["directory"] == str(place)
    for name in FIGURES:
        assert found[name]["count"] > 0 and found[name]["each_us"] > 0, name
        assert set(found[name]) == set(Figure.__dataclass_fields__)
    assert [herd["processes"] for herd in found["work"]] == [1, 2, 8, 64] == [herd["processes"] for herd in found["renames"]]
    alone = found["work"][0]
    assert 0 < alone["median_us"] <= alone["p90_us"] <= alone["p99_us"] <= alone["longest_us"]
    assert alone["per_s"] > 0
    assert found["words"] and all(isinstance(sentence, str) for sentence in found["words"])


def test_nothing_is_left(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert os.listdir(measured[0]) == ["mine"]


def test_without_a_directory_it_measures_where_the_queues_will_be(tmp_path: Path) -> None:
    done = run("--seconds", "3")
    assert done.returncode == 0, done.stderr
    assert f"at {tmp_path};" in done.stdout  # FSQDO_DIR is tmp_path/queues, which is not there yet
    assert not [name for name in os.listdir(tmp_path) if name.startswith(floors.PREFIX)]
    assert "two renames" in done.stdout
    assert "tasks/s with 64 workers" in done.stdout or "not all was done in the time there was" in done.stdout


def test_a_missing_directory(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no directory {tmp_path}/nowhere; make it" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    place.mkdir(mode=0o555)
    done = run(place)
    assert done.returncode == 1
    assert f"make a directory in {place}: Permission denied; you lack the permission" in done.stderr


def test_a_file_system_where_nothing_can_be_made() -> None:
    if not os.path.isdir("/proc/self"):
        pytest.skip("no /proc, which nobody can write to")
    done = run("/proc")
    assert done.returncode == 1
    assert "fsqdo: make a directory in /proc: " in done.stderr


def test_no_time_is_refused() -> None:
    with pytest.raises(InputError):
        bench.measure("/", 0)
    assert run("/tmp", "--seconds", "0").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_removes_what_it_made(place: Path, number: signal.Signals) -> None:
    """Told in the middle of its measurements, which it says with -v."""
    program = [sys.executable, "-m", "fsqdo", "-v", "bench", str(place), "--seconds", "600"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("1 process:"):
                break
        assert any(name.startswith(floors.PREFIX) for name in os.listdir(place))
        child.send_signal(number)
        rest = child.stderr.read()
        assert child.wait(HANG_S) == 130, rest
    assert os.listdir(place) == []
    # Whoever it forked has ended: nobody of its session is left.
    assert not [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _session(pid) == child.pid]


def _session(pid: str) -> int:
    try:
        return os.getsid(int(pid))
    except ProcessLookupError:
        return -1


# ---------------------------------------------------------------- processes
def in_a_process_of_its_own(code: str) -> str:
    program = [sys.executable, "-c", "from fsqdo.bench import together\n" + code]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(program, check=True, capture_output=True, text=True, timeout=HANG_S, env=env).stdout


def test_processes_begin_when_all_are_prepared(place: Path) -> None:
    """Each says what it saw of the others when it began: the marks that they made while they prepared."""
    code = f"""
import os
def prepare(index):
    open({str(place)!r} + f"/{{index}}", "w").close()
    return lambda: [float(len(os.listdir({str(place)!r}))), float(index)]
print(together(5, prepare))
"""
    assert in_a_process_of_its_own(code) == f"{[[5.0, float(index)] for index in range(5)]}\n"


@pytest.mark.parametrize("where", ["", "return lambda: "])
def test_a_process_that_fails_is_told_of(where: str) -> None:
    code = f"""
def prepare(index):
    if index != 1:
        return lambda: []
    {where}[][5]
try:
    together(3, prepare)
except Exception as error:
    print(type(error).__name__, error)
"""
    expected = "a process that measured has ended: IndexError: list index out of range"
    assert in_a_process_of_its_own(code) == f"FsqdoError {expected}\n"


# ---------------------------------------------------------------- floors
FOREVER = float("inf")


def test_floors_end_with_their_count(tmp_path: Path) -> None:
    made = floors.below(str(tmp_path), "made")
    assert len(floors.creates(made, 7, FOREVER)) == 8
    assert len(os.listdir(made)) == 7
    assert floors.listings(made, 3, FOREVER)[1] == 7
    assert len(floors.synced_creates(floors.below(str(tmp_path), "synced"), 3, FOREVER)) == 4
    assert len(os.listdir(tmp_path / "synced/visible")) == 3


def test_floors_end_with_their_time(place: Path) -> None:
    assert len(floors.creates(str(place), 7, 0.0)) == 1
    assert os.listdir(place) == []


def test_pairs_of_renames_use_no_name_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    rename = os.rename

    def noted(src: str, dst: str) -> None:
        seen.append(dst)
        rename(src, dst)

    monkeypatch.setattr(os, "rename", noted)
    assert len(floors.Pairs(str(tmp_path), 4).run(30, FOREVER)) == 31
    assert len(seen) == len(set(seen)) == 60
    assert len(list(tmp_path.glob("*/*.json"))) == 4


# ---------------------------------------------------------------- figures and words
def test_the_figures_of_processes() -> None:
    found = figures.herd([[10.0, 11.0, 12.0], [11.0, 14.0], []], wanted=6)
    assert found == Herd(3, 5, 1.0, 1e6, 3e6, 3e6, 3e6, cut_short=True)


@pytest.mark.parametrize("instants", [[], [[]], [[1.0], [2.0]]])
def test_too_few_to_tell(instants: list[list[float]]) -> None:
    found = figures.herd(instants, wanted=10)
    assert found.per_s is None and found.median_us is None and found.cut_short


def report(**changes: object) -> Report:
    """A report of a machine with two processors, with these fields."""
    figure = Figure(100, 1.0, 100.0)
    made = Report("/x", "ext4", "Linux", 2, "1", "3", "now", figure, figure, figure, figure, figure, figure)
    return replace(made, **{"work": [Herd(64, 10_000, 912.0, 900.0, 1000.0, 5000.0, 6000.0)], **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (Herd(64, 10_000, 912.0), "about 900 tasks/s with 64 workers: fine for tasks longer than 0.1 s"),
        (Herd(64, 10_000, 31_600.0), "about 32000 tasks/s with 64 workers: fine for tasks longer than 5 ms"),
        (Herd(1, 50, 0.4), "about 0.4 tasks/s with one worker: fine for tasks longer than 5 s"),
        (Herd(8, 50, 0.004), "about 0.004 tasks/s with 8 workers: fine for tasks longer than 33 min"),
        (Herd(8, 3, None), "8 workers finished 3 tasks in the time there was: too few to tell a rate"),
    ],
)
def test_how_long_tasks_should_be(work: Herd, sentence: str) -> None:
    assert figures.words(report(work=[work]))[0] == sentence


def said(found: Report, of: str) -> list[str]:
    return [sentence for sentence in figures.words(found) if of in sentence]


def test_whether_fewer_workers_do_more() -> None:
    many = Herd(64, 100, 1000.0)
    assert said(report(work=[Herd(2, 100, 1200.0), many]), "at once do most") == []
    assert said(report(work=[Herd(2, 100, 1900.0), many]), "at once do most") == ["2 at once do most here, about 1900 tasks/s"]


@pytest.mark.parametrize(
    ("processors", "able", "of", "sentences"),
    [
        (2, 4000.0, "was the limit", 0),
        (2, 4000.0, "the 2 processors of this machine were the limit", 1),
        (1, 4000.0, "the one processor of this machine was the limit", 1),
        (2, 1500.0, "the file system was the limit: it renames for 1500 tasks/s", 1),
        (64, 4000.0, "the limit", 0),
        (2, None, "the limit", 0),
    ],
)
def test_what_the_limit_was(processors: int, able: float | None, of: str, sentences: int) -> None:
    found = report(processors=processors, renames=[Herd(64, 100, able)], work=[Herd(64, 100, 1000.0)])
    assert len(said(found, of)) == sentences


def test_what_tasks_cost() -> None:
    alone = Herd(1, 100, 10_000.0, 81.0, 100.0, 2100.0, 5000.0)
    found = report(work=[alone], load=Figure(100, 1.0, 3.9), add=Figure(9, 1.0, 650.0), count=Figure(9, 1.0, 1.1))
    assert said(found, "one worker alone spends 80 us on a task beside running it; one time in 100 more than 2.1 ms")
    assert said(found, "a million tasks are loaded in about 3.9 s; added one by one, each takes 600 us")
    assert said(found, "a queue with 100000 tasks that are files takes about 0.11 s")


def test_what_was_cut_short() -> None:
    assert said(report(), "not all was done") == []
    short = report(create=Figure(3, 1.0, 3e5, cut_short=True), work=[Herd(8, 3, None, cut_short=True)])
    assert said(short, "not all was done in the time there was (create, work by 8)")


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (figures.about, 912.3, "900"),
        (figures.about, 1234.0, "1200"),
        (figures.about, 0.0321, "0.032"),
        (figures.about, 9999.0, "10000"),
        (figures.about, 0.0, "0"),
        (figures.rounded_up, 0.0702, 0.1),
        (figures.rounded_up, 0.2, 0.2),
        (figures.rounded_up, 6.0, 10.0),
        (figures.rounded_up, 1001.0, 2000.0),
        (figures.span, 3.94, "3.9 us"),
        (figures.span, 2500.0, "2.5 ms"),
        (figures.span, 100_000.0, "0.1 s"),
        (figures.span, 7.2e9, "120 min"),
    ],
)
def test_numbers_as_one_says_them(of: Callable[[float], object], value: float, expected: object) -> None:
    assert of(value) == expected


def test_the_tables_have_a_row_for_each_measurement() -> None:
    work = [Herd(2, 9, 500.0, 9.0, 9.0, 9.0, 9.0), Herd(8, 3, None)]
    lines = text(report(work=work, renames=[Herd(2, 9, 1e3), Herd(8, 9, 2e3)]))
    assert lines[0].startswith("ext4 at /x; fsqdo 1")
    assert [line.split() for line in lines if line.endswith(("us", "?"))][-2:] == [
        ["2", "1000/s", "500/s", "2.00", "9.0", "us", "9.0", "us", "9.0", "us", "9.0", "us"],
        ["8", "2000/s", "?", "?", "?", "?", "?", "?"],
    ]


def test_no_directory_is_said_by_the_library_too(tmp_path: Path) -> None:
    with pytest.raises(FsqdoError, match="there is no directory"):
        bench.measure(str(tmp_path / "nowhere"))
