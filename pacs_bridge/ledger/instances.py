"""Every instance that was ever received: kept, known already, or set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.ledger.arrival import Arrival, Fate, Placer
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.entry import Entry
from pacs_bridge.ledger.history import count
from pacs_bridge.ledger.sources import SpooledInstance


@dataclass(frozen=True, slots=True)
class SetAside:
    """One instance of a series that was not let into it."""

    sop_instance_uid: str
    path: Path
    reason: Reason


class InstanceBook:
    """The instances.

    Parameters
    ----------
    database
        The ledger's file; paths are relative to its folder.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.path.parent

    def enter(self, arrivals: Sequence[Arrival], placer: Placer) -> list[Fate]:
        """Decide the fate of each arrival and write it down, all in one transaction.

        When this returns, everything that was kept or quarantined is durable, file and row.
        A late instance of a series that was complete opens its next revision; the jobs of the
        last that wait go on waiting until it is known what comes of that.

        Raises
        ------
        TransientError
            If the ledger cannot be written; then none of them is entered.
        """
        with self._database.write() as connection:
            entry = Entry(connection, self._database.now_text(), self._folder)
            fates = [entry.enter(arrival, placer) for arrival in arrivals]
            placer.settle()
            return fates

    def sources(self, series_instance_uid: str, revision: int) -> tuple[SpooledInstance, ...]:
        """The instances of a series up to a revision, by SOP Instance UID."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sop_instance_uid, path, digest, data_offset_bytes, size_bytes"
                " FROM instances WHERE series_instance_uid = ? AND revision <= ?"
                " ORDER BY sop_instance_uid",
                (series_instance_uid, revision),
            ).fetchall()
        return tuple(SpooledInstance(row[0], self._folder / row[1], *row[2:]) for row in rows)

    def set_aside(self, series_instance_uid: str) -> tuple[SetAside, ...]:
        """The instances of a series that were put into quarantine, also those deleted since."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sop_instance_uid, path, reason FROM quarantine"
                " WHERE series_instance_uid = ? ORDER BY id",
                (series_instance_uid,),
            ).fetchall()
        return tuple(SetAside(row[0], self._folder / row[1], Reason(row[2])) for row in rows)

    def is_entered(self, sop_instance_uid: str, path: str) -> bool:
        """Whether a row stands for this instance at this path, relative to the data folder.

        One whose file was deleted after its time does not: nothing should lie there.
        """
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM instances WHERE sop_instance_uid = ? AND path = ?"
                " AND deleted_at IS NULL"
                " UNION ALL SELECT 1 FROM quarantine WHERE path = ? AND deleted_at IS NULL",
                (sop_instance_uid, path, path),
            ).fetchone()
        return row is not None

    def is_own_result(self, sop_instance_uid: str) -> bool:
        """Whether we made the object of this UID; if so it is counted as having come back."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM results WHERE sop_instance_uid = ?", (sop_instance_uid,)
            ).fetchone()
        if row is not None:
            with self._database.write() as connection:
                count(connection, Reason.OWN_RESULT)
        return row is not None
