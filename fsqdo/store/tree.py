"""The primitives every move is made of: `move`, listing, writing a complete file, making and removing directories.

All paths are relative to the queue's directory. This module and `store` around it are the only ones that change a tree.

`move(src, dst)` is the one way in which anything changes its state: one rename, whose success is the decision. Network file
systems may report a failure for a rename they have done (rename(2), BUGS), so after an error it looks: is dst there?
It asks by listing the directory, since a stat may be 30 s old (NFS). dst is always a name that only this mover can make.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from fsqdo.errors import StorageError
from fsqdo.store.system import fs

GONE = (errno.ENOENT, errno.ESTALE)
STOP = frozenset(
    {errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP}
)
RETRY_DELAYS_S = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
_CHUNK = 1 << 20
_MANY = 16
_SYNCERS = 8
_FIRST = 8192
_BACK = 1 << 16
_FILE_END = 1 << 62
_READ = os.O_RDONLY | os.O_CLOEXEC


class Tree:
    """The directory of one queue.

    Parameters
    ----------
    directory
        Absolute path of the queue.

    Attributes
    ----------
    paranoid
        Sync the directories of every move, too (`durability: paranoid`).
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.paranoid = False
        self._shared: bool | None = None

    def path(self, relative: str) -> str:
        """Absolute path of something in the queue."""
        return f"{self.directory}/{relative}" if relative else self.directory

    # ------------------------------------------------------------ questions
    def ls(self, relative: str) -> list[str] | None:
        """List a directory, in no order; None when there is no such directory.

        The answer can be false at once: what moves during a listing may show twice or not at all, and a network file system
        with a dead server may leave names out without an error. Not listed is not gone.

        Raises
        ------
        StorageError
            For anything but a missing directory: unreadable is never empty.
        """
        path = f"{self.directory}/{relative}" if relative else self.directory
        for last in (False, False, True):
            try:
                return fs.listdir(path)
            except FileNotFoundError:  # the answer of nearly every look for watchers
                return None
            except OSError as error:
                # A file under the name of a directory is somebody else's: there is no such directory either.
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    return None
                if error.errno not in (errno.ESTALE, errno.EINTR) or (last and error.errno == errno.EINTR):
                    raise StorageError(error, "listdir", path) from None
        return None

    def ls_twice(self, relative: str) -> list[str] | None:
        """The same, asked again before None is believed: where one wrong answer would cost a worker all that it runs."""
        listed = self.ls(relative)
        return self.ls(relative) if listed is None else listed

    def names(self, relative: str) -> list[str]:
        """List a directory, sorted; a missing one has no names."""
        return sorted(self.ls(relative) or ())

    def read(self, relative: str, sure: bool = True) -> bytes | None:
        """Read a whole file; None when there is none.

        Parameters
        ----------
        sure
            Believe that only when it is not listed either: for one wrong answer what is in it would not count. False where that
            costs a later look at most, and others take what is read there all the time.

        Raises
        ------
        StorageError
            When it is there and cannot be read.
        """
        path = f"{self.directory}/{relative}"
        for attempt in range(3):
            try:
                fd = fs.open(path, _READ)
            except OSError as error:
                directory, _, name = relative.rpartition("/")
                if sure and error.errno in GONE and attempt < 2 and name in (self.ls(directory) or ()):
                    continue
                if error.errno in (*GONE, errno.ENOTDIR):
                    return None
                raise StorageError(error, "open", path) from None
            try:
                return _read_all(fd)
            except OSError as error:
                if error.errno == errno.ESTALE and attempt < 2:
                    continue
                if error.errno == errno.ESTALE:
                    return None
                raise StorageError(error, "read", path) from None
            finally:
                _close_quietly(fd)
        return None

    def read_lines(self, relative: str, first: int = 0, end: int = _FILE_END) -> Iterator[bytes]:
        """Yield the complete lines of a file as they are read, without their newline; a missing file has none.

        A last line without a newline is torn and left out.

        Parameters
        ----------
        first, end
            Only the lines within these bytes.
        """
        path = self.path(relative)
        fd = self._open_there(relative)
        if fd is None:
            return
        try:
            rest, at = b"", first
            if first:
                os.lseek(fd, first, os.SEEK_SET)
            while chunk := fs.read(fd, min(_CHUNK, end - at)):
                at += len(chunk)
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                yield from lines
        except OSError as error:
            raise StorageError(error, "read", path) from None
        finally:
            _close_quietly(fd)

    def read_lines_back(self, relative: str, first: int = 0, end: int = _FILE_END) -> Iterator[bytes]:
        """Yield what `read_lines` does, the last line first: who looks for late lines of a long file reads little of it."""
        path = self.path(relative)
        fd = self._open_there(relative)
        if fd is None:
            return
        try:
            at = min(end, os.lseek(fd, 0, os.SEEK_END))
            rest, size, torn = b"", _BACK, True
            while at > first:
                low = max(first, at - size)
                os.lseek(fd, low, os.SEEK_SET)
                piece = b""
                while len(piece) < at - low and (more := fs.read(fd, at - low - len(piece))):
                    piece += more
                lines = (piece + rest).split(b"\n")
                at, size, rest = low, min(4 * size, _CHUNK), lines[0]
                if torn:  # what stands after the last newline
                    if len(lines) == 1:
                        continue
                    lines.pop()
                    torn = False
                    if len(lines) == 1:
                        continue
                yield from reversed(lines[1:])
            if not torn:
                yield rest
        except OSError as error:
            raise StorageError(error, "read", path) from None
        finally:
            _close_quietly(fd)

    def _open_there(self, relative: str) -> int | None:
        """Open a file that stays where it is; None when its directory does not list it, either.

        A journal taken for missing would have what it knows done again, so one wrong answer is not believed.
        """
        path = self.path(relative)
        directory, _, name = relative.rpartition("/")
        for last in (False, False, True):
            try:
                return fs.open(path, _READ)
            except OSError as error:
                if error.errno not in GONE or last:
                    raise StorageError(error, "open", path) from None
                if name not in (self.ls(directory) or ()):
                    return None
        return None

    def read_slice(self, relative: str, first: int, end: int) -> bytes:
        """Read the bytes first..end of a file; what is missing of them is left out."""
        path = self.path(relative)
        fd = self._open_there(relative)
        if fd is None:
            return b""
        try:
            os.lseek(fd, first, os.SEEK_SET)
            data = b""
            while len(data) < end - first and (piece := fs.read(fd, min(_CHUNK, end - first - len(data)))):
                data += piece
            return data
        except OSError as error:
            raise StorageError(error, "read", path) from None
        finally:
            _close_quietly(fd)

    def read_tail(self, relative: str, most: int) -> bytes:
        """Read the last bytes of a file, at most so many; a missing one has none."""
        fd = self._open_there(relative)
        if fd is None:
            return b""
        try:
            os.lseek(fd, max(0, os.lseek(fd, 0, os.SEEK_END) - most), os.SEEK_SET)
            return _read_all(fd)
        except OSError as error:
            raise StorageError(error, "read", self.path(relative)) from None
        finally:
            _close_quietly(fd)

    def link_count(self, relative: str) -> int:
        """Number of names the file has; 0 when it is gone. Two after a client was killed in the middle of a rename."""
        path = self.path(relative)
        directory, _, name = relative.rpartition("/")
        for last in (False, False, True):
            try:
                return fs.lstat(path).st_nlink
            except OSError as error:
                if error.errno == errno.ENOTDIR:
                    return 0
                if error.errno not in GONE or last:
                    raise StorageError(error, "lstat", path) from None
                if name not in (self.ls(directory) or ()):  # else the answer was a wrong one: again
                    return 0
        return 0

    def size(self, relative: str) -> int:
        """Number of bytes in a file; 0 when it is gone. False as soon as somebody appends."""
        found = self._lstat(relative)
        return 0 if found is None else found.st_size

    def changed_ns(self, relative: str) -> int | None:
        """Modification time of a file by the file server's clock, in ns: only ever compared with itself. None: gone."""
        found = self._lstat(relative)
        return None if found is None else found.st_mtime_ns

    def inode(self, relative: str) -> int | None:
        """Number of the file behind a name; None: gone."""
        found = self._lstat(relative)
        return None if found is None else found.st_ino

    def is_file(self, relative: str) -> bool:
        """Whether a name is there, and no directory."""
        found = self._lstat(relative)
        return found is not None and not stat.S_ISDIR(found.st_mode)

    def gone(self, relative: str) -> bool:
        """Whether the file system says that a name is not there."""
        return self._lstat(relative) is None

    def _lstat(self, relative: str) -> os.stat_result | None:
        path = self.path(relative)
        try:
            return fs.lstat(path)
        except OSError as error:
            if error.errno in (*GONE, errno.ENOTDIR):
                return None
            raise StorageError(error, "lstat", path) from None

    # ------------------------------------------------------------ changes
    def move(self, src: str, dst: str, *, make: bool = True, private: bool = False) -> bool:
        """Rename src to dst.

        Parameters
        ----------
        make
            Make dst's directory when it is missing. False where it is a worker's own: a missing one means fenced.
        private
            The directory of src is the mover's alone, so when src has gone it was this mover's rename that took it.

        Returns
        -------
        bool
            Whether it moved. False: lost, src is somebody else's now (or dst's directory is gone and not to be made).

        Raises
        ------
        StorageError
            When the file system refuses; whatever the rename did then, the tree is one that recover understands.

        Notes
        -----
        One rename(2); after an error the listings of dst's and src's directories, then again. A kill leaves src or dst.
        Source: POSIX rename, rename(2) BUGS, Postfix's sane_rename.
        """
        try:
            fs.rename(f"{self.directory}/{src}", f"{self.directory}/{dst}")
        except OSError as error:
            if not self._moved_after_all(error, src, dst, make, private):
                return False
        if self.paranoid:
            self.sync_directory(dst.rpartition("/")[0], may_be_gone=True)  # the file has moved on, then
            self.sync_directory(src.rpartition("/")[0], may_be_gone=True)
        return True

    def _moved_after_all(self, error: OSError, src: str, dst: str, make: bool, private: bool) -> bool:
        target, _, new_name = dst.rpartition("/")
        source, _, old_name = src.rpartition("/")
        for delay in RETRY_DELAYS_S:
            if error.errno in STOP:
                raise StorageError(error, "rename", f"{self.path(src)} -> {self.path(dst)}") from None
            there = self.ls(target)
            if there is None:
                if not make:
                    return False
                self.make_directories(target)
            elif new_name in there:
                return True
            else:
                here = self.ls(source)
                if here is None or old_name not in here:
                    if not private:
                        return False
                    # Not listed is not gone: only two answers that src is not there are believed.
                    if error.errno == errno.ENOENT and self.gone(src):
                        return True
                fs.sleep(delay)
            try:
                fs.rename(self.path(src), self.path(dst))
                return True
            except OSError as again:
                error = again
        if error.errno in GONE and not private:
            # RACE: others keep removing the target, or the listing of src is a stale one (sshfs: 21 s). src is where it
            # was or in other hands; either way this move did not happen.
            return False
        refused = StorageError(error, "rename", f"{self.path(src)} -> {self.path(dst)}")
        if private:
            refused.hint = "whether it was done cannot be known: look at the second path before you do it again"
        raise refused

    def move_directory(self, src: str, dst: str) -> bool:
        """Rename a directory onto a name that others may make, too.

        Returns
        -------
        bool
            False when dst holds something already (ENOTEMPTY, EEXIST), is a file (ENOTDIR), or src is gone; look at dst
            in either case.
        """
        try:
            fs.rename(self.path(src), self.path(dst))
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, *GONE):
                return False
            raise StorageError(error, "rename", f"{self.path(src)} -> {self.path(dst)}") from None

    def write(self, relative: str, data: bytes, *, sync: bool = False, make: bool = False) -> bool:
        """Write a file that nobody else writes; on return it is complete (and on disk, with `sync`).

        Returns
        -------
        bool
            False when its directory is missing and not to be made.

        Raises
        ------
        StorageError
            When it could not be written whole; what there is of it is removed.
        """
        path = self.path(relative)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        for attempt in range(3):
            try:
                fd = fs.open(path, flags, 0o666)
                break
            except OSError as error:
                if error.errno not in GONE or attempt == 2:
                    raise StorageError(error, "open", path) from None
                directory = relative.rpartition("/")[0]
                if self.ls(directory) is None:  # else the answer was a wrong one: again
                    if not make:
                        return False
                    self.make_directories(directory)
        try:
            try:
                write_all(fd, data)
                if sync:
                    fs.fsync(fd)
            finally:
                fs.close(fd)  # a full NFS or quota says so only here
        except OSError as error:
            refused = StorageError(error, "write", path)  # made first: it looks at what is full
            _unlink_quietly(path)
            raise refused from None
        return True

    def claim_name(self, relative: str) -> bool:
        """Make an empty file under a name that nobody had before; who makes it owns the name.

        Returns
        -------
        bool
            False when the name is taken, by another or by an earlier call of this process whose answer was lost: then it
            stays unused, and the caller tries the next one. Never do two callers get True.

        Notes
        -----
        One open(2) with O_EXCL (on NFS since version 3, open(2)). A kill leaves an empty file: a gap in the names.
        """
        path = self.path(relative)
        try:
            fd = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            raise StorageError(error, "open", path) from None
        _close_quietly(fd)  # nothing was written, so nothing can have been lost
        return True

    def replace(self, relative: str, data: bytes, token: str, *, sync: bool = True) -> None:
        """Give a file a new content, whole: written beside as `tmp/<token>`, then renamed over it.

        Notes
        -----
        A kill leaves the old content, or the new one, and litter in tmp/.
        """
        staged = f"tmp/{token}"
        self.write(staged, data, sync=sync, make=True)
        path = self.path(relative)
        try:
            fs.rename(self.path(staged), path)
        except OSError as error:
            # Done and reported as failed, or not done at all: the content tells, for the name was there before.
            if self.read(relative) != data:
                _unlink_quietly(self.path(staged))
                raise StorageError(error, "rename", path) from None
        if sync:
            self.sync_directory(relative.rpartition("/")[0])

    def touch(self, relative: str) -> bool:
        """Set a file's time to now, by whatever clock the file server has; False when it is gone."""
        path = self.path(relative)
        try:
            fs.utime(path)
            return True
        except OSError as error:
            if error.errno in GONE:
                return False
            raise StorageError(error, "utime", path) from None

    def make_directory(self, relative: str) -> bool:
        """Make one directory, no parents; False when its parent is missing. That it is there already is fine."""
        path = self.path(relative)
        try:
            if self._shared is None:
                self._shared = is_shared(self.directory)
            make_directory(path, self._shared)
        except OSError as error:
            if error.errno in GONE:
                return False
            if error.errno != errno.EEXIST:
                raise StorageError(error, "mkdir", path) from None
        return True

    def make_directories(self, relative: str) -> list[str]:
        """Make a directory and those above it, up to the queue's own, which must be there; returns those it saw made."""
        missing_above: list[str] = []
        for _ in range(10):
            if self.make_directory(relative):
                return [*missing_above, relative]
            # RACE: whoever finds a directory empty removes it, so a parent just made may be gone again.
            # (The queue's own directory is never made: it is there, and only seemed gone, or it is an error.)
            above = relative.rpartition("/")[0]
            if above:
                missing_above = self.make_directories(above)
        missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise StorageError(missing, "mkdir", self.path(relative))

    def remove_directory(self, relative: str) -> bool:
        """Remove a directory if it is empty; True when it is gone."""
        path = self.path(relative)
        try:
            fs.rmdir(path)
            return True
        except OSError as error:
            if error.errno in GONE:
                return True
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
                return False  # ENOTDIR: a file somebody put there
            raise StorageError(error, "rmdir", path) from None

    def unlink(self, relative: str) -> bool:
        """Remove a file; True when this call removed it, False when it was gone (or its removal was answered so)."""
        path = self.path(relative)
        try:
            fs.unlink(path)
            return True
        except OSError as error:
            if error.errno in GONE:
                return False
            raise StorageError(error, "unlink", path) from None

    def remove_tree(self, relative: str) -> None:
        """Remove a directory with all that is in it: staging, and queues in the trash; never anything that counts."""
        for name in self.ls(relative) or ():
            path = f"{relative}/{name}"
            try:
                self.unlink(path)
            except StorageError as error:
                if error.errno not in (errno.EISDIR, errno.EPERM):
                    raise
                if self.ls(path) is not None:
                    self.remove_tree(path)
                elif error.errno == errno.EPERM:
                    raise  # else it was a directory, and somebody else has removed it
        self.remove_directory(relative)

    def write_files(self, files: list[tuple[str, bytes]]) -> None:
        """Write and sync several files, each (path, content), into directories that are there.

        Raises
        ------
        StorageError
            The first one; the others may be written or not.

        Notes
        -----
        Many are written by several threads: each fsync(2) waits for the device, and so they wait together.
        """
        failed: list[StorageError] = []
        if len(files) < _MANY:
            self._write_some(files, failed)
        else:
            from threading import Thread

            threads = [Thread(target=self._write_some, args=(files[n::_SYNCERS], failed)) for n in range(_SYNCERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failed:
            raise failed[0]

    def _write_some(self, files: list[tuple[str, bytes]], failed: list[StorageError]) -> None:
        try:
            for relative, content in files:
                if not self.write(relative, content, sync=True):
                    gone = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                    raise StorageError(gone, "write", self.path(relative))
        except StorageError as error:
            failed.append(error)  # for the thread that asked

    def sync_directory(self, relative: str, may_be_gone: bool = False) -> None:
        """Put a directory's names on disk (fsync of the directory; POSIX leaves them in memory without it)."""
        path = self.path(relative)
        try:
            fd = fs.open(path, _READ | os.O_DIRECTORY)
        except OSError as error:
            if may_be_gone and error.errno in GONE:
                return
            raise StorageError(error, "open", path) from None
        try:
            fs.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot sync directories
                raise StorageError(error, "fsync", path) from None
        finally:
            _close_quietly(fd)


def is_shared(directory: str) -> bool:
    """Whether a directory is meant for a whole group: setgid, and the group may write (`chmod g+ws`)."""
    wanted = stat.S_ISGID | stat.S_IWGRP
    return fs.lstat(directory).st_mode & wanted == wanted


def make_directory(path: str, shared: bool) -> None:
    """Make a directory, in which the whole group may write where it is shared: most people's umask says otherwise.

    Files need no such care: they are changed by renames alone, or by their maker.
    """
    if not shared:
        fs.mkdir(path)
        return
    old = os.umask(0)
    try:
        os.umask(old & ~stat.S_IRWXG)
        fs.mkdir(path)
    finally:
        os.umask(old)


def write_all(fd: int, data: bytes) -> None:
    """Write all of data, however many calls it takes."""
    written = fs.write(fd, data)
    while written < len(data):
        written += fs.write(fd, data[written:])


def _read_all(fd: int) -> bytes:
    data = piece = fs.read(fd, _FIRST)
    if len(data) < _FIRST and data.endswith(b"\n"):
        return data  # whatever fsqdo writes ends in a newline: complete, without asking for more
    while piece:
        piece = fs.read(fd, _CHUNK)
        data += piece
    return data


def _close_quietly(fd: int) -> None:
    try:
        fs.close(fd)
    except OSError:  # read-only: nothing can have been lost
        return


def _unlink_quietly(path: str) -> None:
    try:
        fs.unlink(path)
    except OSError:  # litter in tmp at worst
        return
