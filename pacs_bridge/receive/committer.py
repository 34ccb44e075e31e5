"""The one thread that writes to the ledger for the listener.

Associations hand over what has landed and wait. While one transaction is on its way to the
disk the next ones gather, and share theirs: many senders cost few more disk flushes than one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.associations import AssociationEnd
from pacs_bridge.ledger.instances import Arrival, Fate
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.receive.spool import Spool

_BATCH = 32
_RETRY_ENDS_S = 1.0


class Point(StrEnum):
    """Moments on the way of an instance at which a crash is tried out."""

    LANDED = "landed"  #: the file is durable, under the name it landed with
    MOVED = "moved"  #: it has its place; the ledger does not know yet
    COMMITTED = "committed"  #: the ledger knows; the sender does not


@dataclass(frozen=True, slots=True)
class _Entering:
    arrival: Arrival
    fate: Future[Fate]


@dataclass(frozen=True, slots=True)
class _Ending:
    end: AssociationEnd
    noted: threading.Event


class _Stop:
    """The last thing in the queue."""


_Item = _Entering | _Ending | _Stop


class Committer:
    """Enters arrivals and ends of associations into the ledger, in the order given.

    Parameters
    ----------
    ledger
        Opened by this process.
    spool
        Where files of arrivals go.
    log
        For what cannot be answered to anybody.
    reached
        Told at each ``Point``.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        log: Log,
        reached: Callable[[Point], None] = lambda _point: None,
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._log = log
        self._reached = reached
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._unwritten_ends: list[_Ending] = []
        self._thread = threading.Thread(target=self._run, name="committer")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Write what was handed over, and end."""
        self._queue.put(_Stop())
        self._thread.join()

    def enter(self, arrival: Arrival) -> Fate:
        """Enter an arrival; when this returns, file and row are durable.

        Raises
        ------
        TransientError, OSError
            If the ledger or the disk cannot take it now.
        """
        fate: Future[Fate] = Future()
        self._reached(Point.LANDED)
        self._queue.put(_Entering(arrival, fate))
        return fate.result()

    @property
    def has_unwritten_ends(self) -> bool:
        """Whether the end of an association is known here and not in the ledger."""
        return bool(self._unwritten_ends)

    def end(self, end: AssociationEnd, wait_s: float) -> None:
        """Note the end of an association, and wait a while until it is written.

        It is kept in mind until the ledger can be written again; if the listener ends before,
        the next one takes the association for aborted.
        """
        ending = _Ending(end, threading.Event())
        self._queue.put(ending)
        ending.noted.wait(wait_s)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            batch = self._gather()
            is_over = any(isinstance(item, _Stop) for item in batch)
            entering = [item for item in batch if isinstance(item, _Entering)]
            if entering:
                self._enter(entering)
            self._unwritten_ends += [item for item in batch if isinstance(item, _Ending)]
            if self._unwritten_ends:
                self._end()

    def _gather(self) -> list[_Item]:
        """What waits, at least one item; or nothing, when ends are to be tried again."""
        batch: list[_Item] = []
        with suppress(queue.Empty):
            batch.append(self._queue.get(timeout=_RETRY_ENDS_S if self._unwritten_ends else None))
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _enter(self, entering: Sequence[_Entering]) -> None:
        try:
            fates = self._transaction([item.arrival for item in entering])
        except Exception as error:
            if len(entering) > 1:  # one of them may be what is wrong
                for item in entering:
                    self._enter([item])
                return
            if not isinstance(error, TransientError | OSError):
                self._log.fault("commit-failed", error)
            entering[0].fate.set_exception(error)
            return
        for item, fate in zip(entering, fates, strict=True):
            item.fate.set_result(fate)

    def _transaction(self, arrivals: Sequence[Arrival]) -> list[Fate]:
        placement = self._spool.placement(lambda: self._reached(Point.MOVED))
        try:
            fates = self._ledger.instances.enter(arrivals, placement)
        except BaseException:
            placement.undo()
            raise
        self._reached(Point.COMMITTED)
        return fates

    def _end(self) -> None:
        try:
            self._ledger.associations.end([item.end for item in self._unwritten_ends])
        except TransientError as error:
            self._log.error("association-end-unwritten", reason=error.reason)
            return
        except Exception as error:
            # The associations stay open in the ledger, and their series with them, until the
            # listener starts again: better than a series that is taken for complete.
            self._log.fault("association-end-lost", error)
        for item in self._unwritten_ends:
            item.noted.set()
        self._unwritten_ends.clear()
