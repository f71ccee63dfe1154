"""A real Slurm for tests: one controller and four nodes, all on this machine and on its loopback interface."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from tests.cluster.daemons import ClusterError, Daemons, free_ports, need, run, search_path, wait_until

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "munged", "munge")
NODES = ("n1", "n2", "n3", "n4")
CPUS = 4
FREEZER = Path("/sys/fs/cgroup/freezer")

# slurmd loads a cgroup plugin even where nothing uses it; the one for version 1 starts anywhere.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\nConstrainCores=no\n"


class Slurm:
    """The commands of a running Slurm.

    Attributes
    ----------
    env
        The environment in which its commands find it.
    """

    def __init__(self, daemons: Daemons, tracking: str, forget_s: int) -> None:
        self._daemons = daemons
        self.directory = daemons.directory
        self.tracking = tracking
        self._write_configuration(forget_s)

    @property
    def env(self) -> dict[str, str]:
        # Not what a test was started with, but what it has set since.
        return {**os.environ, "PATH": search_path(), "SLURM_CONF": str(self.directory / "slurm.conf")}

    def _write_configuration(self, forget_s: int) -> None:
        controller_port, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=4000 State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=True)
        ]
        text = Template(Path(__file__).with_name("slurm.conf").read_text("utf-8")).substitute(
            directory=self.directory,
            host=host,
            controller_port=controller_port,
            process_tracking=self.tracking,
            forget_s=forget_s,
            node_timeout_s=5,
            nodes="\n".join(nodes),
        )
        (self.directory / "slurm.conf").write_text(text)
        (self.directory / "cgroup.conf").write_text(CGROUP_CONF)
        (self.directory / "state").mkdir()

    # ------------------------------------------------------------ daemons
    def up(self) -> None:
        """Start everything, and return when all nodes may be given work."""
        key, munge_socket = self.directory / "munge.key", self.directory / "munge.socket"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {
            "key-file": key,
            "socket": munge_socket,
            "pid-file": "munged.pid",
            "seed-file": "seed",
            "log-file": "munged.log",
        }
        options = [f"--{name}={self.directory / path}" for name, path in files.items()]
        self._daemons.start("munged", ["munged", "--foreground", "--force", *options], self.env)
        self._daemons.wait_until("munged answers", lambda: self._answers("munge", "-S", str(munge_socket), "-n"))
        self._daemons.start("slurmctld", ["slurmctld", "-D"], self.env)
        self._daemons.wait_until("slurmctld answers", lambda: self._answers("scontrol", "ping"))
        for node in NODES:
            self.start_node(node)
        self._daemons.wait_until("all nodes are idle", lambda: all(self.node_state(node) == "idle" for node in NODES))

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.directory / f"spool.{node}").mkdir(exist_ok=True)
        self._daemons.start(node, ["slurmd", "-D", "-N", node], self.env)

    def kill_node(self, node: str) -> None:
        """End a node's slurmd at once. What runs there goes on, as it does on a node whose slurmd died."""
        self._daemons.stop(node, signal.SIGKILL)

    def end_jobs(self) -> None:
        """End all jobs: their processes are no children of ours."""
        jobs = self.run("squeue", "-h", "-o", "%A").stdout.split()
        if jobs:
            self.run("scancel", "--full", "-s", "KILL", *jobs)
            self.run("scancel", *jobs)
            wait_until("all jobs have ended", lambda: not self.run("squeue", "-h").stdout.strip())

    def _answers(self, *command: str) -> bool:
        return self.run(*command).returncode == 0

    # ------------------------------------------------------------ commands
    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm."""
        return run(command, self.env, cwd)

    def tell(self, *command: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*command)
        if done.returncode != 0:
            raise ClusterError(f"{command}: {done.returncode} {done.stderr}")
        return done.stdout

    def submit(self, script: Path, *options: str) -> str:
        """Submit a script; the id of its job."""
        return self.tell("sbatch", "--parsable", *options, str(script)).strip()

    def state(self, job_id: str) -> str:
        """State of a job in Slurm's words, also of one that has ended; "" when Slurm does not know it."""
        return self.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job_id).stdout.strip()

    def wait_for(self, job_id: str, *states: str, within_s: float = 30.0) -> str:
        """Wait until a job is in one of these states, or without any until it has ended; the state."""
        wanted = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "")
        wait_until(f"job {job_id} is {' or '.join(wanted)}", lambda: self.state(job_id) in wanted, within_s)
        return self.state(job_id)

    def node_of(self, job_id: str) -> str:
        """The first node of a running job."""
        return self.tell("squeue", "-h", "-o", "%B", "-j", job_id).strip()

    def node_state(self, node: str) -> str:
        """State of a node in Slurm's words, without the signs behind it."""
        found = re.match(r"\w*", self.run("sinfo", "-h", "-p", "main", "-n", node, "-o", "%T").stdout)
        return found[0] if found else ""


@contextmanager
def slurm_cluster(tracking: str = "pgid", forget_s: int = 300) -> Iterator[Slurm]:
    """A Slurm that is up inside the `with`.

    Parameters
    ----------
    tracking
        How it finds a job's processes: "pgid" (a `setsid` child is not found) or "cgroup".
    forget_s
        For how long it remembers jobs that have ended (MinJobAge).
    """
    need(PROGRAMS, PACKAGES)
    with Daemons("slurm") as daemons:
        cluster = Slurm(daemons, tracking, forget_s)
        cluster.up()
        try:
            yield cluster
        finally:
            cluster.end_jobs()
    if tracking == "cgroup":
        for left in FREEZER.glob("slurm_n[1-4]"):
            left.rmdir()
