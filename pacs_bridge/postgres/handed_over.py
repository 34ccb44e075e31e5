"""The bridge's side of the queue: jobs handed over, and outcomes to be taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.postgres.fence import first_fence, ledger_fence_of
from pacs_bridge.postgres.job_rows import JobRows
from pacs_bridge.postgres.payload import job_payload, parsed_outcome, request_key
from pacs_bridge.postgres.presence import RollCall, payload_kind
from pacs_bridge.postgres.queue import RANK
from pacs_bridge.postgres.recipe import Recipe
from pacs_bridge.postgres.server import Connection, Server
from pacs_bridge.postgres.takeover import Takeover
from pacs_bridge.postgres.tasks import Tasks
from pacs_bridge.postgres.turn import DispatchTurn
from pacs_bridge.queue import JobClaim, JobOutcome, JobRequest, State
from pacs_bridge.worker_job import folder_of

_ANY_TIME = "1970-01-01T00:00:00+00:00"
_LONGEST_WAIT_S = 30 * 86_400.0  #: others may write what they like


@dataclass(frozen=True, slots=True)
class Handed:
    """A job that is in the queue, and under which fence of the ledger."""

    job_id: int
    ledger_fence: int
    ticket_fence: int  #: of the ledger, when it was handed over: its ticket is of then
    request_key: str
    recipe: Recipe | None  #: of one that waits for a worker
    has_failed: bool  #: it is over, and there is no result
    is_lost: bool  #: nobody has it, and no worker would be given it
    failures: int  #: that count against it


@dataclass(frozen=True, slots=True)
class Settled:
    """A job that is over, and under which fence of the ledger."""

    job_id: int
    ledger_fence: int
    outcome: JobOutcome
    failures: int  #: that count against it
    series_failures: int  #: that are its series' own
    wait_s: float  #: before its next try, of one in ``RETRY``


class HandedOver:
    """Jobs of the ledger that are in the queue; all methods raise ``TransientError``.

    Parameters
    ----------
    server
        The database.
    name
        Of the queue in it.
    recipe
        What this bridge means by the names in a job.
    max_failures
        A job is ``DEAD`` after so many failures that count, the death of its worker among them.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        recipe: Callable[[JobRequest], Recipe] = lambda _request: Recipe(),
        max_failures: int = 3,
        *,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._name = name
        self.recipe = recipe
        self._tasks = Tasks(name)
        rows = JobRows(name, self._tasks)
        self._takeover = Takeover(name, self._tasks, rows, max_failures, steady_s)
        self._roll_call = RollCall(name, steady_s)
        self.turn = DispatchTurn(server, name)

    def all(self) -> tuple[Handed, ...]:
        """Every job that is in the queue."""
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT jobs.id, ledger_fence, fence, request_key, deaths,"
                " worker IS NULL AS is_free,"
                " task_id IS NULL AND state <> 'sending' AS has_failed,"
                " task_id IS NOT NULL AND worker IS NULL"
                " AND tasks.status IS DISTINCT FROM 'todo' AS is_lost,"
                " args->>'rules' AS rules, args->>'weights' AS weights"
                " FROM pacs_bridge_jobs jobs LEFT JOIN procrastinate_jobs tasks"
                " ON tasks.id = jobs.task_id WHERE queue = %s",
                (self._name,),
            ).fetchall()
        return tuple(_handed(row) for row in rows)

    def waiting(self) -> tuple[int, ...]:
        """The jobs that wait for a worker."""
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT jobs.id FROM pacs_bridge_jobs jobs"
                " JOIN procrastinate_jobs tasks ON tasks.id = jobs.task_id"
                " WHERE jobs.queue = %s AND jobs.worker IS NULL AND tasks.status = 'todo'",
                (self._name,),
            ).fetchall()
        return tuple(row["id"] for row in rows)

    def hand_over(self, claims: Sequence[JobClaim]) -> None:
        """Put claims of the ledger into the queue, all or none.

        Raises
        ------
        PermanentError
            ``bad-payload`` if something of a request is no id, or the job or one of the same
            request is in the queue already.
        """
        payloads = [
            (
                RANK[claim.request.priority],
                job_payload(
                    claim.job_id,
                    claim.request,
                    claim.created.isoformat(),
                    self.recipe(claim.request),
                ),
            )
            for claim in claims
        ]
        try:
            with self._server.transaction() as connection:
                self._insert(connection, claims, payloads)
        except UniqueViolation as error:
            raise PermanentError(Reason.BAD_PAYLOAD, "a job of the same request") from error

    def adopt(self, claim: JobClaim) -> None:
        """Let a job that is in the queue already be that of a later claim of the ledger."""
        with self._server.transaction() as connection:
            connection.execute(
                "UPDATE pacs_bridge_jobs SET ledger_fence = %s WHERE queue = %s AND id = %s",
                (claim.fence, self._name, claim.job_id),
            )

    def settled(self, most: int) -> tuple[Settled, ...]:
        """What became of jobs that are over or have failed; each until it is withdrawn."""
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM pacs_bridge_jobs WHERE queue = %s AND task_id IS NULL"
                " ORDER BY id LIMIT %s",
                (self._name, most),
            ).fetchall()
        return tuple(
            Settled(
                job_id=row["id"],
                ledger_fence=row["ledger_fence"],
                outcome=_outcome(row),
                failures=row["deaths"],
                series_failures=row["series_failures"],
                wait_s=_wait_s(row),
            )
            for row in rows
        )

    def withdraw(self, job_ids: Sequence[int]) -> None:
        """Take jobs out of the queue, whoever has them: what is still reported is refused."""
        with self._server.transaction() as connection:
            self._take_out(connection, job_ids)

    def withdraw_waiting(self, job_ids: Sequence[int]) -> dict[int, int]:
        """Take those jobs out of the queue that nobody has; gives their failures that count."""
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT id, deaths FROM pacs_bridge_jobs WHERE queue = %s AND id = ANY(%s)"
                " AND worker IS NULL AND task_id IS NOT NULL ORDER BY id FOR UPDATE",
                (self._name, list(job_ids)),
            ).fetchall()
            waiting = {row["id"]: row["deaths"] for row in rows}
            self._take_out(connection, list(waiting))
        return waiting

    def withdraw_like(self, requests: Sequence[JobRequest]) -> None:
        """Take whatever stands for these requests out of the queue, under whichever id."""
        keys = [request_key(each) for each in requests]
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT id FROM pacs_bridge_jobs WHERE queue = %s AND request_key = ANY(%s)",
                (self._name, keys),
            ).fetchall()
        self.withdraw([row["id"] for row in rows])

    def free_stalled(self) -> None:
        """End the leases that have run out, though no worker may live long enough to see it."""
        with self._server.transaction() as connection:
            self._takeover.look(connection)
            self._takeover.free(connection)

    def leaves(self) -> tuple[frozenset[str], ...]:
        """For each worker of this queue that is there the kinds of jobs that it leaves to others.

        To be asked every few seconds: a worker is gone when it was not heard of for a while in
        which somebody looked.
        """
        with self._server.transaction() as connection:
            return self._roll_call.look(connection)

    def kind(self, request: JobRequest) -> str:
        """What kind of jobs a request is of, as ``RollCall`` has them.

        Raises
        ------
        PermanentError
            ``bad-payload`` as ``hand_over``.
        """
        return payload_kind(job_payload(1, request, _ANY_TIME, self.recipe(request)))

    def _insert(
        self,
        connection: Connection,
        claims: Sequence[JobClaim],
        payloads: Sequence[tuple[int, Mapping[str, Any]]],
    ) -> None:
        tasks = self._tasks.defer(connection, payloads)
        connection.cursor().executemany(
            "INSERT INTO pacs_bridge_jobs (queue, id, request_key, priority, ledger_fence,"
            " task_id, state, fence, attempts, deaths, series_failures)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'ready', %s, %s, %s, %s)",
            [
                (
                    self._name,
                    claim.job_id,
                    request_key(claim.request),
                    RANK[claim.request.priority],
                    claim.fence,
                    task,
                    first_fence(claim.fence),
                    claim.attempt - 1,
                    claim.failures,
                    claim.series_failures,
                )
                for claim, task in zip(claims, tasks, strict=True)
            ],
        )

    def _take_out(self, connection: Connection, job_ids: Sequence[int]) -> None:
        rows = connection.execute(
            "SELECT task_id FROM pacs_bridge_jobs WHERE queue = %s AND id = ANY(%s)"
            " AND task_id IS NOT NULL ORDER BY id FOR UPDATE",
            (self._name, list(job_ids)),
        ).fetchall()
        for row in rows:
            self._tasks.finish(connection, row["task_id"], has_succeeded=False)
        connection.execute(
            "DELETE FROM pacs_bridge_jobs WHERE queue = %s AND id = ANY(%s)",
            (self._name, list(job_ids)),
        )


def _handed(row: DictRow) -> Handed:
    recipe = None
    if row["is_free"] and row["rules"] is not None:
        recipe = Recipe(row["rules"], row["weights"] or "")
    return Handed(
        job_id=row["id"],
        ledger_fence=row["ledger_fence"],
        ticket_fence=ledger_fence_of(row["fence"]),
        request_key=row["request_key"],
        recipe=recipe,
        has_failed=row["has_failed"],
        is_lost=row["is_lost"],
        failures=row["deaths"],
    )


def _outcome(row: DictRow) -> JobOutcome:
    """What became of a job; one whose row others wrote is dead."""
    try:
        state = State(row["state"])
        if state is State.SENDING:
            results, findings = parsed_outcome(row["outcome"] or "")
            own = "results" / folder_of(row["id"], row["fence"] - 1)  # it rose at the end
            if any(Path(each.path).parent != own for each in results):
                raise PermanentError(Reason.BAD_PAYLOAD, "a result of another lease or job")
            return JobOutcome(state, None, "", results, findings)
        if state not in (State.SKIPPED, State.DEAD, State.RETRY):
            raise ValueError(state)
        reason = Reason(row["reason"] or Reason.INTERNAL_ERROR)
    except PermanentError as error:
        return JobOutcome(State.DEAD, error.reason, error.detail)
    except ValueError:
        return JobOutcome(State.DEAD, Reason.BAD_PAYLOAD, "state or reason")
    return JobOutcome(state, reason, row["detail"])


def _wait_s(row: DictRow) -> float:
    wait_s = float(row["waited_s"])
    return wait_s if 0.0 <= wait_s <= _LONGEST_WAIT_S else 0.0
