"""Procrastinate's jobs, here called tasks, inside transactions of ours.

Procrastinate calls a function for each job of a worker of its own. Our worker asks for a job,
holds several at once and reports by fence, so only Procrastinate's tables and functions are
used: order, retry at a time. Its manager has some of these for asyncio only; the same queries go
through its synchronous connector. Its fetch takes whatever is first, and a worker leaves some jobs
to others: the fetch is one of ours, in the same order and with ``SKIP LOCKED`` as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from procrastinate import sql
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from pacs_bridge.postgres.server import Connection

TASK_NAME = "pacs_bridge.segment"

#: What is of one job alone in its arguments.
OF_ONE_JOB = (
    "job",
    "series_instance_uid",
    "study_instance_uid",
    "revision",
    "priority",
    "created",
)
#: What jobs have in common that a worker can do all of, or none; of other formats nothing is known.
_KIND = (
    "CASE WHEN args->'format' = '1' THEN args - %(of_one_job)s::text[]"
    " ELSE jsonb_build_object('format', args->'format') END"
)
_IS_DUE = (
    "queue_name = %(queue)s AND status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now())"
)
_IS_LEFT = f"{_KIND} = ANY(%(left)s::text[]::jsonb[])"
_FIRST = (
    f"SELECT id, args, {_KIND} AS kind FROM procrastinate_jobs"  # noqa: S608 - constants
    f" WHERE {_IS_DUE} AND priority >= %(least)s AND NOT {_IS_LEFT}"
    " AND id <> ALL(%(passed)s::bigint[])"
    " ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_FIRST_LEFT = (
    f"SELECT id, args, {_KIND} AS kind FROM procrastinate_jobs"  # noqa: S608 - constants
    f" WHERE {_IS_DUE} AND {_IS_LEFT} ORDER BY priority DESC, id LIMIT 1"
)
#: Of a task of ours none is lower; others may write what they like.
LOWEST_PRIORITY = -(2**31)


@dataclass(frozen=True, slots=True)
class Task:
    """A job that waits."""

    task_id: int
    args: str  #: JSON, of whoever wrote it
    kind: str  #: JSON: what it has in common with all that are for the same workers


class Tasks:
    """The tasks of one queue; every method works inside the caller's transaction.

    Parameters
    ----------
    queue_name
        Procrastinate's name of the queue.
    """

    def __init__(self, queue_name: str) -> None:
        self._queue_name = queue_name
        self._connector = SyncPsycopgConnector()
        self._manager = JobManager(self._connector)

    def defer(
        self, connection: Connection, payloads: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> list[int]:
        """Make tasks of (priority, arguments); gives their ids."""
        jobs = [
            Job(
                queue=self._queue_name,
                task_name=TASK_NAME,
                priority=priority,
                lock=None,
                queueing_lock=None,
                task_kwargs=dict(payload),
            )
            for priority, payload in payloads
        ]
        made = self._manager.batch_defer_jobs(jobs, connection=connection)
        return [int(job.id or 0) for job in made]

    def first(
        self,
        connection: Connection,
        left: Collection[str],
        least: int = LOWEST_PRIORITY,
        passed: Collection[int] = (),
    ) -> Task | None:
        """The most urgent task that is due, locked; None if there is none.

        Parameters
        ----------
        connection
            In a transaction.
        left
            Kinds that are passed over, however many tasks of theirs stand in front.
        least
            The lowest priority that will do.
        passed
            Ids of tasks that are passed over.
        """
        return self._found(connection, _FIRST, left, least, passed)

    def first_left(self, connection: Connection, left: Collection[str]) -> Task | None:
        """The most urgent task that is due of these kinds; None if there is none."""
        return self._found(connection, _FIRST_LEFT, left)

    def begin(self, connection: Connection, task_id: int) -> None:
        """Have a task that is locked here fetched by nobody else."""
        connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = %s", (task_id,)
        )

    def put_back(self, connection: Connection, task_id: int, wait_s: float = 0.0) -> None:
        """Let a task be fetched again: at once, or after a wait by the server's clock.

        Nothing where it is gone: its job is handed over again when the bridge compares.
        """
        if not self._is_there(connection, task_id, "doing"):
            return
        due = connection.execute(
            "SELECT now() + make_interval(secs => nullif(%s, 0)) AS due", (wait_s,)
        ).fetchone()
        self._run(
            connection,
            "retry_job",
            job_id=task_id,
            retry_at=due and due["due"],
            new_priority=None,
            new_queue_name=None,
            new_lock=None,
        )

    def finish(self, connection: Connection, task_id: int, *, has_succeeded: bool) -> None:
        """End a task; its row goes, if it is there."""
        if not self._is_there(connection, task_id, "todo", "doing"):
            return
        self._run(
            connection,
            "finish_job",
            job_id=task_id,
            status="succeeded" if has_succeeded else "failed",
            delete_job=True,
        )

    def _found(
        self,
        connection: Connection,
        query: str,
        left: Collection[str],
        least: int = LOWEST_PRIORITY,
        passed: Collection[int] = (),
    ) -> Task | None:
        row = connection.execute(
            query,
            {
                "queue": self._queue_name,
                "of_one_job": list(OF_ONE_JOB),
                "left": list(left),
                "least": least,
                "passed": list(passed),
            },
        ).fetchone()
        return None if row is None else Task(row["id"], row["args"], row["kind"])

    def _is_there(self, connection: Connection, task_id: int, *statuses: str) -> bool:
        """Others may have deleted or ended it, and Procrastinate's functions raise then."""
        row = connection.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE id = %s"
            " AND status = ANY(%s::procrastinate_job_status[]) FOR UPDATE",
            (task_id, list(statuses)),
        ).fetchone()
        return row is not None

    def _run(self, connection: Connection, query: str, **arguments: Any) -> list[dict[str, Any]]:
        plain: Any = connection  # its rows are made by a cursor of the connector's own
        return self._connector.execute_query_all_with_connection(
            plain, sql.queries[query], **arguments
        )
