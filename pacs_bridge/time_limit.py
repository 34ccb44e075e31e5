"""The end of work that takes too long.

Whatever hangs is native code that nothing but the end of the process can stop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

EX_SOFTWARE = 70  #: sysexits.h: an internal fault


class TimeLimit:
    """Ends the process, having called ``note``, unless the body is done in time.

    Parameters
    ----------
    limit_s
        How long the body may take.
    note
        Writes down why, as far as that is possible.
    """

    def __init__(self, limit_s: float, note: Callable[[], None]) -> None:
        self._note = note
        self._is_done = threading.Event()
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._timer.cancel()

    def _end(self) -> None:
        try:
            self._note()
        finally:
            if not self._is_done.is_set():
                os._exit(EX_SOFTWARE)
