"""Jobs on PostgreSQL: the queue of many machines.

All time is the server's: the clocks of the workers do not matter. A step of the server's own
clock ends leases early or late, which costs work and never correctness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.postgres.fence import next_fence
from pacs_bridge.postgres.job_rows import JobRows
from pacs_bridge.postgres.payload import (
    JobPayload,
    UnknownFormatError,
    job_payload,
    outcome_row,
    parsed_payload,
    request_key,
)
from pacs_bridge.postgres.presence import Presence
from pacs_bridge.postgres.server import Connection, Server
from pacs_bridge.postgres.tables import check
from pacs_bridge.postgres.tasks import Task, Tasks
from pacs_bridge.queue import (
    JobClaim,
    JobRequest,
    LeaseLostError,
    OutcomeInDoubtError,
    Priority,
    ResultFile,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy

RANK = {Priority.ARCHIVE: 0, Priority.ROUTINE: 1, Priority.STAT: 2}
_NOT_FOR_US_S = 10.0  #: without claims, for a worker that would do a job otherwise
_STAGES = (State.SEGMENTED, State.ENCODED)


class PostgresQueue:
    """``Queue`` on PostgreSQL; any number of threads, processes and machines may share it.

    Parameters
    ----------
    server
        The database.
    name
        Of the queue in it.
    owner
        Tells which bridge's queue it is; raises ``TransientError`` when its data folder is away,
        and then nothing is claimed.
    max_failures
        A job is ``DEAD`` after so many failures that count, the death of its worker among them.
    difference
        What of a job this worker would do otherwise than its bridge means it; empty if nothing.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        owner: Callable[[], str],
        max_failures: int = 3,
        difference: Callable[[JobPayload], str] = lambda _payload: "",
    ) -> None:
        self._server = server
        self._name = name
        self._owner = owner
        self._max_failures = max_failures
        self._tasks = Tasks(name)
        self._rows = JobRows(name, self._tasks)
        self._presence = Presence(server, self._tasks)
        self._difference = difference
        self._known_owner = ""
        self._paused_until_s = float("-inf")
        self._in_doubt: set[tuple[int, int]] = set()

    def submit(self, request: JobRequest) -> int:
        """See ``Queue.submit``."""
        with self._server.transaction() as connection:
            row = connection.execute(
                "INSERT INTO pacs_bridge_jobs (queue, id, request_key, priority, ledger_fence,"
                " state, fence, attempts)"
                " VALUES (%s, nextval('pacs_bridge_job_ids'), %s, %s, 0, 'ready', 0, 0)"
                " ON CONFLICT (queue, request_key) DO NOTHING RETURNING id",
                (self._name, request_key(request), RANK[request.priority]),
            ).fetchone()
            if row is None:
                return int(self._known(connection, request)["id"])
            job_id = int(row["id"])
            created = datetime.now(UTC).isoformat()
            payload = job_payload(job_id, request, created)
            tasks = self._tasks.defer(connection, [(RANK[request.priority], payload)])
            connection.execute(
                "UPDATE pacs_bridge_jobs SET task_id = %s WHERE queue = %s AND id = %s",
                (tasks[0], self._name, job_id),
            )
        return job_id

    def claim(self, worker: str, lease_s: float) -> JobClaim | None:
        """See ``Queue.claim``.

        Raises
        ------
        PermanentError
            ``wrong-queue`` if the queue is another bridge's.
        TransientError
            ``wrong-recipe`` if the job was left to others: this worker would do it otherwise.
        """
        if time.monotonic() < self._paused_until_s:
            return None
        self._look_whose_it_is()
        self._presence.show()
        while True:
            try:
                with self._server.transaction() as connection:
                    self._free_stalled(connection)
                    task = self._tasks.fetch(connection, self._presence.worker_id)
                    if task is None:
                        return None
                    claim, difference = self._lease(connection, task, worker, lease_s)
            except ForeignKeyViolation:  # struck off meanwhile
                self._presence.renew()
                continue
            if difference:
                self._paused_until_s = time.monotonic() + _NOT_FOR_US_S
                raise TransientError(Reason.WRONG_RECIPE, difference)
            if claim is not None:
                return claim

    def heartbeat(self, claim: JobClaim, lease_s: float) -> None:
        """See ``Queue.heartbeat``."""
        self._presence.show()
        with self._server.transaction() as connection:
            self._update_held(
                connection,
                claim,
                "lease_s = %(lease_s)s, lease_until = now() + make_interval(secs => %(lease_s)s)",
                {"lease_s": lease_s},
            )

    def advance(self, claim: JobClaim, state: State) -> None:
        """See ``Queue.advance``."""
        if state not in _STAGES:
            raise ValueError(f"a worker notes {_STAGES}, not {state}")
        with self._server.transaction() as connection:
            self._update_held(connection, claim, "state = %(state)s", {"state": state.value})

    def complete(
        self, claim: JobClaim, results: Sequence[ResultFile], findings: Sequence[Finding]
    ) -> None:
        """See ``Queue.complete``; the deliveries are made by the bridge that takes the outcome."""
        if not results:
            raise ValueError("a job without results is skipped, not complete")
        outcome = Jsonb(outcome_row(results, findings))
        with self._held(claim, State.SENDING) as (connection, row):
            if row is not None:
                self._rows.settle(connection, row, State.SENDING)
                connection.execute(
                    "UPDATE pacs_bridge_jobs SET outcome = %s WHERE queue = %s AND id = %s",
                    (outcome, self._name, claim.job_id),
                )

    def retry(self, claim: JobClaim, reason: Reason, detail: str, policy: RetryPolicy) -> State:
        """See ``Queue.retry``."""
        state = State.RETRY
        with self._held(claim, State.RETRY, State.DEAD) as (connection, row):
            if row is None:
                return self._rows.state(connection, claim.job_id)
            counted = row["deaths"] + int(policy.max_attempts is not None)
            if policy.is_over(counted, row["waited_s"]):
                self._rows.settle(connection, row, State.DEAD, reason, detail)
                return State.DEAD
            wait_s = policy.wait_s(row["attempts"])
            self._tasks.put_back(connection, row["task_id"], wait_s)
            connection.execute(
                "UPDATE pacs_bridge_jobs SET deaths = %s, waited_s = waited_s + %s"
                " WHERE queue = %s AND id = %s",
                (counted, wait_s, self._name, claim.job_id),
            )
            self._rows.let_go(connection, claim.job_id, state, reason, detail)
        return state

    def park(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """See ``Queue.park``."""
        with self._held(claim, State.DEAD) as (connection, row):
            if row is not None:
                self._rows.settle(connection, row, State.DEAD, reason, detail)

    def skip(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """See ``Queue.skip``."""
        with self._held(claim, State.SKIPPED) as (connection, row):
            if row is not None:
                self._rows.settle(connection, row, State.SKIPPED, reason, detail)

    def release(self, claim: JobClaim) -> None:
        """See ``Queue.release``."""
        with self._held(claim, State.READY) as (connection, row):
            if row is None:
                return
            self._tasks.put_back(connection, row["task_id"])
            connection.execute(
                "UPDATE pacs_bridge_jobs SET attempts = attempts - 1 WHERE queue = %s AND id = %s",
                (self._name, claim.job_id),
            )
            self._rows.let_go(connection, claim.job_id, State.READY)

    def state(self, job_id: int) -> State:
        """Where a job stands.

        Raises
        ------
        KeyError
            If there is no such job.
        """
        with self._server.transaction() as connection:
            return self._rows.state(connection, job_id)

    def close(self) -> None:
        """Sign off; leases that are held run out."""
        with suppress(TransientError):
            self._presence.end()
        self._server.close()

    def _look_whose_it_is(self) -> None:
        owner = self._owner()
        if owner != self._known_owner:
            with self._server.transaction() as connection:
                check(connection, self._name, owner)
            self._known_owner = owner

    def _known(self, connection: Connection, request: JobRequest) -> DictRow:
        row = connection.execute(
            "SELECT id FROM pacs_bridge_jobs WHERE queue = %s AND request_key = %s",
            (self._name, request_key(request)),
        ).fetchone()
        if row is None:
            raise TransientError(Reason.QUEUE_UNAVAILABLE, "the job was withdrawn meanwhile")
        return row

    def _free_stalled(self, connection: Connection) -> None:
        """What workers hold that were not heard of for the length of their leases."""
        rows = connection.execute(
            "SELECT * FROM pacs_bridge_jobs WHERE queue = %s AND worker IS NOT NULL"
            " AND lease_until < now() ORDER BY lease_until LIMIT 100 FOR UPDATE SKIP LOCKED",
            (self._name,),
        ).fetchall()
        for row in rows:
            deaths = row["deaths"] + 1
            connection.execute(
                "UPDATE pacs_bridge_jobs SET deaths = %s WHERE queue = %s AND id = %s",
                (deaths, self._name, row["id"]),
            )
            if deaths >= self._max_failures:
                died = f"its worker died; failures that count: {deaths}"
                self._rows.settle(connection, row, State.DEAD, Reason.INTERNAL_ERROR, died)
                continue
            self._tasks.put_back(connection, row["task_id"])
            self._rows.let_go(connection, row["id"], State.READY)

    def _lease(
        self, connection: Connection, task: Task, worker: str, lease_s: float
    ) -> tuple[JobClaim | None, str]:
        """The claim of a task that was fetched; None if it ends here, or why it is for others."""
        row = connection.execute(
            "SELECT * FROM pacs_bridge_jobs WHERE task_id = %s AND queue = %s FOR UPDATE",
            (task.task_id, self._name),
        ).fetchone()
        if row is None:
            self._tasks.finish(connection, task.task_id, has_succeeded=False)
            return None, ""
        try:
            payload = parsed_payload(task.args)
            if payload.job != row["id"] or request_key(payload.request) != row["request_key"]:
                raise PermanentError(Reason.BAD_PAYLOAD, "it is of another job")
            difference = self._difference(payload)
        except PermanentError as error:
            self._rows.settle(connection, row, State.DEAD, error.reason, error.detail)
            return None, ""
        except UnknownFormatError:
            difference = "release of the bridge"
        if difference:  # whoever has the same takes it; the next one may be for us
            self._tasks.put_back(connection, task.task_id, _NOT_FOR_US_S)
            return None, f"job {row['id']}: {difference}"
        fence = next_fence(row["fence"])
        connection.execute(
            "UPDATE pacs_bridge_jobs SET state = 'claimed', reason = NULL, detail = '',"
            " worker = %s, lease_s = %s, lease_until = now() + make_interval(secs => %s),"
            " fence = %s, attempts = attempts + 1 WHERE queue = %s AND id = %s",
            (worker, lease_s, lease_s, fence, self._name, row["id"]),
        )
        claim = JobClaim(
            job_id=row["id"],
            fence=fence,
            request=payload.request,
            attempt=row["attempts"] + 1,
            worker=worker,
            created=payload.created,
            predecessors=(),
            is_handed_over=row["ledger_fence"] > 0,
        )
        return claim, ""

    @contextmanager
    def _held(
        self, claim: JobClaim, *becomes: State
    ) -> Iterator[tuple[Connection, DictRow | None]]:
        """The row, if the lease of this claim is still good; to be let go of in the body.

        None if the body was run before, and only its answer was lost: the next that happened to
        the row is that it became what the body makes it.
        """
        key = (claim.job_id, claim.fence)
        is_said = False
        try:
            with self._server.transaction() as connection:
                row = connection.execute(
                    "SELECT * FROM pacs_bridge_jobs WHERE queue = %s AND id = %s FOR UPDATE",
                    (self._name, claim.job_id),
                ).fetchone()
                if row is not None and _is_held(row, claim):
                    yield connection, row
                    is_said = True
                elif (
                    key in self._in_doubt
                    and row is not None
                    and row["fence"] == claim.fence + 1
                    and row["state"] in becomes
                ):
                    yield connection, None
                elif key in self._in_doubt and State.SENDING in becomes:
                    raise OutcomeInDoubtError(f"job {claim.job_id}, fence {claim.fence}")
                else:
                    raise _lost(claim)
        except TransientError:
            if is_said:  # before that nothing can have been committed
                self._in_doubt.add(key)
            raise
        self._in_doubt.discard(key)

    def _update_held(
        self, connection: Connection, claim: JobClaim, change: str, values: dict[str, object]
    ) -> None:
        updated = connection.execute(
            f"UPDATE pacs_bridge_jobs SET {change} WHERE queue = %(queue)s"  # noqa: S608 - constants
            " AND id = %(id)s AND fence = %(fence)s AND worker = %(worker)s",
            {
                "queue": self._name,
                "id": claim.job_id,
                "fence": claim.fence,
                "worker": claim.worker,
                **values,
            },
        ).rowcount
        if not updated:
            raise _lost(claim)


def _is_held(row: DictRow, claim: JobClaim) -> bool:
    return bool(row["fence"] == claim.fence and row["worker"] == claim.worker)


def _lost(claim: JobClaim) -> LeaseLostError:
    return LeaseLostError(f"job {claim.job_id}, fence {claim.fence}")
