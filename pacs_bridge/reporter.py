"""Reports to a queue that may be away: the work that was done is kept until it has heard of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pacs_bridge.errors import TransientError
from pacs_bridge.log import Log

_WAIT_S = 2.0
#: When the process is told to leave and the queue is away; service managers wait for longer.
_LEAVE_WITHIN_S = 20.0

_Told = TypeVar("_Told")


class Reporter:
    """Tells the queue what became of jobs. For any number of threads.

    Parameters
    ----------
    log
        Told of each try that failed.
    leave
        Set when the process is to end soon.
    abandoned
        Set when it is to end at once.
    """

    def __init__(self, log: Log, leave: threading.Event, abandoned: threading.Event) -> None:
        self._log = log
        self._leave = leave
        self._abandoned = abandoned
        self._leave_by_s: float | None = None

    def tell(self, tell: Callable[[], _Told]) -> _Told:
        """Tell the queue, again while it cannot be reached.

        Raises
        ------
        TransientError
            If it cannot be reached and the process is to end: a lease that nobody gives back runs
            out as after a death.
        """
        while True:
            try:
                return tell()
            except TransientError as error:
                self._log.warning("queue-unavailable", reason=error.reason, detail=error.detail)
                if not self._may_wait():
                    raise

    def _may_wait(self) -> bool:
        """Wait before the next try; False if there is no more time for one."""
        if self._abandoned.is_set():
            return False
        if not self._leave.wait(_WAIT_S):
            return True
        now_s = time.monotonic()
        if self._leave_by_s is None:
            self._leave_by_s = now_s + _LEAVE_WITHIN_S
        return now_s < self._leave_by_s and not self._abandoned.wait(_WAIT_S)
