"""fsqdo: a task queue for high-throughput computing that is nothing but a directory.

>>> import fsqdo
>>> q = fsqdo.connect("extract", create_ok=True)
>>> ids = q.add_multiple(f"analyze {n}" for n in range(1000))
>>> q.add("summarize", requires=ids)
>>> q.do()
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import costs more than all of `fsqdo --help`

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from fsqdo.errors import FsqdoError as FsqdoError
    from fsqdo.inputs import NewTask as NewTask
    from fsqdo.queue import Queue as Queue
    from fsqdo.queue import connect as connect
    from fsqdo.queue import create as create
    from fsqdo.queue import qlist as qlist
    from fsqdo.rows import Task as Task
    from fsqdo.task import State as State

_HOME = {
    "FsqdoError": "errors",
    "NewTask": "inputs",
    "Queue": "queue",
    "State": "task",
    "Task": "rows",
    "connect": "queue",
    "create": "queue",
    "qlist": "queue",
}
__all__ = ["FsqdoError", "NewTask", "Queue", "State", "Task", "connect", "create", "qlist"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a command starts in the time of what it needs."""
    if name not in _HOME:
        raise AttributeError(f"module 'fsqdo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fsqdo.{_HOME[name]}"), name)
