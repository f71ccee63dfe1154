"""A real Grid Engine for tests: a qmaster and an execd on this machine, in a network namespace of their own.

Its daemons listen on all interfaces and cannot be told otherwise. In a namespace that has the loopback interface alone nobody
else gets to them, and their ports are free whatever runs outside. Commands run in there, too.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

import pytest

from tests.cluster.daemons import ClusterError, Daemons, need, run, search_path, wait_until

PACKAGES = "gridengine-master gridengine-exec gridengine-client iproute2"
LIBEXEC = "/usr/lib/gridengine"
SHARE = "/usr/share/gridengine"
PROGRAMS = (
    f"{LIBEXEC}/sge_qmaster",
    f"{LIBEXEC}/sge_execd",
    "qsub",
    "qstat",
    "qdel",
    "qacct",
    "qconf",
    "ip",
    "nsenter",
    "unshare",
)
PORTS = {"SGE_QMASTER_PORT": "26444", "SGE_EXECD_PORT": "26445"}
TEMPLATES = Path(__file__).with_name("sge")


class GridEngine:
    """The commands of a running Grid Engine: one host with a queue all.q of 8 slots, and a parallel environment smp."""

    def __init__(self, daemons: Daemons, namespace_pid: int) -> None:
        self._daemons = daemons
        self.directory = daemons.directory
        self.root = self.directory / "root"
        self.inside = ("nsenter", f"--net=/proc/{namespace_pid}/ns/net", "--")
        self._host = socket.gethostname()
        self._architecture = run([f"{SHARE}/util/arch"], os.environ).stdout.strip()

    @property
    def env(self) -> dict[str, str]:
        """The environment in which its commands find it."""
        cell = {"SGE_ROOT": str(self.root), "SGE_CELL": "default", "SGE_ARCH": self._architecture, "SGE_ND": "1"}
        return {**os.environ, **cell, **PORTS, "PATH": search_path()}

    # ------------------------------------------------------------ daemons
    def up(self) -> None:
        """Make a cell, start everything, and return when the host may be given work."""
        self._make_cell()
        self._start("sge_qmaster")
        self._daemons.wait_until("sge_qmaster answers", lambda: self.run("qconf", "-sh").returncode == 0)
        self._configure()
        self._start("sge_execd")
        self._daemons.wait_until("the host reports its load", self._ready)

    def _start(self, name: str) -> None:
        # SGE_ND keeps them in the foreground.
        self._daemons.start(name, [*self.inside, f"{LIBEXEC}/{name}"], self.env)

    def _fill_in(self, name: str, directory: Path) -> Path:
        text = Template((TEMPLATES / name).read_text("utf-8")).substitute(directory=self.directory, host=self._host)
        (directory / name).write_text(text)
        return directory / name

    def _make_cell(self) -> None:
        common = self.root / "default/common"
        for directory in (common, self.directory / "spool/qmaster/job_scripts", self.directory / "spool/execd"):
            directory.mkdir(parents=True)
        (self.directory / "spooldb").mkdir()
        for name in ("bin", "lib", "utilbin"):
            (self.root / name).mkdir()
            (self.root / name / self._architecture).symlink_to(LIBEXEC)
        (self.root / "util").symlink_to(f"{SHARE}/util")
        # It refuses to work when the name of the machine and that of its address differ: all are one here.
        (common / "host_aliases").write_text(f"{self._host} localhost localhost.localdomain\n")
        (common / "act_qmaster").write_text(f"{self._host}\n")
        self._fill_in("bootstrap", common)
        self.tell(f"{LIBEXEC}/spoolinit", "berkeleydb", "libspoolb", str(self.directory / "spooldb"), "init")
        for words in (
            ("configuration", str(self._fill_in("configuration", self.directory))),
            ("complexes", f"{SHARE}/util/resources/centry"),
            ("usersets", f"{SHARE}/util/resources/usersets"),
            ("managers", "root"),
        ):
            self.tell(f"{LIBEXEC}/spooldefaults", *words)

    def _configure(self) -> None:
        self.run("qconf", "-ah", self._host)
        self.tell("qconf", "-as", self._host)
        # The scheduler looks for work every second, not every 15.
        scheduler = self.tell("qconf", "-ssconf")
        for name, value in {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}.items():
            scheduler = re.sub(rf"^{name}\s.*$", f"{name} {value}", scheduler, flags=re.MULTILINE)
        (self.directory / "scheduler").write_text(scheduler)
        self.tell("qconf", "-Msconf", str(self.directory / "scheduler"))
        self.tell("qconf", "-Ap", str(self._fill_in("smp", self.directory)))
        self.tell("qconf", "-Aq", str(self._fill_in("all.q", self.directory)))

    def _ready(self) -> bool:
        """Whether the queue has a load and no letters in its column `states`."""
        rows = [words for text in self.run("qstat", "-f").stdout.splitlines() if (words := text.split())[:1]]
        return any(words[0].startswith("all.q@") and len(words) == 5 and words[3] != "-NA-" for words in rows)

    def end_jobs(self) -> None:
        """End all jobs."""
        if self.run("qstat", "-u", "*").stdout.strip():
            self.run("qdel", "-f", "-u", "*")
        wait_until("all jobs have ended", lambda: not self.run("qstat", "-u", "*").stdout.strip())

    # ------------------------------------------------------------ commands
    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command where the daemons are."""
        return run([*self.inside, *command], self.env, cwd)

    def tell(self, *command: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*command)
        if done.returncode != 0:
            raise ClusterError(f"{command}: {done.returncode} {done.stdout} {done.stderr}")
        return done.stdout

    def submit(self, script: Path, *options: str) -> str:
        """Submit a script; the id of its job."""
        return self.tell("qsub", "-terse", *options, str(script)).strip()

    def state(self, job_id: str) -> str:
        """The letters of a job's state (r, qw, ...); "" when it has ended or was never there."""
        rows = [text.split() for text in self.run("qstat", "-u", "*").stdout.splitlines()]
        return next((words[4] for words in rows if len(words) > 4 and words[0] == job_id), "")

    def wait_for(self, job_id: str, *states: str, within_s: float = 30.0) -> None:
        """Wait until a job is in one of these states, or without any until it has ended."""
        wanted = states or ("",)
        wait_until(f"job {job_id} is {' or '.join(wanted)}", lambda: self.state(job_id) in wanted, within_s)


@contextmanager
def grid_engine_cluster() -> Iterator[GridEngine]:
    """A Grid Engine that is up inside the `with`."""
    need(PROGRAMS, PACKAGES)
    with Daemons("sge") as daemons:
        cluster = GridEngine(daemons, _own_network(daemons))
        cluster.up()
        try:
            yield cluster
        finally:
            cluster.end_jobs()


def _own_network(daemons: Daemons) -> int:
    """Start a process that keeps a network namespace with nothing but the loopback interface; its pid."""
    ready = daemons.directory / "network"
    script = 'ip link set lo up && : > "$1" && exec sleep infinity'
    holder = daemons.start(
        "network", ["unshare", "--net", "sh", "-c", script, "sh", str(ready)], {**os.environ, "PATH": search_path()}
    )
    wait_until("a network namespace is made", lambda: ready.exists() or holder.poll() is not None)
    if holder.poll() is not None:
        said = daemons.log_path("network").read_text("utf-8", "replace").strip()
        pytest.skip(f"no network namespace can be made here, and its daemons would listen on all interfaces: {said}")
    return holder.pid
