"""The SQLite file under the ledger: connections, transactions, and what its errors mean."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.clock import Clock
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.ledger.home import LedgerHome
from pacs_bridge.ledger.schema import MIGRATIONS, Migration, migrate
from pacs_bridge.machine import Machine
from pacs_bridge.queue import DISPATCHER

#: Errors that pass when the disk has space again or another process has let go.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN",
            "SQLITE_READONLY", "SQLITE_NOMEM", "SQLITE_PROTOCOL")  # fmt: skip

#: After a boot, until the service keeps what was handed over, or takes it back.
_UNTIL_DISPATCHED_S = 600.0


class Database:
    """One SQLite file in WAL mode with ``synchronous=FULL``: what is committed is on the disk.

    Any number of threads and processes may use it: a transaction borrows a connection.

    Parameters
    ----------
    path
        The file; it is made when it is not there.
    clock
        For time stamps and leases.
    busy_timeout_s
        How long a transaction waits for another one's end.
    migrations
        That make the newest version.
    home
        Lets this machine have the file, or nobody; None: by what this machine is.

    Raises
    ------
    TransientError
        If the file cannot be used now.
    PermanentError
        ``ledger-elsewhere`` before anything of it is touched, ``data-folder-denied``;
        ``ledger-unavailable`` if it is damaged; ``internal-error`` if it is of another program,
        or of a later version of this one.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        busy_timeout_s: float = 30.0,
        migrations: Sequence[Migration] = MIGRATIONS,
        home: LedgerHome | None = None,
    ) -> None:
        self.path = path
        self.clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._home = home or LedgerHome(path, Machine.here(clock.boot_id()))
        self._home.enter()
        try:
            with translated(), self._borrowed() as connection:
                migrate(connection, migrations)
            self._forget_other_boots()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else writes beside; all of it is committed, or nothing.

        Raises
        ------
        TransientError
            If the file cannot be written now: disk full, locked for too long.
        PermanentError
            If the file is damaged.
        """
        with translated(), self._borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file. Raises as ``write`` does."""
        with translated(), self._borrowed() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def now_text(self) -> str:
        """Time of day as the tables hold it."""
        return time_text(self.clock.now())

    def close(self) -> None:
        """Close the file; no transaction may be open."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        self._home.leave()

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else has, for as long as the body runs."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _forget_other_boots(self) -> None:
        """Steady seconds of another boot mean nothing: those leases are over, waits are due.

        What was handed over to other machines stays so.
        """
        boot_id = self.clock.boot_id()
        with self.read() as connection:
            if connection.execute("SELECT boot_id FROM machine").fetchone()[0] == boot_id:
                return
        with self.write() as connection:
            if connection.execute("SELECT boot_id FROM machine").fetchone()[0] == boot_id:
                return
            connection.execute("UPDATE machine SET boot_id = ?", (boot_id,))
            for table in ("jobs", "deliveries"):
                connection.execute(f"UPDATE {table} SET due_s = 0 WHERE due_s <> 0")  # noqa: S608
            # the machine went down with them: no job is to blame
            connection.execute(
                "UPDATE jobs SET state = 'ready', worker = NULL, lease_until_s = NULL,"
                " fence = fence + 1, attempts = attempts - 1"
                " WHERE worker IS NOT NULL AND worker <> ?",
                (DISPATCHER,),
            )
            connection.execute(  # others went on with these, or have finished them
                "UPDATE jobs SET lease_until_s = ? WHERE worker IS NOT NULL AND worker = ?",
                (self.clock.steady_s() + _UNTIL_DISPATCHED_S, DISPATCHER),
            )
            connection.execute(
                "UPDATE deliveries SET lease_until_s = 0 WHERE lease_until_s IS NOT NULL"
            )


def time_text(moment: datetime) -> str:
    """A moment as text that sorts: ISO 8601, UTC, microseconds."""
    return moment.isoformat(timespec="microseconds")


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors, as the one question that is asked above: try again, or stop.

    Raises
    ------
    TransientError
        If the file cannot be written now: disk full, locked for too long.
    PermanentError
        If it is damaged.
    """
    try:
        yield
    except BridgeError:
        raise
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        if name.startswith("SQLITE_FULL"):
            raise TransientError(Reason.DISK_FULL, "the ledger cannot grow") from error
        if name.startswith(_PASSING):
            raise TransientError(
                Reason.LEDGER_UNAVAILABLE, f"the ledger cannot be used: {name}"
            ) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise PermanentError(
                Reason.LEDGER_UNAVAILABLE, f"the ledger is damaged: {name}"
            ) from error
        raise  # a fault of this program
