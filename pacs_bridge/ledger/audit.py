"""What must hold between the ledger and the disk, and whether it does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.results import results_of
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.ledger.unnamed import Unnamed, UnnamedFiles


@dataclass(frozen=True, slots=True)
class AuditFault:
    """One thing that does not hold."""

    invariant: str  #: I1 to I5
    subject: str  #: a path relative to the data folder, or a job's number
    problem: str


def audit(
    database: Database,
    spool_folder: Path,
    quarantine_folder: Path,
    note: Callable[[Unnamed], object] = lambda _leftover: None,
) -> Iterator[AuditFault]:
    """Check, reading every file; the service may run meanwhile.

    ``note`` is told of what nothing stands for, and need not yet.

    I1
        Every instance that was acknowledged and not deleted since is on disk, with its digest.
    I2
        Every series and job is in a state from which it will go on, or final with a reason.
    I3
        What was sent of a job is a result of that job, one for each stack and destination; what
        is still to be sent, or failed to be, is on disk, with its digest.
    I4
        No file lies in the spool, the quarantine, among the results, the scratch files or the
        tickets that no row stands for, but for a while.
    I5
        The database is sound, and its references lead somewhere.
    """
    folder = database.path.parent
    yield from _instances(database, folder)
    with database.read() as connection:
        yield from _states(connection)
        yield from _deliveries(connection)
    yield from _results(database, folder)
    for each in UnnamedFiles(database, (spool_folder, quarantine_folder)).all():
        if each.is_overdue:
            yield AuditFault("I4", each.path, f"is known to nobody: {_size(each)}")
        else:
            note(each)
    with database.read() as connection:
        yield from _soundness(connection)


def _instances(database: Database, folder: Path) -> Iterator[AuditFault]:
    with database.read() as connection:
        rows = connection.execute(
            "SELECT sop_instance_uid, path, digest, data_offset_bytes, size_bytes FROM instances"
            " WHERE deleted_at IS NULL"
        ).fetchall()
    for row in rows:
        spooled = SpooledInstance(row[0], folder / row["path"], *row[2:])
        if problem := spooled.problem():
            yield AuditFault("I1", row["path"], problem)


def _states(connection: sqlite3.Connection) -> Iterator[AuditFault]:
    for row in connection.execute(
        "SELECT series_instance_uid, revision FROM revisions r WHERE state = 'ready'"
        " AND NOT EXISTS (SELECT 1 FROM jobs j"
        " WHERE j.series_instance_uid = r.series_instance_uid AND j.revision = r.revision)"
    ):
        yield AuditFault("I2", f"{row[0]} revision {row[1]}", "is ready and has no job")
    for table in ("revisions", "jobs"):
        key = "series_instance_uid" if table == "revisions" else "id"
        for row in connection.execute(
            f"SELECT {key}, state FROM {table} WHERE reason IS NULL"  # noqa: S608
            " AND state IN ('dead', 'skipped', 'incomplete')"
        ):
            yield AuditFault("I2", str(row[0]), f"is {row[1]} without a reason")
    for row in connection.execute(
        "SELECT id, state FROM jobs WHERE (worker IS NULL) <>"
        " (state NOT IN ('claimed', 'segmented', 'encoded'))"
    ):
        yield AuditFault("I2", f"job {row[0]}", f"is {row[1]}, which its lease contradicts")


def _deliveries(connection: sqlite3.Connection) -> Iterator[AuditFault]:
    for row in connection.execute(
        "SELECT id FROM deliveries d WHERE sent_sop_instance_uid IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.job_id = d.job_id"
        " AND r.stack = d.stack AND r.sop_instance_uid = d.sent_sop_instance_uid)"
    ):
        yield AuditFault("I3", f"delivery {row[0]}", "sent what is no result of its job")
    for row in connection.execute(
        "SELECT id FROM jobs j WHERE state IN ('sent', 'committed') AND (EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.job_id = j.id"
        " AND d.state NOT IN ('sent', 'committed')) OR j.destinations <> '[]' AND NOT EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.job_id = j.id))"
    ):
        yield AuditFault("I3", f"job {row[0]}", "is sent and a delivery of it is not")


def _results(database: Database, folder: Path) -> Iterator[AuditFault]:
    with database.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT r.job_id, r.stack, r.path FROM results r JOIN deliveries d"
            " USING (job_id, stack)"
            " WHERE r.deleted_at IS NULL AND d.again = 0"
            " AND d.state IN ('pending', 'claimed', 'dead')"
        ).fetchall()
        results = [
            each
            for job_id, stack, path in rows
            for each in results_of(connection, job_id, stack)
            if each.path == path
        ]
    for result in results:
        problem = result.problem(folder)
        if problem:
            yield AuditFault("I3", result.path, f"is still to be sent and {problem}")


def _size(each: Unnamed) -> str:
    return f"{each.files} file{'' if each.files == 1 else 's'}, {each.size_bytes} bytes"


def _soundness(connection: sqlite3.Connection) -> Iterator[AuditFault]:
    for row in connection.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield AuditFault("I5", "ledger", str(row[0]))
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield AuditFault("I5", "ledger", f"a row of {row[0]} refers to nothing in {row[2]}")
