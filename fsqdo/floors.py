"""What a file system does by itself: plain calls of the system, timed, in a scratch directory that is no queue.

`bench` puts these floors beside what fsqdo needs. This module knows nothing of queues, so that it cannot touch one: all it is
given are directories that it made itself. Each measurement ends after so many operations or when its time is over, whichever
is first, and returns the instants (`time.perf_counter`) at which an operation had ended, the first entry being the start.
"""

from __future__ import annotations

import os
import tempfile
from time import perf_counter

PREFIX = ".fsqdo-bench-"
FILE_BYTES = 200
_DATA = b"x" * FILE_BYTES
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def scratch(directory: str) -> str:
    """Make a hidden directory of our own below a directory; its path.

    Raises
    ------
    OSError
        When it cannot be made.
    """
    return tempfile.mkdtemp(prefix=PREFIX, dir=directory)


def below(directory: str, name: str) -> str:
    """Make a directory in one of ours; its path."""
    path = f"{directory}/{name}"
    os.mkdir(path)
    return path


def creates(directory: str, most: int, until: float) -> list[float]:
    """Make files of the size of a task in an empty directory."""
    ended = [perf_counter()]
    while len(ended) <= most and ended[-1] < until:
        _write(f"{directory}/{len(ended):09d}.json")
        ended.append(perf_counter())
    return ended


def synced_creates(directory: str, most: int, until: float) -> list[float]:
    """Make files so that a power cut does not undo it: write, fsync, rename, fsync of the directory."""
    staged, visible = below(directory, "staged"), below(directory, "visible")
    ended = [perf_counter()]
    while len(ended) <= most and ended[-1] < until:
        name = f"{len(ended):09d}.json"
        _write(f"{staged}/{name}", sync=True)
        os.rename(f"{staged}/{name}", f"{visible}/{name}")
        fd = os.open(visible, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        ended.append(perf_counter())
    return ended


def listings(directory: str, most: int, until: float) -> tuple[list[float], int]:
    """List a directory again and again; also the number of names in it."""
    ended, names = [perf_counter()], 0
    while len(ended) <= most and ended[-1] < until:
        names = len(os.listdir(directory))
        ended.append(perf_counter())
    return ended, names


class Pairs:
    """Pairs of renames from one directory to another and on to a third, as a task goes; made by one process for itself.

    No name is used twice, as in a queue: a network client may remember the old one.
    """

    def __init__(self, directory: str, files: int) -> None:
        self._places = [below(directory, name) for name in ("pending", "running", "succeeded")]
        self._files = [f"{self._places[0]}/{number:09d}.json" for number in range(files)]
        for path in self._files:
            _write(path)

    def run(self, most: int, until: float) -> list[float]:
        """Rename; the operations are the pairs."""
        ended = [perf_counter()]
        at = 0
        while len(ended) <= most and ended[-1] < until:
            turn = (len(ended) - 1) % len(self._files)
            middle = f"{self._places[(at + 1) % 3]}/{len(ended):09d}.json"
            last = f"{self._places[(at + 2) % 3]}/{len(ended):09d}.json"
            os.rename(self._files[turn], middle)
            os.rename(middle, last)
            self._files[turn] = last
            if turn == len(self._files) - 1:
                at = (at + 2) % 3
            ended.append(perf_counter())
        return ended


def _write(path: str, sync: bool = False) -> None:
    fd = os.open(path, _NEW, 0o666)
    try:
        os.write(fd, _DATA)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
