"""The PostgreSQL server: connections, transactions, and what its errors mean."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import psycopg
from procrastinate.exceptions import ConnectorException
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg.types.string import TextLoader

from inference.reasons import Reason
from pacs_bridge.config.queue import SECRETS
from pacs_bridge.errors import PermanentError, TransientError

Connection: TypeAlias = psycopg.Connection[DictRow]

#: A peer that the network has swallowed is given up after some 10 s, and what it held is let go:
#: without these a connection would wait for it for hours. Any of them may be set in the URL.
_WAITS: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "options": "-c statement_timeout=30s -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=10s",
}

#: One for each host (libpq, 34.1.1.3); empty: the default.
_PORTS = re.compile(r"[0-9]*(?:,[0-9]*)*", re.ASCII)
_HINT = "; within a URL, signs such as / @ % are written as %2F %40 %25"

#: sqlstate classes and codes of faults of this program, not of the server or the network.
_FAULTS = ("22", "23", "26", "34", "42")
#: Those among them that an administrator or the bridge takes away: no privilege, no table yet.
_NOT_SET_UP = ("42501", "42P01", "42883")


class Server:
    """A database, for any number of threads of one process.

    A transaction borrows a connection; one that broke takes the idle ones with it, since they
    were to the same server.

    Parameters
    ----------
    url
        ``postgresql://`` URL or libpq connection string; a password is better left to libpq's
        password file.
    application
        What the server's administrator sees.

    Raises
    ------
    PermanentError
        ``wrong-queue`` if the URL cannot be read.
    """

    def __init__(self, url: str, application: str = "pacs-bridge") -> None:
        self._conninfo = connection_string(url, application)
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction; all of it is committed, or nothing.

        Raises
        ------
        TransientError
            ``queue-unavailable`` if the server cannot be reached or used now. Then it is not
            known whether what was done was committed.
        """
        with translated(), self._borrowed() as connection, connection.transaction():
            yield connection

    def session(self) -> Connection:
        """A connection of its own, for what lasts as long as a session; the caller closes it.

        Raises
        ------
        TransientError
            As ``transaction``.
        """
        with translated():
            return self._connect()

    def close(self) -> None:
        """Close the idle connections; no transaction may be open."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        """A connection that nobody else has, for as long as the body runs."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            if connection.broken or connection.closed:
                self.close()
            raise
        finally:
            if not connection.closed:
                self._idle.put(connection)

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True, row_factory=dict_row)
        # others may have written it: parsed where that may fail
        connection.adapters.register_loader("jsonb", TextLoader)
        return connection


def connection_string(url: str, application: str = "pacs-bridge") -> str:
    """``url`` with limits on every wait that it does not set itself. Raises as ``Server``.

    No error quotes it: where a password holds what ends it, such as a slash, the rest of it is
    taken for a host, a port or a database, and libpq tells those.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise PermanentError(Reason.WRONG_QUEUE, f"not a connection string{_HINT}") from None
    ports = str(given.get("port") or "")
    if not _PORTS.fullmatch(ports):
        raise PermanentError(Reason.WRONG_QUEUE, f"its port is no number{_HINT}")
    if "@" in f"{given.get('host')}{given.get('dbname')}":
        raise PermanentError(Reason.WRONG_QUEUE, f"an @ in its host or database{_HINT}")
    return make_conninfo("", **{"application_name": application, **_WAITS, **given})


def has_password(url: str) -> bool:
    """Whether a password stands in the URL itself. Raises as ``Server``."""
    connection_string(url)
    given = conninfo_to_dict(url)
    return any(given.get(secret) for secret in SECRETS)


@contextmanager
def translated() -> Iterator[None]:
    """The errors of psycopg and Procrastinate, as the one question: try again, or stop."""
    try:
        yield
    except psycopg.Error as error:
        raise _meaning(error) from error
    except ConnectorException as error:
        if not isinstance(error.__cause__, psycopg.Error):
            raise
        raise _meaning(error.__cause__) from error


def _meaning(error: psycopg.Error) -> Exception:
    code = error.sqlstate or ""
    if code in _NOT_SET_UP:
        return TransientError(
            Reason.QUEUE_UNAVAILABLE, f"the queue is not set up, or not for this user: {code}"
        )
    if code.startswith(_FAULTS) or isinstance(error, psycopg.ProgrammingError):
        return error
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return TransientError(Reason.QUEUE_UNAVAILABLE, f"{code} {said}".strip())
