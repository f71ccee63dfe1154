"""Faults at every call that fsqdo makes to the operating system.

`Injector` stands in for the attributes of `fsqdo.store.system.fs`, counts the calls, and lets one of them go wrong in one way
(a `Mode`). `every_fault(scenario, heal, check)` first runs a scenario without faults to count its calls and then once more for
every call and every mode that this call can have, each time on a fresh copy of the same tree, heals, and checks.

A process that dies is a forked child that leaves with os._exit; what it told its user before is in a file of its own (`Told`).
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fsqdo.errors import FsqdoError
from fsqdo.store.system import System, fs

DIED = 77
SEAM = tuple(name for name in vars(System) if not name.startswith("_"))


class Mode(NamedTuple):
    """One way to go wrong.

    `fail`: not done, error. `lie`: done, error all the same. `short`: half of the bytes are written, no error. `torn`: half of
    them, error. `blind`: a listing without any names. `full`: this and every later call that needs space fails. `down`: this
    and every later call fails. `die before`, `die after`: the process ends.
    """

    kind: str
    errno: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {errno.errorcode[self.errno]}" if self.errno else self.kind


class Call(NamedTuple):
    """One call to the operating system, as it was in the run without faults."""

    n: int
    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"call {self.n}, {self.name}{self.args!r}"[:300]


def _all(kind: str, *errnos: int) -> list[Mode]:
    return [Mode(kind, number) for number in errnos]


_GONE = _all("fail", errno.ENOENT, errno.ESTALE)
_FULL = _all("fail", errno.ENOSPC, errno.EDQUOT)
# For each call the groups of modes that it can have; the modes of one group are answered by the same lines of the store.
_GROUPS: dict[str, list[list[Mode]]] = {
    "rename": [
        _GONE,
        [*_FULL, *_all("fail", errno.EACCES, errno.EXDEV)],
        _all("fail", errno.EIO, errno.EINTR),
        _all("lie", errno.ENOENT),
        _all("lie", errno.EIO, errno.ESTALE, errno.EINTR),
    ],
    "mkdir": [_GONE, [*_FULL, *_all("fail", errno.EACCES, errno.EIO)], _all("lie", errno.EEXIST, errno.EIO)],
    "rmdir": [
        _all("fail", errno.ENOTEMPTY, errno.EEXIST),
        _all("fail", errno.EIO, errno.EACCES),
        _all("lie", errno.ENOENT, errno.EIO),
    ],
    "unlink": [_GONE, _all("fail", errno.EIO, errno.EACCES), _all("lie", errno.ENOENT, errno.EIO)],
    "listdir": [_GONE, _all("fail", errno.EIO, errno.EACCES, errno.EINTR), [Mode("blind")]],
    "open": [_GONE, _all("fail", errno.EIO, errno.EACCES, errno.EMFILE)],
    "read": [_all("fail", errno.ESTALE, errno.EIO)],
    "write": [[*_FULL, *_all("fail", errno.EIO)], [*_all("torn", errno.ENOSPC), Mode("short")]],
    "fsync": [[*_FULL, *_all("fail", errno.EIO)]],
    "close": [_all("lie", errno.EIO, errno.ENOSPC, errno.EDQUOT)],
    "fstat": [_all("fail", errno.ESTALE, errno.EIO)],
    "lstat": [_GONE, _all("fail", errno.EIO)],
    "utime": [_GONE, _all("fail", errno.EIO, errno.EACCES)],
}
_CREATING = [_FULL, _all("lie", errno.EIO, errno.ENOENT)]
_LASTING = [Mode("full", errno.ENOSPC), Mode("down", errno.EIO)]
_CHANGES = frozenset({"rename", "mkdir", "rmdir", "unlink", "write", "fsync"})
_NEEDS_SPACE = frozenset({"rename", "mkdir", "write", "fsync"})


def _creates(name: str, args: tuple[Any, ...]) -> bool:
    return name == "open" and len(args) > 1 and bool(args[1] & os.O_CREAT)


def modes_of(call: Call) -> list[Mode]:
    """Every way in which this call can go wrong. A process that dies beside a call which changes nothing adds no new state."""
    return [mode for group in _groups_of(call) for mode in group]


def some_modes_of(call: Call) -> list[Mode]:
    """One mode of each group, another one at each call. FSQDO_TEST_PROFILE=soak: all of them at every call."""
    if os.environ.get("FSQDO_TEST_PROFILE") == "soak":
        return modes_of(call)
    return [group[call.n % len(group)] for group in _groups_of(call)]


def _groups_of(call: Call) -> list[list[Mode]]:
    groups = list(_GROUPS.get(call.name, ()))
    changes = call.name in _CHANGES
    if _creates(call.name, call.args):
        groups += _CREATING
        changes = True
    if call.name == "rename" and os.path.isdir(call.args[0]):
        groups.append(_all("fail", errno.ENOTEMPTY))
    if changes:
        # To die before a change is to die after the one before it: once in turn is enough for both.
        groups += [[Mode("die after")], [Mode("die before")], _LASTING] if call.n < 3 else [[Mode("die after")], _LASTING]
    return groups


class Injector:
    """Stands in for the calls of the store.

    Parameters
    ----------
    at
        Number of the call that goes wrong, from 1; 0: none does.
    mode
        How.
    only
        Count only calls for which this is true (of name and arguments).
    """

    def __init__(
        self, at: int = 0, mode: Mode | None = None, only: Callable[[str, tuple[Any, ...]], bool] | None = None
    ) -> None:
        self.at = at
        self.mode = mode
        self.only = only
        self.calls: list[Call] = []
        self.modes: list[list[Mode]] = []
        self.before: Callable[[Call], None] | None = None
        self.after: Callable[[Call], None] | None = None

    @contextmanager
    def installed(self) -> Iterator[Injector]:
        """Stand in until the end of the block."""
        for name in SEAM:
            setattr(fs, name, self._wrapped(name, getattr(System, name)))
        try:
            yield self
        finally:
            fs.__dict__.clear()

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "sleep":
                return None
            if self.only is not None and not self.only(name, args):
                return real(*args, **kwargs)
            this = Call(len(self.calls) + 1, name, args)
            self.calls.append(this)
            if not self.at:
                self.modes.append(some_modes_of(this))
            if self.before:
                self.before(this)
            result = self._do(this, real, args, kwargs)
            if self.after:
                self.after(this)
            return result

        return call

    def _do(self, this: Call, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mode = self.mode
        if mode is None or this.n < self.at or (this.n > self.at and mode.kind not in ("full", "down")):
            return real(*args, **kwargs)
        if mode.kind == "full" and not (this.name in _NEEDS_SPACE or _creates(this.name, args)):
            return real(*args, **kwargs)
        return self._go_wrong(mode, real, args, kwargs)

    def _go_wrong(self, mode: Mode, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if mode.kind == "die before":
            os._exit(DIED)
        if mode.kind == "blind":
            return []
        if mode.kind == "short":
            return real(args[0], args[1][: max(1, len(args[1]) // 2)])
        if mode.kind == "torn":
            real(args[0], args[1][: len(args[1]) // 2])
        elif mode.kind in ("lie", "die after") or real is os.close:  # a failing close has closed, too (close(2))
            try:
                result = real(*args, **kwargs)
            finally:
                if mode.kind == "die after":
                    os._exit(DIED)
            if isinstance(result, int) and real is os.open:
                os.close(result)
        path = args[0] if args and isinstance(args[0], str) else None
        raise OSError(mode.errno, os.strerror(mode.errno), path)


@contextmanager
def quick() -> Iterator[None]:
    """Without faults, and without the store's sleeps."""
    fs.sleep = lambda seconds: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        fs.__dict__.clear()


class Told:
    """What a process told its user, and which attempts it started: outside the queue, so that it outlives the process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ack(self, ids: Iterable[int]) -> None:
        """These tasks were accepted."""
        self._add("".join(f"ack {task_id}\n" for task_id in ids))

    def run(self, key: str) -> None:
        """The attempt of this name was started."""
        self._add(f"run {key}\n")

    def note(self, text: str) -> None:
        """Anything else that was promised."""
        self._add(f"note {text}\n")

    def _add(self, text: str) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _lines(self, kind: str) -> list[str]:
        try:
            with open(self.path, encoding="utf-8") as file:
                return [line.rstrip("\n").partition(" ")[2] for line in file if line.startswith(kind + " ")]
        except FileNotFoundError:
            return []

    @property
    def acknowledged(self) -> set[int]:
        """All ids that were accepted."""
        return {int(text) for text in self._lines("ack")}

    @property
    def runs(self) -> list[str]:
        """The names of all attempts, in the order of their starts."""
        return self._lines("run")

    @property
    def notes(self) -> list[str]:
        """The other promises."""
        return self._lines("note")


@dataclass
class World:
    """What a scenario works on: the root of its queues, and what it told whom."""

    root: str
    told: Told
    error: FsqdoError | None = None
    died: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def queue_dir(self, name: str = "q") -> str:
        """Directory of a queue."""
        return f"{self.root}/{name}"


Scenario = Callable[[World], None]


@dataclass
class Outcome:
    """What came of all runs of one scenario."""

    runs: int = 0
    calls: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        shown = "\n".join(self.problems[:12])
        more = f"\n... and {len(self.problems) - 12} more" if len(self.problems) > 12 else ""
        return f"{len(self.problems)} of {self.runs} runs ({self.calls} calls) went wrong:\n{shown}{more}"


def every_fault(
    directory: Path,
    prepare: Scenario,
    scenario: Scenario,
    heal: Scenario,
    check: Callable[[World], Iterable[str]],
    modes: Callable[[Call, Mode], bool] = lambda call, mode: True,
) -> Outcome:
    """Run a scenario once for every call it makes and every way in which that call can go wrong.

    Parameters
    ----------
    directory
        Where to work.
    prepare
        Makes the tree that every run starts from (once; it is copied).
    scenario
        What is tried. May raise FsqdoError and nothing else.
    heal
        Brings the tree to rest again, without faults.
    check
        Yields what is wrong after that.
    modes
        Which of the modes of a call to try.

    Returns
    -------
    Outcome
        Its `problems` are one text for each run that went wrong, with the call and the mode.
    """
    fresh = directory / "fresh"
    fresh.mkdir(parents=True)
    prepared = World(str(fresh), Told(str(directory / "fresh.told")))
    with quick():
        prepare(prepared)
    prepared.extra["tree"] = read_tree(fresh)
    clean = Injector()
    outcome = Outcome()
    _one_run(directory, prepared, scenario, heal, check, clean, outcome, "without a fault")
    outcome.calls = len(clean.calls)
    if outcome.problems:
        return outcome
    for call, possible in zip(clean.calls, clean.modes, strict=True):
        for mode in possible:
            if modes(call, mode):
                what = f"{call}: {mode}"
                _one_run(directory, prepared, scenario, heal, check, Injector(call.n, mode), outcome, what)
    return outcome


Tree = list[tuple[str, "bytes | str | None"]]


def read_tree(directory: Path) -> Tree:
    """Everything in a tree, directories (None) before what is in them; a second name of a file says which the first is."""
    found: Tree = []
    first_names: dict[int, str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_dir():
            found.append((name, None))
        else:
            first = first_names.setdefault(path.stat().st_ino, name)
            found.append((name, path.read_bytes() if first == name else first))
    return found


def write_tree(tree: Tree, directory: Path) -> None:
    """Make a tree that `read_tree` has read."""
    os.mkdir(directory)
    for path, content in tree:
        if content is None:
            os.mkdir(f"{directory}/{path}")
        elif isinstance(content, str):
            os.link(f"{directory}/{content}", f"{directory}/{path}")
        else:
            with open(f"{directory}/{path}", "wb") as file:
                file.write(content)


def _one_run(
    directory: Path,
    prepared: World,
    scenario: Scenario,
    heal: Scenario,
    check: Callable[[World], Iterable[str]],
    injector: Injector,
    outcome: Outcome,
    what: str,
) -> None:
    # Always under the same name, so that the n-th call is the same call in every run.
    work = directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    write_tree(prepared.extra["tree"], work)
    told = str(directory / "work.told")
    if os.path.exists(prepared.told.path):
        shutil.copyfile(prepared.told.path, told)
    else:
        Path(told).unlink(missing_ok=True)
    world = World(str(work), Told(told), extra={**prepared.extra, "mode": injector.mode or Mode("none")})
    outcome.runs += 1
    found = _try(world, scenario, injector)
    if injector.at and not world.died and not any(call.n == injector.at for call in injector.calls):
        found.append("the call was never made: the scenario is not the same in every run")
    if not found:
        try:
            with quick():
                heal(world)
            found = list(check(world))
        except Exception:
            found = ["healing failed: " + traceback.format_exc(limit=-6)]
    if found:
        error = f" (said: {world.error!r})" if world.error else ""
        text = f"- {what}{error}:\n    " + "\n    ".join(found)
        outcome.problems.append(text.replace(f"{work}/", ""))


def _try(world: World, scenario: Scenario, injector: Injector) -> list[str]:
    """The scenario with its fault; what went wrong beyond that."""
    if injector.mode is not None and injector.mode.kind.startswith("die"):
        world.died = True
        return _in_child(lambda: _guarded(world, scenario, injector))
    return _guarded(world, scenario, injector)


def _guarded(world: World, scenario: Scenario, injector: Injector) -> list[str]:
    try:
        with injector.installed():
            scenario(world)
    except FsqdoError as error:
        world.error = error
        if not injector.at:
            return [f"a run without faults raised {error!r}\n" + traceback.format_exc(limit=-4)]
    except Exception:
        return ["raised something that is not an FsqdoError: " + traceback.format_exc(limit=-6)]
    return []


def _in_child(body: Callable[[], list[str]]) -> list[str]:
    """Run body in a forked process; it is to die in the middle."""
    read_end, write_end = os.pipe()
    for thread in threading.enumerate():  # heartbeats that were told to end: a fork beside a thread is warned of
        if thread.name == "fsqdo-heartbeat":
            thread.join(60)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            found = body()
            os.write(write_end, "\n".join(found or ["the call at which it was to die was never made"]).encode()[:60000])
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == DIED:
        return []
    return [said or f"the child ended with status {status}"]


def interrupt_once(seam: System, call: str, part: str) -> None:
    """Have ^C come just after the first `rename` or `open` that makes a path with this part in it."""

    def interrupted(*args: Any) -> Any:
        found = getattr(System, call)(*args)
        if part in str(args[call == "rename"]) and call in seam.__dict__:
            delattr(seam, call)
            raise KeyboardInterrupt
        return found

    setattr(seam, call, interrupted)
