"""Series that are still being received: what the collector looks at and decides."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from inference.reasons import Reason
from pacs_bridge.ledger.announcements import Announcement, forget_unseen, keep, priority_of
from pacs_bridge.ledger.database import Database, time_text
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.history import Change, note
from pacs_bridge.ledger.jobs import insert_job
from pacs_bridge.ledger.refusals import forgive, give_up_unseen
from pacs_bridge.queue import JobRequest, Priority, State


@dataclass(frozen=True, slots=True)
class OpenRevision:
    """A series revision that is not complete yet, as far as anybody knows."""

    series_instance_uid: str
    revision: int
    state: State  #: RECEIVING or QUIET
    activity: int  #: rises with whatever arrives or ends
    open_associations: int  #: that sent some of it
    instance_count: int
    slice_count: int  #: frames
    owed_count: int  #: instances that were refused and have not come since
    deleted_count: int  #: instances whose files were deleted after an earlier result was sent
    expected_instances: int | None  #: what the sender says the series has
    priority: Priority | None  #: its job is no more urgent than this, if somebody said so
    is_interrupted: bool  #: an association ended before it had sent all, and none made up for it
    hold_reason: Reason | None
    facts: SeriesFacts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the collector makes of a revision; a READY one comes with its job."""

    state: State
    reason: Reason | None = None
    detail: str = ""
    job: JobRequest | None = None


class ForceOutcome(StrEnum):
    """What came of an operator's word that a series is as complete as it will be."""

    FORCED = "goes on as it is"
    NOT_HELD = "neither held nor ended without a job"
    SOURCES_DELETED = "files of it were deleted after their time: they must be sent again"


class SeriesBook:
    """The series.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_revisions(self) -> tuple[OpenRevision, ...]:
        """Every revision that receives or is quiet, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_OPEN_REVISIONS).fetchall()
        return tuple(_open_revision(row) for row in rows)

    def conclude(self, revision: OpenRevision, verdict: Verdict) -> bool:
        """Let a revision pass into the verdict's state, and make its job when it is READY.

        Gives False, and changes nothing, if anything has arrived or ended since the revision
        was looked at.
        """
        now = self._database.now_text()
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE revisions SET state = ?, reason = ?, detail = ?, state_at = ?"
                " WHERE series_instance_uid = ? AND revision = ? AND activity = ? AND state = ?",
                (
                    verdict.state,
                    verdict.reason,
                    verdict.detail,
                    now,
                    revision.series_instance_uid,
                    revision.revision,
                    revision.activity,
                    revision.state,
                ),
            ).rowcount
            if not changed:
                return False
            change = Change(
                revision.series_instance_uid,
                revision.revision,
                verdict.state,
                verdict.reason,
                verdict.detail,
            )
            note(connection, now, change)
            if verdict.job is not None:
                insert_job(connection, now, verdict.job)
        return True

    def force(self, series_instance_uid: str) -> ForceOutcome:
        """An operator vouches for a series: it is as complete as it will be.

        That lets its current revision go on if it is held, or ended before it had a job: given
        up, or skipped. The routes are looked at anew.
        """
        now = self._database.now_text()
        with self._database.write() as connection:
            if _has_deleted_sources(connection, series_instance_uid):
                return ForceOutcome.SOURCES_DELETED
            rows = connection.execute(
                "UPDATE revisions SET state = 'quiet', activity = activity + 1, reason = NULL,"  # noqa: S608
                " detail = 'forced', abort_boundary = NULL, hold_reason = NULL, state_at = ?"
                f" WHERE series_instance_uid = ? AND {_CAN_GO_ON} RETURNING revision",
                (now, series_instance_uid),
            ).fetchall()
            for row in rows:
                _vouch(connection, now, series_instance_uid)
                note(
                    connection,
                    now,
                    Change(series_instance_uid, row[0], State.QUIET, None, "forced"),
                )
        return ForceOutcome.FORCED if rows else ForceOutcome.NOT_HELD

    def give_up_incomplete(self, after_s: float) -> tuple[str, ...]:
        """End the series that were held for so long: DEAD; what is sent later opens them again.

        A series of which nothing came but what was refused, or said, is forgotten then.
        """
        now = self._database.now_text()
        before = time_text(self._database.clock.now() - timedelta(seconds=after_s))
        with self._database.read() as connection:
            if not connection.execute(
                "SELECT 1 FROM revisions WHERE state = 'incomplete' AND state_at < :before"
                " UNION ALL SELECT 1 FROM refused WHERE refused_at < :before"
                " UNION ALL SELECT 1 FROM announced WHERE announced_at < :before",
                {"before": before},
            ).fetchone():
                return ()
        with self._database.write() as connection:
            rows = connection.execute(
                "UPDATE revisions SET state = 'dead', state_at = ?"
                " WHERE state = 'incomplete' AND state_at < ?"
                " RETURNING series_instance_uid, revision, reason, detail",
                (now, before),
            ).fetchall()
            for row in rows:
                note(connection, now, Change(row[0], row[1], State.DEAD, row[2], row[3]))
            unseen = give_up_unseen(connection, before)
            forget_unseen(connection, before)
        return (*(row[0] for row in rows), *unseen)

    def expect(self, announcement: Announcement) -> bool:
        """Note what is said of a series, also if nothing of it has come yet.

        False, and nothing noted, if it came here with another patient or study.
        """
        with self._database.write() as connection:
            return keep(connection, self._database.now_text(), announcement)


def _has_deleted_sources(connection: sqlite3.Connection, series_instance_uid: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM revisions JOIN instances i USING (series_instance_uid)"  # noqa: S608
        f" WHERE series_instance_uid = ? AND {_CAN_GO_ON} AND i.deleted_at IS NOT NULL",
        (series_instance_uid,),
    ).fetchone()
    return row is not None


def _vouch(connection: sqlite3.Connection, now: str, series_instance_uid: str) -> None:
    """Ask for nothing more of what the series lacks."""
    forgive(connection, series_instance_uid)
    connection.execute(
        "UPDATE series SET expected_instances = NULL WHERE series_instance_uid = ?",
        (series_instance_uid,),
    )
    connection.execute(
        "UPDATE quarantine SET vouched_at = ? WHERE series_instance_uid = ?",
        (now, series_instance_uid),
    )


#: Of a row of revisions: whether it is the current one and waits for a word, or ended jobless.
_CAN_GO_ON = """
(state IN ('incomplete', 'dead', 'skipped') AND revisions.revision = (SELECT s.revision
   FROM series s WHERE s.series_instance_uid = revisions.series_instance_uid))
"""

_OPEN_REVISIONS = """
SELECT r.series_instance_uid, r.revision, r.state, r.activity, r.abort_boundary, r.hold_reason,
       s.expected_instances, s.priority,
       (SELECT json_group_array(json_array(f.facts, f.instance_count)) FROM facts f
         WHERE f.series_instance_uid = r.series_instance_uid) AS facts,
       (SELECT count(*) FROM touches t JOIN associations a ON a.id = t.association_id
         WHERE t.series_instance_uid = r.series_instance_uid AND a.ended_at IS NULL)
         AS open_associations,
       (SELECT count(*) FROM instances i WHERE i.series_instance_uid = r.series_instance_uid)
         AS instance_count,
       (SELECT CAST(total(frame_count) AS INTEGER) FROM instances i
         WHERE i.series_instance_uid = r.series_instance_uid) AS slice_count,
       (SELECT count(*) FROM instances i WHERE i.series_instance_uid = r.series_instance_uid
         AND i.deleted_at IS NOT NULL) AS deleted_count,
       (SELECT count(*) FROM refused f WHERE f.series_instance_uid = r.series_instance_uid)
         AS owed_count
  FROM revisions r JOIN series s USING (series_instance_uid)
 WHERE r.state IN ('receiving', 'quiet')
 ORDER BY r.first_at
"""


def _open_revision(row: sqlite3.Row) -> OpenRevision:
    hold = row["hold_reason"]
    return OpenRevision(
        series_instance_uid=row["series_instance_uid"],
        revision=row["revision"],
        state=State(row["state"]),
        activity=row["activity"],
        open_associations=row["open_associations"],
        instance_count=row["instance_count"],
        slice_count=row["slice_count"],
        owed_count=row["owed_count"],
        deleted_count=row["deleted_count"],
        expected_instances=row["expected_instances"],
        priority=priority_of(row),
        is_interrupted=row["abort_boundary"] is not None,
        hold_reason=None if hold is None else Reason(hold),
        facts=SeriesFacts.of_most(
            [(SeriesFacts.from_json(text), number) for text, number in json.loads(row["facts"])]
        ),
    )
