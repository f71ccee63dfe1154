"""The store: making queues, taking ids, and reading trees that people and half-finished moves have left."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from fsqdo.errors import FormatError, FsqdoError, QueueExistsError, QueueNotFoundError, StorageError
from fsqdo.finals import Finals
from fsqdo.ids import IdSet, ids_in
from fsqdo.inputs import NewTask
from fsqdo.queue import Queue
from fsqdo.settings import Settings
from fsqdo.store import Store, create
from fsqdo.store.system import System
from fsqdo.task import State
from tests.checker import read_queue
from tests.faults import Injector, Mode, modes_of


def put(store: Store, *paths: str, content: bytes | None = None) -> None:
    """Make files by hand; a path that ends in a slash is a directory."""
    for path in paths:
        whole = Path(store.directory) / path
        if path.endswith("/"):
            whole.mkdir(parents=True, exist_ok=True)
            continue
        whole.parent.mkdir(parents=True, exist_ok=True)
        digits = whole.name[:9]
        number = int(digits) if digits.isdecimal() and digits.isascii() else 0
        whole.write_bytes(json.dumps({"id": number, "task": "x"}).encode() + b"\n" if content is None else content)


def ids_of(store: Store, state: State, only: IdSet | None = None) -> list[int]:
    """All ids that the entries of a state stand for, in their order."""
    return [i for entry in store.entries(state, only) for i in range(entry.name.first, entry.name.last + 1)]


# ---------------------------------------------------------------- create and open
def test_the_tasks_of_a_waiting_marker_share_their_requirements(root: Path) -> None:
    """One place is not enough: the marker is promoted by what its first task requires."""
    queue = Queue(create(str(root / "q"), Settings()))
    first, last = queue.add("a"), queue.add("b")
    queue.add_multiple([NewTask(n, requires=[first, last] if n < 10 else [last]) for n in range(20)])
    ranges = [(e.name.first, e.name.last) for e in queue.store.entries(State.WAITING)]
    assert ranges == [(3, 12), (13, 22)]
    task = queue.get()
    while task is not None and task.id != last:
        task = queue.get()
    assert task is not None
    task.set_state("Succeeded")
    # What requires the second task alone may run; what requires the first one, too, still waits.
    assert [t.id for t in queue.tasks(state="Waiting")] == list(range(3, 13))
    queue.close()


def test_create(root: Path) -> None:
    made = create(str(root / "q"), Settings(max_retries=2))
    assert made.settings.name == "q" and made.settings.max_retries == 2 and made.settings.created_at.endswith("Z")
    assert made.next_id() == 1
    assert not any(made.counts().values())
    report = read_queue(root / "q")
    assert report.problems(healed=True) == [] and report.next_id == 1
    assert not [n for n in os.listdir(root) if n.startswith(".")]


def test_create_makes_the_root(tmp_path: Path) -> None:
    create(str(tmp_path / "deep" / "er" / "q"), Settings())
    assert Store(str(tmp_path / "deep" / "er" / "q")).next_id() == 1


def test_create_twice(store: Store) -> None:
    store.take_ids(5)
    with pytest.raises(QueueExistsError, match="a queue q already") as caught:
        create(store.directory, Settings())
    assert isinstance(caught.value, ValueError)
    assert store.next_id() == 6
    assert not [n for n in os.listdir(os.path.dirname(store.directory)) if n.startswith(".")]


def test_create_over_something_else(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "precious").write_bytes(b"x")
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to(root / "data")
    for name in ("data", "file", "link"):
        with pytest.raises(QueueExistsError, match="not a queue"):
            create(str(root / name), Settings())
    assert (root / "data" / "precious").read_bytes() == (root / "file").read_bytes() == b"x"
    assert not [n for n in os.listdir(root) if n.startswith(".")]


def test_create_takes_an_empty_directory(root: Path) -> None:
    (root / "q").mkdir()
    assert create(str(root / "q"), Settings()).next_id() == 1


def test_create_where_renames_are_forbidden(root: Path, seam: System) -> None:
    def rename(src: str, dst: str) -> None:
        if os.path.dirname(src) != os.path.dirname(dst):
            raise OSError(errno.EXDEV, "")
        os.rename(src, dst)

    seam.rename = rename
    with pytest.raises(StorageError, match="lfs setdirstripe"):
        create(str(root / "q"), Settings())
    assert os.listdir(root) == []


def test_many_create_at_once(root: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        said = pool.map(try_to_create, [str(root / "q")] * 16)
    assert sorted(said) == [False] * 15 + [True]
    assert read_queue(root / "q").problems() == []


def try_to_create(directory: str) -> bool:
    try:
        create(directory, Settings())
        return True
    except QueueExistsError:
        return False


def test_create_with_every_fault(fast_dir: Path) -> None:
    """Whatever goes wrong: there is a whole queue, or none, and a second try works or says that it is there."""
    clean = Injector()
    with clean.installed():
        create(str(fast_dir / "0" / "q"), Settings())
    for number, call in enumerate(clean.calls):
        for mode in modes_of(call):
            if mode.kind.startswith("die"):
                continue
            root = fast_dir / f"{number} {mode}"
            said: FsqdoError | None = None
            try:
                with Injector(call.n, mode).installed():
                    create(str(root / "q"), Settings())
            except FsqdoError as error:
                said = error
            where = f"{call}: {mode}: {said!r}"
            if said is None or os.path.exists(root / "q"):
                assert Store(str(root / "q")).next_id() == 1, where
            else:
                create(str(root / "q"), Settings())
            assert read_queue(root / "q").problems(healed=True) == [], where


def test_no_queue(root: Path) -> None:
    with pytest.raises(QueueNotFoundError, match="no queue at"):
        Store(str(root / "none"))
    (root / "dir").mkdir()
    with pytest.raises(FormatError, match=r"no queue\.json"):
        Store(str(root / "dir"))
    (root / "file").write_bytes(b"")
    with pytest.raises(QueueNotFoundError):
        Store(str(root / "file"))


def test_newer_format_is_refused(store: Store) -> None:
    put(store, "queue.json", content=b'{"format": 2}')
    with pytest.raises(FormatError, match=r"format 2.*format 1"):
        Store(store.directory)


def test_settings_are_replaced_whole(store: Store, seam: System) -> None:
    store.write_settings(store.settings.with_changes({"durability": "paranoid", "max_retries": 4}))
    assert store.paranoid and Store(store.directory).paranoid
    seam.write = lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, ""))
    with pytest.raises(StorageError):
        store.write_settings(store.settings.with_changes({"max_retries": 9}))
    seam.write = os.write
    assert store.settings.max_retries == Store(store.directory).settings.max_retries == 4


def test_paused_is_a_file(store: Store) -> None:
    assert not store.paused()
    put(store, "PAUSED")
    assert store.paused()
    os.unlink(store.path("PAUSED"))
    assert not store.paused()
    os.rename(store.directory, store.directory + ".away")
    with pytest.raises(QueueNotFoundError):
        store.paused()


# ---------------------------------------------------------------- ids
def take_some(directory: str) -> list[tuple[int, int]]:
    store = Store(directory)
    return [(store.take_ids(n), n) for n in (1, 3, 1, 1000, 2, 1, 1, 7)]


def test_many_processes_take_disjoint_ids(store: Store) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        taken = [pair for pairs in pool.map(take_some, [store.directory] * 16) for pair in pairs]
    ids = [i for first, n in taken for i in range(first, first + n)]
    assert len(set(ids)) == len(ids) == store.next_id() - 1
    assert len(os.listdir(store.path("next-id"))) == 1


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESTALE, errno.EIO, errno.EINTR])
def test_lost_reply_of_next_id_gives_no_id_twice(store: Store, seam: System, error: int) -> None:
    lies = 3

    def rename(src: str, dst: str) -> None:
        nonlocal lies
        os.rename(src, dst)
        if lies:
            lies -= 1
            raise OSError(error, "")

    seam.rename = rename
    seam.sleep = lambda seconds: None
    assert [store.take_ids(2) for _ in range(5)] == [1, 3, 5, 7, 9]


def test_next_id_seen_under_two_names_or_none(store: Store, seam: System) -> None:
    answers: list[list[str]] = [[], ["000000001.a", "000000009.b", "README"], ["x"]]
    seam.listdir = lambda path: answers.pop(0) if answers else os.listdir(path)
    seam.sleep = lambda seconds: None
    assert store.next_id() == 9
    assert store.next_id() == 1
    seam.listdir = lambda path: []
    with pytest.raises(FormatError, match=r"empty file"):
        store.next_id()


# ---------------------------------------------------------------- reading trees
TREE = [
    "pending/5/000000/000000001.json",
    "pending/0/000000/000000002.f1.json",
    "pending/0/000000/000000003@old-1-a.json",
    "pending/-3/000000004-000000010.pack",
    "pending/0/000000011-000000020/000000011.json",
    "pending/0/000000011-000000020/000000012-000000015.pack",
    "pending/0/000000011-000000020/000000011-000000020.pack",  # spent
    "pending/0/000000021-000000022.i1/000000021.i1.json",
    "pending/0/000000021-000000022.i1/000000021-000000022.i1.pack",  # spent
    "pending/0/000000030.json",  # somebody's mv, one level too high
    "waiting/000000/000000001/000000040.json",
    "waiting/000000/000000001/000000041-000000045.pack",
    "waiting/000000/000000002/000000050-000000059/000000050.json",
    "waiting/000000/000000002/000000050-000000059/000000050-000000059.pack",  # spent
    "waiting/until/1790000000/000000060.f1.json",
    "running/w-1-a/000000070.json",
    "running/w-1-a/worker.json",
    "running/w-1-a/000000070.kill",
    "running/w-1-a/DRAIN",
    "running/w-1-a/000000080-000000089@0/000000080-000000089.pack",
    "running/w-1-a/000000080-000000089@0/000000080.json",
    "running/w-1-a/000000080-000000089@0/000000082-000000089.pack",
    "running/w-2-b/",
    "recovering/w-3-c/000000090.i1.json",
    "recovering/w-3-c/000000091-000000099@0.drop/000000091-000000099.pack",
    "succeeded/000000/000000100@w-1-a.json",
    "succeeded/000000/000000101.r1@w-1-a.json",
    "failed/000000/000000110.f1@w-1-a.json",
    "failed/000000/000000110.f1@w-1-a.txt",
    "killed/000000/000000120.json",
    "killed/000000/000000121-000000125.pack",
    "outcomes/w-1-a.jsonl",
]
EXPECTED = {
    State.WAITING: [40, 41, 42, 43, 44, 45, 50, 60],
    State.PENDING: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21, 30, *range(80, 90), *range(91, 100)],
    State.RUNNING: [70, 90],
    State.SUCCEEDED: [100, 101],
    State.FAILED: [110],
    State.KILLED: [120, 121, 122, 123, 124, 125],
}
FOREIGN = [
    "README",
    "README.json",
    "000000500.json~",
    ".000000500.json.swp",
    "500.json",
    "000000500.txt.bak",
    "core",
    "a b",
    "²",
    "٣",
    "-0",
    "007",
    ".nfs000001",
    "000000500.json.d/",
    "000000999-000000001.pack",
    "x/000000500.json",
]


def check_expected(store: Store) -> None:
    for state, ids in EXPECTED.items():
        assert sorted(ids_of(store, state)) == ids, state
    assert {state: len(ids) for state, ids in EXPECTED.items()} == store.counts()


def test_every_kind_of_name(store: Store) -> None:
    store.take_ids(1000)
    put(store, *TREE)
    check_expected(store)
    report = read_queue(store.directory)
    assert {state: report.ids(state.directory) for state in State} == EXPECTED
    assert report.problems() == []
    for state, ids in EXPECTED.items():
        for task_id in ids:
            entry = store.find(task_id)
            assert entry is not None and entry.state is state
            assert os.path.exists(store.path(entry.path))
            assert task_id in ids_of(store, state, IdSet.of(task_id))
    for nowhere in (81, 16, 31, 999, 5000):
        if nowhere not in EXPECTED[State.PENDING]:
            assert store.find(nowhere) is None


def foreign_places(store: Store) -> Iterable[str]:
    for directory, subdirectories, _ in os.walk(store.directory):
        relative = os.path.relpath(directory, store.directory)
        if relative != "." and relative.partition("/")[0] not in ("tmp", "logs", "attic", "locks", "jobs", "observed"):
            yield relative
        del subdirectories[20:]


def test_foreign_files_everywhere_change_nothing(store: Store) -> None:
    store.take_ids(1000)
    put(store, *TREE)
    for place in list(foreign_places(store)):
        # "x/…json": a task below a directory that is none of ours. Under running/ and recovering/ any word can be a worker.
        put(store, *(f"{place}/{name}" for name in FOREIGN if name[0] != "x" or place not in ("running", "recovering")))
    check_expected(store)
    assert store.find(500) is None
    assert store.next_id() == 1001
    assert store.priorities() == [5, 0, -3]
    assert store.loads() == []
    assert store.loaded_line(500) is None
    assert sorted(store.watched()) == [(1, "waiting/000000/000000001"), (2, "waiting/000000/000000002")]
    assert list(store.delayed()) == [(1790000000, "waiting/until/1790000000")]
    for shard in (0, 7):
        for state in (State.SUCCEEDED, State.FAILED, State.KILLED):
            assert set(ids_in(shard, Finals(store).bits(state, shard))) == {i for i in EXPECTED[state] if i // 1000 == shard}


def test_holder_and_requirement_of_entries(store: Store) -> None:
    put(store, *TREE)
    entries = {entry.name.first: entry for state in State for entry in store.entries(state)}
    assert entries[40].waits_for == 1 and entries[50].waits_for == 2 and entries[60].waits_for is None
    assert entries[70].holder == "w-1-a" and entries[90].holder == "w-3-c" and entries[100].holder == "w-1-a"
    assert entries[1].waits_for is None and entries[1].holder is None


def line(name: str) -> bytes:
    return json.dumps({"name": name, "task": {"id": int(name[:9]), "task": "x"}}).encode() + b"\n"


def test_packed_shards_in_every_form(store: Store) -> None:
    """A packed file; one being packed, whose lines hide the loose names they hold; one renamed and not yet written."""
    store.take_ids(6000)
    put(store, "succeeded/000000.p1.n2.jsonl", content=line("000000001") + line("000000002.r1"))
    put(store, "succeeded/000000/000000003@w-1-a.json")  # a latecomer
    put(store, "succeeded/000000.p2/000000004@w-1-a.json")
    put(
        store,
        "succeeded/000001.p1.all.ab12/all.ab12.jsonl",
        content=line("000001001@w-1-a") + line("000001002@w-1-a") + b'{"name":"0000',
    )
    put(store, "succeeded/000001.p1.all.ab12/all.cd34.jsonl", content=line("000001009@w-1-a"))  # another packer's, void
    put(store, "succeeded/000001.p1.all.ab12/000001002@w-1-a.json", "succeeded/000001.p1.all.ab12/000001003@w-1-a.json")
    put(store, "succeeded/000002.p1/000002000@w-1-a.json", "succeeded/000002.p1/all.ef56.jsonl")
    put(store, "succeeded/000003.p1.all.zz/000003000@w-1-a.json")  # decided, and its file lost: the loose ones count
    wanted = [1, 2, 3, 4, 1001, 1002, 1003, 2000, 3000]
    assert sorted(ids_of(store, State.SUCCEEDED)) == wanted
    assert store.counts()[State.SUCCEEDED] == len(wanted)
    for task_id in wanted:
        entry = store.find(task_id)
        assert entry is not None and entry.state is State.SUCCEEDED
        assert Finals(store).succeeded(task_id)
    packed = store.find(2)
    assert packed is not None and packed.packed is not None and packed.name.r == 1
    assert list(ids_in(1, Finals(store).bits(State.SUCCEEDED, 1))) == [1001, 1002, 1003]


def test_a_bad_line_of_a_packed_shard_does_not_hide_the_others(store: Store) -> None:
    bad = [
        b"not json\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b'{"name":5}\n',
        b'{"name":"../x"}\n',
        b'{"name":"' + b"9" * 5000 + b'"}\n',
        b"[" * 50_000 + b"\n",
    ]
    put(store, "succeeded/000000.p1.n2.jsonl", content=line("000000001") + b"".join(bad) + line("000000002"))
    assert ids_of(store, State.SUCCEEDED) == [1, 2]


def test_loaded_lines(store: Store) -> None:
    def lines(first: int, last: int) -> bytes:
        return b"".join(b'{"id":%d,"task":"t%d"}\n' % (i, i) for i in range(first, last + 1))

    put(store, "loads/000000005-000001504/000000005-000001004.jsonl", content=lines(5, 1004))
    put(store, "loads/000000005-000001504/000001005-000001504.jsonl", content=lines(1005, 1504))
    put(store, "loads/000001600-000001600/000001600-000001600.jsonl", content=lines(1600, 1600)[:-3])  # torn
    for task_id in (5, 1004, 1005, 1504):
        assert json.loads(store.loaded_line(task_id) or b"null") == {"id": task_id, "task": f"t{task_id}"}
    for task_id in (4, 1505, 1600, 1601):
        assert store.loaded_line(task_id) is None
    assert store.loads() == [(5, 1504), (1600, 1600)]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_an_unreadable_directory_is_no_empty_state(store: Store, error: int) -> None:
    """However deep the listing that fails: an error, and never smaller numbers."""
    put(store, *TREE)
    clean = Injector()
    with clean.installed():
        store.counts()
    listings = [call for call in clean.calls if call.name == "listdir"]
    assert len(listings) > 20
    for call in listings:
        with Injector(call.n, Mode("fail", error)).installed(), pytest.raises(StorageError) as caught:
            store.counts()
        assert caught.value.path == call.args[0]
