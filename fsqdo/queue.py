"""The Python API: queues and what one does with them. Every method is the shell command of the same name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fsqdo import names
from fsqdo.errors import NOWHERE, InputError, QueueNotFoundError, StorageError, TaskError, TaskNotFoundError, short
from fsqdo.ids import MAX_ID, SHARD_SIZE, IdSet
from fsqdo.places import known_dir
from fsqdo.settings import Settings
from fsqdo.store import Store, Tree
from fsqdo.store import create as create_tree
from fsqdo.task import State
from fsqdo.taskoptions import Options

if TYPE_CHECKING:
    from fsqdo.autoscale import Scaled
    from fsqdo.holder import Holder
    from fsqdo.jobs import Job
    from fsqdo.launch import Launched
    from fsqdo.recovery import Recovery
    from fsqdo.rows import Task
    from fsqdo.selection import Selector
    from fsqdo.workeroptions import Summary


def queues_dir() -> str:
    """Absolute path of the directory that holds the queues: FSQDO_DIR, else `dir` of the configuration, else ~/.fsqdo/queues.

    Raises
    ------
    ConfigError
        When the configuration had to be asked and is wrong.
    """
    directory = known_dir()
    if directory is None:
        from fsqdo.config import load_config

        directory = load_config().dir
    return directory


def create(name: str, **settings: Any) -> Queue:
    """Make a new queue.

    Parameters
    ----------
    name
        A directory of this name is made under the queues' directory (`FSQDO_DIR`, or `dir:` of the config).
    settings
        See `Settings`: max_retries, retry_delay_s, time_limit_s, exit_codes, success_check, max_fails, requires, …

    Raises
    ------
    QueueExistsError, InputError, StorageError
    """
    path = os.path.join(queues_dir(), names.check_queue_name(name))
    return Queue(create_tree(path, Settings().with_changes(settings)))


def connect(name: str, create_ok: bool = False) -> Queue:
    """Open a queue that is there; with `create_ok` make it if it is not.

    Raises
    ------
    QueueNotFoundError
        When there is none; also a ValueError.
    FormatError
        When the directory is no queue, or one of a newer format.
    """
    path = os.path.join(queues_dir(), names.check_queue_name(name))
    try:
        return Queue(Store(path))
    except QueueNotFoundError:
        if not create_ok:
            raise
    try:
        return create(name)
    except QueueNotFoundError:
        raise
    except ValueError:
        return Queue(Store(path))  # RACE: somebody else made it meanwhile


def qlist() -> list[Queue]:
    """All queues under the queues' directory, by name; directories that are none are left out."""
    return [queue for queue in map(_open_or_error, queue_names()) if isinstance(queue, Queue)]


def queue_names() -> list[str]:
    """Names of the directories that may be queues, sorted; none where nothing was made yet.

    Raises
    ------
    StorageError
        When the queues' directory cannot be read, or is something else: then this is not "no queues".
    """
    directory = queues_dir()
    found = Tree(directory).ls("")
    if found is None:
        try:
            os.stat(directory)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(error, "listdir", directory) from None
    return [name for name in sorted(found) if not name.startswith(".") and os.path.isdir(os.path.join(directory, name))]


def _open_or_error(name: str) -> Queue | Exception:
    try:
        return connect(name)
    except (InputError, TaskError, OSError, ValueError) as error:
        return error


class Queue:
    """One queue.

    Attributes
    ----------
    name, directory
        Its name, and the absolute path of its tree.
    store
        The tree itself.

    Notes
    -----
    Several threads may use one at once. A fork of the process holds nothing of what it holds; pickled, it is opened anew.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.directory = store.directory
        self.name = os.path.basename(store.directory)
        self._held: Holder | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: another process holds nothing of what this one holds."""
        return {**self.__dict__, "_held": None}

    @property
    def settings(self) -> Settings:
        """The queue's settings, as they were when it was opened."""
        return self.store.settings

    def configure(self, **changes: Any) -> Settings:
        """Change settings, for all who open the queue from now on; returns them all."""
        self.store.write_settings(self.store.read_settings().with_changes(changes))
        return self.settings

    # ------------------------------------------------------------ adding
    def add(self, task: Any, **options: Any) -> int:
        """Add one task.

        Parameters
        ----------
        task
            A command, or any JSON-able object.
        options
            priority, requires, after, max_retries, retry_on, no_retry_on, time_limit_s, time_request_s, cores, gpus, mem_mb,
            name, tags, env, cwd: see `Options`. Commands run in the current directory of the adder unless `cwd` says otherwise.

        Returns
        -------
        int
            Its id, once the task is on disk.

        Raises
        ------
        InputError, StorageError
        """
        from fsqdo.load import add_one
        from fsqdo.texts import utc_now

        if isinstance(task, str) and options.get("cwd") is None:
            options["cwd"] = os.getcwd()
        return add_one(self.store, task, Options.of(created_at=utc_now(), **options))

    def add_multiple(self, tasks: Iterable[Any], *, requires: Any = None, after: Any = None, **options: Any) -> list[int]:
        """Add many tasks: all, or none.

        Parameters
        ----------
        tasks
            Commands, objects, and `NewTask` with options of their own; any iterable, read once.
        requires, after
            Ids in any form for all of them, or a list with one entry (a list, range, … or None) per task.
        options
            For all of them, as of `add`.

        Returns
        -------
        list of int
            Their ids, in the order of the tasks.
        """
        return list(self._load(tasks, requires, after, options))

    def _load(
        self,
        tasks: Iterable[Any],
        requires: Any,
        after: Any,
        options: Mapping[str, Any],
        known: dict[int, int] | None = None,
        progress: Callable[[int], None] | None = None,
        where: Callable[[int], str] = lambda number: f"task {number} of this load",
    ) -> range:
        from fsqdo.inputs import spread
        from fsqdo.load import load

        if isinstance(tasks, (str, bytes, Mapping)):
            raise InputError(f"{short(tasks)} is one task", "give a list of tasks, or use `add`")
        self.store.top()
        items, common_requires, common_after = spread(tasks, requires, after)
        common = Options.of(requires=common_requires, after=common_after, **options)
        return load(self.store, items, common, cwd=os.getcwd(), known=known, progress=progress, where=where)

    def loadfile(
        self,
        source: Any,
        *,
        json: bool = False,
        dedupe: bool = False,
        progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> range:
        """Add the tasks of a file, one a line; blank lines and lines that begin with # are left out.

        Parameters
        ----------
        source
            A path, `-` (standard input), or a binary stream.
        json
            Each line is a JSON value: the task, or an object with `task` and options.
        dedupe
            Leave out what the queue has already, in whatever state, and what comes twice. Names of those stand for what is
            there already.
        progress
            Called now and then with the number of tasks read.
        options
            For all of them, as of `add`.

        Returns
        -------
        range
            The ids.
        """
        from fsqdo import inputs

        known: dict[int, int] | None = None
        if dedupe:
            from fsqdo.unpacking import refuse_damage

            known = {}
            for task in self.iter_tasks():
                if not task.error:
                    known.setdefault(inputs.key_of(task.task), -task.id)
            refuse_damage(self.store, "nothing was loaded")
        chunks = inputs.open_source(source)
        lines = inputs.Lines(chunks, inputs.source_name(source), as_json=json)
        try:
            requires, after = options.pop("requires", None), options.pop("after", None)
            return self._load(lines, requires, after, options, known, progress, lines.where)
        finally:
            if chunks is not source and source != "-":
                chunks.close()  # type: ignore[attr-defined]

    # ------------------------------------------------------------ looking
    def iter_tasks(self, id: object = None, *, limit: int | None = None, **select: Any) -> Iterator[Task]:
        """Yield tasks as they are read; arguments as of `tasks`."""
        from itertools import islice

        from fsqdo.selection import Selection, Selector, refuse_unknown_ids

        if limit is not None and limit < 0:
            raise InputError(f"limit is {limit}, but must not be negative")
        selector = self._selector(id, select)
        self.store.top()  # a queue that was deleted is not an empty one
        refuse_unknown_ids(self.store, selector.ids)
        found = False
        for task in islice(Selection(self.store, selector, State).tasks(), None if limit is None else min(limit, MAX_ID)):
            found = True
            yield task
        if not found and limit != 0 and selector.ids and len(selector.ids) == 1 and selector == Selector(ids=selector.ids):
            yield self.task(selector.ids.lowest)  # it moved meanwhile, or there is none: a gap in the ids

    def tasks(self, id: object = None, *, limit: int | None = None, **select: Any) -> list[Task]:
        """The tasks, by state; within one as their directories are listed, roughly by id.

        Parameters
        ----------
        id
            Ids in any form; None: all.
        limit
            At most so many.
        select
            state (one or several), exitcode, match (a regular expression), older_than_s, blocked.

        Raises
        ------
        TaskNotFoundError
            For ids that were never used.
        """
        found = list(self.iter_tasks(id, limit=limit, **select))
        if self.store.damaged:
            import warnings

            warnings.warn("tasks are missing: " + "; ".join(self.store.damaged.values()), stacklevel=2)
        return found

    def task(self, task_id: int) -> Task:
        """One task; TaskNotFoundError when there is none."""
        from fsqdo.selection import Selection, Selector, refuse_unknown_ids

        selector = Selector.of(id=task_id)
        refuse_unknown_ids(self.store, selector.ids)
        selection = Selection(self.store, selector, State)
        for _ in range(2 if selector.ids else 0):  # RACE: it may move during a look
            entry = self.store.find(selector.ids.lowest) if selector.ids else None
            for task in selection.at(entry) if entry else ():
                return task
        why = f"an add or a load was cut short, which leaves a gap in the ids; or {NOWHERE}"
        if self.store.damaged:
            from fsqdo.unpacking import MEND

            why = f"{'; '.join(self.store.damaged.values())}; {MEND}"
        elif (load := self.store.loaded_file(task_id)) is not None:
            unpublished = self.store.ls(f"loads/{load[2].partition('/')[0]}/publish") is not None
            why = f"its load is not all in place yet: `fsqdo promote {self.name}`, and look again" if unpublished else NOWHERE
        raise TaskNotFoundError(f"queue {self.name} has no task {task_id}", why)

    def show(self, task_id: int) -> dict[str, Any]:
        """Everything known of a task: its row, where it is, what it waits for, its attempts, its story."""
        from fsqdo.show import show

        return show(self.store, self.task(task_id))

    def explain(self, task_id: int) -> dict[str, Any]:
        """Why a task is where it is: its id, its state, and `why`, a list of sentences. Changes nothing."""
        from fsqdo.explain import explain

        return explain(self.store, self.task(task_id))

    def log(self, task_id: int, attempt: int | None = None) -> bytes:
        """What a task wrote to stdout and stderr in its last attempt, or in the one of this number (from 1)."""
        from fsqdo.show import log

        return log(self.store, self.task(task_id), attempt)

    def results(self) -> Iterator[tuple[int, Any]]:
        """Yield (id, what the function returned) for every succeeded task whose function returned something.

        Raises
        ------
        TaskError
            In the end, where a packed file is damaged.
        """
        from fsqdo.show import results
        from fsqdo.unpacking import refuse_damage

        self.store.top()
        yield from results(self.store)
        refuse_damage(self.store, "all other results were given")

    def status(self) -> dict[str, Any]:
        """Name, user, state (Active, Paused), number of tasks by state, number of blocked ones.

        Also `reason` where a paused queue has one, `trouble`: what workers said that ended because something was wrong, and
        `unpublished`: the ids of a load of which not all tasks are counted yet.
        """
        return self._status({})

    def _status(self, kept: dict[str, list[str]]) -> dict[str, Any]:
        """The same; `kept` as of `Store.counts`."""
        counts = self.store.counts(kept)
        blocked = 0
        if counts[State.WAITING]:
            from fsqdo.requirements import blocked as blocked_entries

            blocked = sum(entry.name.size for entry in blocked_entries(self.store))
        top = self.store.top()
        paused = names.PAUSED in top
        reason = self.store.pause_reason() if paused else ""
        status: dict[str, Any] = {
            "name": self.name,
            "user": self.settings.created_by,
            "state": "Paused" if paused else "Active",
            "ntasks": {state.value: count for state, count in counts.items()},
            "blocked": blocked,
        }
        if reason:
            status["reason"] = reason
        if unpublished := self.store.unpublished(sum(counts.values())):
            status["unpublished"] = unpublished
        if "trouble" in top and (troubles := self.troubles()):
            status["trouble"] = troubles
        return status

    def troubles(self) -> list[str]:
        """What workers said that ended because something was wrong, since the queue was last resumed: `<worker>: …`."""
        if self.store.ls("trouble") is None:
            return []
        from fsqdo.failures import troubles

        return troubles(self.store)

    def __str__(self) -> str:
        kept: dict[str, list[str]] = {}
        status = self._status(kept)
        reason = f": {_plain(status['reason'])}" if "reason" in status else ""
        lines = [f"{self.name} is {status['state']}{reason}"]
        for state, count in status["ntasks"].items():
            if count or state != State.KILLED.value:
                note = f"  ({status['blocked']} blocked)" if state == State.WAITING.value and status["blocked"] else ""
                if state == State.PENDING.value and count:
                    from fsqdo.misfits import misfits

                    note = misfits(self.store, kept)
                lines.append(f"{state:10} {count}{note}")
        if "unpublished" in status:
            where = f"the tasks {status['unpublished']} are not all in their places yet, but none is lost"
            lines.append(f"{where}: a worker goes on with it, or `fsqdo promote {self.name}`")
        lines += [f"trouble    {_plain(text)}" for text in status.get("trouble", ())]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def workers(self) -> list[dict[str, Any]]:
        """The workers there are: what each says of itself, what it runs, and whether it is alive (None: unknown)."""
        from fsqdo.show import workers

        self.store.top()
        return workers(self.store)

    # ------------------------------------------------------------ changing many
    def _bulk(self) -> Any:
        from fsqdo.bulk import Bulk

        self.store.top()
        return Bulk(self.store, self._holder())

    def retry(self, id: object = None, *, dry_run: bool = False, **select: Any) -> int:
        """Move failed tasks (or, when asked for, killed ones) back to pending with a fresh budget of attempts; how many."""
        selector = self._selector(id, select)
        states = (State.FAILED, State.KILLED) if selector.states else (State.FAILED,)
        return int(self._bulk().reset(selector, states, dry_run))

    def rerun(self, id: object = None, *, dry_run: bool = False, **select: Any) -> int:
        """Move tasks in final states back to pending, or to waiting where they require one that is rerun, too; how many."""
        from fsqdo.unpacking import refuse_damage

        states = (State.SUCCEEDED, State.FAILED, State.KILLED)
        number = int(self._bulk().reset(self._selector(id, select), states, dry_run))
        refuse_damage(self.store, f"{number} other tasks {'would be' if dry_run else 'were'} reset")
        return number

    def kill(
        self,
        id: object = None,
        *,
        dry_run: bool = False,
        wait_s: float = 0.0,
        report: Callable[[str], None] = lambda text: None,
        **select: Any,
    ) -> int:
        """Take pending and waiting tasks out and have running ones stopped.

        Parameters
        ----------
        wait_s
            Wait for so many seconds at most until those that ran have stopped.
        report
            Told what became of those that ran.

        Returns
        -------
        int
            How many are killed; without a wait also those that are told to stop.
        """
        return int(self._bulk().kill(self._selector(id, select), dry_run, wait_s, report))

    def reprioritize(self, priority: int, id: object = None, *, dry_run: bool = False, **select: Any) -> int:
        """Give pending and waiting tasks another priority; how many."""
        names.check_priority(priority)
        return int(self._bulk().reprioritize(self._selector(id, select), priority, dry_run))

    def _selector(self, id: object, select: Mapping[str, Any]) -> Selector:
        from fsqdo.selection import SELECTIONS, Selector

        unknown = sorted(select.keys() - set(SELECTIONS))
        if unknown:
            raise InputError(f"tasks are not selected by {unknown[0]!r}", "but by id, " + ", ".join(SELECTIONS))
        return Selector.of(id=id, **select)

    def set_state(self, task_id: int, state: State | str, err: int | None = None, message: str | None = None) -> None:
        """Set the state of a task by its id: of one that this process took with `get`, or that nobody runs.

        Parameters
        ----------
        state
            Pending and Killed as of `rerun` and `kill`. Succeeded and Failed: what the task was to do was done otherwise, or
            cannot be done; what requires it goes on, or is blocked, as after any other end. Retries are not looked at.
        err, message
            Its exit code, and why it ended so in words, as of `Task.set_state`.

        Raises
        ------
        TaskError
            Where it cannot be set, as while somebody else runs it.
        """
        wanted = State.read(state)
        task = self._held.held(task_id) if self._held is not None else None
        if task is not None:
            task.set_state(wanted, err=err, message=message)
            return
        if wanted is State.PENDING:
            done = self.rerun(id=task_id)
        elif wanted is State.KILLED:
            done = self.kill(id=task_id)
        else:
            done = self._bulk().end(task_id, wanted, err, message or "set from outside")
        if not done:
            raise TaskError(f"task {task_id} is {self.task(task_id).state}, and cannot be set to {wanted}")

    def recover(self, force: bool = False, dry_run: bool = False) -> list[Recovery]:
        """Give back the tasks of workers that are proven dead (with `force`: of all workers); what was proven, and how."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo import packs, recovery, requirements
        from fsqdo.liveness import Observer

        done = recovery.recover(self.store, force, dry_run, Observer(self.store, ended_jobs=self._ended_jobs))
        if not dry_run:
            requirements.look_again(self.store, packs.roll_forward(self.store))
        return done

    def promote(self) -> int:
        """Do the promoter pass by hand: publish what loaders left, move on what waits for nothing any more; how many.

        Tasks that somebody's mv put where they are in no state are put right, too.
        """
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo import misplaced, packs, requirements

        moved = requirements.look_again(self.store, packs.roll_forward(self.store))
        moved += misplaced.put_right(self.store, thorough=True)
        return moved + requirements.promote(self.store)

    def pack(self, wait: bool = True, report: Callable[[str], None] = lambda text: None, dry_run: bool = False) -> int:
        """Make one file of each thousand tasks that succeeded, as workers do by themselves; how many tasks.

        Parameters
        ----------
        wait
            Wait for two minutes where that is needed: on file systems that other hosts can mount.
        report
            Told what it waits for.
        dry_run
            Only say how many it would be, as far as names tell.
        """
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.packing import Packer, pack_all

        return Packer(self.store).would() if dry_run else pack_all(self.store, wait, report)

    def unpack(self, id: object = None, dry_run: bool = False) -> int:
        """Make loose files of the packed shards that hold these tasks (None: of all); how many tasks became loose."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.selection import refuse_unknown_ids

        ids = None if id is None else IdSet.of(id)
        refuse_unknown_ids(self.store, ids)
        total = 0
        for parsed, _ in list(self.store.shards(State.SUCCEEDED)):
            first, last = parsed.shard * SHARD_SIZE, (parsed.shard + 1) * SHARD_SIZE - 1
            if parsed.tasks is not None and (ids is None or ids.meets(first, last)):
                total += parsed.tasks if dry_run or self._holder().unpack(parsed) else 0
        return total

    def tidy(
        self,
        dry_run: bool = False,
        logs: str | None = None,
        wait: bool = True,
        report: Callable[[str], None] = lambda text: None,
    ) -> dict[str, int]:
        """Finish what was left half done, remove litter, put together the journals and logs of workers that have ended.

        Parameters
        ----------
        logs
            "succeeded": remove what attempts wrote that succeeded.
        wait, report
            As of `pack`.

        Returns
        -------
        dict
            What was done (with `dry_run`: what would be), counted: the keys of `fsqdo.tidy.KINDS`.
        """
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.tidy import tidy

        if logs not in (None, "succeeded"):
            raise InputError(f"logs={logs!r} is not known", 'it is "succeeded", or not given')
        recovered = self.recover(dry_run=dry_run)
        if not dry_run:
            self.promote()
        done = tidy(self.store, dry_run, logs == "succeeded", wait, report)
        done["workers"] = len(recovered)
        return {kind: count for kind, count in done.items() if count}

    # ------------------------------------------------------------ the queue as a whole
    def pause(self, reason: str = "") -> None:
        """No more claims, by anybody, within about a second; what runs goes on. The reason is what `status` then shows."""
        reason = " ".join(reason.split())
        try:
            self.store.pause(reason)
        except StorageError as error:
            # A full disk takes an empty file longer than a text, and the queue is to be paused above all.
            if not (error.full and reason and self.store.pause()):
                raise

    def resume(self) -> None:
        """Claims again; what has failed so far does not count towards `max_fails` any more."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.failures import forgive

        forgive(self.store)
        self.store.unlink(names.PAUSED)

    def drain(self, workers: Iterable[str] | None = None) -> int:
        """Let workers (default: all) end once what they run has ended; how many were told."""
        self.store.top()  # a queue that was deleted is not an empty one
        wanted = list(workers) if workers is not None else None
        there = [name for name in self.store.names("running") if names.is_worker_name(name)]
        unknown = sorted(set(wanted or ()) - set(there))
        if unknown:
            raise InputError(f"queue {self.name} has no worker {unknown[0]}", f"`fsqdo workers {self.name}` lists them")
        told = there if wanted is None else wanted
        return sum(self.store.write(f"running/{worker}/{names.DRAIN}", b"") for worker in told)

    def delete(self) -> None:
        """Remove the queue with all its tasks. Its workers notice and end.

        Notes
        -----
        One rename to a hidden name beside it, then removal; a kill leaves that, which the next delete removes.
        """
        root = Tree(os.path.dirname(self.directory))
        self.close()
        if not root.move(self.name, names.trash_name(self.name), make=False):
            raise QueueNotFoundError(f"queue {self.name} is gone already")
        for trash in filter(names.is_trash, root.names("")):
            root.remove_tree(trash)

    # ------------------------------------------------------------ working
    def _holder(self) -> Holder:
        if self._held is None:
            from fsqdo.holder import Holder

            self._held = Holder(self.store)
        return self._held

    def close(self) -> None:
        """Give back what this process took with `get`, and stop being a worker; done at its end, too."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def get(self, timeout: float = 0.0) -> Task | None:
        """Take one pending task, for this process to do; None when there is none for `timeout` seconds.

        It is running until its `set_state` is called; when this process ends before, it goes back to pending.
        """
        return self._holder().get(timeout)

    def do(
        self,
        func: str | Callable[[Any], Any] | None = None,
        *,
        slots: int = 1,
        timeout: float | None = None,
        max_tasks: int | None = None,
        runtime_s: float | None = None,
        script: str | None = None,
        max_fails: int | None = None,
        health_check: str | None = None,
        bad_node_after: int | None = None,
        report: Callable[[str], None] | None = None,
        verbose: bool = False,
        **resources: Any,
    ) -> Summary:
        """Be a worker until the queue is drained.

        Parameters
        ----------
        func
            Called with each task as it was added: a callable (in this process, one after the other), or
            `"package.module:function"` (in a forked child per slot). None: tasks are commands.
        slots
            Tasks at once.
        timeout
            End after so many seconds without a task, instead of when the queue is drained.
        max_tasks, runtime_s
            Start no more attempts; end before so many seconds are over.
        script
            Template that makes a command of each task: `"analyze -a {a}"`.
        max_fails
            Claim no more after so many tasks failed for good here.
        health_check
            Command that must exit 0 before the first claim, in place of the queue's.
        bad_node_after
            End when the first so many different tasks all fail within seconds; 0: never. None: 5, for a callable never.
        resources
            cores, gpus, mem_mb, nodes, mpirun, pin, stagger_s, grace_s: see `WorkerOptions`.

        Returns
        -------
        Summary
            Numbers of attempts by how they ended, why the worker ended, and whether that was `trouble`.
        """
        from fsqdo.worker import Worker
        from fsqdo.workeroptions import WorkerOptions

        more: dict[str, Any] = resources if report is None else {"report": report, **resources}
        options = WorkerOptions(
            slots=slots,
            idle_s=timeout,
            max_tasks=max_tasks,
            runtime_s=runtime_s,
            script=script,
            func=func,
            max_fails=max_fails,
            health_check=health_check,
            bad_node_after=bad_node_after,
            verbose=verbose,
            **more,
        )
        return Worker(self.store, options).run()

    def launch(self, n: int | None = None, **options: Any) -> Launched:
        """Start batch jobs with workers for n tasks at once; options as of `fsqdo.launch.launch`."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.launch import launch

        if not options.get("dry_run"):
            self.recover()  # what dead workers hold is work for the new ones
        return launch(self, n, **options)

    def autoscale(self, **options: Any) -> Scaled:
        """Launch what the queue lacks, once; options as of `fsqdo.autoscale.autoscale`."""
        from fsqdo.autoscale import autoscale

        return autoscale(self, **options)

    def jobs(self) -> list[Job]:
        """The batch jobs launched for this queue, with their states and what they did."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.jobs import jobs

        return jobs(self)

    def cancel_jobs(self, numbers: Iterable[int] | None = None, queued_only: bool = False, dry_run: bool = False) -> list[Job]:
        """Cancel batch jobs of this queue: those of these numbers (None: all), or of them those that still wait; which."""
        self.store.top()  # a queue that was deleted is not an empty one
        from fsqdo.jobs import cancel_jobs

        return cancel_jobs(self, numbers, queued_only, dry_run)

    def _ended_jobs(self) -> frozenset[str]:
        from fsqdo.jobs import ended_jobs

        return ended_jobs(self.store)


def _plain(text: str) -> str:
    """Text from a file that anybody may have written, without what could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


__all__ = ["IdSet", "Queue", "connect", "create", "qlist"]
