"""Every instance that was ever received: kept, known already, or set aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from inference.reasons import Reason
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.history import Change, count, note
from pacs_bridge.queue import DeliveryState, State


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance that lies in the spool's landing folder, durable, and waits to be entered."""

    association: AssociationRecord
    landed_path: Path
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str  #: keyed hash of the Patient ID
    digest: str  #: SHA-256 of the data set as received, hexadecimal
    data_offset_bytes: int  #: where the data set begins in the file
    size_bytes: int  #: of the file
    frame_count: int
    expected_instances: int | None  #: Number of Series Related Instances, if the sender says it
    facts: SeriesFacts
    is_identified: bool = True  #: False: an identifier is empty, nothing is made up for it


class Fate(StrEnum):
    """What becomes of an arrival."""

    KEPT = "kept"
    KNOWN = "known"  #: the same instance with the same bytes is here already
    CONFLICTING = "conflicting"  #: the same instance with other bytes: quarantine
    MIXED_IDENTITY = "mixed-identity"  #: its series is another patient's or study's: quarantine
    MISSING_IDENTITY = "missing-identity"  #: quarantine
    OWN_RESULT = "own-result"  #: made by us: never kept

    @property
    def reason(self) -> Reason | None:
        """The code that goes with it; None where there is nothing to say."""
        return _REASONS.get(self)

    @property
    def is_quarantine(self) -> bool:
        """Whether the file goes into quarantine."""
        return self in (Fate.CONFLICTING, Fate.MIXED_IDENTITY, Fate.MISSING_IDENTITY)


_REASONS = {
    Fate.KNOWN: Reason.DUPLICATE_INSTANCE,
    Fate.CONFLICTING: Reason.CONFLICTING_INSTANCE,
    Fate.MIXED_IDENTITY: Reason.MIXED_IDENTITY,
    Fate.MISSING_IDENTITY: Reason.MISSING_IDENTITY,
    Fate.OWN_RESULT: Reason.OWN_RESULT,
}


class Placer(Protocol):
    """Moves the files of arrivals, inside the transaction: what it holds is on the disk."""

    def place(self, arrival: Arrival, fate: Fate) -> str | None:
        """Move a file to where its fate sends it and give the path, relative to the data folder.

        None where nothing is kept: the file then stays where it landed, for its owner to delete.
        """
        ...

    def settle(self) -> None:
        """Make the moves durable; called once, before the transaction is committed."""
        ...


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One instance of a series, as a worker needs it."""

    sop_instance_uid: str
    path: Path
    digest: str  #: SHA-256 of the data set as received


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
        A late instance of a series that was complete opens its next revision and supersedes
        the jobs of the last.

        Raises
        ------
        TransientError
            If the ledger cannot be written; then none of them is entered.
        """
        with self._database.write() as connection:
            entry = _Entry(connection, self._database.now_text(), self._folder)
            fates = [entry.enter(arrival, placer) for arrival in arrivals]
            placer.settle()
            return fates

    def sources(self, series_instance_uid: str, revision: int) -> tuple[SpooledInstance, ...]:
        """The instances of a series up to a revision, by SOP Instance UID."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sop_instance_uid, path, digest FROM instances"
                " WHERE series_instance_uid = ? AND revision <= ? ORDER BY sop_instance_uid",
                (series_instance_uid, revision),
            ).fetchall()
        return tuple(SpooledInstance(row[0], self._folder / row[1], row[2]) for row in rows)

    def set_aside(self, series_instance_uid: str) -> tuple[SetAside, ...]:
        """The instances of a series that lie in quarantine."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sop_instance_uid, path, reason FROM quarantine"
                " WHERE series_instance_uid = ? ORDER BY id",
                (series_instance_uid,),
            ).fetchall()
        return tuple(SetAside(row[0], self._folder / row[1], Reason(row[2])) for row in rows)

    def known_paths(self) -> set[str]:
        """Every file that some row stands for, relative to the data folder."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path FROM instances WHERE deleted_at IS NULL"
                " UNION ALL SELECT path FROM quarantine"
            ).fetchall()
        return {row[0] for row in rows}

    def is_entered(self, sop_instance_uid: str, path: str) -> bool:
        """Whether a row stands for this instance at this path, relative to the data folder."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM instances WHERE sop_instance_uid = ? AND path = ?"
                " UNION ALL SELECT 1 FROM quarantine WHERE path = ?",
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


class _Entry:
    """Entering arrivals, inside one transaction."""

    def __init__(self, connection: sqlite3.Connection, now: str, folder: Path) -> None:
        self._connection = connection
        self._now = now
        self._folder = folder

    def enter(self, arrival: Arrival, placer: Placer) -> Fate:
        self._note_association(arrival.association)
        known = self._connection.execute(
            "SELECT digest, path FROM instances WHERE sop_instance_uid = ?",
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
        """Whether the file is gone, lost or deleted after its time; the resend puts it back."""
        return not (self._folder / known["path"]).exists()

    def _put_back(self, arrival: Arrival, path: str) -> None:
        self._connection.execute(
            "UPDATE instances SET path = ?, data_offset_bytes = ?, size_bytes = ?,"
            " received_at = ?, deleted_at = NULL WHERE sop_instance_uid = ?",
            (
                path,
                arrival.data_offset_bytes,
                arrival.size_bytes,
                self._now,
                arrival.sop_instance_uid,
            ),
        )

    def _fate(self, arrival: Arrival, known: sqlite3.Row | None) -> Fate:
        if not arrival.is_identified:
            return Fate.MISSING_IDENTITY
        if known is not None:
            return Fate.KNOWN if known["digest"] == arrival.digest else Fate.CONFLICTING
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
            " received_at, association_id) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (path) DO NOTHING",  # the same bytes, sent once more
            (
                fate.reason,
                arrival.sop_instance_uid,
                arrival.series_instance_uid,
                arrival.digest,
                path,
                self._now,
                arrival.association.id,
            ),
        )
        if fate is Fate.MIXED_IDENTITY:
            self._connection.execute(
                "UPDATE revisions SET activity = activity + 1, hold_reason = ?"
                " WHERE series_instance_uid = ?"
                " AND state IN ('receiving', 'quiet', 'incomplete')",
                (Reason.MIXED_IDENTITY, arrival.series_instance_uid),
            )

    def _open_revision(self, arrival: Arrival) -> int:
        """The revision that takes in a new instance of the series."""
        series = self._connection.execute(
            "SELECT revision FROM series WHERE series_instance_uid = ?",
            (arrival.series_instance_uid,),
        ).fetchone()
        if series is None:
            self._connection.execute(
                "INSERT INTO series VALUES (?, ?, ?, 1, ?, ?)",
                (
                    arrival.series_instance_uid,
                    arrival.study_instance_uid,
                    arrival.patient_key,
                    arrival.facts.to_json(),
                    arrival.expected_instances,
                ),
            )
            self._begin_revision(arrival.series_instance_uid, 1)
            return 1
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
            revision += 1
            self._connection.execute(
                "UPDATE series SET revision = ? WHERE series_instance_uid = ?",
                (revision, arrival.series_instance_uid),
            )
            self._begin_revision(arrival.series_instance_uid, revision)
            supersede(self._connection, self._now, arrival.series_instance_uid, revision)
        return revision

    def _begin_revision(self, series_instance_uid: str, revision: int) -> None:
        self._connection.execute(
            "INSERT INTO revisions (series_instance_uid, revision, state, activity, first_at,"
            " last_at, state_at) VALUES (?, ?, 'receiving', 0, ?, ?, ?)",
            (series_instance_uid, revision, self._now, self._now, self._now),
        )
        note(self._connection, self._now, Change(series_instance_uid, revision, State.RECEIVING))

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


def supersede(
    connection: sqlite3.Connection, now: str, series_instance_uid: str, revision: int
) -> None:
    """A revision has begun: the earlier ones and their jobs stand back for it.

    What is being sent at this moment may arrive; what waits to be sent does not go any more.
    """
    connection.execute(
        "UPDATE revisions SET state = 'superseded', state_at = ?"
        " WHERE series_instance_uid = ? AND revision < ? AND state = 'ready'",
        (now, series_instance_uid, revision),
    )
    jobs = connection.execute(
        "UPDATE jobs SET state = 'superseded', superseded_by = ?, fence = fence + 1,"
        " worker = NULL, lease_until_s = NULL, state_at = ?"
        " WHERE series_instance_uid = ? AND revision < ?"
        " AND state NOT IN ('superseded', 'skipped') RETURNING id, revision",
        (revision, now, series_instance_uid, revision),
    ).fetchall()
    for job in jobs:
        connection.execute(
            "UPDATE deliveries SET state = ?, state_at = ? WHERE job_id = ? AND state = ?",
            (DeliveryState.SUPERSEDED, now, job["id"], DeliveryState.PENDING),
        )
        detail = f"by revision {revision}"
        change = Change(
            series_instance_uid, job["revision"], State.SUPERSEDED, None, detail, job["id"]
        )
        note(connection, now, change)
