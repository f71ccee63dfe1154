"""Who is alive. A worker is dead only when that is proven; everything else is alive or unknown.

Proofs: same host, boot and pid namespace, and its process is gone; the batch system says that its job has ended; its own
deadline is past and its heartbeat did not change for two minutes; its heartbeat did not change for the lease while this host
watched.
A file's time is never compared with a clock (on Lustre it is the writer's): it is only seen to change or not, on the
observer's own boot-time clock. What a host saw is kept in `observed/<boot id>.json`, so that one-shot passes add up.

When nobody has looked for a while, a file server may have been away meanwhile, and no worker could beat: then the lease is over
only once another look, two minutes later, still finds the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

from fsqdo.errors import StorageError
from fsqdo.names import WORKER_FILE, new_token
from fsqdo.store import Store
from fsqdo.texts import utc_now

HEARTBEAT_S = 60.0
LEASE_S = 900.0
DEADLINE_GRACE_S = 120.0
_GAP_S = 300.0
_AGAIN_S = 120.0


class Verdict(NamedTuple):
    """Whether a worker lives (None: unknown), what shows it, and whether it ran on this host."""

    alive: bool | None
    reason: str
    here: bool = False


def boot_id() -> str:
    """What tells this boot of this machine from all others."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return f"{os.uname().nodename}-unknown-boot"


def pid_namespace() -> str:
    """What tells the pids of this container from those of another on the same machine."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it is gone or a zombie, -1 when that cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.exists("/proc/self/stat") and not _takes_signals(pid) else -1
    except OSError:
        return -1
    return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def _takes_signals(pid: int) -> bool:
    """Whether there is such a process: /proc may be mounted so that it hides those of other users (hidepid)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def describe_self(worker: str, **more: Any) -> dict[str, Any]:
    """The content of this process' `worker.json`."""
    return {
        "worker": worker,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "pid_start": process_start(os.getpid()),
        "pid_namespace": pid_namespace(),
        "boot_id": boot_id(),
        "started_at": utc_now(),
        **{key: value for key, value in more.items() if value is not None},
    }


def boot_clock() -> float:
    """Seconds since boot, on a clock that goes on while the machine sleeps and that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Seen(NamedTuple):
    """A heartbeat, since when it was seen unchanged, when it was looked at last, and whether nobody looked in between."""

    beat: float
    since: float
    last: float
    gap: float = 0.0


class Observer:
    """What this host saw of the heartbeats of one queue's workers, and when.

    Parameters
    ----------
    lease_s
        For how long an unchanged heartbeat must have been watched, in seconds.
    ended_jobs
        Tells the numbers of the batch jobs that have ended, for certain. Called once, and only when there is a worker of a
        job about whom nothing else is known.
    """

    def __init__(self, store: Store, lease_s: float = LEASE_S, ended_jobs: Callable[[], Container[str]] | None = None) -> None:
        self._store = store
        self._lease_s = lease_s
        self._ended_jobs = ended_jobs
        self._ended: Container[str] | None = None
        self._boot = boot_id()
        self._path = f"observed/{self._boot}.json"
        self._seen = self._load()
        self._changed = False

    def _load(self) -> dict[str, _Seen]:
        try:
            raw = json.loads(self._store.read(self._path) or b"{}")
            return {str(worker): _Seen(*map(float, seen)) for worker, seen in raw.items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def save(self) -> None:
        """Keep what was seen for later passes, of this or another process of the host."""
        if self._changed:
            live = set(self._store.ls("running") or ())
            seen = {worker: what for worker, what in self._seen.items() if worker in live}
            try:
                self._store.replace(self._path, json.dumps(seen).encode(), f"observed.{new_token()}", sync=False)
            except StorageError as error:
                if not error.full:  # a proof comes later then; what was recovered may be what makes room
                    raise
            self._changed = False

    def unchanged_s(self, worker: str) -> float:
        """For how long this host has seen the heartbeat of a worker stay the same, in seconds; looks now, too."""
        beat = float(self._store.changed_ns(f"running/{worker}/{WORKER_FILE}") or 0)
        now = boot_clock()
        seen = self._seen.get(worker)
        if seen is None or seen.beat != beat or seen.since > now:
            seen = _Seen(beat, now, now, 0.0)
        elif now - seen.last > _GAP_S and not seen.gap:
            # Once only: whoever looks every hour comes to an end, too.
            seen = _Seen(beat, max(seen.since, now - max(0.0, self._lease_s - _AGAIN_S)), now, 1.0)
        elif now - seen.last > HEARTBEAT_S:
            seen = seen._replace(last=now)
        if seen is not self._seen.get(worker):
            self._seen[worker] = seen
            self._changed = True
        return now - seen.since

    def judge(self, worker: str) -> Verdict:
        """Whether a worker under `running/` is dead, alive or unknown, with the proof."""
        said = self._store.said_by(worker)
        if said is None:
            return self._by_lease(worker, "it has no readable worker.json")
        if said.get("boot_id") == self._boot and said.get("pid_namespace") == pid_namespace():
            verdict = _by_process(said)
            if verdict is not None:
                return verdict
        if said.get("job") is not None and self._has_ended(str(said["job"])):
            return Verdict(False, f"the batch system says that its job {said['job']} has ended")
        deadline = said.get("deadline")
        silent_s = self.unchanged_s(worker)
        if isinstance(deadline, (int, float)) and time.time() > deadline and silent_s >= DEADLINE_GRACE_S:
            return Verdict(False, f"its deadline is past and it has been silent for {silent_s:.0f} s")
        return self._by_lease(worker, f"it runs on {said.get('host')}, out of sight")

    def _has_ended(self, job: str) -> bool:
        if self._ended is None:
            self._ended = self._ended_jobs() if self._ended_jobs is not None else ()
        return job in self._ended

    def _by_lease(self, worker: str, why: str) -> Verdict:
        silent_s = self.unchanged_s(worker)
        if silent_s >= self._lease_s:
            return Verdict(False, f"{why}; its heartbeat did not change for {silent_s:.0f} s")
        return Verdict(None, f"{why}; silent for {silent_s:.0f} s of the {self._lease_s:.0f} s that would prove it dead")


def _by_process(said: Mapping[str, Any]) -> Verdict | None:
    """Judge by this machine's process table; None where that cannot tell."""
    pid, start = said.get("pid"), said.get("pid_start")
    if type(pid) is not int or pid <= 0:
        return None
    found = process_start(pid)
    if found is None:
        return Verdict(False, f"process {pid} on this host is gone", here=True)
    if found == -1:
        return None
    if type(start) is int and start != found:
        return Verdict(False, f"process {pid} on this host is another one now", here=True)
    return Verdict(True, f"process {pid} on this host is running")
