"""The health check: a command that a worker runs before its first claim, to find out whether this machine is fit for tasks."""

from __future__ import annotations

import time
from collections.abc import Callable

from fsqdo.journal import health_path
from fsqdo.runner import BusyError, Ended, Spawner, SpawnError
from fsqdo.store import Appender, Store

LIMIT_S = 300.0
_LOOK_S = 1.0
_TAIL_BYTES = 4096


def unfit(
    store: Store, worker: str, command: str, spawner: Spawner, wait: Callable[[float], None], unwanted: Callable[[], bool]
) -> str:
    """Run the check; "" when the machine is fit, else what was wrong with it.

    Parameters
    ----------
    wait
        Sleeps, at most so many seconds, less when a child ends or a signal comes.
    unwanted
        Whether the answer does not matter any more: the worker was told to stop. The check is killed then.

    Notes
    -----
    It may take five minutes: a node whose file system hangs is no fit one. Its output stays in `logs/<worker>/health.log`.
    """
    store.make_directories(f"logs/{worker}")
    log = Appender(store, health_path(worker))
    try:
        ended = _ended(spawner, command, log.fd, worker, wait, unwanted)
    finally:
        log.close()
    if isinstance(ended, str):
        return ended
    if ended is None or ended.exit_code == 0:
        return ""
    how = f"signal {ended.signal}" if ended.exit_code is None else f"exit code {ended.exit_code}"
    said = store.read_tail(health_path(worker), _TAIL_BYTES).decode(errors="replace").strip().splitlines()
    return f"health_check {how}" + (f": {said[-1]}" if said else "")


def _ended(
    spawner: Spawner, command: str, log_fd: int, worker: str, wait: Callable[[float], None], unwanted: Callable[[], bool]
) -> Ended | str | None:
    """How it ended; in words when it did not by itself; None when it is unwanted."""
    try:
        run = spawner.start(command, log_fd, {"FSQDO_WORKER": worker})
    except (SpawnError, BusyError) as error:
        return f"health_check could not be started: {error.message}"
    end = time.monotonic() + LIMIT_S
    while True:
        ended = run.poll()
        if ended is not None:
            return ended
        left_s = end - time.monotonic()
        if unwanted() or left_s <= 0:
            break
        wait(min(left_s, _LOOK_S))
    run.kill()
    while run.poll() is None:
        wait(0.05)
    return None if left_s > 0 else f"health_check did not end within {LIMIT_S:g} s"
