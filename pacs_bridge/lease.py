"""Keeping a lease alive while its work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pacs_bridge.errors import TransientError
from pacs_bridge.queue import LeaseLostError


class KeptLease:
    """Prolongs a lease from a thread of its own for as long as the body runs.

    Parameters
    ----------
    prolong
        Prolongs it; raises ``LeaseLostError`` when it is another's.
    interval_s
        From the beginning of one prolongation to that of the next; a third of the lease or less.
    """

    def __init__(self, prolong: Callable[[], object], interval_s: float) -> None:
        self._prolong = prolong
        self._interval_s = interval_s
        self._done = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether the work is another's now: stop, and report nothing more."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        wait_s = self._interval_s
        while not self._done.wait(wait_s):
            begun_s = time.monotonic()
            try:
                self._prolong()
            except LeaseLostError:
                self._lost.set()
                return
            except TransientError:
                pass  # the ledger may be back in time; if not, the lease runs out
            # what hung for long has prolonged from some time before now
            wait_s = max(0.0, self._interval_s - (time.monotonic() - begun_s))
