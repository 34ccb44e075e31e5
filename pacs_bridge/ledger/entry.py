"""Entering arrivals: their fate, and the revision that takes them in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.ledger.announcements import take
from pacs_bridge.ledger.archive_jobs import next_revision
from pacs_bridge.ledger.arrival import Arrival, Fate, Placer
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.history import Change, count, note
from pacs_bridge.ledger.refusals import note_arrived
from pacs_bridge.ledger.sources import SpooledInstance, lacks_source
from pacs_bridge.queue import State

#: The series lacks an instance that lies in quarantine for this, unless it has another of its UID.
_LACKING = (Reason.MIXED_IDENTITY, Reason.MISSING_IDENTITY, Reason.CONFLICTING_INSTANCE)


class Entry:
    """Enters arrivals, inside one transaction.

    Parameters
    ----------
    connection
        With the transaction begun.
    now
        Time of day, as the tables hold it.
    folder
        The data folder.
    """

    def __init__(self, connection: sqlite3.Connection, now: str, folder: Path) -> None:
        self._connection = connection
        self._now = now
        self._folder = folder

    def enter(self, arrival: Arrival, placer: Placer) -> Fate:
        """Decide the fate of an arrival, have its file moved, and write it down."""
        self._note_association(arrival.association)
        known = self._connection.execute(
            "SELECT i.sop_instance_uid, i.digest, i.path, i.size_bytes, i.data_offset_bytes,"
            " i.deleted_at, s.series_instance_uid,"
            " s.study_instance_uid, s.patient_key FROM instances i"
            " JOIN series s USING (series_instance_uid) WHERE sop_instance_uid = ?",
            (arrival.sop_instance_uid,),
        ).fetchone()
        fate = self._fate(arrival, known)
        is_lost = fate is Fate.KNOWN and known is not None and self._is_lost(known)
        path = placer.place(arrival, Fate.KEPT if is_lost else fate) or ""
        if fate.is_quarantine:
            self._quarantine(arrival, fate, path)
        if fate is Fate.KEPT:
            self._keep(arrival, path)
        elif fate is Fate.KNOWN:
            self._known_again(arrival)
        if is_lost:
            self._put_back(arrival, path)
        if fate.reason is not None:
            count(self._connection, fate.reason)
        return fate

    def _is_lost(self, known: sqlite3.Row) -> bool:
        """Whether the file is gone, damaged or deleted after its time; the resend puts it back.

        Its digest is only looked at when a worker has complained: resends are common.
        """
        if known["deleted_at"] is not None:
            return True
        path = self._folder / known["path"]
        if not path.exists() or path.stat().st_size != known["size_bytes"]:
            return True
        if not lacks_source(self._connection, known["series_instance_uid"]):
            return False
        facts = (known["digest"], known["data_offset_bytes"], known["size_bytes"])
        return bool(SpooledInstance(known["sop_instance_uid"], path, *facts).problem())

    def _put_back(self, arrival: Arrival, path: str) -> None:
        self._connection.execute(
            "UPDATE instances SET path = ?, digest = ?, transfer_syntax_uid = ?,"
            " data_offset_bytes = ?, size_bytes = ?, frame_count = ?, received_at = ?,"
            " deleted_at = NULL"
            " WHERE sop_instance_uid = ?",
            (
                path,
                arrival.digest,
                arrival.transfer_syntax_uid,
                arrival.data_offset_bytes,
                arrival.size_bytes,
                arrival.frame_count,
                self._now,
                arrival.sop_instance_uid,
            ),
        )

    def _fate(self, arrival: Arrival, known: sqlite3.Row | None) -> Fate:
        if not arrival.is_identified:
            return Fate.MISSING_IDENTITY
        if known is not None:
            is_known = known["digest"] == arrival.digest or _takes_the_place(arrival, known)
            return Fate.KNOWN if is_known else Fate.CONFLICTING
        if self._connection.execute(
            "SELECT 1 FROM results WHERE sop_instance_uid = ? OR series_instance_uid = ?",
            (arrival.sop_instance_uid, arrival.series_instance_uid),
        ).fetchone():
            return Fate.OWN_RESULT
        series = self._connection.execute(
            "SELECT study_instance_uid, patient_key FROM series WHERE series_instance_uid = ?",
            (arrival.series_instance_uid,),
        ).fetchone()
        theirs = (arrival.study_instance_uid, arrival.patient_key)
        if series is not None and tuple(series) != theirs:
            return Fate.MIXED_IDENTITY
        return Fate.KEPT

    def _keep(self, arrival: Arrival, path: str) -> None:
        revision = self._open_revision(arrival)
        self._connection.execute(
            "INSERT INTO instances (sop_instance_uid, series_instance_uid, revision,"
            " sop_class_uid, transfer_syntax_uid, digest, data_offset_bytes, size_bytes,"
            " frame_count, path, received_at, association_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                arrival.sop_instance_uid,
                arrival.series_instance_uid,
                revision,
                arrival.sop_class_uid,
                arrival.transfer_syntax_uid,
                arrival.digest,
                arrival.data_offset_bytes,
                arrival.size_bytes,
                arrival.frame_count,
                path,
                self._now,
                arrival.association.id,
            ),
        )
        self._connection.execute(
            "INSERT INTO facts VALUES (?, ?, 1)"
            " ON CONFLICT DO UPDATE SET instance_count = instance_count + 1",
            (arrival.series_instance_uid, arrival.facts.to_json()),
        )
        note_arrived(self._connection, arrival.sop_instance_uid)
        self._touch(arrival)

    def _known_again(self, arrival: Arrival) -> None:
        self._connection.execute(
            "UPDATE instances SET resent = resent + 1 WHERE sop_instance_uid = ?",
            (arrival.sop_instance_uid,),
        )
        self._touch(arrival)

    def _touch(self, arrival: Arrival) -> None:
        """The association sent some of the series, which is therefore not quiet."""
        self._connection.execute(
            "INSERT OR IGNORE INTO touches VALUES (?, ?)",
            (arrival.series_instance_uid, arrival.association.id),
        )
        self._connection.execute(
            "UPDATE revisions SET activity = activity + 1, last_at = ?"
            " WHERE series_instance_uid = ? AND state IN ('receiving', 'quiet', 'incomplete')",
            (self._now, arrival.series_instance_uid),
        )

    def _quarantine(self, arrival: Arrival, fate: Fate, path: str) -> None:
        self._connection.execute(
            "INSERT INTO quarantine (reason, sop_instance_uid, series_instance_uid, digest, path,"
            " received_at, association_id, size_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (path) DO UPDATE"  # the same bytes, sent once more
            " SET deleted_at = NULL, received_at = excluded.received_at,"
            " size_bytes = excluded.size_bytes WHERE deleted_at IS NOT NULL",
            (
                fate.reason,
                arrival.sop_instance_uid,
                arrival.series_instance_uid,
                arrival.digest,
                path,
                self._now,
                arrival.association.id,
                arrival.size_bytes,
            ),
        )
        if lacks := self._lacks(arrival.series_instance_uid):
            self._connection.execute(
                "UPDATE revisions SET activity = activity + 1, hold_reason = ?"
                " WHERE series_instance_uid = ?"
                " AND state IN ('receiving', 'quiet', 'incomplete')",
                (lacks, arrival.series_instance_uid),
            )

    def _open_revision(self, arrival: Arrival) -> int:
        """The revision that takes in a new instance of the series."""
        series = self._connection.execute(
            "SELECT revision FROM series WHERE series_instance_uid = ?",
            (arrival.series_instance_uid,),
        ).fetchone()
        if series is None:
            revision = next_revision(self._connection, arrival.series_instance_uid)
            self._begin_series(arrival, revision)
            self._begin_revision(arrival.series_instance_uid, revision)
            return revision
        if arrival.expected_instances is not None:
            self._connection.execute(
                "UPDATE series SET expected_instances = ? WHERE series_instance_uid = ?",
                (arrival.expected_instances, arrival.series_instance_uid),
            )
        revision = int(series["revision"])
        state = self._connection.execute(
            "SELECT state FROM revisions WHERE series_instance_uid = ? AND revision = ?",
            (arrival.series_instance_uid, revision),
        ).fetchone()[0]
        if state == State.INCOMPLETE:
            self._reopen(arrival.series_instance_uid, revision)
        elif state not in (State.RECEIVING, State.QUIET):
            revision = next_revision(self._connection, arrival.series_instance_uid)
            self._connection.execute(
                "UPDATE series SET revision = ? WHERE series_instance_uid = ?",
                (revision, arrival.series_instance_uid),
            )
            self._begin_revision(arrival.series_instance_uid, revision)
        return revision

    def _begin_series(self, arrival: Arrival, revision: int) -> None:
        series = arrival.series_instance_uid, arrival.study_instance_uid, arrival.patient_key
        said = take(self._connection, *series)
        count = arrival.expected_instances
        expected = said.instance_count if count is None else count
        self._connection.execute(
            "INSERT INTO series (series_instance_uid, study_instance_uid, patient_key, revision,"
            " expected_instances, priority) VALUES (?, ?, ?, ?, ?, ?)",
            (*series, revision, expected, said.rank),
        )

    def _begin_revision(self, series_instance_uid: str, revision: int) -> None:
        self._connection.execute(
            "INSERT INTO revisions (series_instance_uid, revision, state, activity, first_at,"
            " last_at, state_at, hold_reason) VALUES (?, ?, 'receiving', 0, ?, ?, ?, ?)",
            (
                series_instance_uid,
                revision,
                self._now,
                self._now,
                self._now,
                self._lacks(series_instance_uid),
            ),
        )
        note(self._connection, self._now, Change(series_instance_uid, revision, State.RECEIVING))

    def _lacks(self, series_instance_uid: str) -> str | None:
        """Why the series is not whole, whatever comes: it has an instance in quarantine."""
        row = self._connection.execute(
            "SELECT reason FROM quarantine q WHERE series_instance_uid = ? AND reason IN (?, ?, ?)"
            " AND vouched_at IS NULL AND NOT EXISTS (SELECT 1 FROM instances i"
            " WHERE i.sop_instance_uid = q.sop_instance_uid"
            " AND i.series_instance_uid = q.series_instance_uid) ORDER BY id LIMIT 1",
            (series_instance_uid, *_LACKING),
        ).fetchone()
        return None if row is None else str(row[0])

    def _reopen(self, series_instance_uid: str, revision: int) -> None:
        self._connection.execute(
            "UPDATE revisions SET state = 'receiving', reason = NULL, detail = '', state_at = ?"
            " WHERE series_instance_uid = ? AND revision = ?",
            (self._now, series_instance_uid, revision),
        )
        note(self._connection, self._now, Change(series_instance_uid, revision, State.RECEIVING))

    def _note_association(self, association: AssociationRecord) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO associations"
            " (id, calling_ae_title, called_ae_title, address, opened_at) VALUES (?, ?, ?, ?, ?)",
            (
                association.id,
                association.calling_ae_title,
                association.called_ae_title,
                association.address,
                self._now,
            ),
        )


def _takes_the_place(arrival: Arrival, known: sqlite3.Row) -> bool:
    """Whether other bytes may stand for an instance that was deleted after its time.

    An archive may send it in another transfer syntax than the scanner did, or with a study
    description that was mended since; who and which series it is of must be the same.
    """
    theirs = (arrival.series_instance_uid, arrival.study_instance_uid, arrival.patient_key)
    ours = (known["series_instance_uid"], known["study_instance_uid"], known["patient_key"])
    return known["deleted_at"] is not None and theirs == ours
