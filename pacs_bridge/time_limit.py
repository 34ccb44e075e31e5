"""The end of work that takes too long.

Whatever hangs is native code that nothing but the end of the process can stop.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EX_SOFTWARE = 70  #: sysexits.h: an internal fault


class TimeLimit:
    """Ends the process, having called ``note``, unless the body is done in time.

    For one thread.

    Parameters
    ----------
    limit_s
        How long the body may take, its waits for others aside.
    note
        Writes down why, as far as that is possible.
    """

    def __init__(self, limit_s: float, note: Callable[[], None]) -> None:
        self._note = note
        self._is_done = threading.Event()
        self._left_s = limit_s

    def __enter__(self) -> TimeLimit:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._timer.cancel()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the body waits for others, who have a limit of their own."""
        self._timer.cancel()
        self._left_s -= time.monotonic() - self._begun_s
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._begun_s = time.monotonic()
        self._timer = threading.Timer(max(self._left_s, 0.0), self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        try:
            self._note()
        finally:
            if not self._is_done.is_set():
                os._exit(EX_SOFTWARE)
