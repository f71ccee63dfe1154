"""The exceptions of fsqdo: one root, each with what happened, what to do next and an exit code.

Losing a race is never an exception: the functions of the store return None or False for it.
"""

from __future__ import annotations

import errno as errno_codes
import os
from collections.abc import Sequence


def short(value: object) -> str:
    """A value for a message, in at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4300 digits, something nested too deeply
        return f"a {type(value).__name__} that is too long to be shown"
    return text if len(text) <= 60 else text[:57] + "..."


class FsqdoError(Exception):
    """Root of everything fsqdo raises on purpose.

    Parameters
    ----------
    message
        What happened, with the path or the value it happened to.
    hint
        What to do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(FsqdoError, ValueError):
    """A value the user gave cannot be what they meant. Nothing was changed."""

    exit_code = 2


class ConfigError(FsqdoError):
    """The configuration cannot be used; `problems` has all that is wrong with it, one line each."""

    exit_code = 2

    def __init__(self, message: str, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__("\n  ".join([message, *problems]), hint)
        self.problems = list(problems)


class QueueError(FsqdoError):
    """Something is wrong with a queue as a whole."""


class QueueNotFoundError(QueueError, ValueError):
    """There is no such queue (also a ValueError, as it was in qdo)."""


class QueueExistsError(QueueError, ValueError):
    """A queue of this name is there already."""


class FormatError(QueueError):
    """The tree is of a format this release does not know, or is no queue at all."""


class TaskError(FsqdoError):
    """Something is wrong with one task."""


class TaskNotFoundError(TaskError, LookupError):
    """The queue has no task with this id."""


NOWHERE = (
    "its file was removed, or moved to where it is in no state (`fsqdo promote` puts that right); if it is gone, add it anew"
)


class TemplateError(TaskError):
    """A script template cannot be filled in from a task."""


class BatchError(FsqdoError):
    """A batch system refused, or answered what nobody can read."""


class FencedError(FsqdoError):
    """This worker was declared dead and its directory taken away; what it held belongs to others now."""


_HINTS = {
    errno_codes.EDQUOT: (
        "your quota, of space or of the number of files, is used up here (quota -s, lfs quota): remove what is not needed, or "
        "ask for more, then go on; nothing was lost"
    ),
    errno_codes.EACCES: "you lack the permission: look at the owner and mode of this path and of the directories above it",
    errno_codes.EPERM: "you lack the permission: look at the owner and mode of this path and of the directories above it",
    errno_codes.EROFS: "the file system is mounted read-only here",
    errno_codes.EXDEV: (
        "renames between these directories are forbidden here (on Lustre: directories on different metadata targets or with "
        "different project ids); make the queue under a directory created with `lfs setdirstripe -c 1 -i 0`"
    ),
    errno_codes.ENOTDIR: (
        "a part of this path is a file and no directory; FSQDO_DIR, or `dir` in the configuration, says where queues are"
    ),
    errno_codes.ENAMETOOLONG: "use a shorter queue directory",
}

_LITTLE_BYTES = 1 << 20


def _what_is_full(path: str) -> str:
    """The hint for ENOSPC, which means space as well as inodes: what statvfs(3) says is missing.

    False as soon as somebody else removes something, so it is asked before what could not be written whole is removed.
    """
    place = path.rpartition(" -> ")[2]
    while True:
        try:
            found = os.statvfs(place)
            break
        except FileNotFoundError:
            place = os.path.dirname(place)
        except OSError:
            return "the file system is full: remove what is not needed there, then go on; nothing was lost"
        if not place:
            return ""
    no_inodes = found.f_files > 0 and found.f_favail == 0  # some file systems do not count them
    no_space = found.f_bavail * found.f_frsize < (1 if no_inodes else _LITTLE_BYTES)
    if not (no_inodes or no_space):
        return (
            "df shows room here, so it is a limit of this directory or project, or a single storage target that is full "
            "(lfs quota, lfs df): remove what is not needed there, then go on; nothing was lost"
        )
    space = "no space is left on its file system (df -h)"
    inodes = "no inodes are left on its file system (df -i)"
    what = f"{space}, and {inodes}" if no_inodes and no_space else inodes if no_inodes else space
    return f"{what}: remove {'files' if no_inodes else 'what is not needed'} there, then go on; nothing was lost"


class StorageError(FsqdoError):
    """The file system refused an operation, and that is not a lost race.

    Attributes
    ----------
    errno, operation, path
        The error number, the system call and the path it was about.
    """

    def __init__(self, error: OSError, operation: str, path: str) -> None:
        self.errno = error.errno or 0
        self.operation = operation
        self.path = path
        what = os.strerror(self.errno) if self.errno else str(error)
        hint = _what_is_full(path) if self.errno == errno_codes.ENOSPC else _HINTS.get(self.errno, "")
        super().__init__(f"{operation} {path}: {what}", hint)

    @property
    def full(self) -> bool:
        """Whether space is what was missing, so that trying again later can help."""
        return self.errno in (errno_codes.ENOSPC, errno_codes.EDQUOT)

    @property
    def unreadable(self) -> bool:
        """Whether it is this one file that cannot be read, and not the file system that is in trouble."""
        return self.errno in (errno_codes.EACCES, errno_codes.EPERM, errno_codes.EISDIR)
