"""The runs of a plan: one at a time, and how long each has worked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.clock import Clock
from pacs_bridge.errors import PermanentError

_LOCK_NAME: Final = "run.lock"
#: Of the process that does the work: it may outlive the one that started it by a moment.
WORK_LOCK: Final = "work.lock"
_SIGN_EVERY_S: Final = 5.0
_TOLD_TO_END: Final = "told_to_end"


@contextmanager
def alone(run_folder: Path, what: str = "run", lock: str = _LOCK_NAME) -> Iterator[None]:
    """Hold a run folder for this process; the lock goes with the process, however it ends.

    Raises
    ------
    PermanentError
        If another process holds it.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_folder / lock, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermanentError(
                Reason.LEDGER_UNAVAILABLE, f"another process plans or runs there: no {what}"
            ) from None
        yield
    finally:
        os.close(descriptor)


def last_run(plan: PlanFile) -> int:
    """The number of the run that began last; 0 before the first."""
    with plan.read() as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0])


def note_told_to_end(plan: PlanFile) -> None:
    """Note that the run that began last was told to end, by a user or by the system."""
    plan.set(_TOLD_TO_END, last_run(plan))


def was_told_to_end(plan: PlanFile) -> bool:
    """Whether the run that began last was: what it lost by it is no fault of a series."""
    return bool(plan.setting(_TOLD_TO_END) == last_run(plan))


class RunClock:
    """Counts the seconds that a run works, and leaves signs of life in the plan.

    Parameters
    ----------
    plan
        Takes the signs.
    recipe
        Of the run.
    clock
        The time.
    is_own
        Whether this process does the work, and no workers of a service.
    """

    def __init__(self, plan: PlanFile, recipe: Recipe, clock: Clock, is_own: bool) -> None:
        self._plan = plan
        self._clock = clock
        self._last_s = clock.steady_s()
        self._signed_s = self._last_s
        self.seconds = 0.0  #: worked so far
        now = clock.now().isoformat()
        with plan.write() as connection:
            self._id = connection.execute(
                "INSERT INTO runs (started_at, seen_at, seconds, recipe, model, model_digest,"
                " is_own) VALUES (?, ?, 0, ?, ?, ?, ?) RETURNING id",
                (now, now, recipe.digest, recipe.model, recipe.model_digest, is_own),
            ).fetchone()[0]

    def tick(self, is_working: bool, is_last: bool = False) -> None:
        """Count the time since the last tick, if it was worked in."""
        now_s = self._clock.steady_s()
        if is_working:
            self.seconds += now_s - self._last_s
        self._last_s = now_s
        if is_last or now_s - self._signed_s >= _SIGN_EVERY_S:
            self._signed_s = now_s
            with self._plan.write() as connection:
                connection.execute(
                    "UPDATE runs SET seen_at = ?, seconds = ? WHERE id = ?",
                    (self._clock.now().isoformat(), round(self.seconds, 3), self._id),
                )
