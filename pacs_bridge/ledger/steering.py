"""What an operator can do to a job or a delivery."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.jobs import set_job_state
from pacs_bridge.ledger.results import results_of
from pacs_bridge.ledger.sources import has_sources
from pacs_bridge.ledger.supersession import IS_OUTDATED
from pacs_bridge.queue import SPOOL, DeliveryState, State


class RepeatOutcome(StrEnum):
    """What came of an operator's word that results shall be sent again."""

    REPEATED = "sent again"
    NOTHING_SENT = "it has no result that was sent, or a later one stands in its place"
    SOURCES_DELETED = "results and files of it were deleted after their time: send it again first"


class Steering:
    """An operator's hand on the ledger.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry_job(self, job_id: int) -> bool:
        """Try a DEAD, SKIPPED or RETRY job again at once.

        A job that has results keeps them: only its dead deliveries are tried again. If a file of
        them is lost they are made again. Gives False if the job is in another state, does not
        exist, or is of a revision in whose place a later one has a result.
        """
        with self._database.write() as connection:
            now = self._database.now_text()
            row = connection.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND state IN ('dead', 'skipped', 'retry')"  # noqa: S608
                f" AND NOT {IS_OUTDATED}",
                (job_id,),
            ).fetchone()
            if row is None:
                return False
            if self._has_lost_result(connection, job_id):
                # due when there are results; until then nobody shall try to send them
                connection.execute(
                    "UPDATE deliveries SET again = 1 WHERE job_id = ? AND state = ?",
                    (job_id, DeliveryState.DEAD),
                )
            revived = connection.execute(
                "UPDATE deliveries SET state = ?, due_s = 0, attempts = 0, waited_s = 0,"
                " state_at = ? WHERE job_id = ? AND state = ? AND again = 0",
                (DeliveryState.PENDING, now, job_id, DeliveryState.DEAD),
            ).rowcount
            if not revived:
                connection.execute(
                    "UPDATE jobs SET attempts = 0, deaths = 0, series_failures = 0,"
                    " waited_s = 0, due_s = 0 WHERE id = ?",
                    (job_id,),
                )
            state = State.SENDING if revived else State.READY
            set_job_state(connection, now, job_id, state, None, "retried by an operator")
        return True

    def repeat_job(self, job_id: int) -> RepeatOutcome:
        """Send the results of a SENT or COMMITTED job again; make them again if files are lost.

        What was sent is known as such until there is a new result. Nothing changes if the job is
        in another state, does not exist, is of a revision in whose place a later one has a
        result, or can neither be sent nor made again.
        """
        with self._database.write() as connection:
            now = self._database.now_text()
            row = connection.execute(
                "SELECT * FROM jobs WHERE id = ? AND state IN ('sent', 'committed')"  # noqa: S608
                f" AND NOT {IS_OUTDATED}",
                (job_id,),
            ).fetchone()
            if row is None:
                return RepeatOutcome.NOTHING_SENT
            state = State.SENDING
            if self._has_lost_result(connection, job_id):
                if not self._can_be_made(connection, row):
                    return RepeatOutcome.SOURCES_DELETED
                state = State.READY
                connection.execute("UPDATE deliveries SET again = 1 WHERE job_id = ?", (job_id,))
                connection.execute(
                    "UPDATE jobs SET attempts = 0, deaths = 0, series_failures = 0,"
                    " waited_s = 0, due_s = 0 WHERE id = ?",
                    (job_id,),
                )
            connection.execute(
                "UPDATE deliveries SET state = ?, due_s = 0, attempts = 0, waited_s = 0,"
                " state_at = ? WHERE job_id = ? AND again = 0",
                (DeliveryState.PENDING, now, job_id),
            )
            set_job_state(connection, now, job_id, state, None, "repeated by an operator")
        return RepeatOutcome.REPEATED

    def _can_be_made(self, connection: sqlite3.Connection, job: sqlite3.Row) -> bool:
        """Whether the files are here that a job is made from, if that is where they should be."""
        folder = self._database.path.parent
        series, revision = job["series_instance_uid"], job["revision"]
        return job["source"] != SPOOL or has_sources(connection, folder, series, revision)

    def _has_lost_result(self, connection: sqlite3.Connection, job_id: int) -> bool:
        folder = self._database.path.parent
        results = results_of(connection, job_id)
        return any(result.problem(folder) for result in results)

    def send_now(self, job_id: int) -> int:
        """Make the waiting deliveries of a job due at once; gives how many."""
        with self._database.write() as connection:
            return connection.execute(
                "UPDATE deliveries SET due_s = 0 WHERE job_id = ?1 AND state = ?2"
                " AND (SELECT state FROM jobs WHERE id = ?1) <> 'superseded'",
                (job_id, DeliveryState.PENDING),
            ).rowcount
