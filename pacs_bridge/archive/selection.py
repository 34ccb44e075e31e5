"""What a list says that is to run of the series that lie in folders."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from inference.reasons import Reason
from pacs_bridge.archive.absent_series import forget_missing, missing
from pacs_bridge.archive.listing import below
from pacs_bridge.archive.plan_file import FILES, PlanFile

_LISTED_PATHS: Final = "listed_paths"  #: a setting of the plan
_OTHER_STUDY: Final = "listed in another study"
#: In the place of the UID of what a list names by a path and nobody has seen.
_GONE_PATH: Final = "listed-path-"


def note_listed(plan: PlanFile, series: Mapping[str, str], paths: Sequence[Path]) -> None:
    """Another list takes the place of the last one; series that it left out are examined anew.

    What the last one named and was nowhere is forgotten.

    Parameters
    ----------
    plan
        Of folders, archives or both.
    series
        Study Instance UIDs, which may be empty, by Series Instance UID.
    paths
        Absolute, of files and folders.
    """
    plan.set(_LISTED_PATHS, [os.fsdecode(path) for path in paths])
    with plan.write() as connection:
        connection.execute("DELETE FROM listed")
        forget_missing(connection)
        connection.executemany("INSERT INTO listed VALUES (?, ?)", list(series.items()))
        connection.execute(
            "INSERT OR IGNORE INTO unexamined SELECT series FROM series WHERE source = ?"
            " AND (plan_reason = ? OR plan_detail = ?)",
            (FILES, Reason.NOT_SELECTED, _OTHER_STUDY),
        )


def select(plan: PlanFile) -> None:
    """Of what lies in the folders only what is listed runs; what lies nowhere is coded."""
    paths = [os.fsencode(text) for text in plan.setting(_LISTED_PATHS) or ()]
    with plan.write() as connection:
        if not (paths or connection.execute("SELECT 1 FROM listed LIMIT 1").fetchone()):
            return
        _note_wanted(connection, paths)
        connection.execute(
            "UPDATE series SET plan_reason = ?, plan_detail = 'not listed' WHERE source = ?"
            " AND plan_reason IS NULL AND series NOT IN (SELECT series FROM temp.wanted)",
            (Reason.NOT_SELECTED, FILES),
        )
        connection.execute(
            "UPDATE series SET plan_reason = ?, plan_detail = ? WHERE source = ?"
            " AND plan_reason IS NULL AND EXISTS (SELECT 1 FROM listed l"
            " WHERE l.series = series.series"
            " AND l.study_instance_uid NOT IN ('', series.study_instance_uid))",
            (Reason.SOURCE_MISSING, _OTHER_STUDY, FILES),
        )
        connection.execute("DELETE FROM series WHERE series LIKE ?", (f"{_GONE_PATH}%",))
        absent = connection.execute(
            "SELECT * FROM listed WHERE series NOT IN (SELECT series FROM series)"
        ).fetchall()
        gone = [path for path in paths if not _is_met(connection, path)]
    missing(plan, FILES, {row[0]: row[1] for row in absent} | {_word(path): "" for path in gone})


def _note_wanted(connection: sqlite3.Connection, paths: Sequence[bytes]) -> None:
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (series TEXT PRIMARY KEY)")
    connection.execute("DELETE FROM temp.wanted")
    connection.execute("INSERT INTO temp.wanted SELECT series FROM listed")
    for path in paths:
        folder, name = os.path.split(path)
        connection.execute(
            "INSERT OR IGNORE INTO temp.wanted SELECT DISTINCT p.series FROM folders d"
            " JOIN files f ON f.folder = d.id JOIN parts p ON p.id = f.part"
            " WHERE d.path = ? OR (d.path >= ? AND d.path < ?)"
            " UNION SELECT p.series FROM folders d JOIN files f ON f.folder = d.id"
            " JOIN parts p ON p.id = f.part WHERE d.path = ? AND f.name = ?",
            (path, *below(path), folder, name),
        )


def _is_met(connection: sqlite3.Connection, path: bytes) -> bool:
    """Whether something is known to be at a path: a folder that can be looked into, or a file."""
    folder, name = os.path.split(path)
    row = connection.execute(
        "SELECT 1 FROM folders WHERE path = ? AND reason IS NULL"
        " UNION ALL SELECT 1 FROM folders d JOIN files f ON f.folder = d.id"
        " WHERE d.path = ? OR (d.path >= ? AND d.path < ?)"
        " UNION ALL SELECT 1 FROM folders d JOIN files f ON f.folder = d.id"
        " WHERE d.path = ? AND f.name = ? LIMIT 1",
        (path, path, *below(path), folder, name),
    ).fetchone()
    return row is not None


def _word(path: bytes) -> str:
    return f"{_GONE_PATH}{hashlib.sha256(path).hexdigest()[:32]}"
