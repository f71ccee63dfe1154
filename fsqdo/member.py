"""Being a worker: a directory under `running/` that is the lease and the fence, a heartbeat, a journal.

The directory is made complete in `tmp/` and revealed by a rename, under a name never used before; nobody ever makes
it again. What the worker holds lies in it. Whoever takes it away renames it, and everything this worker does late fails.
"""

from __future__ import annotations

import json
import signal
import threading
from contextlib import suppress
from typing import Any

from fsqdo.errors import FencedError, StorageError
from fsqdo.journal import Journal
from fsqdo.liveness import HEARTBEAT_S, describe_self
from fsqdo.names import WORKER_FILE, new_worker_name
from fsqdo.recovery import drain
from fsqdo.store import Store


class Member:
    """This process as a worker of a queue, until `leave`.

    Parameters
    ----------
    description
        More for `worker.json`: slots, cores, batch job, deadline.

    Attributes
    ----------
    name
        The worker's name.
    directory
        Its directory, relative to the queue.
    journal
        Its journal.

    Notes
    -----
    Write `tmp/<name>/worker.json`, rename `tmp/<name>` to `running/<name>`, open the journal. A kill leaves litter in tmp/, or
    an empty worker whose process is gone, for recover.
    """

    def __init__(self, store: Store, **description: Any) -> None:
        self._store = store
        self.name = new_worker_name()
        self.directory = f"running/{self.name}"
        said = describe_self(self.name, **description)
        store.write(f"tmp/{self.name}/{WORKER_FILE}", (json.dumps(said, indent=1) + "\n").encode(), make=True)
        if not store.move(f"tmp/{self.name}", self.directory, private=True):
            raise FencedError(f"{store.path(self.directory)} vanished while it was made")
        try:
            self.journal = Journal(store, self.name)
            self.journal.describe(said)
        except StorageError:
            with suppress(StorageError):  # else it is recovered when this process has ended
                drain(store, self.name, crashed=False)
            raise
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="fsqdo-heartbeat", daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        """Touch worker.json until the end: in a thread of its own, since a frozen server may hold the worker for a minute."""
        # Signals are the main thread's. While that starts a command it blocks them, and the end of another would come here:
        # for Python's sake this thread would then ask for the interpreter, and hold up the main one, at each command.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._ended.wait(HEARTBEAT_S):
            try:
                self._store.touch(f"{self.directory}/{WORKER_FILE}")
            except StorageError:
                continue  # a slow or full file system: the lease is fifteen beats long

    def listing(self) -> list[str]:
        """What lies in the worker's directory.

        Raises
        ------
        FencedError
            When it is gone: somebody declared this worker dead.
        """
        listed = self._store.ls_twice(self.directory)
        if listed is None:
            raise FencedError(f"{self._store.path(self.directory)} is gone: this worker was declared dead")
        return listed

    def is_to_be_killed(self, key: str) -> bool:
        """Whether somebody ordered that the task of this name, which lies here, be killed."""
        return not self._store.gone(f"{self.directory}/{key}.kill")

    def leave(self) -> int:
        """Sync the journal, give back what is still held, remove the directory; returns how many tasks went back."""
        self.abandon()
        self.journal.close()
        return drain(self._store, self.name, crashed=False)

    def abandon(self) -> None:
        """Stop being this worker without touching anything: it was fenced."""
        self._ended.set()
