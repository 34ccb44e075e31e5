"""Series that a list names and nobody has: in the account, and only there."""

from __future__ import annotations

import sqlite3
from typing import Final

from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile

#: Detail of these, and of no others: they have no results.
_NOWHERE: Final = "listed, and nowhere to be found"


def missing(plan: PlanFile, source: str, series: dict[str, str]) -> None:
    """Plan series that are nowhere: they are accounted for, and do not run."""
    with plan.write() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO series (series, study_instance_uid, source, instances, planes,"
            " bytes, contents, plan_reason, plan_detail, findings)"
            " VALUES (?, ?, ?, 0, 0, 0, '', ?, ?, '[]')",
            [
                (uid, study, source, Reason.SOURCE_MISSING, _NOWHERE)
                for uid, study in series.items()
            ],
        )


def forget_missing(connection: sqlite3.Connection) -> None:
    """Take out of a plan what only a list has named: another one names what it names."""
    connection.execute("DELETE FROM series WHERE plan_detail = ?", (_NOWHERE,))
