"""Deleting what has served its purpose: never anything of a series that failed or is held."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from pacs_bridge.ledger.database import Database, time_text

_MOST_SERIES_AT_ONCE = 20  # some thousand files: seconds, in which no series becomes ready
_MOST_RESULTS_AT_ONCE = 500


class Retention:
    """Sources and results whose time is over.

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
