"""What attempts left on disk whose worker died: nobody else knows that it is of no use."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from pacs_bridge.ledger.database import Database
from pacs_bridge.report import REPORT_NAME

_MOST_AT_ONCE = 500


class Leftovers:
    """Folders of leases of jobs that are over and have no result. For one thread.

    Of a job with a result, whoever takes the result deletes them.

    Parameters
    ----------
    database
        The ledger's file; the folders lie beside it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.path.parent
        self._seen = ("", 0)

    def delete(self) -> int:
        """Delete what lies there of jobs that have ended since the last call, or ever.

        A report stays: it says why there is no result. Gives how many jobs were looked at; a few
        at a time, so call it again as long as there were any.
        """
        with self._database.read() as connection:
            rows = connection.execute(_ENDED, (*self._seen, _MOST_AT_ONCE)).fetchall()
        for row in rows:
            for place in ("scratch", "results"):
                self._delete_folders(self._folder / place / f"{row['id']:08d}", row)
            self._seen = (row["state_at"], row["id"])
        return len(rows)

    def _delete_folders(self, of_job: Path, row: sqlite3.Row) -> None:
        try:
            folders = list(of_job.iterdir())
        except OSError:  # most have none
            return
        if not self._is_still_over(row):  # asked for after they were listed
            return
        for each in folders:
            if not (each / REPORT_NAME).exists():
                shutil.rmtree(each, ignore_errors=True)
        with suppress(OSError):
            of_job.rmdir()

    def _is_still_over(self, row: sqlite3.Row) -> bool:
        """Whether no other try was asked for, whose folder may be among them."""
        with self._database.read() as connection:
            found = connection.execute(
                "SELECT state, state_at FROM jobs WHERE id = ?", (row["id"],)
            ).fetchone()
        return found is not None and tuple(found) == (row["state"], row["state_at"])


_ENDED = """
SELECT id, state, state_at FROM jobs
 WHERE (state_at, id) > (?, ?) AND state IN ('dead', 'skipped', 'superseded')
   AND NOT EXISTS (SELECT 1 FROM results r WHERE r.job_id = jobs.id)
 ORDER BY state_at, id LIMIT ?
"""
