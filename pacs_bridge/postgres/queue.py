"""Jobs on PostgreSQL: the queue of many machines.

A lease is timed by whoever looks on, see ``watch``: no clock of a worker or of the server
ends one. The waits before further attempts are the server's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.postgres.fence import next_fence
from pacs_bridge.postgres.job_rows import JobRows, is_held, lost
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
from pacs_bridge.postgres.takeover import Takeover
from pacs_bridge.postgres.tasks import LOWEST_PRIORITY, Task, Tasks
from pacs_bridge.queue import (
    JobClaim,
    JobRequest,
    OutcomeInDoubtError,
    Priority,
    ResultFile,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.series_faults import OF_ONE_SERIES

RANK = {Priority.ARCHIVE: 0, Priority.ROUTINE: 1, Priority.STAT: 2}
_LEFT_TOLD_EVERY_S = 10.0  #: while all jobs are left to others
_ROW_OF = "SELECT * FROM pacs_bridge_jobs WHERE task_id = %s AND queue = %s"
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
        The same for all jobs of one route, model, source, destinations and recipe.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        owner: Callable[[], str],
        max_failures: int = 3,
        difference: Callable[[JobPayload], str] = lambda _payload: "",
        *,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._name = name
        self._owner = owner
        self._tasks = Tasks(name)
        self._rows = JobRows(name, self._tasks)
        self._presence = Presence(name, steady_s)
        self._takeover = Takeover(name, self._tasks, self._rows, max_failures, steady_s)
        self._steady_s = steady_s
        self._difference = difference
        self._known_owner = ""
        self._left: dict[str, str] = {}  #: kinds of jobs that are for others, and why
        self._left_told_s = float("-inf")
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

    def claim(
        self, worker: str, lease_s: float, least: Priority = Priority.ARCHIVE
    ) -> JobClaim | None:
        """See ``Queue.claim``.

        Raises
        ------
        PermanentError
            ``wrong-queue`` if the queue is another bridge's.
        TransientError
            ``wrong-recipe``, now and then, if all jobs are left to others: this worker would do
            them otherwise.
        """
        self._look_whose_it_is()
        with self._server.transaction() as connection:
            self._takeover.look_now_and_then(connection, lease_s)
            self._takeover.free(connection)
            claim = self._first_for_us(connection, worker, lease_s, least)
            is_all_left = claim is None and least is Priority.ARCHIVE
            left = self._first_left(connection) if is_all_left else ""
            self._presence.show(connection, self._left)
        if left:
            raise TransientError(Reason.WRONG_RECIPE, left)
        return claim

    def heartbeat(self, claim: JobClaim, lease_s: float) -> None:
        """See ``Queue.heartbeat``."""
        with self._server.transaction() as connection:
            self._rows.update_held(
                connection,
                claim,
                "lease_s = %(lease_s)s, heartbeats = heartbeats + 1",
                {"lease_s": lease_s},
            )
            self._takeover.look_now_and_then(connection, lease_s)
            self._presence.show(connection, self._left)

    def look(self) -> None:
        """See whose holders are heard of: a lease runs out only while somebody looks on.

        Claims and heartbeats do so now and then; nothing is taken from anybody by it.
        """
        with self._server.transaction() as connection:
            self._takeover.look(connection)

    def advance(self, claim: JobClaim, state: State) -> None:
        """See ``Queue.advance``."""
        if state not in _STAGES:
            raise ValueError(f"a worker notes {_STAGES}, not {state}")
        with self._server.transaction() as connection:
            self._rows.update_held(connection, claim, "state = %(state)s", {"state": state.value})

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
            counter = "series_failures" if reason in OF_ONE_SERIES else "deaths"
            counted = row[counter] + int(policy.max_attempts is not None)
            if policy.is_over(counted, row["waited_s"]):
                self._rows.settle(connection, row, State.DEAD, reason, detail)
                return State.DEAD
            wait_s = policy.wait_s(row["attempts"])
            connection.execute(
                f"UPDATE pacs_bridge_jobs SET {counter} = %s,"  # noqa: S608 - one of two
                " waited_s = waited_s + %s WHERE queue = %s AND id = %s",
                (counted, wait_s, self._name, claim.job_id),
            )
            if row["ledger_fence"] > 0:  # it waits in the ledger, which then knows that it does
                self._rows.settle(connection, row, state, reason, detail)
            else:
                self._tasks.put_back(connection, row["task_id"], wait_s)
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
        with suppress(TransientError), self._server.transaction() as connection:
            self._presence.end(connection)
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

    def _first_for_us(
        self, connection: Connection, worker: str, lease_s: float, least: Priority
    ) -> JobClaim | None:
        """The first claim that this worker may have, however many jobs are for others.

        All others lock a job's row before its task. So no row is waited for here: whoever has it
        may wait for the task.
        """
        lowest = LOWEST_PRIORITY if least is Priority.ARCHIVE else RANK[least]
        passed: list[int] = []
        while (task := self._tasks.first(connection, self._left, lowest, passed)) is not None:
            row = connection.execute(f"{_ROW_OF} FOR UPDATE SKIP LOCKED", self._of(task)).fetchone()
            if row is None and self._row_of(connection, task) is not None:
                passed.append(task.task_id)
                continue
            claim = self._lease(connection, task, row, worker, lease_s)
            if claim is not None:
                return claim
        return None

    def _first_left(self, connection: Connection) -> str:
        """Now and then, the first job that waits for others, and why; empty if there is none."""
        now_s = self._steady_s()
        if not self._left or now_s - self._left_told_s < _LEFT_TOLD_EVERY_S:
            return ""
        task = self._tasks.first_left(connection, self._left)
        if task is None:
            return ""
        self._left_told_s = now_s
        row = self._row_of(connection, task)
        return "" if row is None else f"job {row['id']}: {self._left[task.kind]}"

    def _row_of(self, connection: Connection, task: Task) -> DictRow | None:
        return connection.execute(_ROW_OF, self._of(task)).fetchone()

    def _of(self, task: Task) -> tuple[int, str]:
        return task.task_id, self._name

    def _lease(
        self, connection: Connection, task: Task, row: DictRow | None, worker: str, lease_s: float
    ) -> JobClaim | None:
        """The claim of the first task; None if it ends here, or its kind is for others."""
        if row is None:
            self._tasks.finish(connection, task.task_id, has_succeeded=False)
            return None
        try:
            payload = parsed_payload(task.args)
            if payload.job != row["id"] or request_key(payload.request) != row["request_key"]:
                raise PermanentError(Reason.BAD_PAYLOAD, "it is of another job")
            difference = self._difference(payload)
        except PermanentError as error:
            self._rows.settle(connection, row, State.DEAD, error.reason, error.detail)
            return None
        except UnknownFormatError:
            difference = "release of the bridge"
        if difference:
            self._left[task.kind] = difference
            return None
        fence = next_fence(row["fence"])
        self._tasks.begin(connection, task.task_id)
        connection.execute(
            "UPDATE pacs_bridge_jobs SET state = 'claimed', reason = NULL, detail = '',"
            " worker = %s, lease_s = %s, heartbeats = 0,"
            " fence = %s, attempts = attempts + 1 WHERE queue = %s AND id = %s",
            (worker, lease_s, fence, self._name, row["id"]),
        )
        return JobClaim(
            job_id=row["id"],
            fence=fence,
            request=payload.request,
            attempt=row["attempts"] + 1,
            worker=worker,
            created=payload.created,
            predecessors=(),
            is_handed_over=row["ledger_fence"] > 0,
            failures=row["deaths"],
            series_failures=row["series_failures"],
        )

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
                if row is not None and is_held(row, claim):
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
                    raise lost(claim)
        except TransientError:
            if is_said:  # before that nothing can have been committed
                self._in_doubt.add(key)
            raise
        self._in_doubt.discard(key)
