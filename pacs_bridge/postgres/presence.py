"""A process among the workers of a queue, and those that are there, as its bridge sees them.

Each worker has a row: which queue it serves, which jobs it leaves to others, and a number that it
raises now and then. Who looks on sees by its own clock whose number stands still, as for leases:
neither a step of the server's clock nor a time without the server strikes anybody off. A row that
is gone, with its database or for any other reason, is there again when its worker shows itself.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pacs_bridge.postgres.server import Connection
from pacs_bridge.postgres.tasks import OF_ONE_JOB
from pacs_bridge.postgres.watch import Lease, LeaseWatch

#: A worker that has not shown itself for so long is not there.
LIVING_S = 60.0
_INTERVAL_S = 10.0
_ID_BITS = 62  #: of a number that is drawn; a bigint holds it
_MOST_AT_ONCE = 1000


class Presence:
    """One process among the workers of a queue. For any number of threads.

    Parameters
    ----------
    queue
        Its name.
    steady_s
        Seconds that never step.
    """

    def __init__(self, queue: str, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._steady_s = steady_s
        self._worker = secrets.randbits(_ID_BITS)
        self._lock = threading.Lock()
        self._shown_s = float("-inf")
        self._leaves: frozenset[str] = frozenset()

    def show(self, connection: Connection, leaves: Collection[str]) -> None:
        """Say that this process lives, now and then, and at once what it leaves to others.

        Parameters
        ----------
        connection
            In a transaction, at its end: two may show themselves at once.
        leaves
            Kinds of jobs, as ``Task.kind``.
        """
        kinds, now_s = frozenset(leaves), self._steady_s()
        with self._lock:
            if kinds == self._leaves and now_s - self._shown_s < _INTERVAL_S:
                return
            self._leaves, self._shown_s = kinds, now_s
        connection.execute(
            "INSERT INTO pacs_bridge_workers AS known (id, queue, shown, shown_at, leaves)"
            " VALUES (%s, %s, 1, now(), %s) ON CONFLICT (id) DO UPDATE"
            " SET shown = known.shown + 1, shown_at = now(), leaves = excluded.leaves",
            (self._worker, self._queue, sorted(kinds)),
        )

    def end(self, connection: Connection) -> None:
        """Sign off."""
        connection.execute("DELETE FROM pacs_bridge_workers WHERE id = %s", (self._worker,))


class RollCall:
    """Who works for one queue, told by who shows itself. For one thread.

    Parameters
    ----------
    queue
        Its name.
    steady_s
        Seconds that never step.
    """

    def __init__(self, queue: str, steady_s: Callable[[], float]) -> None:
        self._queue = queue
        self._watch = LeaseWatch(steady_s)

    def look(self, connection: Connection) -> tuple[frozenset[str], ...]:
        """What each worker that is there leaves to others, as ``payload_kind``; forgets the rest.

        Whoever has just begun to look takes all that it finds for living.
        """
        rows = connection.execute(
            "SELECT id, shown, leaves FROM pacs_bridge_workers WHERE queue = %s", (self._queue,)
        ).fetchall()
        self._watch.look(Lease(row["id"], 0, row["shown"], LIVING_S) for row in rows)
        gone = {each.job_id for each in self._watch.run_out(_MOST_AT_ONCE)}
        if gone:
            connection.execute("DELETE FROM pacs_bridge_workers WHERE id = ANY(%s)", (list(gone),))
        return tuple(
            frozenset(_in_order(kind) for kind in row["leaves"])
            for row in rows
            if row["id"] not in gone
        )


def payload_kind(payload: Mapping[str, Any]) -> str:
    """The kind of a job with this payload, its keys in order."""
    kind = {key: value for key, value in payload.items() if key not in OF_ONE_JOB}
    return json.dumps(kind, sort_keys=True)


def _in_order(kind: str) -> str:
    """A kind as PostgreSQL writes it, its keys in order; what is none is nobody's."""
    try:
        return json.dumps(json.loads(kind), sort_keys=True)
    except (ValueError, RecursionError):
        return ""
