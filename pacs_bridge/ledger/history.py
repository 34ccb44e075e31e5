"""What happened to a series, a job or a delivery, in order: one row a change of state."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state."""

    series_instance_uid: str
    revision: int
    state: str
    reason: str | None = None
    detail: str = ""
    job_id: int | None = None
    delivery_id: int | None = None


def note(connection: sqlite3.Connection, at: str, change: Change) -> None:
    """Write a change down, in the transaction that makes it."""
    connection.execute(
        "INSERT INTO history"
        " (at, series_instance_uid, revision, job_id, delivery_id, state, reason, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            at,
            change.series_instance_uid,
            change.revision,
            change.job_id,
            change.delivery_id,
            change.state,
            change.reason,
            change.detail,
        ),
    )


def count(connection: sqlite3.Connection, name: str, more: int = 1) -> None:
    """Add to a counter that no table of rows stands for."""
    connection.execute(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
        (name, more, more),
    )
