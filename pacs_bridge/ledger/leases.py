"""Leases on rows: what jobs and deliveries have in common.

A row that is leased names its holder and carries a fence, which rises whenever the lease passes
to another or ends: whatever an earlier holder still reports is refused.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import timedelta

from pacs_bridge.clock import Clock
from pacs_bridge.ledger.database import time_text
from pacs_bridge.queue import LeaseLostError


@dataclass(frozen=True, slots=True)
class LeaseTable:
    """The leases of one table; every method works inside the caller's transaction.

    The table has the columns ``id``, ``fence``, ``attempts``, ``waited_s``, ``lease_until_s``,
    ``due_s``, ``due_at`` and the holder's.
    """

    name: str
    holder: str  #: the column that names who has the lease

    def held(self, connection: sqlite3.Connection, row_id: int, fence: int) -> sqlite3.Row:
        """The row, if the lease of this fence is still good.

        Raises
        ------
        LeaseLostError
            If it is not.
        """
        row: sqlite3.Row | None = connection.execute(
            f"SELECT * FROM {self.name} WHERE id = ? AND fence = ? AND {self.holder} IS NOT NULL",  # noqa: S608
            (row_id, fence),
        ).fetchone()
        if row is None:
            raise LeaseLostError(f"{self.name} {row_id}, fence {fence}")
        return row

    def prolong(
        self, connection: sqlite3.Connection, row_id: int, fence: int, until_s: float
    ) -> None:
        """Let the lease run until a steady time. Raises as ``held`` does."""
        self.held(connection, row_id, fence)
        connection.execute(
            f"UPDATE {self.name} SET lease_until_s = ? WHERE id = ?",  # noqa: S608
            (until_s, row_id),
        )

    def let_go(self, connection: sqlite3.Connection, row_id: int) -> None:
        """End the lease: nobody has the row."""
        connection.execute(
            f"UPDATE {self.name} SET {self.holder} = NULL, lease_until_s = NULL,"  # noqa: S608
            " fence = fence + 1 WHERE id = ?",
            (row_id,),
        )

    def postpone(
        self, connection: sqlite3.Connection, row_id: int, wait_s: float, clock: Clock
    ) -> None:
        """Make the row due again after a wait, which adds to those that it has had."""
        connection.execute(
            f"UPDATE {self.name} SET due_s = ?, due_at = ?, waited_s = waited_s + ?"  # noqa: S608
            " WHERE id = ?",
            (
                clock.steady_s() + wait_s,
                time_text(clock.now() + timedelta(seconds=wait_s)),
                wait_s,
                row_id,
            ),
        )

    def uncount(self, connection: sqlite3.Connection, row_id: int) -> None:
        """Take the attempt that is under way back: it does not count."""
        connection.execute(
            f"UPDATE {self.name} SET attempts = attempts - 1 WHERE id = ?",  # noqa: S608
            (row_id,),
        )

    def expire(self, connection: sqlite3.Connection, process: str) -> int:
        """End the leases of a process that is known to be gone; gives how many.

        A holder is a process, or a thread of one: ``process:thread``.
        """
        return connection.execute(
            f"UPDATE {self.name} SET lease_until_s = 0 WHERE {self.holder} = ?1"  # noqa: S608
            f" OR substr({self.holder}, 1, length(?1) + 1) = ?1 || ':'",
            (process,),
        ).rowcount
