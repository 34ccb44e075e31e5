"""A process among those that work for a queue: who looks after it sees there who is alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.tasks import Tasks

_INTERVAL_S = 10.0


class Presence:
    """One process among Procrastinate's workers. For any number of threads.

    Parameters
    ----------
    server
        The database.
    tasks
        Registers workers.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self, server: Server, tasks: Tasks, steady_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._tasks = tasks
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._worker_id: int | None = None
        self._shown_s = 0.0

    @property
    def worker_id(self) -> int:
        """Procrastinate's id of this process."""
        return self._worker_id or self.renew()

    def show(self) -> None:
        """Say that this process lives, now and then."""
        now_s = self._steady_s()
        with self._lock:
            if self._worker_id is None or now_s - self._shown_s < _INTERVAL_S:
                return
            with self._server.transaction() as connection:
                self._tasks.heartbeat(connection, self._worker_id)
            self._shown_s = now_s

    def enter(self) -> None:
        """Register, unless that was done."""
        if self._worker_id is None:
            self.renew()

    def renew(self) -> int:
        """Register, for the first time or since it was struck off."""
        with self._lock, self._server.transaction() as connection:
            self._worker_id = self._tasks.register(connection)
            self._shown_s = self._steady_s()
            return self._worker_id

    def end(self) -> None:
        """Sign off."""
        with self._lock:
            if self._worker_id is not None:
                with self._server.transaction() as connection:
                    self._tasks.unregister(connection, self._worker_id)
                self._worker_id = None
