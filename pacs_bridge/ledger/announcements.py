"""What is said of a series from outside: how much it has, and that it is in no hurry.

It may be said before anything of the series has come, and is kept until then: a transfer that
stops half-way ends like one that is done.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pacs_bridge.ledger.history import Change, note
from pacs_bridge.queue import Priority, State

_RANKED = tuple(Priority)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a caller says of a series; the latest counts."""

    series_instance_uid: str
    instance_count: int  #: where it comes from
    priority: Priority | None = None  #: its job is no more urgent than this
    study_instance_uid: str | None = None  #: whose it is, as far as the caller says
    patient_key: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What was said of a series, as its row has it."""

    instance_count: int | None = None
    rank: int | None = None  #: of the priority


def priority_of(row: sqlite3.Row) -> Priority | None:
    """The priority in a row of ``series``."""
    return None if row["priority"] is None else _RANKED[row["priority"]]


def less_urgent(route: Priority, said: Priority | None) -> Priority:
    """The priority of a job whose route has one, where another may have been said."""
    return route if said is None else max(route, said, key=_RANKED.index)


def keep(connection: sqlite3.Connection, now: str, announcement: Announcement) -> bool:
    """Note what is said; False if the series came here with another patient or study.

    A revision that is open and was looked at before is looked at again, and one that is held for
    nothing but how much it lacks opens again.
    """
    series, count = announcement.series_instance_uid, announcement.instance_count
    study, patient_key = announcement.study_instance_uid, announcement.patient_key
    rank = None if announcement.priority is None else _RANKED.index(announcement.priority)
    row = connection.execute(
        "SELECT study_instance_uid, patient_key, expected_instances, priority FROM series"
        " WHERE series_instance_uid = ?",
        (series,),
    ).fetchone()
    if row is None:
        connection.execute(
            "DELETE FROM announced WHERE series_instance_uid = ? AND study_instance_uid IS ?"
            " AND patient_key IS ?",
            (series, study, patient_key),
        )
        connection.execute(
            "INSERT INTO announced (series_instance_uid, study_instance_uid, patient_key,"
            " instance_count, priority, announced_at) VALUES (?, ?, ?, ?, ?, ?)",
            (series, study, patient_key, count, rank, now),
        )
        return True
    if study not in (None, row[0]) or patient_key not in (None, row[1]):
        return False
    if (row[2], row[3]) != (count, rank):
        connection.execute(
            "UPDATE series SET expected_instances = ?, priority = ? WHERE series_instance_uid = ?",
            (count, rank, series),
        )
        connection.execute(
            "UPDATE revisions SET activity = activity + 1 WHERE series_instance_uid = ?"
            " AND state IN ('receiving', 'quiet', 'incomplete')",
            (series,),
        )
    if row[2] != count:
        _reopen(connection, now, series)
    return True


def _reopen(connection: sqlite3.Connection, now: str, series: str) -> None:
    """Let a series be judged anew of which something else is expected than it was held for."""
    reopened = connection.execute(
        "UPDATE revisions SET state = 'receiving', reason = NULL, detail = '', state_at = ?"
        " WHERE series_instance_uid = ? AND state = 'incomplete' AND abort_boundary IS NULL"
        " AND hold_reason IS NULL AND NOT EXISTS (SELECT 1 FROM refused f"
        " WHERE f.series_instance_uid = revisions.series_instance_uid) RETURNING revision",
        (now, series),
    ).fetchall()
    for row in reopened:
        note(connection, now, Change(series, row[0], State.RECEIVING))


def take(connection: sqlite3.Connection, series: str, study: str, patient_key: str) -> Expected:
    """What was said of a series of which now the first instance comes, if it was of this one."""
    rows = connection.execute(
        "DELETE FROM announced WHERE series_instance_uid = ?"
        " AND (study_instance_uid IS NULL OR study_instance_uid = ?)"
        " AND (patient_key IS NULL OR patient_key = ?)"
        " RETURNING id, instance_count, priority",
        (series, study, patient_key),
    ).fetchall()
    if not rows:
        return Expected()
    _, count, rank = max(map(tuple, rows))
    return Expected(count, rank)


def forget_unseen(connection: sqlite3.Connection, before: str) -> None:
    """Forget what was said so long ago of series of which nothing has come since."""
    connection.execute("DELETE FROM announced WHERE announced_at < ?", (before,))
