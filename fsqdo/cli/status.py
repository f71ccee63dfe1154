"""`fsqdo status QUEUE`, without click: see `fsqdo.cli._dispatch`."""

from __future__ import annotations

import sys


def print_status(name: str) -> int:
    """Print the text of one queue's status.

    Returns
    -------
    int
        The exit code: 0.
    """
    from fsqdo.queue import connect

    sys.stdout.write(f"{connect(name)}\n")
    return 0
