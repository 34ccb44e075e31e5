"""What lies in a folder now against what the plan knows of it.

A listing stands in a table of the database that is only there for its time: a folder of ten
million files needs no more memory than one of ten.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.reading import UNREAD_NS, FileStamp
from pacs_bridge.archive.walk import WalkedFolder

_ROWS_AT_ONCE = 10_000
#: Size of a zip file of which not everything was read.
_UNKNOWN: Final = -1

_LISTING = """
CREATE TEMP TABLE IF NOT EXISTS listing (
    name BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER, problem TEXT
) WITHOUT ROWID
"""
#: Zip files that are being read, as they were when they were listed.
_ZIPS = """
CREATE TEMP TABLE IF NOT EXISTS zips (id INTEGER PRIMARY KEY, size INTEGER, modified_ns INTEGER)
"""


class FolderBook:
    """The folders of a plan.

    Parameters
    ----------
    plan
        That has them.
    """

    def __init__(self, plan: PlanFile) -> None:
        self._plan = plan

    def begin(self) -> int:
        """The number of a new walk."""
        with self._plan.read() as connection:
            connection.execute(_LISTING)
            connection.execute(_ZIPS)
            connection.execute("DELETE FROM temp.zips")
            last = connection.execute("SELECT max(walk) FROM folders").fetchone()[0]
        return int(last or 0) + 1

    def is_as_it_was(self, folder: WalkedFolder, walk: int) -> bool:
        """Whether a zip file is the same as last time; it is noted as met then."""
        with self._plan.write() as connection:
            return bool(
                connection.execute(
                    "UPDATE folders SET walk = ? WHERE path = ? AND is_zip AND size = ?"
                    " AND modified_ns = ? AND reason IS NULL",
                    (walk, folder.path, folder.size_bytes, folder.modified_ns),
                ).rowcount
            )

    def zips_are_read(self) -> None:
        """Everything that was listed is kept: the zip files need not be looked into again."""
        with self._plan.write() as connection:
            connection.execute(
                "UPDATE folders SET size = z.size, modified_ns = z.modified_ns FROM temp.zips z"
                " WHERE folders.id = z.id AND NOT EXISTS"
                " (SELECT 1 FROM files f WHERE f.folder = z.id AND f.modified_ns = ?)",
                (UNREAD_NS,),
            )
            connection.execute("DELETE FROM temp.zips")

    def keep(self, root: bytes, walk: int) -> None:
        """Keep what is known of a tree of which nothing is to be seen: its disk may be away."""
        low, high = below(root)
        with self._plan.write() as connection:
            if connection.execute(
                "SELECT 1 FROM folders WHERE walk < ? AND path >= ? AND path < ?"
                " UNION ALL SELECT 1 FROM folders d JOIN files f ON f.folder = d.id"
                " WHERE d.path = ?",
                (walk, low, high, root),
            ).fetchone():
                connection.execute(
                    "UPDATE folders SET reason = ?, detail = 'empty now' WHERE path = ?",
                    (Reason.UNREADABLE_FILE, root),
                )

    def forget_emptied(self, root: bytes) -> None:
        """Forget what lay in a folder that holds other folders alone now."""
        with self._plan.write() as connection:
            row = connection.execute("SELECT id FROM folders WHERE path = ?", (root,)).fetchone()
            if row is not None:
                mark_beside_faulty(connection, row["id"])
                forget_files(connection, row["id"], "1")

    def forget_gone_file(self, root: bytes) -> None:
        """Forget a file that was named itself and is gone from a folder that is there."""
        place, name = os.path.split(root)
        if os.path.lexists(root) or not _is_seen(place):
            return
        with self._plan.write() as connection:
            zip_file = connection.execute(
                "SELECT id FROM folders WHERE path = ? AND is_zip", (root,)
            ).fetchone()
            if zip_file is not None:
                forget_files(connection, zip_file["id"], "1")
                connection.execute("DELETE FROM folders WHERE id = ?", (zip_file["id"],))
            folder = connection.execute(
                "SELECT id FROM folders WHERE path = ? AND NOT is_zip", (place,)
            ).fetchone()
            if folder is not None:
                forget_files(connection, folder["id"], "name = ?", name)

    def file_count(self, folder: WalkedFolder) -> int:
        """How many files of a folder the plan knows."""
        with self._plan.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM files WHERE folder = (SELECT id FROM folders WHERE path = ?)",
                (folder.path,),
            ).fetchone()
        return int(row[0])

    def forget_unmet(self, walk: int, roots: Sequence[bytes]) -> None:
        """Forget the folders of these trees that a walk has not met.

        What lies below a folder that could not be looked into this time stays known.
        """
        with self._plan.write() as connection:
            for row in connection.execute(
                "SELECT path FROM folders WHERE walk = ? AND reason IS NOT NULL", (walk,)
            ).fetchall():
                low, high = below(row["path"])
                connection.execute(
                    "UPDATE folders SET walk = ? WHERE path >= ? AND path < ?", (walk, low, high)
                )
            for root in roots:
                low, high = below(root)
                gone = connection.execute(
                    "SELECT id FROM folders WHERE walk < ?"
                    " AND (path = ? OR path >= ? AND path < ?)",
                    (walk, root, low, high),
                ).fetchall()
                for folder in gone:
                    forget_files(connection, folder["id"], "1")
                    connection.execute("DELETE FROM folders WHERE id = ?", (folder["id"],))


class Listing:
    """The files of one folder as they are now; what vanished from it is forgotten at once.

    Parameters
    ----------
    plan, book
        What is known.
    folder
        As the walk met it.
    walk
        Its number.
    may_be_away
        Of a folder that was named: where no file is in it, nothing is forgotten yet.
    """

    def __init__(
        self,
        plan: PlanFile,
        book: FolderBook,
        folder: WalkedFolder,
        walk: int,
        may_be_away: bool = False,
    ) -> None:
        self._plan = plan
        self.id = 0
        self.met = 0  #: files
        self.is_empty = False  #: a folder that may be away, and holds no file
        self._is_known = folder.is_zip and book.is_as_it_was(folder, walk)
        if self._is_known:
            self.met = book.file_count(folder)
            return
        with plan.write() as connection:
            connection.execute("DELETE FROM temp.listing")
            while rows := list(islice(folder.files, _ROWS_AT_ONCE)):
                self.met += len(rows)
                connection.executemany(
                    "INSERT OR REPLACE INTO temp.listing VALUES (?, ?, ?, ?)",
                    [(each.name, each.size_bytes, each.modified_ns, each.problem) for each in rows],
                )
            self.id = _entered(connection, folder, walk)
            if folder.is_zip:
                connection.execute(
                    "INSERT OR REPLACE INTO temp.zips VALUES (?, ?, ?)",
                    (self.id, folder.size_bytes, folder.modified_ns),
                )
            is_whole = not (folder.problem or folder.is_part)
            self.is_empty = is_whole and may_be_away and not (self.met or folder.is_zip)
            if is_whole and not self.is_empty:
                mark_beside_faulty(connection, self.id)
                forget_files(connection, self.id, "name NOT IN (SELECT name FROM temp.listing)")

    def changed(self, most: int) -> Iterator[tuple[FileStamp, ...]]:
        """The files that are new, or other than they were, so many at a time."""
        last = b""
        while not self._is_known:
            with self._plan.read() as connection:
                rows = connection.execute(
                    "SELECT l.*, f.name IS NOT NULL FROM temp.listing l LEFT JOIN files f"
                    " ON f.folder = ? AND f.name = l.name"
                    " WHERE l.name > ? AND (f.name IS NULL OR f.size <> l.size"
                    " OR f.modified_ns <> l.modified_ns) ORDER BY l.name LIMIT ?",
                    (self.id, last, most),
                ).fetchall()
            if not rows:
                return
            last = rows[-1]["name"]
            if known := [row["name"] for row in rows if row[-1]]:
                with self._plan.write() as connection:  # what they were is of no series any more
                    mark_beside_faulty(connection, self.id)
                    for name in known:
                        forget_files(connection, self.id, "name = ?", name)
            yield tuple(FileStamp(*row[:-1]) for row in rows)


def forget_files(
    connection: sqlite3.Connection, folder: int, condition: str, *values: object
) -> None:
    """Forget files of a folder, and have the series examined that they were of."""
    of_folder = f"folder = ? AND {condition}"
    connection.execute(
        "INSERT OR IGNORE INTO unexamined SELECT DISTINCT p.series FROM files f"  # noqa: S608
        f" JOIN parts p ON p.id = f.part WHERE {of_folder}",
        (folder, *values),
    )
    connection.execute(f"DELETE FROM files WHERE {of_folder}", (folder, *values))  # noqa: S608


#: Of a file that is of no known series: it may be of the one that it lies beside, unless it is
#: empty. One that cannot be looked at is not known to be.
_IS_FAULTY = "part IS NULL AND reason <> 'no-dicom' AND reason <> 'not-ct' AND size <> 0"


def first_fault(connection: sqlite3.Connection, folder: int) -> Reason | None:
    """Why a file of a folder is of no known series; None if none is.

    By an index of such files alone: a folder may hold all files of an archive.
    """
    row = connection.execute(
        "SELECT reason FROM files INDEXED BY files_faulty"  # noqa: S608 - constants
        f" WHERE folder = ? AND {_IS_FAULTY} LIMIT 1",
        (folder,),
    ).fetchone()
    return None if row is None else Reason(row[0])


def mark_beside_faulty(connection: sqlite3.Connection, folder: int) -> None:
    """Have the only series of a folder examined that has files in it of which nothing is known."""
    if first_fault(connection, folder) is not None:
        series = only_series(connection, folder)
        if series is not None:
            connection.execute("INSERT OR IGNORE INTO unexamined VALUES (?)", (series,))


def only_series(connection: sqlite3.Connection, folder: int) -> str | None:
    """The series of a folder that holds files of one; None if it holds none, or several."""
    rows = connection.execute(
        "SELECT DISTINCT p.series FROM files f JOIN parts p ON p.id = f.part"
        " WHERE f.folder = ? LIMIT 2",
        (folder,),
    ).fetchall()
    return rows[0][0] if len(rows) == 1 else None


def _entered(connection: sqlite3.Connection, folder: WalkedFolder, walk: int) -> int:
    reason = Reason.UNREADABLE_FILE if folder.problem else None
    row = connection.execute(
        "INSERT INTO folders (path, is_zip, size, modified_ns, walk, reason, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET"
        " is_zip = CASE WHEN excluded.reason IS NULL THEN excluded.is_zip ELSE is_zip END,"
        " size = excluded.size, modified_ns = excluded.modified_ns,"
        " walk = excluded.walk, reason = excluded.reason, detail = excluded.detail RETURNING id",
        (
            folder.path,
            folder.is_zip,
            _UNKNOWN if folder.is_zip else 0,  # until its members are kept
            folder.modified_ns,
            walk,
            reason,
            folder.problem,
        ),
    ).fetchone()
    return int(row[0])


def _is_seen(folder: bytes) -> bool:
    """Whether something is in a folder: the place of a disk that is away is empty."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def below(path: bytes) -> tuple[bytes, bytes]:
    """The range of paths of what lies in a folder."""
    inside = path.rstrip(b"/") + b"/"
    return inside, inside[:-1] + b"0"  # the character after the slash
