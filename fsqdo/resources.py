"""What a worker has, and what its tasks take of it while they run: cores, gpus, memory, nodes.

A task takes its `cores`, `gpus` and `mem_mb` on the worker's own node. A parallel one (`ranks`, `nodes`) is started by mpirun:
when its ranks fit one node they are packed there like other tasks, on the first node of the worker with room for them; when
they need more, or it asks for more, it takes that many nodes that are wholly free.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from fsqdo import allocation
from fsqdo.allocation import Gpus
from fsqdo.taskoptions import Options
from fsqdo.workeroptions import WorkerOptions


class Wants(NamedTuple):
    """What a task takes: so much of each of so many nodes; more than one of them wholly."""

    nodes: int
    cores: int
    gpus: int
    mem_mb: int
    parallel: bool


class _Node:
    """What is free on one node."""

    def __init__(self, host: str, cores: int, gpus: Sequence[str], mem_mb: int, cpus: Sequence[int]) -> None:
        self.host = host
        self.cores = self.all_cores = cores
        self.gpus = list(gpus)
        self.mem_mb = mem_mb
        self.cpus = list(cpus)

    def fits(self, wants: Wants) -> bool:
        return wants.cores <= self.cores and wants.gpus <= len(self.gpus) and wants.mem_mb <= self.mem_mb

    def take(self, wants: Wants, whole: bool) -> _Taken:
        cores = self.cores if whole else wants.cores
        gpus: tuple[str, ...] = ()
        cpus: tuple[int, ...] = ()
        self.cores -= cores
        self.mem_mb -= wants.mem_mb
        if wants.gpus:
            gpus = tuple(self.gpus[: wants.gpus])
            del self.gpus[: wants.gpus]
        if self.cpus:
            cpus = tuple(self.cpus[: wants.cores])
            del self.cpus[: wants.cores]
        return _Taken(self, cores, wants.mem_mb, gpus, cpus)


class _Taken(NamedTuple):
    """What a task has of one node."""

    node: _Node
    cores: int
    mem_mb: int
    gpus: tuple[str, ...]
    cpus: tuple[int, ...]


class Share:
    """What one running task has; `free` gives it back, once.

    Attributes
    ----------
    gpus
        Names of its gpus on the (first) node.
    cpus
        The processors it is pinned to; () when it is not.
    local
        Whether it is on the worker's own node alone.
    """

    __slots__ = ("_taken", "cpus", "gpus", "local")

    def __init__(self, taken: Sequence[_Taken], local: bool = True) -> None:
        self.local = local
        self._taken = taken
        self.gpus, self.cpus = taken[0].gpus, taken[0].cpus

    @property
    def hosts(self) -> tuple[str, ...]:
        """The nodes of a parallel task."""
        return tuple(taken.node.host for taken in self._taken)

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        taken, self._taken = self._taken, ()
        for node, cores, mem_mb, gpus, cpus in taken:
            node.cores += cores
            node.mem_mb += mem_mb
            if gpus:
                node.gpus = sorted((*node.gpus, *gpus), key=_gpu_order)
            if cpus:
                node.cpus = sorted((*node.cpus, *cpus))


class Resources:
    """The resources of one worker.

    Parameters
    ----------
    cores, gpus, mem_mb
        On each of its nodes.
    hosts
        Its nodes, its own first.
    cpus
        Processors to which tasks are pinned; () pins none.
    """

    def __init__(self, cores: int, gpus: Gpus, mem_mb: int, hosts: Sequence[str], cpus: Sequence[int] = ()) -> None:
        self.cores, self.gpus, self.mem_mb = cores, gpus, mem_mb
        self._nodes = [_Node(host, cores, gpus.names, mem_mb, () if at else cpus) for at, host in enumerate(hosts)]
        self._gpu_variable = gpus.variable.encode()
        self._last: tuple[Options | None, Wants, str] = (None, Wants(1, 1, 0, 0, False), "")

    @property
    def nodes(self) -> int:
        """Number of its nodes."""
        return len(self._nodes)

    def describe(self) -> dict[str, int]:
        """What others should know of it, for worker.json."""
        return {"cores": self.cores, "gpus": len(self.gpus.names), "mem_mb": self.mem_mb, "nodes": self.nodes}

    def wants(self, options: Options) -> Wants:
        """What a task takes here."""
        return self._known(options)[1]

    def never(self, options: Options) -> str:
        """Why a task can never run here, as `it needs …`; "" when it can."""
        return self._known(options)[2]

    def _known(self, options: Options) -> tuple[Options | None, Wants, str]:
        """What a task wants and lacks: worked out once for the tasks of a load, which share their options."""
        if self._last[0] is not options:
            wanted = wants(options, self.cores)
            why = lacking(wanted, options, self.cores, len(self.gpus.names), self.mem_mb, self.nodes)
            self._last = (options, wanted, why)
        return self._last

    def fits_now(self, options: Options) -> bool:
        """Whether there is room for a task at this moment."""
        return bool(self._choose(self.wants(options)))

    def take(self, options: Options) -> Share | None:
        """Take what a task wants; None when it is not free."""
        wanted = self.wants(options)
        if not wanted.parallel:  # the usual case, once a task
            node = self._nodes[0]
            return Share((node.take(wanted, whole=False),)) if node.fits(wanted) else None
        nodes = self._choose(wanted)
        if not nodes:
            return None
        return Share([node.take(wanted, whole=len(nodes) > 1) for node in nodes], local=nodes == self._nodes[:1])

    def _choose(self, wanted: Wants) -> list[_Node]:
        if not wanted.parallel:
            return self._nodes[:1] if self._nodes[0].fits(wanted) else []
        if wanted.nodes == 1:
            return next(([node] for node in self._nodes if node.fits(wanted)), [])
        free = [node for node in self._nodes if node.cores == node.all_cores and node.fits(wanted)]
        return free[: wanted.nodes] if len(free) >= wanted.nodes else []

    def apply(self, share: Share, environ: dict[bytes, bytes]) -> None:
        """Tell a command which gpus are its own; one that asked for none is told nothing."""
        if share.gpus:
            environ[self._gpu_variable] = ",".join(share.gpus).encode()

    def variables(self, share: Share) -> dict[str, str]:
        """The same, for a function."""
        return {self.gpus.variable: ",".join(share.gpus)} if share.gpus else {}


def wants(options: Options, cores: int) -> Wants:
    """What a task takes of nodes with so many cores."""
    if not options.parallel:
        return Wants(1, options.cores, options.gpus, options.mem_mb or 0, False)
    ranks = options.ranks or options.nodes or 1
    nodes = options.nodes or -(-ranks // max(1, cores // options.cores))
    each = -(-ranks // nodes) * options.cores
    return Wants(nodes, each, options.gpus, options.mem_mb or 0, True)


def lacking(wanted: Wants, options: Options, cores: int, gpus: int, mem_mb: int | None, nodes: int) -> str:
    """What a worker of this size lacks for a task, as `it needs …`; "" when it lacks nothing."""
    if wanted.nodes > nodes:
        asked = "" if options.nodes else f" for {options.ranks} ranks of {options.cores} cores"
        return f"it needs {_counted(wanted.nodes, 'node')}{asked} and this worker has {nodes}"
    if wanted.cores > cores:
        on_each = " on each node" if wanted.parallel else ""
        return f"it needs {_counted(wanted.cores, 'core')}{on_each} and this worker has {cores}"
    if wanted.gpus > gpus:
        return f"it needs {_counted(wanted.gpus, 'gpu')} and this worker has {gpus}"
    if mem_mb is not None and wanted.mem_mb > mem_mb:
        return f"it needs {wanted.mem_mb} MiB of memory and this worker has {mem_mb}"
    return ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _gpu_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isascii() and name.isdigit() else (1 << 30, name)


def of_worker(options: WorkerOptions, environ: Mapping[str, str]) -> Resources:
    """What a worker with these options has; where the allocation has less than it was told, that is reported."""
    gpus = allocation.gpus(environ, options.gpus)
    if options.gpus is not None and len(gpus.names) < options.gpus:
        options.report(f"of {options.gpus} gpus this worker was to have, {gpus.variable} names only {len(gpus.names)}")
    hosts = allocation.own_hosts(environ, options.nodes)
    if len(hosts) < options.nodes:
        options.report(f"of {options.nodes} nodes this worker was to have, only {len(hosts)} are known: {', '.join(hosts)}")
    cores = options.cores or 1
    cpus = sorted(os.sched_getaffinity(0)) if options.pin else []
    if options.pin and len(cpus) < cores:
        options.report(f"tasks are not pinned: they share {cores} cores, but this process may use {len(cpus)} processors")
        cpus = []
    return Resources(cores, gpus, options.mem_mb or allocation.mem_mb(environ), hosts, cpus)


# ---------------------------------------------------------------- how
@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Start processes on these processors: this thread is there meanwhile, and its children stay. () changes nothing.

    Processors that were taken away from this process since it began are no reason to run nothing: then nothing is pinned.
    """
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def parallel_command(command: str, options: Options, share: Share, mpirun: Sequence[str], environ: Mapping[str, str]) -> str:
    """The shell command that runs a task's command in each of its ranks.

    Notes
    -----
    `srun` gets a step of just these cores. A worker that is a task of srun itself holds all there is, so its steps have to
    overlap with it. `--mem=0` keeps a step from reserving the memory of the whole job. One rank's failure ends all of them.
    """
    ranks = options.ranks or options.nodes or 1
    words = [*mpirun]
    each = -(-ranks // len(share.hosts))
    if os.path.basename(mpirun[0]) == "srun":
        words += [f"--ntasks={ranks}", f"--nodes={len(share.hosts)}", f"--cpus-per-task={options.cores}"]
        words.append(f"--ntasks-per-node={each}")  # else that of the job counts
        words += [f"--nodelist={','.join(share.hosts)}", f"--mem={options.mem_mb or 0}", "--kill-on-bad-exit=1"]
        words.append("--overlap" if environ.get("SLURM_STEP_ID") else "--exact")
        if options.gpus:
            words.append(f"--gpus-per-node={options.gpus}")
    else:
        words += ["-n", str(ranks)]
        if not share.local:
            words += ["--host", ",".join(f"{host}:{each}" for host in share.hosts)]
    return "exec " + shlex.join([*words, "/bin/sh", "-c", command])


# Several mpiexec on one node would each bind its ranks to the first cores of it.
UNBOUND = {"OMPI_MCA_hwloc_base_binding_policy": "none", "PRTE_MCA_hwloc_default_binding_policy": "none"}
