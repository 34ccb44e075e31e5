"""Jobs that an archive run has made in the ledger: which revision they are, how they stand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.reasons import Reason
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.jobs import set_job_state
from pacs_bridge.ledger.leases import LeaseTable
from pacs_bridge.queue import JobRequest, State

_LEASES = LeaseTable("jobs", "worker")
#: Of a row of jobs: whether an archive run made it, and it may be taken back.
_IS_WAITING = "state IN ('ready', 'retry') AND worker IS NULL AND source <> 'spool'"


_WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job as its maker remembers it: every ledger counts its jobs from 1."""

    job_id: int
    series_instance_uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class JobStanding:
    """How a job stands."""

    state: State
    reason: Reason | None
    detail: str
    fence: int  #: of the last claim; 0: it was never claimed
    result_path: str  #: of its first result, relative to the data folder; empty without one
    source: str
    attempts: int = 0

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was taken back before it had a result."""
        return self.state is State.SUPERSEDED and self.detail == _WITHDRAWN


@dataclass(frozen=True, slots=True)
class MadeBefore:
    """A result of an archive run that every destination has."""

    made: str  #: JSON, as it was noted
    result_path: str  #: of its first file, relative to the data folder


class ArchiveJobs:
    """What an archive run asks of the ledger beside the queue.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def ledger_id(self) -> str:
        """What tells this ledger from all others; a restored copy has the same."""
        with self._database.read() as connection:
            return str(connection.execute("SELECT ledger_id FROM machine").fetchone()[0])

    def next_revision(self, series_instance_uid: str) -> int:
        """A number that no revision of a series, received or from an archive, has yet."""
        with self._database.read() as connection:
            return next_revision(connection, series_instance_uid)

    def standings(self, jobs: Sequence[KnownJob]) -> Mapping[int, JobStanding]:
        """How jobs stand, by id; an id that is of no job, or of another one, is left out."""
        marks = ", ".join("?" * len(jobs))
        known = {(job.job_id, job.series_instance_uid, job.revision) for job in jobs}
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT *, coalesce((SELECT path FROM results r WHERE r.job_id = jobs.id"  # noqa: S608
                " ORDER BY stack, kind LIMIT 1), '') AS path"
                f" FROM jobs WHERE id IN ({marks})",
                [job.job_id for job in jobs],
            ).fetchall()
        return {
            row["id"]: JobStanding(
                state=State(row["state"]),
                reason=None if row["reason"] is None else Reason(row["reason"]),
                detail=row["detail"],
                fence=row["fence"],
                result_path=row["path"],
                source=row["source"],
                attempts=row["attempts"],
            )
            for row in rows
            if (row["id"], row["series_instance_uid"], row["revision"]) in known
        }

    def withdraw(self, series_instance_uid: str, revision: int) -> bool:
        """Take an archive's job back that nobody has in hand; False if there is none.

        A revision of a series has one such job: their numbers are not used twice.
        """
        return self._end_waiting(series_instance_uid, revision, State.SUPERSEDED, None, _WITHDRAWN)

    def give_up(self, series_instance_uid: str, revision: int, reason: Reason, detail: str) -> bool:
        """Let an archive's job be dead that nobody has in hand; False if there is none."""
        return self._end_waiting(series_instance_uid, revision, State.DEAD, reason, detail)

    def note_made(self, job_id: int, contents: str, recipe: str, made: str) -> None:
        """Note what the result of a job rests on, and what a later run is to say of it."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO archive_results VALUES (?, ?, ?, ?)",
                (job_id, contents, recipe, made),
            )

    def made_before(self, wanted: JobRequest, contents: str, recipe: str) -> MadeBefore | None:
        """The result of an earlier job for the same use, if it rests on the same.

        Its revision does not matter. None, too, where a later result took its place.
        """
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT a.made, coalesce((SELECT path FROM results r WHERE r.job_id = j.id"
                " ORDER BY stack, kind LIMIT 1), '')"
                " FROM jobs j JOIN archive_results a ON a.job_id = j.id"
                " WHERE j.series_instance_uid = ? AND j.study_instance_uid = ? AND j.route = ?"
                " AND j.model = ? AND j.destinations = ? AND j.source <> 'spool'"
                " AND j.state IN ('sent', 'committed') AND a.contents = ? AND a.recipe = ?"
                " ORDER BY j.revision DESC LIMIT 1",
                (
                    wanted.series_instance_uid,
                    wanted.study_instance_uid,
                    wanted.route,
                    wanted.model,
                    json.dumps(wanted.destinations),
                    contents,
                    recipe,
                ),
            ).fetchone()
        return None if row is None else MadeBefore(*row)

    def withdraw_all(self) -> int:
        """Take back what nobody has in hand, in a ledger of archive runs alone; gives how many."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT series_instance_uid, revision FROM jobs WHERE {_IS_WAITING}"  # noqa: S608
            ).fetchall()
        return sum(self.withdraw(row[0], row[1]) for row in rows)

    def _end_waiting(
        self,
        series_instance_uid: str,
        revision: int,
        state: State,
        reason: Reason | None,
        detail: str,
    ) -> bool:
        now = self._database.now_text()
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT id FROM jobs WHERE series_instance_uid = ? AND revision = ?"  # noqa: S608
                f" AND {_IS_WAITING}",
                (series_instance_uid, revision),
            ).fetchone()
            if row is None:
                return False
            set_job_state(connection, now, row["id"], state, reason, detail)
        return True

    def take_back(self, may_blame: bool = True) -> int:
        """Free the jobs of workers that are known to be gone; gives how many.

        A job that was alone in hand may be what ended its worker: that counts against it. Where
        there were several, each is tried again alone, and none is to blame yet. Without
        ``may_blame`` it is known that none is.
        """
        now = self._database.now_text()
        with self._database.write() as connection:
            held = connection.execute(
                "SELECT id, worker FROM jobs WHERE worker IS NOT NULL"
            ).fetchall()
            if may_blame and len(held) == 1:
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
