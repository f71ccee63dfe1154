"""The primitives of the store, with every error at every call they make, and with answers that lie."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsqdo.errors import StorageError
from fsqdo.store import Appender, Tree
from fsqdo.store.system import System, fs
from tests.faults import SEAM, Injector, Mode, modes_of

ERRNOS = [
    errno.ENOENT,
    errno.ESTALE,
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EXDEV,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EBUSY,
    errno.ENAMETOOLONG,
    errno.EINTR,
    errno.ENOTDIR,
    errno.EMFILE,
    errno.ELOOP,
    errno.ETIMEDOUT,
]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    base = tmp_path / "tree"
    for name in ("a", "b", "tmp"):
        (base / name).mkdir(parents=True)
    (base / "a" / "x").write_bytes(b"content")
    return Tree(str(base))


def found(tree: Tree) -> dict[str, bytes | None]:
    """Every path of a tree with its content; None for a directory."""
    base = Path(tree.directory)
    return {str(p.relative_to(base)): p.read_bytes() if p.is_file() else None for p in sorted(base.rglob("*"))}


def failing(name: str, *answers: int | None, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A system call that fails with these errors in turn (None: is done), and afterwards works."""
    left = list(answers)
    real = then or getattr(System, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = left.pop(0) if left else None
        if answer is None:
            return real(*args, **kwargs)
        raise OSError(answer, os.strerror(answer), args[0])

    return call


# ---------------------------------------------------------------- move
def test_move(tree: Tree) -> None:
    assert tree.move("a/x", "b/y") is True
    assert tree.ls("a") == [] and tree.read("b/y") == b"content"


def test_move_of_what_is_gone_is_lost(tree: Tree) -> None:
    assert tree.move("a/none", "b/y") is False
    assert tree.move("none/x", "b/y") is False
    assert found(tree)["a/x"] == b"content"


def test_move_makes_missing_directories(tree: Tree) -> None:
    assert tree.move("a/x", "c/d/e/x") is True
    assert tree.read("c/d/e/x") == b"content"


def test_move_of_what_is_gone_leaves_no_new_directories_that_matter(tree: Tree) -> None:
    assert tree.move("a/none", "c/d/x") is False
    assert not any(path.endswith("x") and path != "a/x" for path in found(tree))


def test_move_into_a_fenced_directory(tree: Tree) -> None:
    """A worker's own directory is never made again: missing means fenced, and the task stays."""
    assert tree.move("a/x", "gone/x", make=False) is False
    assert tree.ls("gone") is None and tree.read("a/x") == b"content"
    assert tree.move("a/x", "gone/x", make=False, private=True) is False


def test_move_whose_target_directory_vanishes_again_and_again(tree: Tree, seam: System) -> None:
    """Others remove empty directories: it is made again for every try."""
    tries = 0

    def rename(src: str, dst: str) -> None:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            os.rmdir(os.path.dirname(dst))
        os.rename(src, dst)

    seam.rename = rename
    seam.sleep = lambda seconds: None
    assert tree.move("a/x", "c/x") is True
    assert tree.read("c/x") == b"content"


@pytest.mark.parametrize(
    "error", [errno.ENOENT, errno.ESTALE, errno.EIO, errno.EINTR, errno.EBUSY, errno.EEXIST, errno.ETIMEDOUT]
)
def test_lost_reply_of_a_rename_is_seen_in_the_target(tree: Tree, seam: System, error: int) -> None:
    def rename(src: str, dst: str) -> None:
        os.rename(src, dst)
        raise OSError(error, os.strerror(error))

    seam.rename = rename
    seam.sleep = lambda seconds: None
    assert tree.move("a/x", "b/y") is True


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESTALE, errno.EIO])
def test_lost_reply_and_moved_on(tree: Tree, seam: System, error: int) -> None:
    """Done, answered with an error, and taken by somebody else at once: lost; done if the source was private."""

    def rename(src: str, dst: str) -> None:
        os.rename(src, dst)
        os.unlink(dst)
        raise OSError(error, os.strerror(error))

    seam.rename = rename
    seam.sleep = lambda seconds: None
    assert tree.move("a/x", "b/y") is False
    tree.write("tmp/z", b"z")
    assert tree.move("tmp/z", "b/z", private=True) is True


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESTALE, errno.EIO, errno.EINTR, errno.EBUSY])
def test_transient_errors_of_rename_are_tried_again(tree: Tree, seam: System, error: int) -> None:
    slept: list[float] = []
    seam.rename = failing("rename", error, error, error)
    seam.sleep = slept.append
    assert tree.move("a/x", "b/y") is True
    assert slept == sorted(slept) and sum(slept) < 5


@pytest.mark.parametrize(
    "error", [errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG]
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_errors_that_no_waiting_mends_stop_at_once(tree: Tree, seam: System, error: int, before: int) -> None:
    seam.rename = failing("rename", *[errno.EIO] * before, *[error] * 100)
    seam.sleep = lambda seconds: None
    with pytest.raises(StorageError) as caught:
        tree.move("a/x", "b/y")
    assert caught.value.errno == error and caught.value.operation == "rename"
    assert tree.path("a/x") in str(caught.value) and tree.path("b/y") in str(caught.value)
    assert tree.read("a/x") == b"content"


def test_exdev_says_what_to_do(tree: Tree, seam: System) -> None:
    seam.rename = failing("rename", errno.EXDEV)
    with pytest.raises(StorageError, match="lfs setdirstripe"):
        tree.move("a/x", "b/y")


def test_a_rename_that_never_works_is_an_error(tree: Tree, seam: System) -> None:
    seam.rename = failing("rename", *[errno.EIO] * 100)
    seam.sleep = lambda seconds: None
    with pytest.raises(StorageError) as caught:
        tree.move("a/x", "b/y")
    assert caught.value.errno == errno.EIO


def test_a_source_that_only_seems_to_be_there_is_lost(tree: Tree, seam: System) -> None:
    """A stale listing shows the source for ever (sshfs): it is somebody else's now. Of one's own nothing is known, then."""
    seam.rename = failing("rename", *[errno.ENOENT] * 100)
    seam.sleep = lambda seconds: None
    assert tree.move("a/x", "b/y") is False
    with pytest.raises(StorageError) as caught:
        tree.move("a/x", "b/y", private=True)
    assert "cannot be known" in caught.value.hint


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_move_that_cannot_look_is_an_error_and_no_loss(tree: Tree, seam: System, error: int, which: str) -> None:
    def listdir(path: str) -> list[str]:
        if path.endswith(f"/{which}"):
            raise OSError(error, os.strerror(error), path)
        return os.listdir(path)

    seam.rename = failing("rename", errno.ENOENT)
    seam.listdir = listdir
    with pytest.raises(StorageError) as caught:
        tree.move("a/x", "b/y")
    assert caught.value.operation == "listdir" and caught.value.path == tree.path(which)


def test_paranoid_moves_sync_both_directories(tree: Tree, seam: System) -> None:
    synced: list[str] = []
    opened: dict[int, str] = {}

    def remember(path: str, *args: Any) -> int:
        fd = os.open(path, *args)
        opened[fd] = path
        return fd

    seam.open = remember
    seam.fsync = lambda fd: synced.append(opened[fd])
    tree.move("a/x", "b/y")
    assert synced == []
    tree.paranoid = True
    tree.move("b/y", "a/x")
    assert synced == [tree.path("a"), tree.path("b")]


def test_move_directory(tree: Tree, seam: System) -> None:
    (Path(tree.directory) / "b" / "full").mkdir()
    (Path(tree.directory) / "b" / "full" / "f").write_bytes(b"")
    (Path(tree.directory) / "b" / "empty").mkdir()
    (Path(tree.directory) / "b" / "file").write_bytes(b"")
    assert tree.move_directory("a", "b/full") is False
    assert tree.move_directory("a", "b/file") is False
    assert tree.move_directory("none", "b/new") is False
    assert tree.move_directory("a", "b/empty") is True
    assert tree.read("b/empty/x") == b"content"
    for error in (errno.EIO, errno.EACCES, errno.EXDEV, errno.ENOSPC):
        seam.rename = failing("rename", error)
        with pytest.raises(StorageError):
            tree.move_directory("b/empty", "c")


# ---------------------------------------------------------------- every error at every call
def primitive_write(tree: Tree) -> Any:
    return tree.write("a/new", b"data" * 100, sync=True)


def primitive_write_made(tree: Tree) -> Any:
    return tree.write("c/d/new", b"data" * 100, sync=True, make=True)


def primitive_replace(tree: Tree) -> Any:
    return tree.replace("a/x", b"replaced", "tok")


def primitive_append(tree: Tree) -> Any:
    file = Appender(tree, "a/journal")
    try:
        file.append(b"one\n")
        file.append(b"two\n")
        file.sync()
    finally:
        file.close()
    return True


PRIMITIVES: dict[str, Callable[[Tree], Any]] = {
    "ls": lambda tree: tree.ls("a"),
    "read": lambda tree: tree.read("a/x"),
    "read_lines": lambda tree: list(tree.read_lines("a/x")),
    "read_slice": lambda tree: tree.read_slice("a/x", 1, 3),
    "link_count": lambda tree: tree.link_count("a/x"),
    "changed_ns": lambda tree: tree.changed_ns("a/x"),
    "move": lambda tree: tree.move("a/x", "b/y"),
    "move_made": lambda tree: tree.move("a/x", "c/d/y"),
    "move_directory": lambda tree: tree.move_directory("a", "c"),
    "write": primitive_write,
    "write_made": primitive_write_made,
    "replace": primitive_replace,
    "append": primitive_append,
    "touch": lambda tree: tree.touch("a/x"),
    "make_directory": lambda tree: tree.make_directory("c"),
    "make_directories": lambda tree: tree.make_directories("c/d/e"),
    "remove_directory": lambda tree: tree.remove_directory("b"),
    "unlink": lambda tree: tree.unlink("a/x"),
    "remove_tree": lambda tree: tree.remove_tree("a"),
    "sync_directory": lambda tree: tree.sync_directory("a"),
}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_error_at_every_call(fast_dir: Path, name: str) -> None:
    """Either the primitive does all of it, or it says so; nothing but StorageError; the content is the old or the new one."""
    primitive = PRIMITIVES[name]
    clean = Injector()
    with clean.installed():
        wanted_answer = primitive(fresh_tree(fast_dir / "clean"))
    wanted = found(Tree(str(fast_dir / "clean")))
    before = found(fresh_tree(fast_dir / "before"))
    assert clean.calls
    number = 0
    for call in clean.calls:
        modes = {Mode(kind, error) for kind in ("fail", "lie") for error in ERRNOS} | set(modes_of(call))
        for mode in sorted(modes):
            there_and_not = call.name == "mkdir" and mode == Mode("fail", errno.EEXIST)
            if there_and_not or mode.kind.startswith("die") or mode.kind == "blind":
                continue
            number += 1
            tree = fresh_tree(fast_dir / str(number))
            try:
                with Injector(call.n, mode).installed():
                    answer = primitive(tree)
            except StorageError as error:
                assert error.path.startswith(tree.directory), f"{call}: {mode}: {error}"
                assert error.errno == (mode.errno or errno.ENOSPC), f"{call}: {mode}: {error}"
                answer = None
            got = found(tree)
            where = f"{call}: {mode}: answered {answer!r}, left {got}"
            if answer == wanted_answer and answer is not None and call.name not in ("listdir", "read", "open", "lstat"):
                assert (
                    {p: c for p, c in got.items() if not p.startswith("tmp/")} == wanted or "unlink" in name or "remove" in name
                ), where
            for path, content in got.items():
                possible = {before.get(path), wanted.get(path)} if path in before or path in wanted else {b""}
                if name == "append":
                    assert content in possible or content in (b"", b"one\n", b"two\n", b"on", b"one\ntw", b"on\ntwo\n"), where
                elif mode.kind not in ("torn",) and not path.startswith("tmp"):
                    assert content in possible or content == b"", where
            assert not leaked_descriptors(fast_dir), where


def leaked_descriptors(base: Path) -> list[str]:
    """Files below a directory that this process has open."""
    leaked = []
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(str(base)):
            leaked.append(target)
    return leaked


def fresh_tree(base: Path) -> Tree:
    """The same small tree, anew."""
    for name in ("a", "b", "tmp"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "a" / "x").write_bytes(b"content\n")
    return Tree(str(base))


# ---------------------------------------------------------------- questions
@pytest.mark.parametrize(
    "error", [errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.EINTR, errno.ENOSPC, errno.ETIMEDOUT]
)
def test_unreadable_is_never_empty(tree: Tree, seam: System, error: int) -> None:
    seam.listdir = failing("listdir", *[error] * 10)
    with pytest.raises(StorageError) as caught:
        tree.ls("a")
    assert (caught.value.errno, caught.value.operation, caught.value.path) == (error, "listdir", tree.path("a"))
    seam.open = failing("open", *[error] * 10)
    for ask in (lambda: tree.read("a/x"), lambda: list(tree.read_lines("a/x")), lambda: tree.read_slice("a/x", 0, 5)):
        with pytest.raises(StorageError):
            ask()


def test_missing_is_none(tree: Tree) -> None:
    assert tree.ls("none") is None and tree.names("none") == []
    assert tree.read("none") is None and tree.read("none/none") is None and list(tree.read_lines("none")) == []
    assert tree.link_count("none") == 0 and tree.changed_ns("none") is None and tree.touch("none") is False
    assert tree.unlink("none") is False and tree.remove_directory("none") is True
    assert tree.make_directory("none/below") is False
    assert tree.write("none/file", b"") is False


def test_a_file_where_a_directory_should_be(tree: Tree) -> None:
    assert tree.ls("a/x") is None
    assert tree.read("a/x/y") is None
    with pytest.raises(StorageError, match="a/x"):
        tree.write("a/x/y", b"", make=True)


def test_stale_handles_are_opened_again(tree: Tree, seam: System) -> None:
    seam.read = failing("read", errno.ESTALE, errno.ESTALE)
    assert tree.read("a/x") == b"content"
    seam.read = failing("read", *[errno.ESTALE] * 5)
    assert tree.read("a/x") is None
    seam.listdir = failing("listdir", errno.ESTALE)
    assert tree.ls("a") == ["x"]
    seam.listdir = failing("listdir", *[errno.ESTALE] * 5)
    assert tree.ls("a") is None


def test_read_lines_leaves_out_the_torn_end(tree: Tree, seam: System) -> None:
    tree.write("a/lines", b"one\n\ntwo\nthr")
    assert list(tree.read_lines("a/lines")) == [b"one", b"", b"two"]
    seam.read = lambda fd, size: os.read(fd, 2)
    assert list(tree.read_lines("a/lines")) == [b"one", b"", b"two"]
    tree.write("a/big", b"x" * 200_000)
    seam.read = lambda fd, size: os.read(fd, min(size, 7777))
    assert tree.read("a/big") == b"x" * 200_000


# ---------------------------------------------------------------- writing
def test_short_writes_are_completed(tree: Tree, seam: System) -> None:
    seam.write = lambda fd, data: os.write(fd, data[:3])
    assert tree.write("a/new", b"0123456789") is True
    assert tree.read("a/new") == b"0123456789"


@pytest.mark.parametrize("name", ["write", "fsync", "close"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_no_half_file(tree: Tree, seam: System, name: str, error: int) -> None:
    real = getattr(System, name)

    def call(*args: Any) -> Any:
        if name == "write":
            os.write(args[0], args[1][:2])
        if name == "close":
            real(*args)
        raise OSError(error, os.strerror(error))

    setattr(seam, name, call)
    with pytest.raises(StorageError) as caught:
        tree.write("a/new", b"0123456789", sync=True)
    fs.__dict__.clear()
    assert caught.value.full == (error != errno.EIO)
    assert tree.ls("a") == ["x"]


def test_replace_keeps_the_old_content_or_has_the_new(tree: Tree, seam: System) -> None:
    def lost(src: str, dst: str) -> None:
        os.rename(src, dst)
        raise OSError(errno.ENOENT, "")

    seam.rename = lost
    tree.replace("a/x", b"new", "t1")
    assert tree.read("a/x") == b"new"
    seam.rename = failing("rename", errno.EIO)
    with pytest.raises(StorageError):
        tree.replace("a/x", b"newer", "t2")
    assert tree.read("a/x") == b"new" and tree.ls("tmp") == []


def test_directories(tree: Tree) -> None:
    tree.make_directories("c/d/e")
    tree.make_directories("c/d/e")
    assert tree.remove_directory("c") is False
    assert tree.remove_directory("c/d/e") is True
    with pytest.raises(StorageError):
        Tree(tree.directory + "/none").make_directories("c/d")
    assert not os.path.exists(tree.directory + "/none")


def test_remove_tree(tree: Tree) -> None:
    tree.write("c/d/e/f", b"", make=True)
    os.symlink(tree.path("a"), tree.path("c/link"))
    tree.remove_tree("c")
    assert tree.ls("c") is None
    assert tree.read("a/x") == b"content", "what a link points to is not ours to remove"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_no_permission_is_said(tree: Tree) -> None:
    os.chmod(tree.path("a"), 0)
    try:
        with pytest.raises(StorageError, match="permission"):
            tree.ls("a")
    finally:
        os.chmod(tree.path("a"), 0o755)


# ---------------------------------------------------------------- journals
def test_appender_starts_a_new_line_after_a_torn_one(tree: Tree, seam: System) -> None:
    file = Appender(tree, "a/journal")
    file.append(b"one\n")
    seam.write = lambda fd, data: os.write(fd, data[:2])
    with pytest.raises(StorageError):
        file.append(b"two\n")
    fs.__dict__.clear()
    file.append(b"three\n")
    file.close()
    assert list(tree.read_lines("a/journal")) == [b"one", b"tw", b"three"]


def test_appender_syncs_only_what_is_new(tree: Tree, seam: System) -> None:
    calls: list[int] = []
    seam.fsync = calls.append
    file = Appender(tree, "a/journal")
    file.sync()
    file.append(b"one\n")
    file.sync()
    file.sync()
    assert len(calls) == 1
    file.append(b"two\n")
    seam.fsync = failing("fsync", errno.EIO)
    with pytest.raises(StorageError):
        file.sync()
    assert file.unsynced
    file.close()
    file.close()


def test_the_seam_names_every_call() -> None:
    assert {
        "rename",
        "mkdir",
        "rmdir",
        "unlink",
        "listdir",
        "open",
        "read",
        "write",
        "fsync",
        "close",
        "lstat",
        "utime",
    } <= set(SEAM)
