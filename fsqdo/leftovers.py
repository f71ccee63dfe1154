"""What a worker that was killed left running on this host: its tasks are ended before others run them again.

A task's process is the leader of a session of its own, so it survives its worker's SIGKILL. The journal has its pid. A process
is taken for a leftover only when it is in that session and its environment names that worker: a recycled pid is never hit.
"""

from __future__ import annotations

import json
import os
import signal

from fsqdo.journal import journal_path
from fsqdo.store import Store


def end(store: Store, worker: str) -> int:
    """Kill the processes of a worker's unfinished tasks on this host; returns how many."""
    sessions = _open_sessions(store, worker)
    killed = 0
    for pid in _processes() if sessions else ():
        if _session_of(pid) in sessions and _worker_of(pid) == worker:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except (ProcessLookupError, PermissionError):
                continue  # it ended by itself, or is another user's by now
    return killed


def _open_sessions(store: Store, worker: str) -> set[int]:
    """Session ids (the pids) of the attempts that the journal knows no end of."""
    sessions: dict[str, int] = {}
    for line in store.read_lines(journal_path(worker)):
        try:
            said = json.loads(line)
            if said["outcome"] == "started":
                sessions[said["name"]] = int(said["pid"])
            else:
                sessions.pop(said["name"], None)
        except (ValueError, KeyError, TypeError):
            continue
    return set(sessions.values())


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:  # no /proc on this system
        return []


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _worker_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    key = b"FSQDO_WORKER="
    return next((value[len(key) :].decode(errors="replace") for value in variables if value.startswith(key)), "")
