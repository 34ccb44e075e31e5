"""The files that a job is made from: what is wrong with them, and who waits for them."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.ledger.jobs import set_job_state
from pacs_bridge.queue import SPOOL, State


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """One instance of a series, as a worker needs it."""

    sop_instance_uid: str
    path: Path
    digest: str  #: SHA-256 of the data set as received
    data_offset_bytes: int  #: where the data set begins in the file
    size_bytes: int  #: of the file

    def problem(self) -> str:
        """What is wrong with the file: it is missing or changed; empty if nothing is."""
        try:
            if self.path.stat().st_size != self.size_bytes:
                return "has another size"
            return "" if self._digest() == self.digest else "has another digest"
        except FileNotFoundError:
            return "is missing"

    def _digest(self) -> str:
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.data_offset_bytes)
            return hashlib.file_digest(file, "sha256").hexdigest()


def has_sources(
    connection: sqlite3.Connection, folder: Path, series_instance_uid: str, revision: int
) -> bool:
    """Whether the files of a series up to a revision are there; what is in them is not read."""
    rows = connection.execute(
        "SELECT path, deleted_at FROM instances WHERE series_instance_uid = ? AND revision <= ?",
        (series_instance_uid, revision),
    ).fetchall()
    return bool(rows) and all(
        row["deleted_at"] is None and (folder / row["path"]).exists() for row in rows
    )


def lacks_source(connection: sqlite3.Connection, series_instance_uid: str) -> bool:
    """Whether a job of the series ended since a source of it was lost or damaged."""
    return bool(_bereft(connection, series_instance_uid))


def try_bereft_again(connection: sqlite3.Connection, now: str, series_instance_uid: str) -> None:
    """Make the jobs READY that ended for want of a source, if one was put back since."""
    for job in _bereft(connection, series_instance_uid):
        if not connection.execute(
            "SELECT 1 FROM instances WHERE series_instance_uid = ? AND revision <= ?"
            " AND received_at > ?",
            (series_instance_uid, job["revision"], job["state_at"]),
        ).fetchone():
            continue
        connection.execute(
            "UPDATE jobs SET attempts = 0, deaths = 0, series_failures = 0, waited_s = 0,"
            " due_s = 0 WHERE id = ?",
            (job["id"],),
        )
        set_job_state(connection, now, job["id"], State.READY, None, "a source was put back")


def _bereft(connection: sqlite3.Connection, series_instance_uid: str) -> list[sqlite3.Row]:
    """Jobs that lacked a source; not one of which a delivery lacked the result."""
    return connection.execute(
        "SELECT id, revision, state_at FROM jobs j WHERE series_instance_uid = ?"
        " AND state = ? AND reason = ? AND source = ?"
        " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.job_id = j.id"
        " AND d.state = 'dead' AND d.again = 0)",
        (series_instance_uid, State.DEAD, Reason.SOURCE_MISSING, SPOOL),
    ).fetchall()
