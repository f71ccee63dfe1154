"""Every name in a queue's tree: built, parsed and validated here and nowhere else. Pure.

A task's file is called by its id and by what has happened to it since: `000000017.r1f1i2s3p5@worker.json`, where r counts
moves by hand, f failures, i interruptions that may be the task's fault, s stops in good order; p5 or m10 is a priority (5 or
-10) given later; `@worker` stands on finished tasks. Counters only grow, so a name never comes back to a directory it was in
(a network client that remembers the old name could otherwise answer "renamed" and move nothing).

Parsing is tolerant (people use `mv`): counters in any order, a worker where there should be none. What is not ours gives None.
"""

from __future__ import annotations

import json
import os
import re
from typing import NamedTuple, TypeVar

from fsqdo.errors import InputError, short
from fsqdo.ids import SHARD_SIZE, shard_of

WORKER_FILE = "worker.json"
NOTES_STARTS = "notes_starts"  # in it: the journal has a line for each attempt that began
DRAIN = "DRAIN"
PAUSED = "PAUSED"
RESUMED = "RESUMED"
QUEUE_FILE = "queue.json"
STATE_DIRS = ("waiting", "pending", "running", "succeeded", "failed", "killed")
TREE_DIRS = (
    *STATE_DIRS, "recovering", "next-id", "loads", "outcomes", "logs", "locks", "observed", "jobs", "tmp", "attic",
)  # fmt: skip

PLAIN = len("000000017.json")  # a task's file with nothing more in its name

# Numbers are bounded: what is longer was not made by us, and could not be a priority's directory or an id of an IdSet.
_COUNTERS = r"(?:\.((?:[rfispm][0-9]{1,9})+))?"
_TASK = re.compile(r"([0-9]{9,18})" + _COUNTERS + r"(?:@([A-Za-z0-9_.-]+))?\.json\Z")
_PACK = re.compile(r"([0-9]{9,18})-([0-9]{9,18})" + _COUNTERS + r"(?:@([A-Za-z0-9_.-]+?))?(\.pack)?\Z")
_OPENING = re.compile(r"(.+)@(-?[0-9]{1,9})(?:w([0-9]{1,18})|(k))?(\.drop)?\Z")
_COUNTER = re.compile(r"([rfispm])([0-9]{1,9})")
_SHARD = re.compile(r"[0-9]{6,15}\Z")
_PACKED_SHARD = re.compile(r"([0-9]{6,15})\.p([0-9]{1,9})(?:\.all\.([A-Za-z0-9]+)|\.n([0-9]{1,9})\.jsonl)?\Z")
_NEXT_ID = re.compile(r"([0-9]{9,18})\.([A-Za-z0-9]+)\Z")
_PRIORITY = re.compile(r"(?:0|-?[1-9][0-9]{0,8})\Z")  # as it is written, so that a number has one directory
_QUEUE_NAME = re.compile(r"\w[\w.+=,@%-]*\Z")
_WORKER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_MERGED = re.compile(r"([0-9]{6,9})\.([A-Za-z0-9]+)\Z")
_LOAD = re.compile(r"([0-9]{9,18})-([0-9]{9,18})\Z")

_NAME_IN_LINE = b'{"name":"'

_MOST_DIGITS = 12  # of a time
MAX_PRIORITY = 999_999_999


def _counter_text(r: int, f: int, i: int, s: int, priority: int | None) -> str:
    text = ""
    if r:
        text = f"r{r}"
    if f:
        text += f"f{f}"
    if i:
        text += f"i{i}"
    if s:
        text += f"s{s}"
    if priority is not None:
        text += f"p{priority}" if priority >= 0 else f"m{-priority}"
    return "." + text if text else ""


def _read_counters(text: str | None) -> tuple[int, int, int, int, int | None]:
    r = f = i = s = 0
    priority: int | None = None
    for letter, digits in _COUNTER.findall(text or ""):
        n = int(digits)
        if letter == "r":
            r = n
        elif letter == "f":
            f = n
        elif letter == "i":
            i = n
        elif letter == "s":
            s = n
        else:
            priority = n if letter == "p" else -n
    return r, f, i, s, priority


_UNTOUCHED = (0, 0, 0, 0, None, None)


class TaskName(NamedTuple):
    """What the name of a task's file says. `str()` is the name without worker and `.json`: the key of the journals."""

    id: int
    r: int = 0
    f: int = 0
    i: int = 0
    s: int = 0
    priority: int | None = None
    worker: str | None = None

    def __str__(self) -> str:
        if self[1:6] == _UNTOUCHED[:5]:
            return f"{self.id:09d}"
        return f"{self.id:09d}{_counter_text(*self[1:6])}"

    @property
    def file(self) -> str:
        """The file's name, with the worker where there is one."""
        if self[1:] == _UNTOUCHED:
            return f"{self.id:09d}.json"
        return f"{self}@{self.worker}.json" if self.worker else f"{self}.json"

    @property
    def attempt(self) -> int:
        """Number of the attempt that this name stands for, within its round; from 1."""
        return self.f + self.i + self.s + 1

    @property
    def first(self) -> int:
        """The id, under the name that packs have for it."""
        return self.id

    @property
    def last(self) -> int:
        """The id, under the name that packs have for it."""
        return self.id

    @property
    def size(self) -> int:
        """Number of tasks: one."""
        return 1

    @property
    def first_last(self) -> tuple[int, int]:
        """The range of its ids."""
        return self.id, self.id


class PackName(NamedTuple):
    """What the name of a marker says: these consecutive ids, all with these counters. `str()` names the opened bundle."""

    first: int
    last: int
    r: int = 0
    f: int = 0
    i: int = 0
    s: int = 0
    priority: int | None = None
    worker: str | None = None

    def __str__(self) -> str:
        return f"{self.first:09d}-{self.last:09d}{_counter_text(*self[2:7])}"

    @property
    def file(self) -> str:
        """The marker's name."""
        return f"{self}.pack"

    @property
    def size(self) -> int:
        """Number of tasks."""
        return self.last - self.first + 1

    @property
    def first_last(self) -> tuple[int, int]:
        """The range of its ids."""
        return self.first, self.last

    def task(self, task_id: int) -> TaskName:
        """Name of one of its tasks, once it is opened."""
        return TaskName(task_id, self.r, self.f, self.i, self.s, self.priority)


Name = TypeVar("Name", TaskName, PackName, "TaskName | PackName")


def failed_once_more(name: TaskName) -> TaskName:
    """The fresh name of a task whose attempt failed."""
    return name._replace(f=name.f + 1, worker=None)


def interrupted_once_more(name: Name) -> Name:
    """The fresh name of what goes back without having failed, although it may be what ended the attempt."""
    return name._replace(i=name.i + 1, worker=None)


def stopped_once_more(name: Name) -> Name:
    """The fresh name of what goes back since its worker was to end: however often, that tells nothing about the task."""
    return name._replace(s=name.s + 1, worker=None)


def moved_by_hand(name: Name, renew: bool = False, priority: int | None = None) -> Name:
    """The fresh name of what somebody moved.

    Parameters
    ----------
    renew
        Drop failures, interruptions and stops, so that the budget of attempts starts anew (retry, rerun).
    priority
        The priority given with it; None keeps what the name has.
    """
    fresh = name._replace(r=name.r + 1, worker=None)
    if renew:
        fresh = fresh._replace(f=0, i=0, s=0)
    return fresh if priority is None else fresh._replace(priority=priority)


def parse_task(name: str) -> TaskName | None:
    """Read the name of a task's file; None when it is something else."""
    if len(name) == PLAIN and name[9:] == ".json" and name.isascii() and name[:9].isdigit():
        return TaskName(int(name[:9]))  # nearly all are as they were made
    match = _TASK.match(name)
    if match is None:
        return None
    digits, counters, worker = match.groups()
    if counters is None:
        return TaskName(int(digits), worker=worker)
    return TaskName(int(digits), *_read_counters(counters), worker)


def parse_marker(name: str) -> PackName | None:
    """Read the name of a marker (`….pack`)."""
    return _parse_pack(name) if name.endswith(".pack") else None


def _parse_pack(name: str) -> PackName | None:
    match = _PACK.match(name)
    if match is None or int(match[1]) > int(match[2]):
        return None
    return PackName(int(match[1]), int(match[2]), *_read_counters(match[3]), match[4])


def parse_bundle(name: str) -> PackName | None:
    """Read the name of a directory of loose tasks: an opened pack, or a shard (given as the range of its ids)."""
    if _SHARD.match(name):
        shard = int(name)
        return PackName(shard * 1000, shard * 1000 + 999)
    return None if name.endswith(".pack") else _parse_pack(name)


def _holds(bundle: str, name: TaskName | PackName) -> bool:
    """Whether a directory is a bundle in which this name would be looked for."""
    parsed = parse_bundle(bundle)
    return parsed is not None and parsed.first <= name.first and name.last <= parsed.last


def parse_entry(name: str) -> TaskName | PackName | None:
    """Read the name of a task's file or of a marker."""
    return parse_task(name) if name.endswith(".json") else parse_marker(name)


def shard_name(task_id: int) -> str:
    """Name of the shard directory of this id."""
    return f"{shard_of(task_id):06d}"


class ShardEntry(NamedTuple):
    """One entry of `succeeded/`, `failed/` or `killed/`: a shard in one of its forms (`packs` has the list)."""

    shard: int
    round: int | None = None
    token: str | None = None
    tasks: int | None = None

    def __str__(self) -> str:
        text = f"{self.shard:06d}"
        if self.round is not None:
            text += f".p{self.round}"
        if self.token is not None:
            text += f".all.{self.token}"
        return text if self.tasks is None else f"{text}.n{self.tasks}.jsonl"

    @property
    def is_file(self) -> bool:
        """Whether this is the packed form, a JSON Lines file."""
        return self.tasks is not None

    @property
    def sealed(self) -> bool:
        """Whether this is a directory that is being packed: nothing is taken out of it by hand."""
        return self.round is not None and self.tasks is None


def parse_shard(name: str) -> ShardEntry | None:
    """Read `000017`, `000017.p1`, `000017.p1.all.<token>` or `000017.p1.n1000.jsonl`."""
    if _SHARD.match(name):
        return ShardEntry(int(name))
    match = _PACKED_SHARD.match(name)
    if match is None:
        return None
    return ShardEntry(int(match[1]), int(match[2]), match[3], None if match[4] is None else int(match[4]))


class UnpackingName(NamedTuple):
    """A directory in a worker's own in which a packed shard is unpacked: `000017.p1.n1000.unpack[.drop]`."""

    packed: ShardEntry
    dropped: bool = False

    def __str__(self) -> str:
        return f"{str(self.packed).removesuffix('.jsonl')}.unpack{'.drop' if self.dropped else ''}"


def parse_unpacking(name: str) -> UnpackingName | None:
    """Read the name of a directory in which a packed shard is unpacked."""
    stem, dot, ending = name.partition(".unpack")
    packed = parse_shard(f"{stem}.jsonl") if dot and ending in ("", ".drop") else None
    return None if packed is None else UnpackingName(packed, bool(ending))


def name_in_line(line: bytes) -> str | None:
    """The name (with its worker) of the task in a line of a packed shard; None when it cannot be read."""
    if line.startswith(_NAME_IN_LINE) and line.endswith(b"}"):  # as we write it
        name, quote, _ = line[len(_NAME_IN_LINE) :].partition(b'"')
        if quote and b"\\" not in name:
            return name.decode(errors="replace")
    try:
        return str(json.loads(line)["name"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def all_file(token: str) -> str:
    """Name of the JSON Lines in the directory of a shard that is being packed."""
    return f"all.{token}.jsonl"


def is_all_file(name: str) -> bool:
    """Whether this is such a name."""
    return name.startswith("all.") and name.endswith(".jsonl")


class OpeningName(NamedTuple):
    """A directory in which a worker opens a pack: `<pack>@<priority>[w<requirement>|k][.drop]`; k: of killed tasks."""

    pack: PackName
    priority: int
    waits_for: int | None = None
    dropped: bool = False
    killed: bool = False

    def __str__(self) -> str:
        waits = "k" if self.killed else "" if self.waits_for is None else f"w{self.waits_for}"
        return f"{self.pack}@{self.priority}{waits}{'.drop' if self.dropped else ''}"

    @property
    def home(self) -> str:
        """Directory the pack came from and goes back to, relative to the queue."""
        if self.killed:
            return f"killed/{shard_name(self.pack.first)}"
        if self.waits_for is None:
            return f"pending/{self.priority}"
        return waiting_dir(self.waits_for)


def parse_opening(name: str) -> OpeningName | None:
    """Read the name of an opening directory."""
    match = _OPENING.match(name)
    pack = _parse_pack(match[1]) if match else None
    if match is None or pack is None:
        return None
    waits_for = None if match[3] is None else int(match[3])
    return OpeningName(pack, int(match[2]), waits_for, match[5] is not None, match[4] is not None)


def waiting_dir(requirement: int) -> str:
    """Directory of what waits for this requirement, relative to the queue."""
    return f"waiting/{shard_name(requirement)}/{requirement:09d}"


def pending_dir(priority: int, task_id: int) -> str:
    """Directory in which a single task of this priority is pending, relative to the queue."""
    return f"pending/{priority}/{shard_name(task_id)}"


def parse_priority(name: str) -> int | None:
    """Read the name of a priority directory."""
    return int(name) if _PRIORITY.match(name) else None


def succeeded_path(name: TaskName, key: str, worker: str) -> str:
    """Where a task goes that succeeded, relative to the queue; `key` is `str(name)`, which the caller has."""
    return f"succeeded/{name.id // SHARD_SIZE:06d}/{key}@{worker}.json"


def failed_path(name: TaskName, worker: str) -> str:
    """Where a task that failed goes, relative to the queue; `name` is the one with f raised."""
    return f"failed/{shard_name(name.id)}/{name}@{worker}.json"


def killed_path(name: TaskName) -> str:
    """Where a killed task goes, relative to the queue; under a fresh name, for somebody may move it back to where it was."""
    return f"killed/{shard_name(name.id)}/{moved_by_hand(name).file}"


def is_place(directory: str, name: TaskName | PackName) -> bool:
    """Whether a name is in a state in this directory (relative to the queue), and would be found there by its id."""
    match directory.split("/"):
        case ["pending", priority]:
            return parse_priority(priority) is not None
        case ["pending", priority, bundle]:
            return parse_priority(priority) is not None and _holds(bundle, name)
        case ["waiting", "until", when]:
            return when.isascii() and when.isdigit() and len(when) <= _MOST_DIGITS
        case ["waiting", _, requirement]:
            return is_waiting_dir(directory, requirement)
        case ["succeeded" | "failed" | "killed", shard]:
            return shard == shard_name(name.first)
        case ["killed", shard, bundle]:
            return shard == shard_name(name.first) and _holds(bundle, name)
    return False


def is_waiting_dir(directory: str, requirement: str) -> bool:
    """Whether a directory, of this name, is the one under which the tasks that wait for this requirement are filed."""
    return requirement.isascii() and requirement.isdigit() and waiting_dir(int(requirement)) == directory


def load_name(first: int, last: int) -> str:
    """Name of a load's directory, and of the files in it without their ending."""
    return f"{first:09d}-{last:09d}"


def parse_load(name: str) -> tuple[int, int] | None:
    """Read the name of a load's directory."""
    match = _LOAD.match(name)
    return (int(match[1]), int(match[2])) if match else None


def next_id_name(number: int, token: str) -> str:
    """Name of the file that says which id is free next."""
    return f"{number:09d}.{token}"


def parse_next_id(name: str) -> int | None:
    """Read the number out of it."""
    match = _NEXT_ID.match(name)
    return int(match[1]) if match else None


def merged_name(round_: int, token: str) -> str:
    """Name of a directory under `merged/`."""
    return f"{round_:06d}.{token}"


def parse_merged(name: str) -> tuple[int, str] | None:
    """Read its number and token."""
    match = _MERGED.match(name)
    return (int(match[1]), match[2]) if match else None


def new_token() -> str:
    """Eight hexadecimal digits that nobody else has."""
    return os.urandom(4).hex()  # as secrets does it, whose import costs more than a short command may


def new_worker_name() -> str:
    """Name of a new worker: `host-pid-random`, never used before (in containers a thousand may have one host and pid)."""
    return f"{own_host()}-{os.getpid()}-{os.urandom(5).hex()}"


def own_host() -> str:
    """This host, as it stands in the names of its workers."""
    host = re.sub(r"[^A-Za-z0-9_]+", "-", os.uname().nodename.split(".")[0]).strip("-") or "host"
    return host[:40]


def is_worker_name(name: str) -> bool:
    """Whether a directory under running/ can be a worker's."""
    return _WORKER_NAME.match(name) is not None


def check_queue_name(name: str) -> str:
    """Return the name if a queue may be called so.

    Raises
    ------
    InputError
        Naming the rule.
    """
    if not isinstance(name, str) or not _QUEUE_NAME.match(name) or len(name.encode()) > 200:
        raise InputError(
            f"{name!r} cannot be the name of a queue",
            "a name begins with a letter, digit or _, goes on with these and . + = , @ % -, has no slash or blank, and at most "
            "200 bytes",
        )
    return name


def staged_queue_name(name: str) -> str:
    """Name beside its own under which a queue is made; hidden. in the root, so that nobody else's directory is needed."""
    return f".new.{name}.{new_token()}"


def trash_name(name: str) -> str:
    """Name beside its own under which a queue is removed; hidden."""
    return f".trash.{name}.{new_token()}"


def is_trash(name: str) -> bool:
    """Whether this is a queue that is being removed."""
    return name.startswith(".trash.")


def is_staged_queue(name: str) -> bool:
    """Whether this is a queue that is being made."""
    return name.startswith(".new.")


def check_priority(priority: object) -> int:
    """Return the priority if it is an integer that fits a directory's name."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > MAX_PRIORITY:
        raise InputError(f"priority {short(priority)} is not an integer between -{MAX_PRIORITY} and {MAX_PRIORITY}")
    return priority
