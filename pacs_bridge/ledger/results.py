"""Rows of result files, and the values that they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from pacs_bridge.ledger.supersession import of_one_line
from pacs_bridge.queue import ResultFile

_COLUMNS = (
    "stack, kind, path, sop_class_uid, sop_instance_uid, series_instance_uid,"
    " transfer_syntax_uid, sha256, size_bytes"
)


def replace_results(
    connection: sqlite3.Connection, job_id: int, results: Sequence[ResultFile]
) -> None:
    """Write down the results of a job in place of those that it may have had."""
    connection.execute("DELETE FROM results WHERE job_id = ?", (job_id,))
    connection.executemany(
        f"INSERT INTO results (job_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [
            (
                job_id,
                result.stack,
                result.kind,
                result.path,
                result.sop_class_uid,
                result.sop_instance_uid,
                result.series_instance_uid,
                result.transfer_syntax_uid,
                result.sha256,
                result.size_bytes,
            )
            for result in results
        ],
    )


def results_of(
    connection: sqlite3.Connection, job_id: int, stack: int | None = None
) -> tuple[ResultFile, ...]:
    """The results of a job, or of one stack of it."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM results WHERE job_id = ? AND (? IS NULL OR stack = ?)"  # noqa: S608
        " ORDER BY stack, kind",
        (job_id, stack, stack),
    ).fetchall()
    return tuple(ResultFile(*row) for row in rows)


def sent_results_before(connection: sqlite3.Connection, job_id: int) -> tuple[ResultFile, ...]:
    """Results of the latest earlier revision of which something left the house, in all kinds.

    Of the line of the job alone: what an archive run makes stands beside what is received.
    """
    job = connection.execute(
        "SELECT j.id FROM jobs n JOIN jobs j ON j.series_instance_uid = n.series_instance_uid"  # noqa: S608
        f" WHERE n.id = ? AND j.revision < n.revision AND {of_one_line('j', 'n')}"
        " AND EXISTS (SELECT 1 FROM deliveries d WHERE d.job_id = j.id"
        " AND d.sent_sop_instance_uid IS NOT NULL) ORDER BY j.revision DESC LIMIT 1",
        (job_id,),
    ).fetchone()
    return () if job is None else results_of(connection, job[0])
