"""The shape of a launch: how many batch jobs, nodes, workers and slots make n tasks at once. Pure.

A worker is one Python process with many slots; each slot runs one task. What is asked for "per worker" on the command line is
meant as qdo means it, whose workers run one task: for each of the n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fsqdo.config import Profile
from fsqdo.errors import InputError
from fsqdo.walltime import format_walltime

MOST_JOBS = 10_000


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes
    ----------
    n
        Tasks at once: in all, or in each of the packed jobs; None: as many as `nodes` full nodes run.
    packed, jobs
        All n in one job, or in each of so many.
    slots
        Slots of each worker; None: one, or in packed jobs all of a node.
    nodes, workers_per_node
        Nodes of a packed job; workers on each of them (without `slots`: tasks at once on each of them).
    nodes_per_worker
        Nodes that belong to one worker, whose tasks span them.
    cores, gpus, mem_mb
        For each of the n; None: nothing is said (cores: one each where slots share a worker). Where tasks span nodes: on each.
    walltime_s
        Limit of a job.
    array
        Like jobs are submitted as one.
    one_node, says_cores
        The system has no jobs of several nodes; it is told how many cores a worker gets.
    """

    n: int | None = None
    packed: bool = False
    jobs: int = 1
    slots: int | None = None
    nodes: int | None = None
    workers_per_node: int | None = None
    nodes_per_worker: int | None = None
    cores: int | None = None
    gpus: int | None = None
    mem_mb: int | None = None
    walltime_s: int | None = None
    array: bool = False
    one_node: bool = False
    says_cores: bool = True


@dataclass(frozen=True)
class Shape:
    """One batch job, or several of the same shape.

    Attributes
    ----------
    count
        Jobs of this shape.
    nodes, workers_per_node, slots
        Of each job; workers on each node; slots of each worker.
    nodes_per_worker
        Nodes of its one worker, where that has several to itself.
    cores, gpus, mem_mb
        What each worker gets, on each of its nodes; None: nothing is said.
    """

    count: int
    slots: int
    nodes: int = 1
    workers_per_node: int = 1
    nodes_per_worker: int | None = None
    cores: int | None = None
    gpus: int | None = None
    mem_mb: int | None = None

    @property
    def workers(self) -> int:
        """Workers in a job."""
        return 1 if self.nodes_per_worker else self.nodes * self.workers_per_node

    @property
    def at_once(self) -> int:
        """Tasks at once, in all its jobs."""
        return self.count * self.workers * self.slots


@dataclass(frozen=True)
class Plan:
    """The jobs of one launch: the shapes (two at most, the last one smaller), and what holds for all.

    Attributes
    ----------
    array
        Jobs of one shape are submitted as one array.
    """

    shapes: tuple[Shape, ...]
    walltime_s: int | None = None
    array: bool = False

    @property
    def jobs(self) -> int:
        """Batch jobs, each element of an array counted."""
        return sum(shape.count for shape in self.shapes)

    @property
    def at_once(self) -> int:
        """Tasks at once, in all jobs."""
        return sum(shape.at_once for shape in self.shapes)

    def __str__(self) -> str:
        words = [_words(shape, self.array) for shape in self.shapes]
        total = "1 task at a time" if self.at_once == 1 else f"{self.at_once} tasks at once"
        limit = "" if self.walltime_s is None else f", {format_walltime(self.walltime_s)}"
        return f"{' and '.join(words)}: {total}{limit}"


def plan(request: Request, profile: Profile) -> Plan:
    """Choose the shape of a launch.

    Raises
    ------
    InputError
        When numbers cannot be meant, or do not fit the limits of the profile; the arithmetic is in the message.
    """
    _check_numbers(request)
    if request.nodes_per_worker is not None:
        shapes = _with_nodes_of_their_own(request, profile)
    elif request.packed:
        shapes = (_packed(request, profile),)
    else:
        shapes = _plain(request)
    made = Plan(shapes, request.walltime_s, request.array and shapes[0].count > 1)
    _check_limits(made, request, profile)
    return made


def _check_numbers(request: Request) -> None:
    asked = {
        "the number of tasks at once": request.n,
        "slots": request.slots,
        "jobs": request.jobs,
        "nodes": request.nodes,
        "workers_per_node": request.workers_per_node,
        "nodes_per_worker": request.nodes_per_worker,
        "cores_per_worker": request.cores,
        "gpus_per_worker": request.gpus,
        "mem_per_worker": request.mem_mb,
    }
    for name, value in asked.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} is {value!r}, but must be an integer of at least 1")
    if request.n is None and request.nodes is None:
        raise InputError("how many tasks are to run at once is not said", "give N, or --nodes for full nodes")


# ---------------------------------------------------------------- shapes
def _plain(request: Request) -> tuple[Shape, ...]:
    """A job for each worker, of one slot if nothing else is said; the last one has what is left."""
    n, slots = request.n or 1, request.slots or 1
    shapes = [_sized(request, Shape(n // slots, slots))] if n >= slots else []
    if n % slots:
        shapes.append(_sized(request, Shape(1, n % slots)))
    return tuple(shapes)


def _with_nodes_of_their_own(request: Request, profile: Profile) -> tuple[Shape, ...]:
    """Workers whose tasks span nodes: a job for each, all n slots in one if it is packed."""
    if request.nodes is not None or request.workers_per_node is not None:
        raise InputError(
            "nodes of a job's workers are asked for twice",
            "--nodes-per-worker goes with neither --nodes nor --workers-per-node",
        )
    own = request.nodes_per_worker or 1
    if request.packed:
        shapes: tuple[Shape, ...] = (Shape(request.jobs, request.n or 1),)
    else:
        shapes = _plain(request)
    whole = profile.cores_per_node if request.cores is None and request.says_cores else None
    sized = (_sized(request, replace(shape, nodes=own, nodes_per_worker=own)) for shape in shapes)
    return tuple(replace(shape, cores=whole or shape.cores) for shape in sized)


def _packed(request: Request, profile: Profile) -> Shape:
    """A job of whole nodes for all n; what does not divide evenly is rounded up."""
    room = _room(request, profile)
    n = request.n
    if n is None:
        if room is None:
            raise InputError(
                f"how many tasks at once {_many(request.nodes or 1, 'full node')} can run is not known",
                f"give N, or cores_per_node in the profile {profile.name!r}",
            )
        n = (request.nodes or 1) * room
    if request.one_node:
        return _sized(request, Shape(request.jobs, n))
    nodes = request.nodes or (-(-n // room) if room else 1)
    on_each = -(-n // nodes)
    if room is not None and on_each > room:
        limit = f"{_many(nodes, 'node')} of {_many(room, 'task')} at once hold {nodes * room}, not {n}"
        raise InputError(f"{limit}: {_why(request, profile)}", "ask for more nodes, or for less on each")
    slots = request.slots or on_each
    shape = Shape(request.jobs, min(slots, on_each), nodes, -(-on_each // slots))
    return _sized(request, shape, profile.cores_per_node if request.nodes else None)


def _sized(request: Request, shape: Shape, cores_of_node: int | None = None) -> Shape:
    """The shape with what each of its workers gets: so much for each slot, or its part of a full node."""
    cores = request.cores
    if cores is None and request.says_cores and (request.packed or shape.slots > 1):
        cores = 1
    return replace(
        shape,
        cores=max(cores * shape.slots, (cores_of_node or 0) // shape.workers_per_node) if cores else None,
        gpus=request.gpus * shape.slots if request.gpus else None,
        mem_mb=request.mem_mb * shape.slots if request.mem_mb else None,
    )


def _room(request: Request, profile: Profile) -> int | None:
    """How many tasks at once fit on a node, as was asked or as the limits of the profile have it; None: not known."""
    if request.workers_per_node is not None:
        return request.workers_per_node * (request.slots or 1)
    rooms = [there // each for _, there, each in _resources(request, profile) if each]
    if not rooms:
        return None
    if min(rooms) < 1:
        raise InputError(f"not one task fits on a node: {_why(request, profile)}", "ask for less")
    return min(rooms)


def _resources(request: Request, profile: Profile) -> list[tuple[str, int, int | None]]:
    """What a node has and each task is to get, where the profile knows it: (name, on a node, for each)."""
    known = (
        ("cores", profile.cores_per_node, request.cores or 1),
        ("GPUs", profile.gpus_per_node, request.gpus),
        ("MiB of memory", profile.mem_per_node_mb, request.mem_mb),
    )
    return [(name, there, each) for name, there, each in known if there is not None]


def _why(request: Request, profile: Profile) -> str:
    if request.workers_per_node is not None:
        slots = "" if request.slots is None else f" of {_many(request.slots, 'slot')}"
        return f"--workers-per-node is {request.workers_per_node}{slots}"
    words = [f"{there} {name}, {each} for each task" for name, there, each in _resources(request, profile) if each]
    return f"a node of the profile {profile.name!r} has " + "; ".join(words)


# ---------------------------------------------------------------- limits
def _check_limits(made: Plan, request: Request, profile: Profile) -> None:
    """Refuse what does not fit, all of it at once."""
    problems = [problem for shape in made.shapes for problem in _on_node(shape, request, profile)]
    nodes = max(shape.nodes for shape in made.shapes)
    if profile.max_nodes is not None and nodes > profile.max_nodes:
        problems.append(f"a job would have {_many(nodes, 'node')}, but may have {profile.max_nodes} (max_nodes)")
    if profile.max_jobs is not None and made.jobs > profile.max_jobs:
        problems.append(f"there would be {_many(made.jobs, 'job')}, but there may be {profile.max_jobs} (max_jobs)")
    limit = profile.max_walltime_s
    if limit is not None and made.walltime_s is not None and made.walltime_s > limit:
        asked = format_walltime(made.walltime_s)
        problems.append(f"the walltime would be {asked}, but may be {format_walltime(limit)} (max_walltime)")
    if problems:
        told = "; ".join(dict.fromkeys(problems))
        raise InputError(f"that does not fit the profile {profile.name!r}: {told}", "nothing was submitted")
    if made.jobs > MOST_JOBS:
        raise InputError(
            f"{made.jobs} jobs in one launch are more than {MOST_JOBS}", "pack them (--pack), or give workers more slots (-j)"
        )


def _on_node(shape: Shape, request: Request, profile: Profile) -> list[str]:
    """What the workers on one node get, against what it has."""
    needs = (
        ("cores", shape.cores, request.cores or 1, profile.cores_per_node, "cores_per_node"),
        ("GPUs", shape.gpus, request.gpus, profile.gpus_per_node, "gpus_per_node"),
        ("MiB of memory", shape.mem_mb, request.mem_mb, profile.mem_per_node_mb, "mem_per_node"),
    )
    problems = []
    for name, of_worker, each, there, key in needs:
        asked = (of_worker or 0) * shape.workers_per_node
        if there is not None and asked > there:
            workers = _many(shape.workers_per_node, "worker")
            product = f"{workers} of {_many(shape.slots, 'slot')} with {each} {name} each are {asked}"
            problems.append(f"{product} on a node, but there are {there} ({key})")
    return problems


# ---------------------------------------------------------------- words
def _words(shape: Shape, array: bool) -> str:
    jobs = _many(shape.count, "job") + (" (an array)" if array and shape.count > 1 else "")
    slots = _many(shape.slots, "slot")
    if shape.nodes_per_worker:
        size = f"{_many(shape.nodes, 'node')}, one worker of {slots}"
    elif shape.nodes > 1 or shape.workers_per_node > 1:
        size = f"{_many(shape.nodes, 'node')}, {_many(shape.workers_per_node, 'worker')} a node of {slots}"
    else:
        size = f"one worker of {slots}"
    slot = "slot and node" if shape.nodes_per_worker else "slot"
    more = [f", {_each(value, shape.slots)} {name} a {slot}" for name, value in _got(shape) if value]
    return f"{jobs} {'of' if size[0].isdigit() else 'with'} {size}{''.join(more)}"


def _got(shape: Shape) -> tuple[tuple[str, int | None], ...]:
    cores = "core" if shape.cores is not None and shape.cores // shape.slots == 1 else "cores"
    gpus = "GPU" if shape.gpus == shape.slots else "GPUs"
    return (cores, shape.cores), (gpus, shape.gpus), ("MiB", shape.mem_mb)


def _each(value: int, slots: int) -> str:
    return str(value // slots) if value % slots == 0 else f"{value / slots:.3g}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
