"""Instances that were sent and not kept: what their series still lack.

A sender that is refused one image of a series may send the others over associations of their own
and release them all. The series is *owed* the refused one until it arrives, however many
associations later, or until an operator vouches for the series without it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from pacs_bridge.ledger.database import Database


@dataclass(frozen=True, slots=True)
class RefusedInstance:
    """An instance that was sent, whole or in part, and is not kept."""

    series_instance_uid: str
    sop_instance_uid: str  #: empty where not even the command names one
    answer: str  #: the status that was answered, hexadecimal, or ``aborted``
    calling_ae_title: str


class RefusalBook:
    """The refused instances that have not come since.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, refused: Iterable[RefusedInstance]) -> None:
        """Write refusals down: their series are not complete before these have arrived.

        Raises
        ------
        TransientError
            If the ledger cannot be written.
        """
        with self._database.write() as connection:
            note_refused(connection, self._database.now_text(), refused)

    def owed(self, series_instance_uid: str) -> tuple[RefusedInstance, ...]:
        """What a series lacks, by SOP Instance UID."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT series_instance_uid, sop_instance_uid, answer, calling_ae_title"
                " FROM refused WHERE series_instance_uid = ? ORDER BY sop_instance_uid",
                (series_instance_uid,),
            ).fetchall()
        return tuple(RefusedInstance(*row) for row in rows)


def note_refused(
    connection: sqlite3.Connection, now: str, refused: Iterable[RefusedInstance]
) -> None:
    """Write refusals down, but for those whose instance is here: it was a resend."""
    for one in refused:
        noted = connection.execute(
            "INSERT INTO refused SELECT :series, :instance, :answer, :calling, :now"
            " WHERE NOT EXISTS (SELECT 1 FROM instances WHERE sop_instance_uid = :instance)"
            " ON CONFLICT DO NOTHING",
            {
                "series": one.series_instance_uid,
                "instance": one.sop_instance_uid,
                "answer": one.answer,
                "calling": one.calling_ae_title,
                "now": now,
            },
        ).rowcount
        if noted:
            connection.execute(
                "UPDATE revisions SET activity = activity + 1 WHERE series_instance_uid = ?"
                " AND state IN ('receiving', 'quiet', 'incomplete')",
                (one.series_instance_uid,),
            )


def note_arrived(connection: sqlite3.Connection, sop_instance_uid: str) -> None:
    """A refused instance has come after all."""
    connection.execute("DELETE FROM refused WHERE sop_instance_uid = ?", (sop_instance_uid,))


def forgive(connection: sqlite3.Connection, series_instance_uid: str) -> None:
    """An operator vouches for a series without what it is owed."""
    connection.execute("DELETE FROM refused WHERE series_instance_uid = ?", (series_instance_uid,))


def give_up_unseen(connection: sqlite3.Connection, before: str) -> tuple[str, ...]:
    """Forget series of which nothing ever came but what was refused, the last so long ago."""
    rows = connection.execute(f"{_UNSEEN} HAVING max(refused_at) < ?", (before,)).fetchall()
    for row in rows:
        forgive(connection, row[0])
    return tuple(row[0] for row in rows)


_UNSEEN = """
SELECT series_instance_uid FROM refused f
 WHERE NOT EXISTS (SELECT 1 FROM series s WHERE s.series_instance_uid = f.series_instance_uid)
 GROUP BY series_instance_uid
"""
