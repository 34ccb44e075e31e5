"""Trying again at once what fails for a moment: a dropped association, a service that is busy.

What fails for longer is the queue's to try again; a worker does not wait for it. A port that
others hold was waited for where it was to be opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from inference.reasons import Reason
from pacs_bridge.dicomweb.peer import WebPeerError
from pacs_bridge.errors import TransientError
from pacs_bridge.retry_policy import RetryPolicy

_ATTEMPTS = 3
_FIRST_WAIT_S = 0.5
#: A service that asks for a longer wait is left to the queue.
_LONGEST_WAIT_S = 30.0
_SLICE_S = 0.5
_POLICY = RetryPolicy(_FIRST_WAIT_S, _LONGEST_WAIT_S, 0.0, _ATTEMPTS)
_Given = TypeVar("_Given")


class BriefRetry:
    """Tries again, and leaves a service alone for as long as it asks; for any number of threads.

    Parameters
    ----------
    wait
        Waits so many seconds.
    steady_s
        A clock that only goes forward.
    """

    def __init__(
        self,
        wait: Callable[[float], object] = time.sleep,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait = wait
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._not_before_s = 0.0
        self._last: WebPeerError | None = None

    def run(self, action: Callable[[], _Given], check: Callable[[], None]) -> _Given:
        """What ``action`` gives, at one of its attempts.

        Raises
        ------
        TransientError
            Of the last attempt, or of the one whose wait is still on.
        """
        self._respect(check)
        attempt = 1
        while True:
            try:
                return action()
            except TransientError as error:
                asked_s = self._note(error)
                was_waited_for = error.reason is Reason.CANNOT_LISTEN
                if was_waited_for or attempt == _ATTEMPTS or asked_s > _LONGEST_WAIT_S:
                    raise
                self._pause(max(asked_s, _POLICY.wait_s(attempt)), check)
                attempt += 1

    def _note(self, error: TransientError) -> float:
        """Seconds for which the service wants to be left alone, whichever request it told."""
        if not isinstance(error, WebPeerError) or not error.wait_s:
            return 0.0
        with self._lock:
            now_s = self._steady_s()
            if now_s + error.wait_s > self._not_before_s:
                self._not_before_s = now_s + error.wait_s
                self._last = error
            return self._not_before_s - now_s

    def _respect(self, check: Callable[[], None]) -> None:
        """Wait for what the service asked for, if that is short."""
        with self._lock:
            left_s = self._not_before_s - self._steady_s()
            last = self._last
        if left_s <= 0 or last is None:
            return
        if left_s > _LONGEST_WAIT_S:
            raise WebPeerError(last.reason, last.detail, left_s)
        self._pause(left_s, check)

    def _pause(self, wait_s: float, check: Callable[[], None]) -> None:
        while wait_s > 0:
            check()
            self._wait(min(wait_s, _SLICE_S))
            wait_s -= _SLICE_S
        check()
