"""Real batch systems on this machine, for the session: each comes up when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.gridengine import GridEngine, grid_engine_cluster
from tests.cluster.queues import Work
from tests.cluster.slurm import FREEZER, Slurm, slurm_cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Slurm with four nodes that tracks the processes of a job by their process group, and so loses its tasks."""
    with slurm_cluster("pgid") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_with_cgroups() -> Iterator[Slurm]:
    """Another Slurm, which tracks all processes of a job."""
    if not os.access(FREEZER, os.W_OK):
        pytest.skip(
            f"{FREEZER} is not there or cannot be written: Slurm's other way is systemd, which runs in few test machines"
        )
    with slurm_cluster("cgroup") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def grid_engine() -> Iterator[GridEngine]:
    """Grid Engine with a host of 8 slots."""
    with grid_engine_cluster() as cluster:
        yield cluster


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    """A new queue."""
    made = Work(tmp_path)
    yield made
    made.end_what_is_left()
