"""Functions of this process: tasks called one after the other, in the worker's own thread.

`Calls.run` is the worker's loop for the usual task, written out: it asks for nothing, nothing limits it, it succeeds.
Nothing else runs meanwhile, so it needs no slot and no share of the resources. All others go the worker's way.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fsqdo.claims import Claim, Claimer, Judge, Verdict
from fsqdo.policy import Attempt
from fsqdo.recorder import Recorder
from fsqdo.rules import TIME_LIMIT
from fsqdo.signals import Signals
from fsqdo.task import Definition
from fsqdo.taskoptions import Options
from fsqdo.texts import encode_json, utc_text

NEVER = float("inf")


def call(signals: Signals, function: Callable[[Any], Any], definition: Definition, limit_s: float) -> Any:
    """Call the function of a task for it; raises what it raises, and what `Signals.call` does."""
    os.environ["FSQDO_TASK_ID"] = str(definition.id)
    return signals.call(function, definition.task, limit_s)


@contextmanager
def restored(*keys: str) -> Iterator[None]:
    """Give environment variables back the values they had, in the end."""
    before = {key: os.environ.get(key) for key in keys}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def surroundings(options: Options) -> Iterator[None]:
    """The environment variables and the directory that a task asks for, while it is called."""
    if not options.env and options.cwd is None:
        yield
        return
    home = os.open(".", os.O_RDONLY)
    with restored(*options.env):
        try:
            os.environ.update(options.env)
            if options.cwd is not None:
                os.chdir(options.cwd)
            yield
        finally:
            os.fchdir(home)
            os.close(home)


def keep(attempt: Attempt, result: object) -> None:
    """Keep in the attempt what its call returned; where that has no JSON form, why it is not kept."""
    try:
        encode_json(result)
        attempt.result = result
    except Exception as error:  # noqa: BLE001  also what the result's own methods may raise
        attempt.reason = f"its result is not kept: {error}"


def raised(signals: Signals, error: BaseException, attempt: Attempt) -> str:
    """Note in the attempt what its call raised; returns "failed" or "interrupted", or "succeeded" for `sys.exit(0)`.

    Raises
    ------
    BaseException
        What is not the task's affair.
    """
    if isinstance(error, Signals.TimeUp):
        attempt.cause = TIME_LIMIT
        return "failed"
    if isinstance(error, (Signals.Interrupted, KeyboardInterrupt)):
        if isinstance(error, KeyboardInterrupt):
            signals.got.append(signal.SIGINT)
        attempt.reason = "stopped by a signal"
        return "interrupted"
    if not isinstance(error, (Exception, SystemExit)):
        raise error
    attempt.exit_code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        attempt.exit_code = (error.code or 0) & 0xFF
        return "failed" if attempt.exit_code else "succeeded"
    import traceback

    attempt.reason = f"{type(error).__name__}: {error}"
    attempt.detail = "".join(traceback.format_exception(error))
    return "failed"


class Calls:
    """Calls a function for the usual tasks, as long as they come.

    Parameters
    ----------
    usual
        Whether nothing special is to be done for a task with these options.
    judge
        The worker's own, for all others.

    Attributes
    ----------
    started
        Number of tasks, since it was made.
    dry
        Nothing is pending, as far as the last claim could see.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        signals: Signals,
        claimer: Claimer,
        recorder: Recorder,
        usual: Callable[[Options], bool],
        judge: Judge,
    ) -> None:
        self._function = function
        self._signals = signals
        self._claimer = claimer
        self._recorder = recorder
        self._is_usual = usual
        self._other_judge = judge
        self._usual: Options | None = None
        self.started = 0
        self.dry = False

    def run(self, until: float, most: float) -> Claim | None:
        """Claim and call until the moment `until`, at most so many; returns a claim that is not usual, unless it is None.

        Raises
        ------
        FencedError, StorageError
            As of `Claimer.claim` and `Recorder.record`; nothing that ended is forgotten.
        """
        signals, claimer, recorder, judge = self._signals, self._claimer, self._recorder, self._judge
        most += self.started
        self.dry = False
        started = 0.0
        while started < until and self.started < most and not signals.got:
            if not claimer.ready:
                recorder.look()  # a claim would list, find nothing of what is freed here, and remove the empty directories
            claim = claimer.claim(judge)
            if recorder.emptied:
                recorder.sweep()
            definition = None if claim is None else claim.definition
            if claim is None or definition is None or definition.options is not self._usual:
                self.dry = claim is None
                return claim
            self.started += 1
            started_at, started = time.time(), time.monotonic()
            try:
                result = call(signals, self._function, definition, NEVER)
            except BaseException as error:  # noqa: BLE001  `raised` raises again what is not the task's affair
                attempt = Attempt(utc_text(int(started_at)), started, slot=0)
                recorder.record(claim, definition, definition.options, attempt, raised(signals, error, attempt))
                return None
            if result is None:
                recorder.succeeded(claim, definition, started_at, time.monotonic() - started)
            else:
                attempt = Attempt(utc_text(int(started_at)), started, slot=0)
                keep(attempt, result)
                recorder.record(claim, definition, definition.options, attempt, "succeeded")
        return None

    def _judge(self, definition: Definition) -> Verdict:
        """A usual task fits."""
        options = definition.options
        if options is self._usual or self._accepts(options):
            return Verdict.CLAIM
        return self._other_judge(definition)

    def _accepts(self, options: Options) -> bool:
        """Whether these are usual: asked once for the tasks of a load, which share their options."""
        if not self._is_usual(options):
            return False
        self._usual = options
        return True
