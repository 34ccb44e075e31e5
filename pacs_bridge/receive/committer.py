"""Entering what has landed into the ledger: many senders, few flushes of the disk.

Whoever comes first commits; those who come while a transaction is on its way to the disk wait,
and the first of them commits for all of them. A single sender never waits for another thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import AssociationEnd
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.log import Log
from pacs_bridge.receive.spool import Spool

#: After a fault that no later try mends, for so long nobody is asked to send: then one may try.
_BROKEN_S = 60.0


class Point(StrEnum):
    """Moments on the way of an instance at which a crash is tried out."""

    LANDED = "landed"  #: the file is durable, under the name it landed with
    MOVED = "moved"  #: it has its place; the ledger does not know yet
    COMMITTED = "committed"  #: the ledger knows; the sender does not


@dataclass(slots=True, eq=False)
class _Entering:
    """An arrival, and what became of it once it has been tried."""

    arrival: Arrival
    fate: Fate | None = None
    error: Exception | None = None

    @property
    def is_through(self) -> bool:
        return self.fate is not None or self.error is not None


class Committer:
    """Enters arrivals and ends of associations into the ledger.

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
        self._waiting: list[_Entering] = []
        self._waiting_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._unwritten_ends: list[AssociationEnd] = []
        self._ends_lock = threading.Lock()
        self._broken_until_s = -math.inf  # steady

    @property
    def has_unwritten_ends(self) -> bool:
        """Whether the end of an association is known here and not in the ledger."""
        return bool(self._unwritten_ends)

    @property
    def is_broken(self) -> bool:
        """Whether the ledger was found damaged a moment ago, and nothing was entered since."""
        return self._ledger.database.clock.steady_s() < self._broken_until_s

    def enter(self, arrival: Arrival) -> Fate:
        """Enter an arrival; when this returns, file and row are durable.

        Raises
        ------
        TransientError, OSError
            If the ledger or the disk cannot take it now.
        PermanentError
            If the ledger is damaged.
        """
        self._reached(Point.LANDED)
        item = _Entering(arrival)
        with self._waiting_lock:
            self._waiting.append(item)
        with self._commit_lock:
            if not item.is_through:
                with self._waiting_lock:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        if item.fate is None:
            raise item.error or RuntimeError("neither entered nor refused")
        return item.fate

    def refuse(self, refused: Sequence[RefusedInstance]) -> bool:
        """Note instances that are refused; their association's end tells them once more.

        Gives False if the ledger cannot be written now.
        """
        try:
            self._ledger.refusals.note(refused)
        except BridgeError as error:
            self._log.error("refusal-unwritten", reason=error.reason)
            return False
        return True

    def end(self, end: AssociationEnd) -> None:
        """Note the end of an association.

        If the ledger cannot be written it is kept in mind for ``write_ends``; if the listener
        ends before that, the next one takes the association for aborted.
        """
        with self._ends_lock:
            self._unwritten_ends.append(end)
        self.write_ends()

    def write_ends(self) -> None:
        """Write the ends of associations that could not be written before."""
        with self._ends_lock:
            if not self._unwritten_ends:
                return
            try:
                self._ledger.associations.end(self._unwritten_ends)
            except TransientError as error:
                self._log.error("association-end-unwritten", reason=error.reason)
                return
            except Exception as error:
                # The associations stay open in the ledger, and their series with them, until
                # the listener starts again: better than a series that is taken for complete.
                self._log.fault("association-end-lost", error)
            self._unwritten_ends = []

    def _commit(self, batch: Sequence[_Entering]) -> None:
        try:
            fates = self._transaction([item.arrival for item in batch])
        except Exception as error:
            # One of them may be what is wrong; but if the ledger is, it is so for all of them,
            # and nobody's answer shall wait for the others' time-outs.
            if len(batch) > 1 and not isinstance(error, TransientError):
                for item in batch:
                    self._commit([item])
                return
            if isinstance(error, PermanentError):
                self._broken_until_s = self._ledger.database.clock.steady_s() + _BROKEN_S
            for item in batch:
                item.error = error
            return
        self._broken_until_s = -math.inf
        for item, fate in zip(batch, fates, strict=True):
            item.fate = fate

    def _transaction(self, arrivals: Sequence[Arrival]) -> list[Fate]:
        placement = self._spool.placement(lambda: self._reached(Point.MOVED))
        try:
            fates = self._ledger.instances.enter(arrivals, placement)
        except BaseException:
            placement.undo()
            raise
        self._reached(Point.COMMITTED)
        return fates
