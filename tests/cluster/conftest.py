"""Real batch systems on this machine, for the session: each comes up when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Slurm, slurm_cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Slurm with four nodes; processes of jobs are tracked by their process group."""
    with slurm_cluster() as cluster:
        yield cluster
