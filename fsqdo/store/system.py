"""The seam: every call that the store makes to the operating system goes through `fs`.

Tests replace attributes of `fs` to make the n-th call fail, lie or end the process. Nothing else belongs here.
"""

from __future__ import annotations

import os
import time


class System:
    """The system calls of the store, under their own names; paths are absolute."""

    rename = staticmethod(os.rename)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    unlink = staticmethod(os.unlink)
    listdir = staticmethod(os.listdir)
    open = staticmethod(os.open)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    fstat = staticmethod(os.fstat)
    lstat = staticmethod(os.lstat)
    utime = staticmethod(os.utime)
    sleep = staticmethod(time.sleep)


fs = System()
