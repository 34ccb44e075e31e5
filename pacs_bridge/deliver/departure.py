"""Ending what is being sent when the service stops.

Whatever is cut off is sent again: a result has the same UIDs each time, so that a destination
which took it just before has it once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class LeavingError(Exception):
    """The sender is to stop in the middle of a delivery."""


class Departure:
    """When a delivery that is under way must end; for one thread.

    Parameters
    ----------
    leave
        Set when the service is to stop.
    grace_s
        So long what is under way may go on: most deliveries end by themselves.
    steady_s
        A clock that only goes forward.
    """

    def __init__(
        self,
        leave: threading.Event,
        grace_s: float,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leave = leave
        self._grace_s = grace_s
        self._steady_s = steady_s
        self._until_s: float | None = None

    def check(self) -> None:
        """To be called now and then while something is sent.

        Raises
        ------
        LeavingError
            If it must end now.
        """
        if not self._leave.is_set():
            return
        now_s = self._steady_s()
        if self._until_s is None:
            self._until_s = now_s + self._grace_s
        if now_s >= self._until_s:
            raise LeavingError
