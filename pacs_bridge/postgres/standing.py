"""How a queue stands, for whoever looks after it."""

from __future__ import annotations

from dataclasses import dataclass

from pacs_bridge.config.queue import QueueConfig
from pacs_bridge.postgres.presence import LIVING_S
from pacs_bridge.postgres.server import Server


@dataclass(frozen=True, slots=True)
class Standing:
    """A moment of a queue."""

    waiting: int  #: jobs that nobody has
    claimed: int  #: jobs that workers have
    settled: int  #: jobs whose outcome the bridge has not taken yet
    workers: int  #: processes that work for it and were heard of within a minute

    def __str__(self) -> str:
        return (
            f"{self.waiting} waiting, {self.claimed} claimed, {self.settled} settled,"
            f" {self.workers} workers"
        )


def standing(queue: QueueConfig) -> Standing | None:
    """How the queue stands; None if it was not made yet.

    Raises
    ------
    TransientError
        ``queue-unavailable`` if the database cannot be reached or used.
    PermanentError
        ``wrong-queue`` if the URL cannot be read.
    """
    server = Server(queue.url, "pacs-bridge doctor")
    try:
        with server.transaction() as connection:
            there = connection.execute("SELECT to_regclass('pacs_bridge_jobs') AS it").fetchone()
            if there is None or there["it"] is None:
                return None
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE task_id IS NOT NULL AND worker IS NULL) AS waiting,"
                " count(*) FILTER (WHERE worker IS NOT NULL) AS claimed,"
                " count(*) FILTER (WHERE task_id IS NULL) AS settled,"
                " (SELECT count(*) FROM pacs_bridge_workers WHERE queue = %s AND shown_at"
                "   > now() - make_interval(secs => %s)) AS workers"
                " FROM pacs_bridge_jobs WHERE queue = %s",
                (queue.name, LIVING_S, queue.name),
            ).fetchone()
    finally:
        server.close()
    return None if row is None else Standing(**row)
