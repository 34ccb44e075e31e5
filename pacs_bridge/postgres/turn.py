"""Whose turn it is to dispatch: one process of a queue, whatever else was started."""

from __future__ import annotations

from contextlib import suppress

import psycopg

from pacs_bridge.errors import TransientError
from pacs_bridge.postgres.server import Connection, Server, translated

#: "PADI": beside the lock of those that make the tables.
_LOCK = 0x50414449

#: A machine that lost its power says no farewell: without these its session would live for hours.
_NOTICE_DEATH = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
)


class DispatchTurn:
    """A session's lock on a queue: it ends with its process or its connection. For one thread.

    Parameters
    ----------
    server
        The database; reached directly or by a pool that keeps sessions.
    name
        Of the queue in it.
    """

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._session: Connection | None = None
        self._is_ours = False

    def is_ours(self) -> bool:
        """Whether this process may dispatch; asks for it if it is nobody's.

        Raises
        ------
        TransientError
            If the server cannot be used; then the turn is over.
        """
        try:
            with translated():
                if self._session is None:
                    self._session = self._server.session()
                    self._session.execute(_NOTICE_DEATH)
                row = self._session.execute(
                    "SELECT %s OR pg_try_advisory_lock(%s, hashtext(%s)) AS it",
                    (self._is_ours, _LOCK, self._name),
                ).fetchone()
        except TransientError:
            self.end()
            raise
        self._is_ours = bool(row and row["it"])
        return self._is_ours

    def end(self) -> None:
        """Let another have it."""
        session, self._session, self._is_ours = self._session, None, False
        if session is not None:
            with suppress(psycopg.Error):
                session.execute("SELECT pg_advisory_unlock_all()")  # before the server sees the end
            session.close()
