"""Real batch systems on this machine, for the session: each comes up when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.cluster.queues", "tests.cluster.site")

from tests.cluster.gridengine import GridEngine, grid_engine_cluster  # noqa: E402
from tests.cluster.queues import Work  # noqa: E402
from tests.cluster.slurm import FREEZER, Slurm, slurm_cluster  # noqa: E402


@pytest.fixture(scope="session")
def slurm_by_groups() -> Iterator[Slurm]:
    """Slurm with four nodes that tracks the processes of a job by their process group, and so loses its tasks."""
    with slurm_cluster("pgid") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_by_cgroups() -> Iterator[Slurm]:
    """Another Slurm, which tracks all processes of a job."""
    if not os.access(FREEZER, os.W_OK):
        pytest.skip(
            f"{FREEZER} is not there or cannot be written: Slurm's other way is systemd, which runs in few test machines"
        )
    with slurm_cluster("cgroup") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def one_grid_engine() -> Iterator[GridEngine]:
    """Grid Engine with a host of 8 slots."""
    with grid_engine_cluster() as cluster:
        yield cluster


# What a failed test leaves in a batch system would fail those after it, too.
@pytest.fixture
def slurm(slurm_by_groups: Slurm) -> Iterator[Slurm]:
    """Slurm, without jobs."""
    yield slurm_by_groups
    slurm_by_groups.end_jobs()


@pytest.fixture
def slurm_with_cgroups(slurm_by_cgroups: Slurm) -> Iterator[Slurm]:
    """Slurm with cgroups, without jobs."""
    yield slurm_by_cgroups
    slurm_by_cgroups.end_jobs()


@pytest.fixture
def grid_engine(one_grid_engine: GridEngine) -> Iterator[GridEngine]:
    """Grid Engine, without jobs."""
    yield one_grid_engine
    one_grid_engine.end_jobs()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    """A new queue."""
    made = Work(tmp_path)
    yield made
    made.end_what_is_left()
