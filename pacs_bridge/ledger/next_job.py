"""Which job of the ledger is next; inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from pacs_bridge.ledger.supersession import IS_EARLIER_UNDER_WAY, IS_JOB_OVERTAKEN
from pacs_bridge.queue import JobKind, JobRequest, Priority

#: As the table holds them.
RANK = {Priority.STAT: 0, Priority.ROUTINE: 1, Priority.ARCHIVE: 2}
_PRIORITY = {rank: priority for priority, rank in RANK.items()}
_MUST_WAIT = f"({IS_JOB_OVERTAKEN} OR {IS_EARLIER_UNDER_WAY})"


def next_job(
    connection: sqlite3.Connection,
    steady_s: float,
    least: Priority = Priority.ARCHIVE,
    job_id: int | None = None,
) -> sqlite3.Row | None:
    """The most urgent job that is due: one that waits, or one whose worker is presumed dead.

    With an id that job only, if it is one of these.
    """
    which = "" if job_id is None else "AND id = :id "
    free = f"priority <= :least AND NOT {_MUST_WAIT} {which}ORDER BY priority, id LIMIT 1"
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM ("  # noqa: S608 - constants
        "SELECT * FROM (SELECT * FROM jobs INDEXED BY jobs_waiting"
        f" WHERE state IN ('ready', 'retry') AND due_s <= :now AND {free})"
        " UNION ALL "
        "SELECT * FROM (SELECT * FROM jobs INDEXED BY jobs_leased"
        f" WHERE worker IS NOT NULL AND lease_until_s <= :now AND {free})"
        ") ORDER BY priority, id LIMIT 1",
        {"now": steady_s, "id": job_id, "least": RANK[least]},
    ).fetchone()
    return row


def due_besides(
    connection: sqlite3.Connection,
    steady_s: float,
    kinds: Collection[tuple[JobKind, Priority]],
    most: int,
) -> tuple[tuple[int, JobRequest], ...]:
    """Jobs that wait and are due, but of these kinds at these urgencies; most urgent first."""
    values: dict[str, object] = {"now": steady_s, "most": most}
    passed = []
    for number, (kind, urgency) in enumerate(kinds):
        row = (RANK[urgency], kind.route, kind.model, kind.source, json.dumps(kind.destinations))
        values |= {f"k{number}_{column}": value for column, value in enumerate(row)}
        passed.append("(" + ", ".join(f":k{number}_{column}" for column in range(len(row))) + ")")
    rows = connection.execute(
        "SELECT * FROM jobs INDEXED BY jobs_waiting"  # noqa: S608 - names of parameters
        " WHERE state IN ('ready', 'retry') AND due_s <= :now"
        f" AND (priority, route, model, source, destinations) NOT IN (VALUES {', '.join(passed)})"
        f" AND NOT {_MUST_WAIT} ORDER BY priority, id LIMIT :most",
        values,
    ).fetchall()
    return tuple((row["id"], request_of(row)) for row in rows)


def request_of(row: sqlite3.Row) -> JobRequest:
    """The request of a row of jobs."""
    return JobRequest(
        series_instance_uid=row["series_instance_uid"],
        revision=row["revision"],
        route=row["route"],
        model=row["model"],
        destinations=tuple(json.loads(row["destinations"])),
        priority=_PRIORITY[row["priority"]],
        source=row["source"],
        study_instance_uid=row["study_instance_uid"],
    )
