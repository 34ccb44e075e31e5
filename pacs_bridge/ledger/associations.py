"""Which associations sent some of which series, and how they ended.

An association that ends without release may have had more to send. The series that it touched
stay incomplete until a later association that touches them is released: *later* by order of
opening, so that a sender of the same series that ran beside the aborted one does not make up
for it. An instance that was refused by name is owed until it comes: see ``refusals``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.history import Change, note
from pacs_bridge.ledger.refusals import RefusedInstance, note_refused
from pacs_bridge.ledger.sources import try_bereft_again
from pacs_bridge.queue import State

#: Associations of one start of the listener, at most.
_SERIALS_PER_EPOCH = 1 << 32


#: Of a row of revisions: it may still become complete. One that was given up may, if it is the
#: current one: whoever sends all of it again is told that all of it is here.
_IS_WAITED_FOR = """
(state IN ('receiving', 'quiet', 'incomplete') OR state = 'dead' AND revision = (SELECT s.revision
   FROM series s WHERE s.series_instance_uid = revisions.series_instance_uid))
"""


class AssociationOutcome(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"  #: by either side, by time-out, or with the listener


@dataclass(frozen=True, slots=True)
class AssociationRecord:
    """An association as the ledger knows it."""

    id: int  #: rises with the order of opening, across starts of the listener
    calling_ae_title: str
    called_ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class AssociationEnd:
    """The end of an association."""

    id: int
    outcome: AssociationOutcome
    newest_id: int  #: the association that was opened last, up to now
    refused: tuple[RefusedInstance, ...] = ()  #: what it sent that was not kept
    has_unknown_loss: bool = False  #: it also sent something of which not even the series is known


class AssociationBook:
    """The associations of the listener.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_epoch(self) -> int:
        """Note a start of the listener; gives the id that its associations count up from.

        Associations that were open when the last listener ended were never released: they end
        as aborted.
        """
        with self._database.write() as connection:
            connection.execute("UPDATE machine SET listener_epoch = listener_epoch + 1")
            epoch = connection.execute("SELECT listener_epoch FROM machine").fetchone()[0]
            first_id = int(epoch) * _SERIALS_PER_EPOCH
            left_open = connection.execute(
                "SELECT id FROM associations WHERE ended_at IS NULL"
            ).fetchall()
            for row in left_open:
                self._end(
                    connection, AssociationEnd(row["id"], AssociationOutcome.ABORTED, first_id)
                )
        return first_id

    def end(self, ends: Iterable[AssociationEnd]) -> None:
        """Note the ends of associations; one that sent nothing that was kept is not known here."""
        with self._database.write() as connection:
            for end in ends:
                self._end(connection, end)

    def _end(self, connection: sqlite3.Connection, end: AssociationEnd) -> None:
        now = self._database.now_text()
        connection.execute(
            "UPDATE associations SET ended_at = ?, outcome = ? WHERE id = ? AND ended_at IS NULL",
            (now, end.outcome, end.id),
        )
        note_refused(connection, now, end.refused)
        touched = connection.execute(
            "SELECT series_instance_uid FROM touches WHERE association_id = ?", (end.id,)
        ).fetchall()
        for row in touched:
            try_bereft_again(connection, now, row[0])
            if end.outcome is AssociationOutcome.ABORTED or end.has_unknown_loss:
                self._interrupted(connection, row[0], end.newest_id)
            else:
                self._released(connection, row[0], end.id)

    def _interrupted(
        self, connection: sqlite3.Connection, series_instance_uid: str, newest_id: int
    ) -> None:
        connection.execute(
            "UPDATE revisions SET activity = activity + 1, abort_boundary = ?"  # noqa: S608
            f" WHERE series_instance_uid = ? AND {_IS_WAITED_FOR}",
            (newest_id, series_instance_uid),
        )

    def _released(
        self, connection: sqlite3.Connection, series_instance_uid: str, association_id: int
    ) -> None:
        connection.execute(
            "UPDATE revisions SET activity = activity + 1, abort_boundary ="  # noqa: S608
            " CASE WHEN abort_boundary < ? THEN NULL ELSE abort_boundary END"
            f" WHERE series_instance_uid = ? AND {_IS_WAITED_FOR}",
            (association_id, series_instance_uid),
        )
        reopened = connection.execute(
            "UPDATE revisions SET state = 'receiving', reason = NULL, detail = '', state_at = ?"  # noqa: S608
            " WHERE series_instance_uid = ? AND state IN ('incomplete', 'dead')"
            f" AND {_IS_WAITED_FOR} AND abort_boundary IS NULL AND hold_reason IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM refused f"
            " WHERE f.series_instance_uid = revisions.series_instance_uid)"
            " RETURNING revision",
            (self._database.now_text(), series_instance_uid),
        ).fetchall()
        for row in reopened:
            change = Change(series_instance_uid, row[0], State.RECEIVING)
            note(connection, self._database.now_text(), change)
