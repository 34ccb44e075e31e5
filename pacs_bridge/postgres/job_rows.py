"""The rows of one queue's jobs, as every report changes them; inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.rows import DictRow

from inference.reasons import Reason
from pacs_bridge.postgres.payload import storable
from pacs_bridge.postgres.server import Connection
from pacs_bridge.postgres.tasks import Tasks
from pacs_bridge.queue import JobClaim, LeaseLostError, State


class JobRows:
    """The rows of one queue.

    Parameters
    ----------
    queue
        Its name.
    tasks
        Procrastinate's, which the rows stand beside.
    """

    def __init__(self, queue: str, tasks: Tasks) -> None:
        self._queue = queue
        self._tasks = tasks

    def state(self, connection: Connection, job_id: int) -> State:
        """Where a job stands; ``KeyError`` if it is not here."""
        row = connection.execute(
            "SELECT state FROM pacs_bridge_jobs WHERE queue = %s AND id = %s",
            (self._queue, job_id),
        ).fetchone()
        if row is None:
            raise KeyError(job_id)
        return State(row["state"])

    def settle(
        self,
        connection: Connection,
        row: DictRow,
        state: State,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        """The end of a job here: its task goes, its row waits for the bridge to take it."""
        self._tasks.finish(connection, row["task_id"], has_succeeded=state is State.SENDING)
        connection.execute(
            "UPDATE pacs_bridge_jobs SET task_id = NULL WHERE queue = %s AND id = %s",
            (self._queue, row["id"]),
        )
        self.let_go(connection, row["id"], state, reason, detail)

    def update_held(
        self, connection: Connection, claim: JobClaim, change: str, values: Mapping[str, object]
    ) -> None:
        """Change the row of a job if the lease of this claim is still good.

        Raises
        ------
        LeaseLostError
            If it is not.
        """
        updated = connection.execute(
            f"UPDATE pacs_bridge_jobs SET {change} WHERE queue = %(queue)s"  # noqa: S608 - constants
            " AND id = %(id)s AND fence = %(fence)s AND worker = %(worker)s",
            {
                "queue": self._queue,
                "id": claim.job_id,
                "fence": claim.fence,
                "worker": claim.worker,
                **values,
            },
        ).rowcount
        if not updated:
            raise lost(claim)

    def let_go(
        self,
        connection: Connection,
        job_id: int,
        state: State,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        """The end of a lease; its fence is spent."""
        connection.execute(
            "UPDATE pacs_bridge_jobs SET worker = NULL, fence = fence + 1,"
            " state = %s, reason = %s, detail = %s WHERE queue = %s AND id = %s",
            (state.value, reason and reason.value, storable(detail), self._queue, job_id),
        )


def is_held(row: DictRow, claim: JobClaim) -> bool:
    """Whether a row is under the lease of this claim."""
    return bool(row["fence"] == claim.fence and row["worker"] == claim.worker)


def lost(claim: JobClaim) -> LeaseLostError:
    """What is said to the holder of a lease that is over."""
    return LeaseLostError(f"job {claim.job_id}, fence {claim.fence}")
