"""Deleting what has served its purpose: never anything of a series that failed or is held.

But for what nobody can use: the quarantine has a limit and an age.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

from pacs_bridge.ledger.database import Database, time_text

_MOST_SERIES_AT_ONCE = 20  # some thousand files: seconds, in which no series becomes ready
_MOST_RESULTS_AT_ONCE = 500
_MOST_QUARANTINED_AT_ONCE = 500
_MOST_MEASURED_AT_ONCE = 2000


class Retention:
    """Sources, results and quarantined instances whose time is over.

    Rows stay: an instance that is sent again is known, and a result that comes back is ours.

    Parameters
    ----------
    database
        The ledger's file; paths are relative to its folder.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.path.parent

    def delete_sources(self, after_s: float) -> int:
        """Delete the instances of series that ended well, or were skipped, so long ago.

        Nothing of a series is deleted that came later than that, or whose current revision is
        open, held, at work or dead. Gives how many files; a few series at a time, so call it
        again as long as there were any.
        """
        before = self._before(after_s)
        deleted = 0
        with self._database.read() as connection:
            found = connection.execute(
                f"{_DONE_SERIES} LIMIT :most", {"before": before, "most": _MOST_SERIES_AT_ONCE}
            )
            series = [row[0] for row in found]
        for series_instance_uid in series:
            with self._database.write() as connection:  # nobody receives it meanwhile
                if connection.execute(
                    f"SELECT 1 FROM ({_DONE_SERIES}) WHERE series_instance_uid = :series",  # noqa: S608
                    {"before": before, "series": series_instance_uid},
                ).fetchone():
                    deleted += self._delete_series(connection, series_instance_uid)
        return deleted

    def delete_results(self, after_s: float) -> int:
        """Delete the files of results that every destination has had for so long.

        Gives how many; a few at a time, so call it again as long as there were any.
        """
        before = self._before(after_s)
        with self._database.read() as connection:
            if not connection.execute(f"{_DONE_RESULTS} LIMIT 1", (before,)).fetchone():
                return 0
        with self._database.write() as connection:
            rows = connection.execute(_DONE_RESULTS, (before,)).fetchmany(_MOST_RESULTS_AT_ONCE)
            for row in rows:
                (self._folder / row["path"]).unlink(missing_ok=True)
                connection.execute(
                    "UPDATE results SET deleted_at = ? WHERE job_id = ? AND stack = ? AND kind = ?",
                    (self._database.now_text(), row["job_id"], row["stack"], row["kind"]),
                )
        return len(rows)

    def delete_quarantined(self, after_s: float | None, limit_bytes: int | None) -> int:
        """Delete what has lain in quarantine for so long, and the oldest of what is too much.

        What a series lacks it lacks all the same. None stands for no limit. Gives how many
        files; a few at a time, so call it again as long as there were any.
        """
        self._measure_quarantined()
        before = "" if after_s is None else self._before(after_s)
        with self._database.read() as connection:
            if not _too_old_or_too_much(connection, before, limit_bytes):
                return 0
        with self._database.write() as connection:
            rows = _too_old_or_too_much(connection, before, limit_bytes)
            for row in rows:
                (self._folder / row["path"]).unlink(missing_ok=True)
                connection.execute(
                    "UPDATE quarantine SET deleted_at = ? WHERE id = ?",
                    (self._database.now_text(), row["id"]),
                )
        return len(rows)

    def _measure_quarantined(self) -> None:
        """Look at files that an earlier version put into quarantine, a few at a time."""
        with self._database.read() as connection:
            rows = connection.execute(_UNMEASURED, (_MOST_MEASURED_AT_ONCE,)).fetchall()
        if not rows:
            return
        sizes = [(_size_bytes(self._folder / row["path"]), row["id"]) for row in rows]
        with self._database.write() as connection:
            connection.executemany("UPDATE quarantine SET size_bytes = ? WHERE id = ?", sizes)

    def _delete_series(self, connection: sqlite3.Connection, series_instance_uid: str) -> int:
        rows = connection.execute(
            "UPDATE instances SET deleted_at = ? WHERE series_instance_uid = ?"
            " AND deleted_at IS NULL RETURNING path",
            (self._database.now_text(), series_instance_uid),
        ).fetchall()
        connection.execute(
            "UPDATE series SET has_sources = 0 WHERE series_instance_uid = ?",
            (series_instance_uid,),
        )
        # Before the commit: a crash in between leaves rows without files, which a resend mends,
        # and not files that no row stands for.
        for row in rows:
            (self._folder / row[0]).unlink(missing_ok=True)
        return len(rows)

    def _before(self, after_s: float) -> str:
        return time_text(self._database.clock.now() - timedelta(seconds=after_s))


def _too_old_or_too_much(
    connection: sqlite3.Connection, before: str, limit_bytes: int | None
) -> list[sqlite3.Row]:
    """Rows of quarantine, the oldest first: those to be deleted, up to a number."""
    excess_bytes = 0
    if limit_bytes is not None:
        excess_bytes = connection.execute(_QUARANTINED_BYTES).fetchone()[0] - limit_bytes
    found = []
    rows = connection.execute(_QUARANTINED, (_MOST_QUARANTINED_AT_ONCE,))
    for row in rows:
        if row["received_at"] >= before and excess_bytes <= 0:
            break
        excess_bytes -= row["size_bytes"] or 0
        found.append(row)
    return found


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


_DONE_SERIES = """
SELECT s.series_instance_uid FROM series s
  JOIN revisions r ON r.series_instance_uid = s.series_instance_uid AND r.revision = s.revision
 WHERE s.has_sources = 1 AND r.state IN ('ready', 'skipped') AND r.state_at < :before
   AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.series_instance_uid = s.series_instance_uid
                      AND i.received_at >= :before)
   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.series_instance_uid = s.series_instance_uid
                      AND (j.state NOT IN ('sent', 'committed', 'skipped', 'superseded')
                           OR j.state_at >= :before))
"""

_DONE_RESULTS = """
SELECT r.job_id, r.stack, r.kind, r.path FROM results r JOIN jobs j ON j.id = r.job_id
 WHERE r.deleted_at IS NULL AND j.state IN ('sent', 'committed', 'superseded')
   AND j.state_at < ?
   AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.job_id = j.id
                      AND d.state IN ('pending', 'claimed'))
"""

_QUARANTINED_BYTES = """
SELECT coalesce(sum(size_bytes), 0) FROM quarantine INDEXED BY quarantine_kept
 WHERE deleted_at IS NULL
"""

_QUARANTINED = """
SELECT id, path, received_at, size_bytes FROM quarantine INDEXED BY quarantine_kept
 WHERE deleted_at IS NULL ORDER BY received_at LIMIT ?
"""

_UNMEASURED = """
SELECT id, path FROM quarantine INDEXED BY quarantine_unmeasured
 WHERE size_bytes IS NULL AND deleted_at IS NULL ORDER BY id LIMIT ?
"""
