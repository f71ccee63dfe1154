"""The page of benchmarks: how it is made of the figures, how calls are counted in a trace, and what is computed from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bench_peers, benchmarks
from tests.bench import Bench
from tests.bench_peers import PEERS, Peer, PeerError, Section, count_calls, server_load, shortest

TRACE = """\
17 execve("/q/bench/script", ["x"], 0x1 /* 9 vars */) = 0
17 openat(AT_FDCWD</home>, "/usr/lib/python3/os.py", O_RDONLY) = 3</usr/lib/python3/os.py>
17 rename("/q/bench/pending/0/1.json", "/q/bench/running/w/1.json") = 0
[pid    18] openat(AT_FDCWD</home>, "/q/bench/running/w/1.json", O_RDONLY <unfinished ...>
17 newfstatat(3</q/bench/running/w/1.json>, "", {st_mode=S_IFREG|0644}, AT_EMPTY_PATH) = 0
18 <... openat resumed>) = 4</q/bench/running/w/1.json>
18 unlinkat(5</q/bench/data>, "lock", 0) = 0
18 unlinkat(5</q/bench-other>, "lock", 0) = 0
18 openat(AT_FDCWD</home>, "/q/bench-other/x", O_RDONLY) = 4
18 fsync(4</q/bench/outcomes/w.jsonl>) = 0
18 fsync(4</q/else>) = 0
18 fcntl(4</q/bench/db>, F_SETLK, {l_type=F_RDLCK}) = 0
18 fcntl(4</q/bench/db>, F_GETFD) = 0
18 flock(6</q/bench/.lock>, LOCK_EX) = 0
18 lstat("/q/bench/a \\"name\\"", 0x1) = -1 ENOENT
18 +++ exited with 0 +++
"""


def test_the_calls_of_a_trace() -> None:
    found = count_calls(TRACE.splitlines(keepends=True), "/q/bench")
    once = ["execve", "rename", "openat", "unlinkat", "fsync", "fcntl", "flock", "lstat"]
    assert found == dict.fromkeys(once, 1)


def test_what_a_server_is_asked() -> None:
    assert server_load(5.0, 0.0, 10.0) == 500.0
    assert server_load(5.0, 0.25, 10.0) == 750.0
    assert shortest(5.0, 0.0, 5000) == "1 s"
    assert shortest(5.0, 2.5, 5000) == "2 s"
    assert shortest(5.0, 5.0, 5000) == "never"


def test_a_thousand_workers() -> None:
    costs: dict[str, dict[str, float] | str] = {
        bench_peers.SECOND: {"rename": 2.0, "openat": 4.5},
        bench_peers.LOOSE: {"rename": 2.0, "openat": 1.0},
        bench_peers.PACKED: {"rename": 2.0, "openat": 2.0, "unlink": 1.0},
        "jug: function": {"openat": 15.0},
        "python-dirq: function": "not installed",
    }
    rows = bench_peers.thousand_workers(costs, 0.5).rows
    assert rows == [
        ["fsqdo, loose tasks", "6500", "1100", "600", "510", "1.33 s", "0.308 s"],
        ["fsqdo, a large load, finished shards packed again", "8500", "1300", "633", "513", "1.78 s", "0.41 s"],
        ["jug *", "15000", "1500", "250", "25", "3 s", "0.75 s"],
    ]


# ---------------------------------------------------------------- peers
@pytest.fixture
def shared(fast_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(fast_dir, 1)


def test_a_function_and_a_command_of_fsqdo_itself(shared: Bench) -> None:
    """Two processes behind the gate, and one with two slots; that all tasks were done is checked there."""
    ours = PEERS[0]
    assert [bench_peers.measure_once(shared, ours, what, 12) > 0 for what in bench_peers.KINDS] == [True] * 3


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (Peer("gone", "no-such-distribution", {"noop": 1}, "fsqdo"), "not installed"),
        (Peer("gone", "", {"command": 1}, words=("no-such-program",)), "not installed"),
        (Peer("broken", "fsqdo", {"noop": 1}, "no-such-queue"), "it failed: KeyError: 'no-such-queue'"),
    ],
)
def test_a_peer_that_cannot_is_told_of(shared: Bench, monkeypatch: pytest.MonkeyPatch, peer: Peer, why: str) -> None:
    monkeypatch.setattr(bench_peers, "PEERS", [peer])
    (section,) = bench_peers.peers(shared)
    assert why in section.rows[0]


def test_tasks_that_were_not_all_done_are_no_figure(shared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "run_together", lambda bench, commands: (1.0, 11))
    with pytest.raises(PeerError, match="did 11 of 12 tasks"):
        bench_peers.measure_once(shared, PEERS[0], "noop", 12)


def _can_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode == 0


@pytest.mark.skipif(not _can_trace(), reason="needs strace, and leave to use it")
def test_traced_adds(shared: Bench) -> None:
    added = next(traced for traced in bench_peers.TRACED if traced.program == "fsqdo-add")
    found = bench_peers.calls_a_task(shared, bench_peers.Traced("", added.program, added.verb, added.kind, (2, 12)))
    assert (found["rename"], found["fsync"]) == (2.0, 2.0)


# ---------------------------------------------------------------- the page
def a_section(key: str, cell: str) -> Section:
    return Section(key, key.title(), f"Of {key}.", ["a", "b"], [[cell, "x|y"]], ["a note"])


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of one's own, before anything was measured."""
    path = tmp_path / "page.md"
    path.write_text(f"# Words\n\n{benchmarks.BEGIN}\n{benchmarks.END}\nMore words.\n")
    monkeypatch.setattr(benchmarks, "PAGE", path)
    monkeypatch.setattr(benchmarks, "FIGURES", tmp_path / "figures.json")
    return path


def run(tmp_path: Path, names: list[str], cell: str) -> None:
    def of(name: str) -> benchmarks.Benchmark:
        def measure(shared: Bench) -> Iterator[Section]:
            assert shared.rounds == 2
            yield a_section(name, cell)

        return measure

    only = [word for name in names for word in ("--only", name)]
    known = {name: of(name) for name in ("first", "second")}
    assert benchmarks.main([*only, "--rounds", "2", "--dir", str(tmp_path / "build")], known) == 0
    assert list((tmp_path / "build").iterdir()) == []


def test_the_page_is_made_of_what_was_measured(tmp_path: Path, page: Path) -> None:
    run(tmp_path, ["second"], "0")
    run(tmp_path, ["first", "second"], "1")
    run(tmp_path, ["first"], "2")
    text = page.read_text("utf-8")
    assert text.startswith("# Words\n") and text.endswith(f"{benchmarks.END}\nMore words.\n")
    first, second = text.index("## First\n\nOf first.\n\n| a | b |\n| --- | --- |\n| 2 | x\\|y |"), text.index("| 1 | x\\|y |")
    assert first < second
    assert [section["key"] for section in json.loads(benchmarks.FIGURES.read_text("utf-8"))["sections"]] == ["first", "second"]
    assert "rounds 2" in text


def test_a_page_without_its_marks_is_left_alone(tmp_path: Path, page: Path) -> None:
    page.write_text("mine\n")
    with pytest.raises(ValueError, match="lacks one of the lines"):
        run(tmp_path, ["first"], "1")
    assert page.read_text("utf-8") == "mine\n"


def test_the_page_there_is_is_that_of_its_figures() -> None:
    text = benchmarks.PAGE.read_text("utf-8")
    assert text == benchmarks.page(text, json.loads(benchmarks.FIGURES.read_text("utf-8")))


def test_the_command_knows_its_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=benchmarks.CHECKOUT,
    )
    assert all(name in done.stdout for name in benchmarks.SECTIONS)
