"""Which file system a path is on, as the kernel of this host says."""

from __future__ import annotations

import os

from fsqdo.names import is_worker_name, own_host
from fsqdo.store import Store

# Those which one host alone mounts: what it renames, no other host can remember under its old name.
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "bcachefs", "apfs"})
_TABLE = "/proc/self/mountinfo"


def type_of(path: str, table: str = _TABLE) -> str:
    """Type of the file system that holds a path, as in mount(8); "" when it cannot be known.

    Notes
    -----
    Source: proc(5), mountinfo. The last line with the longest mount point above the path counts: later mounts hide earlier
    ones.
    """
    real = os.path.realpath(path)
    found, longest = "", -1
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _unescaped(fields[4])
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= longest:
            found, longest = after.split(" ")[0], len(point)
    return found


def is_local(path: str) -> bool:
    """Whether only this host mounts what holds the path: an unknown file system counts as one of a network."""
    return type_of(path) in LOCAL


def is_ours_alone(store: Store) -> bool:
    """Whether no other host can know a queue's names: a local disk may be exported, and then has had workers of others."""
    if not is_local(store.directory):
        return False
    own = f"{own_host()}-"
    workers = [*store.names("running"), *store.names("recovering"), *store.names("outcomes")]
    return all(name.startswith(own) for name in workers if is_worker_name(name.partition(".")[0]))


def _unescaped(point: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point
