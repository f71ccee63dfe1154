"""Files with one writer, to which whole lines are added: journals, and the logs that tasks write themselves."""

from __future__ import annotations

import errno
import os

from fsqdo.errors import StorageError
from fsqdo.store.system import fs
from fsqdo.store.tree import Tree


class Appender:
    """A file with one writer, to which whole lines are added: a journal.

    Notes
    -----
    O_APPEND, one write(2) a line. A full disk may leave a torn line: the next line starts with a newline of its own, and
    readers pass over what is not JSON.
    """

    def __init__(self, tree: Tree, relative: str) -> None:
        self._path = tree.path(relative)
        self._torn = False
        self.unsynced = False
        try:
            self._fd = fs.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError(error, "open", self._path) from None

    @property
    def fd(self) -> int:
        """The open file, for a child process to write to."""
        return self._fd

    def size(self) -> int:
        """Bytes in the file now."""
        try:
            return fs.fstat(self._fd).st_size
        except OSError as error:
            raise StorageError(error, "fstat", self._path) from None

    def append(self, line: bytes) -> None:
        """Add one line, which ends in a newline.

        Raises
        ------
        StorageError
            When not all of it could be written; the line counts as not written.
        """
        data = b"\n" + line if self._torn else line
        try:
            self._torn = True
            if fs.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
        except OSError as error:
            raise StorageError(error, "write", self._path) from None
        self.unsynced = True

    def sync(self) -> None:
        """Put what was added on disk."""
        if not self.unsynced or self._fd < 0:
            return
        try:
            fs.fsync(self._fd)
        except OSError as error:
            raise StorageError(error, "fsync", self._path) from None
        self.unsynced = False

    def close(self) -> None:
        """Close the file; what could not be written shows as an error."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            fs.close(fd)
        except OSError as error:
            raise StorageError(error, "close", self._path) from None
