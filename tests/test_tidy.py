"""Tidying: journals and logs of ended workers are put together and found all the same; litter goes, and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fsqdo
from fsqdo import journal, litter, merged, merging, mounts, packing, tidy
from fsqdo.errors import FormatError, TaskError
from fsqdo.jobwork import work
from fsqdo.member import Member
from fsqdo.recovery import recover
from fsqdo.store import Store
from tests.checker import read_queue
from tests.faults import World
from tests.scenarios import new_queue
from tests.test_faults import play, world_dir  # noqa: F401

COMMANDS = ["echo one", "echo two; exit 3", "echo three", "test $FSQDO_ATTEMPT = 2 || { echo again; exit 1; }; echo four"]


@pytest.fixture
def queue(root: Path) -> fsqdo.Queue:
    """Four tasks, done by two workers: 2 failed, 4 needed a retry."""
    made = fsqdo.create("Q", retry_delay_s=0, pack=False)
    made.add_multiple(COMMANDS[:2])
    made.do()
    made.add_multiple(COMMANDS[2:], max_retries=1)
    made.do(bad_node_after=0)
    return made


def left(queue: fsqdo.Queue, top: str) -> list[str]:
    """All files below a directory of the queue."""
    base = Path(queue.directory, top)
    return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())


def said(queue: fsqdo.Queue) -> Any:
    """What the commands say of the tasks and their attempts, but for where their output is."""
    found = []
    for task in queue.tasks():
        known = queue.show(task.id)
        for attempt in known["attempts"]:
            attempt.pop("log", None)
        found.append((known, task.exitcode, [queue.log(task.id, n + 1) for n in range(len(known["attempts"]))]))
    return found, sorted(journal.durations(queue.store)), work(queue.store)


def sound(queue: fsqdo.Queue) -> None:
    report = read_queue(queue.directory)
    assert report.problems() == []
    lines = {(worker, raw["name"]) for worker, raw in report.outcomes if raw["outcome"] != "started"}
    assert len(lines) == 5, "every attempt has its line"


# ---------------------------------------------------------------- journals and logs
def test_journals_and_logs_of_ended_workers_become_few_files(queue: fsqdo.Queue) -> None:
    before = said(queue)
    assert len(left(queue, "outcomes")) == len(left(queue, "logs")) == 2
    assert queue.tidy(dry_run=True) == {"journals": 2, "logs": 2}
    assert len(left(queue, "outcomes")) == 2 and not os.path.exists(f"{queue.directory}/merged")
    done = queue.tidy()
    assert done["journals"] == done["logs"] == 2
    assert left(queue, "outcomes") == os.listdir(f"{queue.directory}/logs") == []
    assert len(left(queue, "merged")) == 3
    assert said(queue) == before
    sound(queue)
    assert queue.tidy() == {}


def test_show_says_where_the_output_is_now(queue: fsqdo.Queue) -> None:
    queue.tidy()
    log = queue.show(3)["attempts"][0]["log"]
    content = Path(queue.directory, log["path"]).read_bytes()
    assert content[log["first"] : log["end"]] == b"three\n"


def test_what_is_left_later_is_merged_with_the_little_that_was(queue: fsqdo.Queue) -> None:
    queue.tidy()
    for number in range(3):
        queue.add(f"echo {number}")
        queue.do()
        before = said(queue)
        assert queue.tidy()["journals"] == 1
        assert len(os.listdir(f"{queue.directory}/merged")) == 1
        assert said(queue) == before


def test_large_files_stay_where_they_are(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    before = said(queue)
    monkeypatch.setattr(merging, "LARGE", 4)
    done = queue.tidy()
    assert "journals" not in done and len(left(queue, "outcomes")) == 2 and len(left(queue, "logs")) == 2
    assert said(queue) == before


def test_many_workers_make_several_directories(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    before = said(queue)
    monkeypatch.setattr(merging, "FULL", 1)
    queue.tidy()
    assert len(os.listdir(f"{queue.directory}/merged")) == 2 and said(queue) == before
    monkeypatch.undo()


def test_the_living_and_the_unrecovered_keep_their_journals(queue: fsqdo.Queue) -> None:
    member = Member(queue.store, slots=1)
    left_over = Path(queue.directory, "recovering", "host-1-dead")
    left_over.mkdir()
    Path(queue.directory, "outcomes", "host-1-dead.jsonl").write_text('{"worker":"host-1-dead"}\n')
    assert merging.plan(queue.store, merging.sizes(queue.store, merging.ended(queue.store)), False).files
    assert not {member.name, "host-1-dead"} & set(merging.ended(queue.store))
    assert queue.tidy()["workers"] == 1, "it is emptied first"
    assert left(queue, "outcomes") == [f"{member.name}.jsonl"]
    member.leave()
    assert queue.tidy()["journals"] == 1


def test_recover_reads_what_a_worker_left_that_came_back_late(queue: fsqdo.Queue) -> None:
    """Should its journal have been merged all the same, recover finds it there."""
    queue.add("true")
    member = Member(queue.store, slots=1)
    queue.store.move("pending/0/000000/000000005.json", f"running/{member.name}/000000005.json")
    to = f"succeeded/000000/000000005@{member.name}.json"
    member.journal.append_line(f'{{"name":"000000005","outcome":"succeeded","to":"{to}"}}\n'.encode())
    merging.carry_out(queue.store, merging.plan(queue.store, merging.sizes(queue.store, [member.name]), False))
    assert not os.path.exists(f"{queue.directory}/outcomes/{member.name}.jsonl")
    recover(queue.store, force=True)
    assert queue.task(5).state == "Succeeded"
    member.abandon()


def test_a_journal_that_grows_meanwhile_is_kept_and_merged_again(queue: fsqdo.Queue) -> None:
    store = queue.store
    made = merging.plan(store, merging.sizes(store, merging.ended(store)), False)
    late = next(Path(queue.directory, "outcomes").iterdir())
    with late.open("a") as file:
        file.write('{"name":"000000009","outcome":"succeeded","to":"x"}\n')
    merging.carry_out(store, made)
    assert left(queue, "outcomes") == [late.name]
    assert journal.lookup(store, late.stem, ["000000009"])
    queue.tidy()
    assert left(queue, "outcomes") == [] and journal.lookup(store, late.stem, ["000000009"])


def test_an_index_that_cannot_be_read_is_an_error_and_no_empty_answer(queue: fsqdo.Queue) -> None:
    queue.tidy()
    (path,) = Path(queue.directory, "merged").glob("*/index.json")
    path.write_text("{")
    merged._known.clear()
    merged._joined.clear()
    with pytest.raises(FormatError, match="cannot be read"):
        queue.show(1)


def test_packing_and_unpacking_after_a_tidy(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ids_of", lambda shard: range(1, 5))
    before = said(queue)
    queue.tidy()
    assert queue.pack() == 3
    assert [task.exitcode for task in queue.tasks()] == [0, 0, 0, 3]
    queue.unpack()
    assert said(queue) == before
    queue.rerun(id=1)
    queue.do()
    assert len(queue.show(1)["attempts"]) == 2
    queue.close()


# ---------------------------------------------------------------- logs of what succeeded
def outputs(queue: fsqdo.Queue) -> dict[tuple[int, int], bytes]:
    found = {}
    for task in queue.tasks():
        for number in range(len(queue.show(task.id)["attempts"])):
            try:
                found[task.id, number + 1] = queue.log(task.id, number + 1)
            except TaskError as error:
                assert "tidied away" in str(error)
    return found


@pytest.mark.parametrize("merged_before", [False, True])
def test_logs_of_what_succeeded_go_and_those_of_failures_stay(queue: fsqdo.Queue, merged_before: bool) -> None:
    if merged_before:
        queue.tidy()
    done = queue.tidy(logs="succeeded")
    assert done["log_bytes"] == len("one\nthree\nfour\n")
    assert outputs(queue) == {(2, 1): b"two\n", (4, 1): b"again\n"}
    assert queue.show(1)["attempts"][0]["log"] == {"note": "tidied away"}
    (log,) = Path(queue.directory, "merged").glob("*/tasks.log")
    assert sorted(log.read_bytes().split()) == [b"again", b"two"]
    assert queue.tidy(logs="succeeded") == {}
    queue.tidy()
    assert outputs(queue) == {(2, 1): b"two\n", (4, 1): b"again\n"}
    sound(queue)


def test_a_large_log_goes_when_little_of_it_is_kept(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "LARGE", 5)
    queue.tidy(logs="succeeded")
    assert outputs(queue) == {(2, 1): b"two\n", (4, 1): b"again\n", (3, 1): b"three\n", (4, 2): b"four\n"}
    assert len(left(queue, "logs")) == 1, "of the other log six bytes would have been kept"


def test_the_log_of_a_worker_without_a_journal_is_kept(queue: fsqdo.Queue) -> None:
    logs = {path: Path(queue.directory, "logs", path).read_bytes() for path in left(queue, "logs")}
    for path in Path(queue.directory, "outcomes").iterdir():
        path.unlink()
    assert "log_bytes" not in queue.tidy(logs="succeeded")
    for path, content in logs.items():
        worker, _, slot = path.partition("/")
        assert merged.read_log(queue.store, worker, int(slot.partition(".")[0]), 0, 100) == content


def test_what_health_checks_wrote_goes_where_they_had_nothing_to_say(queue: fsqdo.Queue) -> None:
    queue.add("true")
    queue.do(health_check="echo fit", report=lambda text: None)
    queue.do(health_check="true", timeout=0, report=lambda text: None)  # which finds no task
    queue.add("true")
    assert queue.do(health_check="echo no scratch; false", report=lambda text: None).trouble
    assert sum(path.endswith("/health.log") for path in left(queue, "logs")) == 3
    queue.tidy()
    (kept,) = left(queue, "logs")
    assert Path(queue.directory, "logs", kept).read_text() == "no scratch\n"
    assert queue.tidy() == {}


def test_the_command(queue: fsqdo.Queue) -> None:
    def typed(*words: str) -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, "-m", "fsqdo", *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert typed("tidy", "Q", "--dry-run")[1] == "2 journals would be merged\n2 logs would be merged\n"
    assert typed("tidy", "Q", "--logs", "succeeded", "--json")[1] == '{"logs": 2, "journals": 2, "log_bytes": 15}\n'
    assert typed("tidy", "Q")[1] == "nothing to tidy\n"
    code, out, err = typed("log", "Q", "1")
    assert (code, out) == (1, "") and "the log of 000000001 was tidied away" in err
    assert typed("tidy", "Q", "--logs", "all")[0] == 2
    assert typed("log", "Q", "2")[1] == "two\n"


# ---------------------------------------------------------------- litter
def old(path: Path, days: float) -> None:
    """As if nobody had touched it for so long."""
    then = time.time() - days * 86400
    for one in [path, *path.rglob("*")]:
        os.utime(one, (then, then))


def scatter(queue: fsqdo.Queue) -> None:
    """Some litter of each kind, and beside each what is none."""
    base = Path(queue.directory)
    for name, days in (("old", 2.0), ("young", 0.1)):
        (base / "tmp" / name).mkdir()
        (base / "tmp" / name / "inner").write_text("x")
        (base / "locks" / name).write_text("1\nhost\n")
        (base.parent / f".new.Other.{name}").mkdir()
        for path in (base / "tmp" / name, base / "locks" / name, base.parent / f".new.Other.{name}"):
            old(path, days)
    for name, days in (("gone", 8.0), ("here", 6.0)):
        (base / "observed" / f"{name}.json").write_text("{}")
        old(base / "observed" / f"{name}.json", days)
    (base.parent / ".trash.Q.abc").mkdir()
    (base / "pending/7/000000001-000000004").mkdir(parents=True)
    (base / "pending/7/000000001-000000004/000000001-000000004.pack").write_text("x")
    (base / "waiting/000000/000000999").mkdir(parents=True)
    (base / "killed/000000/000000001-000000004.r1").mkdir(parents=True)
    (base / "killed/000000/000000001-000000004.r1/000000001-000000004.r1.pack").write_text("x")
    (base / "succeeded/000009").mkdir()
    (base / "failed/000000/000000001.f1@host-1-none.txt").write_text("of nobody")


def test_litter_goes_and_what_may_be_in_use_stays(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litter, "is_local", lambda path: True)
    queue.tidy()
    before = said(queue)
    scatter(queue)
    kinds = {"staging": 1, "lock": 1, "observation": 1, "queue": 2, "marker": 2, "directory": 7, "story": 1}
    assert queue.tidy(dry_run=True) == kinds
    assert queue.tidy(dry_run=True) == kinds, "that changed nothing"
    assert queue.tidy() == kinds
    base = Path(queue.directory)
    assert os.listdir(base / "tmp") == ["young"] and os.listdir(base / "locks") == ["young"]
    assert sorted(os.listdir(base / "observed")) == ["here.json"]
    assert sorted(os.listdir(base.parent)) == [".new.Other.young", "Q"]
    assert os.listdir(base / "pending") == os.listdir(base / "waiting") == os.listdir(base / "killed") == []
    assert said(queue) == before and queue.tidy() == {}
    for young in (base / "tmp/young", base / "locks/young"):
        assert young.exists()
    (base / "tmp/young/inner").unlink()
    (base / "tmp/young").rmdir()
    (base / "locks/young").unlink()
    sound(queue)


def test_a_bundle_with_tasks_loses_only_its_spent_marker(root: Path) -> None:
    queue = fsqdo.create("Q")
    queue.add_multiple([1, 2, 3])
    (bundle,) = Path(queue.directory, "pending/0").iterdir()
    (bundle / f"{bundle.name}.pack").write_text("x")
    (bundle / "000000002-000000002.pack").write_text("of its own")
    assert queue.tidy() == {"marker": 1}
    assert len(os.listdir(bundle)) == 4


def test_on_a_network_only_what_was_seen_unchanged_for_a_day_is_old(
    queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.tidy()
    now = [1000.0]
    monkeypatch.setattr(litter, "is_local", lambda path: False)
    monkeypatch.setattr(litter, "boot_clock", lambda: now[0])
    scatter(queue)
    assert "staging" not in queue.tidy(), "its time is that of another clock"
    now[0] += 86400 - 1
    (Path(queue.directory) / "tmp/young/inner").write_text("it grows")
    assert "staging" not in queue.tidy()
    now[0] += 2
    assert queue.tidy()["staging"] == 1
    assert os.listdir(f"{queue.directory}/tmp") == ["young"]


def test_on_a_network_journals_rest_first(queue: fsqdo.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "is_local", lambda path: False)
    assert "journals" not in queue.tidy(wait=False)
    slept: list[float] = []
    late = next(Path(queue.directory, "outcomes").iterdir())

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        with late.open("a") as file:
            file.write("\n")

    monkeypatch.setattr(tidy.time, "sleep", sleep)
    told: list[str] = []
    assert queue.tidy(report=told.append)["journals"] == 1
    assert len(slept) == 1 and 100 < slept[0] <= 120 and "rest for" in told[0]
    assert left(queue, "outcomes") == [late.name], "somebody wrote to it still"


def test_what_was_left_in_the_middle_is_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ids_of", lambda shard: range(1, 5))
    queue = fsqdo.create("Q", pack=False)
    queue.add_multiple([1, 2, 3, 4])
    queue.do(func=lambda task: None)
    packing.Packer(queue.store, settle_s=1000).run()
    assert queue.tidy()["tasks"] == 4
    assert [name[-9:] for name in os.listdir(f"{queue.directory}/succeeded")] == [".n4.jsonl"]


# ---------------------------------------------------------------- crashes
LIVE, DEAD = "host-9-live", "host-8-dead"


def with_ended_workers(world: World) -> None:
    """Three workers that have ended, one merged before and its journal left by a kill, one alive, one half recovered."""
    with new_queue(world, pack=False) as user:
        world.told.ack(user.q.add_multiple([1, 2, 3, 4, 5]))
    base = Path(world.queue_dir())
    (bundle,) = (base / "pending/0").iterdir()
    (base / "succeeded/000000").mkdir()

    def journal_of(worker: str, task_id: int, to: str) -> None:
        (base / "logs" / worker).mkdir()
        (base / "logs" / worker / "0.log").write_text(f"good {task_id}\nbad {task_id}\n")
        name = f"{task_id:09d}"
        lines = [
            {"worker": worker},
            {"name": f"{name}.r1", "outcome": "retry", "to": "", "log": [0, 7, 13]},
            {"name": name, "outcome": "succeeded", "to": f"succeeded/000000/{name}@{worker}.json", "log": [0, 0, 7]},
        ]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (base / f"outcomes/{worker}.jsonl").write_text(text)
        (bundle / f"{name}.json").rename(base / to)
        world.told.note(f"{task_id} is Succeeded")

    for number, worker in enumerate(("host-1-a", "host-2-b", "host-3-c"), 1):
        journal_of(worker, number, f"succeeded/000000/{number:09d}@{worker}.json")
        if number == 2:
            store = Store(str(base))
            kept = (base / "outcomes/host-2-b.jsonl").read_bytes()
            merging.carry_out(store, merging.plan(store, merging.sizes(store, merging.ended(store)), False))
            (base / "outcomes/host-2-b.jsonl").write_bytes(kept)
    for number, (top, worker) in enumerate((("running", LIVE), ("recovering", DEAD)), 4):
        (base / top / worker).mkdir()
        (base / top / worker / "worker.json").write_text(json.dumps({"worker": worker, "host": "far", "pid": 1}))
        journal_of(worker, number, f"{top}/{worker}/{number:09d}.json")


def all_found(world: World) -> Iterator[str]:
    """Each outcome and each failure's output is found, by fsqdo and by the other reader."""
    merged._known.clear()
    merged._joined.clear()
    report = read_queue(world.queue_dir())
    store = Store(world.queue_dir())
    known = {(worker, raw["name"]) for worker, raw in report.outcomes}
    for number, worker in enumerate(("host-1-a", "host-2-b", "host-3-c", LIVE, DEAD), 1):
        names = [f"{number:09d}", f"{number:09d}.r1"]
        if not known.issuperset((worker, name) for name in names):
            yield f"the other reader does not find all of {worker}"
        found = journal.lookup(store, worker, names)
        if sorted(found) != names:
            yield f"of {worker} there is {sorted(found)}"
        elif journal.output(store, found[names[1]]) != b"bad %d\n" % number:
            yield f"the output of {worker} is {journal.output(store, found[names[1]])!r}"
    if report.counts()["succeeded"] != 5:
        yield f"{report.counts()}"


@pytest.mark.parametrize("drop", [False, True])
def test_every_fault_while_merging(world_dir: Path, drop: bool) -> None:  # noqa: F811
    def scenario(world: World) -> None:
        merged._known.clear()
        merged._joined.clear()
        store = Store(world.queue_dir())
        own = merging.sizes(store, merging.ended(store))
        merging.carry_out(store, merging.plan(store, own, drop))

    play(world_dir, with_ended_workers, scenario, all_found)


# ---------------------------------------------------------------- races
def _tidy_often(drop: bool, start: Any) -> None:
    queue = fsqdo.connect("Q")
    start.wait(10)
    for _ in range(6):
        queue.tidy(logs="succeeded" if drop else None)


def _read_often(start: Any, end: Any) -> None:
    queue = fsqdo.connect("Q")
    start.wait(10)
    while True:
        last = end.is_set()
        assert [attempt["outcome"] for attempt in queue.show(2)["attempts"]] == ["failed"]
        assert queue.log(2) == b"two\n" and queue.log(4, 1) == b"again\n"
        if last:
            return


def test_several_tidy_while_others_read_and_work(queue: fsqdo.Queue) -> None:
    context = multiprocessing.get_context("fork")
    start, end = context.Event(), context.Event()
    reader = context.Process(target=_read_often, args=(start, end))
    tidiers = [context.Process(target=_tidy_often, args=(drop, start)) for drop in (False, False, True)]
    for child in [reader, *tidiers]:
        child.start()
    start.set()
    for _ in range(3):
        queue.add("echo more")
        queue.do()
    for child in tidiers:
        child.join(60)
    end.set()
    reader.join(60)
    assert [child.exitcode for child in [reader, *tidiers]] == [0] * 4
    queue.tidy(logs="succeeded")
    assert outputs(queue) == {(2, 1): b"two\n", (4, 1): b"again\n"}
    assert left(queue, "outcomes") == [] and len(os.listdir(f"{queue.directory}/merged")) == 1
    assert [len(queue.show(task.id)["attempts"]) for task in queue.tasks()] == [1, 1, 2, 1, 1, 1, 1]
    assert mounts.type_of(queue.directory)
