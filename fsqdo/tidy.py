"""Tidying a queue: what was left half done is finished, litter goes, and what ended workers left is put together.

Nothing that counts is ever removed: a task stays in its state, and the line that tells how it ended can be found by the name of
its worker. All of it can be repeated, and done by several at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from fsqdo import litter, merging
from fsqdo.errors import StorageError
from fsqdo.mounts import is_local
from fsqdo.packing import SETTLE_S, Packer, pack_all
from fsqdo.store import Store

# What is counted -> (one, several, what is done to it), in the order in which people are told.
KINDS: Mapping[str, tuple[str, str, str]] = {
    "workers": ("dead worker", "dead workers", "recovered"),
    "tasks": ("task", "tasks", "packed"),
    "staging": ("entry of tmp/", "entries of tmp/", "removed"),
    "queue": ("half-made or deleted queue", "half-made or deleted queues", "removed"),
    "marker": ("spent marker", "spent markers", "removed"),
    "directory": ("empty directory", "empty directories", "removed"),
    "story": ("story without its task", "stories without their tasks", "removed"),
    "lock": ("stale lock", "stale locks", "removed"),
    "observation": ("record of a host long gone", "records of hosts long gone", "removed"),
    "journals": ("journal", "journals", "merged"),
    "logs": ("log", "logs", "merged"),
    "log_bytes": ("byte of logs of what succeeded", "bytes of logs of what succeeded", "removed"),
}


def tidy(
    store: Store,
    dry_run: bool = False,
    succeeded_logs: bool = False,
    wait: bool = True,
    report: Callable[[str], None] = lambda text: None,
) -> Counter[str]:
    """Tidy a queue; what was done, counted by the keys of `KINDS`.

    Parameters
    ----------
    dry_run
        Only say what would be done.
    succeeded_logs
        Remove the output of attempts that succeeded.
    wait
        Wait for two minutes on file systems of a network, where other hosts may still write what they wrote before.
    report
        Told when that is.

    Notes
    -----
    Each part is one that a kill leaves to the next tidy.
    """
    began, local = time.monotonic(), is_local(store.directory)
    before = merging.sizes(store, merging.ended(store))
    done: Counter[str] = Counter()
    if dry_run:
        done["tasks"] = Packer(store).would(seal=store.settings.pack)
    else:
        try:
            done["tasks"] = pack_all(store, wait, report) if store.settings.pack else Packer(store).run(seal=False)
        except StorageError as error:
            if not error.full:
                raise
            report(f"finished tasks are not packed now: {error}")  # what is removed next makes room
    ages = litter.Ages(store, looks_count=not dry_run)
    for found in litter.find(store, ages):
        done[found.kind] += 1
        if not dry_run:
            found.remove()
    ages.save()
    if not local and not dry_run:
        left_s = began + SETTLE_S - time.monotonic()
        if not wait:
            before = {}
        elif before and left_s > 0:
            report(f"the journals of ended workers rest for {left_s:.0f} s: other hosts may still write to them")
            time.sleep(left_s)
    now = merging.sizes(store, [worker for worker in merging.ended(store) if worker in before])
    made = merging.plan(store, {w: files for w, files in now.items() if files == before[w]}, succeeded_logs)
    logs = sum(path.startswith("logs/") for path in made.files)
    done.update({"logs": logs, "journals": len(made.files) - logs, "log_bytes": made.removed_bytes})
    if not dry_run:
        merging.carry_out(store, made)
    return done


def words(done: Mapping[str, int], dry_run: bool = False) -> list[str]:
    """What was done, a line each."""
    would = "would be " if dry_run else ""
    found = []
    for kind, (one, several, verb) in KINDS.items():
        count = done.get(kind, 0)
        if count:
            found.append(f"{count} {one if count == 1 else several} {would}{verb}")
    return found or ["nothing to tidy"]
