"""Whether this machine is fit for jobs; one that is not leaves them to others.

A machine with a broken card or without its share fails every job, and fast: it would have tried
all that wait before anybody has looked. So a failure that may be the machine's is followed by a
trial. While the trial fails no job is claimed; it is repeated with growing waits. After some jobs
that failed one after the other although the trial succeeded, others get a while to be first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from inference.errors import InferenceError
from inference.reasons import Reason
from pacs_bridge.errors import TransientError, disk_reason
from pacs_bridge.log import Log
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.time_limit import TimeLimit
from pacs_bridge.trial import Trial

_WAITS = RetryPolicy(first_wait_s=30.0, max_wait_s=600.0, give_up_after_s=float("inf"))
_IN_A_ROW = 3
_TRIAL_LIMIT_S = 600.0


class Fitness:
    """What is known of one machine. For any number of threads.

    Parameters
    ----------
    log
        Told when the machine steps back, and when it is fit again.
    steady_s
        Seconds that never step.
    """

    def __init__(self, log: Log, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._failed: set[int] = set()
        self._excused: set[int] = set()
        self._trial: Trial | None = None  #: while it is doubted
        self._waits = 0
        self._until_s = float("-inf")

    def doubt(self, trial: Trial) -> None:
        """Let no job be claimed before a trial has succeeded."""
        with self._lock:
            self._trial = trial

    def is_to_blame(self, job_id: int, reason: Reason, trial: Trial) -> bool:
        """After a job's failure: whether it was the machine's, which then steps back.

        The same job is not excused twice: it may be what spoils the machine.
        """
        fault = self._fault(trial)
        with self._lock:
            if fault is not None:
                self._step_back(trial, *fault)
                is_first = job_id not in self._excused
                self._excused.add(job_id)
                return is_first
            self._failed.add(job_id)
            if len(self._failed) >= _IN_A_ROW:
                detail = f"{len(self._failed)} jobs in a row failed, though the trial succeeds"
                self._waits = 0
                self._step_back(trial, reason, detail)
                self._failed.clear()
        return False

    def note_result(self) -> None:
        """A job has its result here: what failed before was no fault of the machine."""
        with self._lock:
            self._failed.clear()
            self._waits = 0

    def may_claim(self, is_idle: bool) -> bool:
        """Whether a job may be claimed; a trial is made where nothing else is at work."""
        with self._lock:
            trial = self._trial
            if trial is None:
                return True
            if not is_idle or self._steady_s() < self._until_s:
                return False
        fault = self._fault(trial)
        with self._lock:
            if fault is not None:
                self._step_back(trial, *fault)
                return False
            self._trial = None
        self._log.info("machine-fit")
        return True

    def _step_back(self, trial: Trial, reason: Reason, detail: str) -> None:
        if self._trial is not None and self._steady_s() < self._until_s:
            return  # for another job that was in hand
        self._waits += 1
        wait_s = _WAITS.wait_s(self._waits)
        self._trial, self._until_s = trial, self._steady_s() + wait_s
        self._log.error("machine-unfit", reason=reason, detail=detail, pause_s=wait_s)

    def _fault(self, trial: Trial) -> tuple[Reason, str] | None:
        """What the trial fails with; a trial that hangs ends the process."""
        try:
            with TimeLimit(_TRIAL_LIMIT_S, self._tell_of_hanging):
                trial()
        except (InferenceError, TransientError) as error:
            return error.reason, error.detail
        except OSError as error:
            return disk_reason(error), error.strerror or type(error).__name__
        return None

    def _tell_of_hanging(self) -> None:
        self._log.error("machine-unfit", reason=Reason.TIMEOUT, detail="the trial hangs")
