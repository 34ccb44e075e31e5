"""The file of a plan: connections, transactions, settings."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from inference.reasons import Reason
from pacs_bridge.archive.schema import prepare
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.database import translated
from pacs_bridge.network_disk import network_disk

PLAN_NAME = "plan.sqlite"
#: The source of series that were planned from folders, zip files and lists of them.
FILES = "files"


class PlanFile:
    """One plan, for one thread; any number of processes may open it. ``with`` closes it.

    What is committed is on the disk (WAL, ``synchronous=FULL``).

    Parameters
    ----------
    run_folder
        Of the run; it is made where it is not there.
    must_exist
        False: an empty plan is made where there is none.

    Raises
    ------
    TransientError
        ``disk-full``, ``ledger-unavailable``: as every method, if the file cannot be used now.
    PermanentError
        ``source-missing`` if there is no plan; ``ledger-unavailable`` if it is damaged, of
        another program, or on a network disk.
    """

    def __init__(self, run_folder: Path, must_exist: bool = True) -> None:
        self.path = run_folder / PLAN_NAME
        if must_exist and not self.path.exists():
            raise PermanentError(
                Reason.SOURCE_MISSING, f"no {PLAN_NAME} in {run_folder}: plan first"
            )
        if kind := network_disk(run_folder):
            raise PermanentError(
                Reason.LEDGER_UNAVAILABLE,
                f"the folder of the run is on a network disk ({kind}): a plan needs a local one",
            )
        run_folder.mkdir(parents=True, exist_ok=True)
        with translated():
            self._connection = sqlite3.connect(
                self.path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            prepare(self._connection, PLAN_NAME)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody writes beside: all of it is committed, or nothing."""
        with translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """For reading; each statement sees what is committed."""
        with translated():
            yield self._connection

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Whatever is read in the body is of one moment; nothing is written in it."""
        with translated():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def setting(self, name: str) -> Any:
        """A setting, or None."""
        with self.read() as connection:
            row = connection.execute(
                "SELECT value FROM settings WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def set(self, name: str, value: object) -> None:
        """Keep a setting; a value is what JSON can hold."""
        with self.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value))
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
