"""A task as people's programs see it: an object and a mapping at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from fsqdo.errors import TaskError
from fsqdo.journal import lookup, read, successes
from fsqdo.names import TaskName
from fsqdo.outcome import Outcome
from fsqdo.store import Entry, Store
from fsqdo.task import Definition, State
from fsqdo.taskoptions import OPTION_NAMES

if TYPE_CHECKING:
    from fsqdo.holder import Holder

_FEW = 2


class Outcomes:
    """The outcomes with which tasks ended, each worker's journal read once; from its end where few of it are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, dict[str, Outcome]] = {}
        self._asked: dict[str, int] = {}
        self._successes: dict[str, dict[bytes, bytes]] = {}

    def of(self, entry: Entry) -> Outcome | None:
        """The outcome with which a task got where it is; None for one that has not ended or whose line is gone."""
        name = entry.name
        if not isinstance(name, TaskName) or name.worker is None or not entry.state.final:
            return None
        key = str(name)
        if entry.packed is not None:
            return packed_outcome(entry.packed, name.worker)
        if entry.state is State.SUCCEEDED:
            return self._success(name.worker, key)
        if name.worker not in self._read:
            lines = read(self._store, name.worker)
            self._read[name.worker] = {o.name: o for o in lines if o.outcome not in ("succeeded", "started")}
        # A failing task got its f as it moved, so its line stands under the name it had before.
        return self._read[name.worker].get(str(name._replace(f=name.f - 1)))

    def _success(self, worker: str, key: str) -> Outcome | None:
        self._asked[worker] = asked = self._asked.get(worker, 0) + 1
        if asked > _FEW:
            if worker not in self._successes:
                self._successes[worker] = successes(self._store, worker)
            outcome = Outcome.from_json(self._successes[worker].get(key.encode(), b""), worker)
            if outcome is not None:
                return outcome
        return lookup(self._store, worker, [key]).get(key)


def packed_outcome(line: bytes, worker: str) -> Outcome | None:
    """The outcome in a line of a packed shard."""
    try:
        return Outcome.from_raw(json.loads(line)["outcome"], worker)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Task(Mapping[str, Any]):
    """One task, as it was when it was looked at: `row.state`, `row["state"]`, `dict(row)`.

    Attributes
    ----------
    id, state, task
        As added: a string or a JSON value.
    error
        Why its file could not be read; "" normally.
    """

    WAITING: ClassVar[State] = State.WAITING
    PENDING: ClassVar[State] = State.PENDING
    RUNNING: ClassVar[State] = State.RUNNING
    SUCCEEDED: ClassVar[State] = State.SUCCEEDED
    FAILED: ClassVar[State] = State.FAILED
    KILLED: ClassVar[State] = State.KILLED

    def __init__(
        self, entry: Entry, definition: Definition, outcomes: Outcomes, holder: Holder | None = None, error: str = ""
    ) -> None:
        self.entry = entry
        self.definition = definition
        self.error = error
        self.state = entry.state
        self._outcomes = outcomes
        self._holder = holder

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: another process holds nothing of what this one holds."""
        return {**self.__dict__, "_holder": None}

    @property
    def id(self) -> int:
        """The task's id."""
        return self.definition.id

    @property
    def task(self) -> Any:
        """What was added."""
        return self.definition.task

    @property
    def priority(self) -> int:
        """Its priority now: the one given later before the one it was added with."""
        given = self.entry.name.priority
        return self.definition.options.priority if given is None else given

    @property
    def outcome(self) -> Outcome | None:
        """The attempt that ended it, from the journal; None when it has not ended."""
        return self._outcomes.of(self.entry)

    @property
    def exitcode(self) -> int | None:
        """Exit code of the attempt that ended it; None when there is none (not ended, a signal, a function)."""
        if self.state is State.SUCCEEDED:
            return 0
        outcome = self.outcome
        return outcome.exit_code if outcome else None

    def words(self) -> str:
        """The task on one line, as people see it."""
        return f"(unreadable: {self.error})" if self.error else self.definition.words()

    def set_state(self, state: State | str, err: int | None = None, message: str | None = None) -> None:
        """End a task that this process got with `Queue.get`, or move one that nobody runs.

        Parameters
        ----------
        state
            The state it gets.
        err, message
            Exit code and words that are kept with a failure.

        Raises
        ------
        TaskError
            When another worker runs it, or it has moved meanwhile.
        """
        if self._holder is None:
            raise TaskError(f"task {self.id} was not taken with Queue.get", "use Queue.set_state(id, state)")
        self._holder.set_state(self, State.read(state), err, message)

    def __getattr__(self, name: str) -> Any:
        if name in OPTION_NAMES:
            return getattr(self.definition.options, name)
        raise AttributeError(f"a task has no attribute {name!r}")

    def __getitem__(self, key: str) -> Any:
        if key in _KEYS:
            return getattr(self, key)
        return self.definition.extra[key]

    def __iter__(self) -> Iterator[str]:
        yield from _KEYS
        yield from self.definition.extra

    def __len__(self) -> int:
        return len(_KEYS) + len(self.definition.extra)

    def __repr__(self) -> str:
        return f"Task(id={self.id}, state={self.state.value!r}, task={self.task!r})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that json can write: id, state, task, what was set of the options, the exit code where it ended."""
        found: dict[str, Any] = {"id": self.id, "state": self.state.value, "task": self.task}
        if self.state.final:
            found["exitcode"] = self.exitcode
        found["priority"] = self.priority
        options = self.definition.options  # not self: a million rows go through here, and __getattr__ is slow
        for name in OPTION_NAMES:
            value = getattr(options, name)
            if value and name != "priority":
                found[name] = value.to_json() if name in ("requires", "after") else value
        found |= self.definition.extra
        if self.error:
            found["error"] = self.error
        return found


_KEYS = ("id", "state", "task", "exitcode", *OPTION_NAMES)
