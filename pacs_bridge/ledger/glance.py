"""A look at a ledger that changes nothing of it, for whoever only wants to know."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pacs_bridge.ledger.database import translated


class LedgerGlance:
    """The file of a ledger as it is: no table is brought up to date, no lease ended, no file made.

    Only for a ledger of this machine: another one's processes share memory that is not seen here.

    Parameters
    ----------
    path
        The file; it must be there.
    is_in_use
        Whether a process has the ledger open (``LedgerHome.is_in_use``).
    """

    def __init__(self, path: Path, is_in_use: bool) -> None:
        log = path.with_name(f"{path.name}-wal")
        has_log = log.exists() and log.stat().st_size > 0
        # sqlite.org/uri.html, and sqlite.org/wal.html 5: a reader would make the files that it
        # finds no more of after a clean end, and put in order what it finds after a crash
        way = "immutable=1" if not has_log else "" if is_in_use else "readonly_shm=1"
        self._address = f"file:{quote(str(path.absolute()))}?mode=ro&{way}"

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file; raises as ``Database.read``."""
        with (
            translated(),
            closing(sqlite3.connect(self._address, uri=True, isolation_level=None)) as connection,
        ):
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            yield connection

    def version(self) -> int:
        """Of its tables: how many of ``MIGRATIONS`` they have had. Raises as ``read``."""
        with self.read() as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
