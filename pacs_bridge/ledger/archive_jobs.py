"""Jobs that an archive run has made in the ledger: which revision they are, how they stand."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.reasons import Reason
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.jobs import set_job_state
from pacs_bridge.ledger.leases import LeaseTable
from pacs_bridge.queue import State

_LEASES = LeaseTable("jobs", "worker")


@dataclass(frozen=True, slots=True)
class JobStanding:
    """How a job stands."""

    state: State
    reason: Reason | None
    detail: str
    fence: int  #: of the last claim; 0: it was never claimed
    result_path: str  #: of its first result, relative to the data folder; empty without one
    source: str


class ArchiveJobs:
    """What an archive run asks of the ledger beside the queue.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_revision(self, series_instance_uid: str) -> int:
        """A number that no revision of a series, received or from an archive, has yet."""
        with self._database.read() as connection:
            return next_revision(connection, series_instance_uid)

    def standings(self, job_ids: Sequence[int]) -> Mapping[int, JobStanding]:
        """How jobs stand, by id; one that does not exist is left out."""
        marks = ", ".join("?" * len(job_ids))
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, state, reason, detail, fence, source, coalesce((SELECT path"  # noqa: S608
                " FROM results r WHERE r.job_id = jobs.id ORDER BY stack, kind LIMIT 1), '')"
                f" AS path FROM jobs WHERE id IN ({marks})",
                list(job_ids),
            ).fetchall()
        return {
            row["id"]: JobStanding(
                state=State(row["state"]),
                reason=None if row["reason"] is None else Reason(row["reason"]),
                detail=row["detail"],
                fence=row["fence"],
                result_path=row["path"],
                source=row["source"],
            )
            for row in rows
        }

    def withdraw(self, job_id: int) -> bool:
        """Take a job back that nobody has in hand and that has no result; False if it is none."""
        now = self._database.now_text()
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND state IN ('ready', 'retry')"
                " AND worker IS NULL",
                (job_id,),
            ).fetchone()
            if row is None:
                return False
            set_job_state(connection, now, job_id, State.SUPERSEDED, None, "withdrawn")
        return True

    def take_back(self) -> int:
        """Free the jobs of workers that are known to be gone; gives how many.

        A job that was alone in hand may be what ended its worker: that counts against it. Where
        there were several, each is tried again alone, and none is to blame yet.
        """
        now = self._database.now_text()
        with self._database.write() as connection:
            held = connection.execute(
                "SELECT id, worker FROM jobs WHERE worker IS NOT NULL"
            ).fetchall()
            if len(held) == 1:
                return _LEASES.expire(connection, held[0]["worker"])
            for row in held:
                _LEASES.let_go(connection, row["id"])
                detail = "its worker was ended"
                set_job_state(connection, now, row["id"], State.READY, None, detail)
        return len(held)


def next_revision(connection: sqlite3.Connection, series_instance_uid: str) -> int:
    """See ``ArchiveJobs.next_revision``."""
    row = connection.execute(
        "SELECT max(coalesce((SELECT max(revision) FROM revisions WHERE series_instance_uid = ?1),"
        " 0), coalesce((SELECT max(revision) FROM jobs WHERE series_instance_uid = ?1), 0)) + 1",
        (series_instance_uid,),
    ).fetchone()
    return int(row[0])
