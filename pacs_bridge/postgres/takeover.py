"""Jobs of workers that are heard of no more, back into the queue; inside a transaction."""

from __future__ import annotations

from collections.abc import Callable

from inference.reasons import Reason
from pacs_bridge.postgres.job_rows import JobRows
from pacs_bridge.postgres.server import Connection
from pacs_bridge.postgres.tasks import Tasks
from pacs_bridge.postgres.watch import Lease, LeaseWatch
from pacs_bridge.queue import State

_MOST_AT_ONCE = 100


class Takeover:
    """Watches the leases of one queue, and ends those that have run out.

    Parameters
    ----------
    queue
        Its name.
    tasks, rows
        Of its jobs.
    max_failures
        A job is ``DEAD`` after so many failures that count, the death of its worker among them.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self,
        queue: str,
        tasks: Tasks,
        rows: JobRows,
        max_failures: int,
        steady_s: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._tasks = tasks
        self._rows = rows
        self._max_failures = max_failures
        self._watch = LeaseWatch(steady_s)

    def look_now_and_then(self, connection: Connection, lease_s: float) -> None:
        """Look, unless that was done a short while ago, for leases of this length."""
        if self._watch.is_due(lease_s):
            self.look(connection)

    def look(self, connection: Connection) -> None:
        """See whose holders are heard of; takes nothing from anybody."""
        rows = connection.execute(
            "SELECT id, fence, heartbeats, lease_s FROM pacs_bridge_jobs"
            " WHERE queue = %s AND worker IS NOT NULL",
            (self._queue,),
        ).fetchall()
        self._watch.look(
            Lease(row["id"], row["fence"], row["heartbeats"], row["lease_s"]) for row in rows
        )

    def free(self, connection: Connection) -> None:
        """End the leases that had run out at the last look; each counts as a death."""
        run_out = self._watch.run_out(_MOST_AT_ONCE)
        if not run_out:
            return
        rows = connection.execute(
            "SELECT * FROM pacs_bridge_jobs WHERE queue = %s AND worker IS NOT NULL"
            " AND id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED",
            (self._queue, [each.job_id for each in run_out]),
        ).fetchall()
        known = {(each.job_id, each.fence, each.heartbeats) for each in run_out}
        for row in rows:
            if (row["id"], row["fence"], row["heartbeats"]) not in known:
                continue  # its holder was heard of meanwhile
            deaths = row["deaths"] + 1
            connection.execute(
                "UPDATE pacs_bridge_jobs SET deaths = %s WHERE queue = %s AND id = %s",
                (deaths, self._queue, row["id"]),
            )
            if deaths >= self._max_failures:
                died = f"its worker died; failures that count: {deaths}"
                self._rows.settle(connection, row, State.DEAD, Reason.INTERNAL_ERROR, died)
                continue
            self._tasks.put_back(connection, row["task_id"])
            self._rows.let_go(connection, row["id"], State.READY)
