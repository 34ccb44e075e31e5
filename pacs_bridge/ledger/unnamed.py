"""What lies in the data folder that nothing in the ledger names.

Some of it is on its way to a name, or to its end: a file that was written and not yet entered, the
folder of a lease whose worker died and whose job goes on. That has its time; the rest should not
be there.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs_bridge.ledger.database import Database
from pacs_bridge.queue import DISPATCHER, State
from pacs_bridge.report import REPORT_NAME

#: A file that no row stands for may still be on its way.
_FILE_GRACE_S = 60.0
#: What a dead worker left of a job is deleted when that is over, by a service that runs.
_LEASE_GRACE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A file, or the folder of a lease."""

    path: str  #: relative to the data folder
    files: int
    size_bytes: int
    is_overdue: bool  #: whether it should be gone, or have a name, by now


class UnnamedFiles:
    """Looks for them; the service may run meanwhile.

    Parameters
    ----------
    database
        The ledger's file, in the data folder.
    received
        Folders of instances: spool and quarantine.
    now_s
        Time of day, as files have it.
    """

    def __init__(
        self,
        database: Database,
        received: Sequence[Path],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._folder = database.path.parent
        self._received = tuple(received)
        self._now_s = now_s

    def all(self) -> Iterator[Unnamed]:
        """Instances, then what workers left, then tickets."""
        yield from self._instances()
        for place in ("scratch", "results"):
            yield from self._leases(self._folder / place)
        yield from self._tickets()

    def _instances(self) -> Iterator[Unnamed]:
        found = [path for place in self._received for path in place.glob("*/*")]
        with self._database.read() as connection:  # after they were listed: a new one is known
            known = {
                row[0]
                for row in connection.execute(
                    "SELECT path FROM instances WHERE deleted_at IS NULL"
                    " UNION ALL SELECT path FROM quarantine WHERE deleted_at IS NULL"
                )
            }
        for path in found:
            if str(path.relative_to(self._folder)) not in known:
                yield from self._told((path,), path, _FILE_GRACE_S)

    def _leases(self, place: Path) -> Iterator[Unnamed]:
        for of_job in _inside(place):
            folders = _inside(of_job)
            with self._database.read() as connection:
                job = _job(connection, of_job.name)
                kept = _with_results(connection, of_job.name)
            for folder in folders:
                relative = folder.relative_to(self._folder).as_posix()
                if relative in kept or (job is not None and _is_of(job, folder)):
                    continue
                files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
                is_over = job is None or State(job["state"]).is_final
                grace_s = _LEASE_GRACE_S if is_over else float("inf")
                yield from self._told(files, folder, grace_s)

    def _tickets(self) -> Iterator[Unnamed]:
        found = _inside(self._folder / "tickets")
        with self._database.read() as connection:
            held = {
                f"{row[0]:08d}"
                for row in connection.execute("SELECT id FROM jobs WHERE worker = ?", (DISPATCHER,))
            }
        for path in found:
            if path.name.partition("-")[0] not in held:
                yield from self._told((path,), path, _LEASE_GRACE_S)

    def _told(self, files: Sequence[Path], what: Path, grace_s: float) -> Iterator[Unnamed]:
        try:
            is_overdue = what.stat().st_mtime < self._now_s() - grace_s
            size_bytes = sum(path.stat().st_size for path in files)
        except FileNotFoundError:  # it has gone its way meanwhile
            return
        relative = what.relative_to(self._folder).as_posix()
        yield Unnamed(relative, len(files), size_bytes, is_overdue)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _job(connection: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    """The job that a folder is named after."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT state, worker, fence, EXISTS (SELECT 1 FROM results r WHERE r.job_id = jobs.id)"
        " AS has_results FROM jobs WHERE id = ?",
        (int(name) if name.isdecimal() else -1,),
    ).fetchone()
    return row


def _with_results(connection: sqlite3.Connection, name: str) -> set[str]:
    """Folders of the results of that job, those that were deleted since among them."""
    rows = connection.execute(
        "SELECT path FROM results WHERE job_id = ?", (int(name) if name.isdecimal() else -1,)
    )
    return {Path(row[0]).parent.as_posix() for row in rows}


def _is_of(job: sqlite3.Row, folder: Path) -> bool:
    """Whether a lease's folder is at work, or says why a job has no result."""
    if job["worker"] is not None:
        return job["worker"] == DISPATCHER or folder.name == f"{job['fence']:04d}"
    is_over = State(job["state"]).is_final and not job["has_results"]
    return is_over and (folder / REPORT_NAME).exists()
