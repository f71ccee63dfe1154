"""Many workers on one queue: nothing is run twice, and few of their calls are lost races."""

from __future__ import annotations

from pathlib import Path

import pytest

import fsqdo
from tests import herd
from tests.checker import read_queue

WORKERS = 40


@pytest.mark.parametrize("tasks", [600, 4000])
def test_a_herd(root: Path, tasks: int) -> None:
    """Loose, where all begin in one directory; and in packs, of which each opens slices."""
    queue = fsqdo.create("q", pack=False)
    queue.add_multiple(range(tasks))
    did = herd.run(queue, WORKERS)
    assert sorted(did.ids) == list(range(1, tasks + 1))
    report = read_queue(queue.directory)
    assert report.problems(range(1, tasks + 1)) == []
    assert report.counts()["succeeded"] == tasks
    assert did.lost_per_claim <= 0.5, did.calls
    assert did.calls["rename"] <= 2.5 * tasks, did.calls


def test_higher_priorities_are_seen_by_all(root: Path) -> None:
    """Tasks that come in between with a higher priority are claimed before most of the others."""
    queue = fsqdo.create("q", pack=False)
    queue.add_multiple(range(2000))
    urgent = queue.add_multiple(range(WORKERS), priority=5)
    did = herd.run(queue, WORKERS)
    order = [task_id for _, task_id in sorted(did.claims)]
    assert set(order[: WORKERS // 2]) <= set(urgent)
