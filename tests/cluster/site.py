"""A site as its user has it: a configuration with profiles, the command `fsqdo`, and the batch system behind it."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Protocol

from fsqdo.launch import fsqdo_command
from tests.cluster.daemons import wait_until
from tests.cluster.queues import Work


class Cluster(Protocol):
    """Where commands run."""

    def run(self, *command: str, cwd: Path | None = None) -> CompletedProcess[str]:
        """Run a command that finds the batch system."""


class Site:
    """The user's commands for one queue."""

    def __init__(self, cluster: Cluster, work: Work, config_path: Path, profile: str) -> None:
        self.cluster = cluster
        self.work = work
        self.name = work.queue.name
        self.config_path = config_path
        self.configure(profile)

    def configure(self, profile: str) -> None:
        """Write the configuration: one profile, given as the lines of its YAML mapping."""
        lines = "".join(f"    {line}\n" for line in profile.strip().splitlines())
        self.config_path.write_text(f"default_profile: here\nprofiles:\n  here:\n{lines}")

    def run(self, *words: str, cwd: Path | None = None) -> CompletedProcess[str]:
        """Run `fsqdo` with these words."""
        return self.cluster.run(*fsqdo_command(), *words, cwd=cwd or self.work.directory)

    def fsqdo(self, *words: str, cwd: Path | None = None) -> str:
        """Run `fsqdo` with these words, which must succeed; what it printed."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def launch(self, *words: str, cwd: Path | None = None) -> list[dict[str, Any]]:
        """Launch; the jobs there are then."""
        self.fsqdo("launch", self.name, *words, cwd=cwd)
        return self.jobs()

    def jobs(self) -> list[dict[str, Any]]:
        """What `fsqdo jobs` says, with what the batch system says now: its last answer counts for half a minute otherwise."""
        (Path(self.work.queue.directory) / "jobs/.states.json").unlink(missing_ok=True)
        return [json.loads(line) for line in self.fsqdo("jobs", self.name, "--json").splitlines()]

    def states(self) -> list[str]:
        """The states of all jobs."""
        return [job["state"] for job in self.jobs()]

    def wait_for_states(self, *states: str, within_s: float = 60.0) -> None:
        """Wait until the jobs have these states, in their order."""
        wait_until(f"the jobs are {states}", lambda: self.states() == list(states), within_s, every_s=0.5)
