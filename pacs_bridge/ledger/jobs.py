"""Jobs in the ledger: the queue of one machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.deliveries import insert_deliveries
from pacs_bridge.ledger.history import Change, note
from pacs_bridge.ledger.leases import LeaseTable
from pacs_bridge.ledger.next_job import RANK, due_besides, next_job, request_of
from pacs_bridge.ledger.results import replace_results, sent_results_before
from pacs_bridge.ledger.supersession import IS_JOB_OVERTAKEN, replace_earlier
from pacs_bridge.queue import (
    JobClaim,
    JobKind,
    JobOutcome,
    JobRequest,
    LeaseLostError,
    Priority,
    ResultFile,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.series_faults import OF_ONE_SERIES

_STAGES = (State.SEGMENTED, State.ENCODED)

_LEASES = LeaseTable("jobs", "worker")


class JobQueue:
    """``Queue`` on the ledger's file; any number of processes of one machine may share it.

    Parameters
    ----------
    database
        The ledger's file.
    max_failures
        A job is ``DEAD`` after so many failures that count, the death of its worker among them:
        it may be what kills them.
    """

    def __init__(self, database: Database, max_failures: int = 3) -> None:
        self._database = database
        self._max_failures = max_failures

    def submit(self, request: JobRequest) -> int:
        """See ``Queue.submit``."""
        with self._database.write() as connection:
            return insert_job(connection, self._database.now_text(), request)

    def claim(
        self, worker: str, lease_s: float, least: Priority = Priority.ARCHIVE
    ) -> JobClaim | None:
        """See ``Queue.claim``."""
        claims = self.claim_some(worker, lease_s, 1, least=least)
        return claims[0] if claims else None

    def claim_some(
        self,
        worker: str,
        lease_s: float,
        most: int,
        has_room: Callable[[JobRequest], bool] = lambda _request: True,
        *,
        least: Priority = Priority.ARCHIVE,
    ) -> tuple[JobClaim, ...]:
        """Lease the most urgent jobs, in one transaction; each counts as an attempt.

        ``has_room`` is asked before each of them, once, and ends it.
        """
        # if the disk hangs from here on it does so for all: nobody is blamed for that
        found_s = self._database.clock.steady_s()
        claims: list[JobClaim] = []
        with self._database.read() as connection:  # most polls find nothing: leave no lock
            if next_job(connection, found_s, least) is None:
                return ()
        with self._database.write() as connection:
            until_s = self._database.clock.steady_s() + lease_s
            while len(claims) < most and (row := next_job(connection, found_s, least)) is not None:
                if row["worker"] is not None and row["deaths"] + 1 >= self._max_failures:
                    died = f"its worker died; failures that count: {row['deaths'] + 1}"
                    self._end(connection, row["id"], State.DEAD, Reason.INTERNAL_ERROR, died)
                    continue
                if not has_room(request_of(row)):
                    break
                claims.append(self._lease(connection, row, worker, until_s))
        return tuple(claims)

    def heartbeat(self, claim: JobClaim, lease_s: float) -> None:
        """See ``Queue.heartbeat``."""
        with self._database.write() as connection:  # begun late where the disk hangs
            until_s = self._database.clock.steady_s() + lease_s
            _LEASES.prolong(connection, claim.job_id, claim.fence, until_s)

    def advance(self, claim: JobClaim, state: State) -> None:
        """See ``Queue.advance``."""
        if state not in _STAGES:
            raise ValueError(f"a worker notes {_STAGES}, not {state}")
        with self._database.write() as connection:
            _LEASES.held(connection, claim.job_id, claim.fence)
            self._set_state(connection, claim.job_id, state)

    def complete(
        self, claim: JobClaim, results: Sequence[ResultFile], findings: Sequence[Finding]
    ) -> None:
        """See ``Queue.complete``."""
        with self._database.write() as connection:
            self._complete(connection, claim, results, findings)

    def settle(self, outcomes: Sequence[tuple[JobClaim, JobOutcome]]) -> tuple[JobClaim, ...]:
        """``complete``, ``skip`` or ``park`` jobs in one transaction; gives the claims lost."""
        lost = []
        with self._database.write() as connection:
            for claim, outcome in outcomes:
                try:
                    if outcome.state is State.SENDING:
                        self._complete(connection, claim, outcome.results, outcome.findings)
                        continue
                    _LEASES.held(connection, claim.job_id, claim.fence)
                except LeaseLostError:  # nothing was written of it yet
                    lost.append(claim)
                    continue
                state, reason = outcome.state, outcome.reason or Reason.INTERNAL_ERROR
                self._end(connection, claim.job_id, state, reason, outcome.detail)
        return tuple(lost)

    def retry(self, claim: JobClaim, reason: Reason, detail: str, policy: RetryPolicy) -> State:
        """See ``Queue.retry``."""
        with self._database.write() as connection:
            row = _LEASES.held(connection, claim.job_id, claim.fence)
            counter = "series_failures" if reason in OF_ONE_SERIES else "deaths"
            counted = row[counter] + int(policy.max_attempts is not None)
            if policy.is_over(counted, row["waited_s"]):
                self._end(connection, claim.job_id, State.DEAD, reason, detail)
                return State.DEAD
            wait_s = policy.wait_s(row["attempts"])
            _LEASES.postpone(connection, claim.job_id, wait_s, self._database.clock)
            connection.execute(
                f"UPDATE jobs SET {counter} = ? WHERE id = ?",  # noqa: S608 - one of two
                (counted, claim.job_id),
            )
            self._end(connection, claim.job_id, State.RETRY, reason, detail)
        return State.RETRY

    def park(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """See ``Queue.park``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.job_id, claim.fence)
            self._end(connection, claim.job_id, State.DEAD, reason, detail)

    def skip(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """See ``Queue.skip``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.job_id, claim.fence)
            self._end(connection, claim.job_id, State.SKIPPED, reason, detail)

    def release(self, claim: JobClaim) -> None:
        """See ``Queue.release``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.job_id, claim.fence)
            _LEASES.uncount(connection, claim.job_id)
            _LEASES.let_go(connection, claim.job_id)
            self._set_state(connection, claim.job_id, State.READY)

    def claim_this(self, job_id: int, worker: str, lease_s: float) -> JobClaim | None:
        """Lease one job, if it waits and is due. Counts as an attempt."""
        steady_s = self._database.clock.steady_s()
        with self._database.write() as connection:
            row = next_job(connection, steady_s, job_id=job_id)
            if row is None or row["worker"] is not None:
                return None
            return self._lease(connection, row, worker, steady_s + lease_s)

    def due_besides(
        self, kinds: Collection[tuple[JobKind, Priority]], most: int
    ) -> tuple[tuple[int, JobRequest], ...]:
        """Jobs that wait and are due, but of these kinds at these urgencies; most urgent first."""
        steady_s = self._database.clock.steady_s()
        with self._database.read() as connection:
            return due_besides(connection, steady_s, kinds, most)

    def held_by(self, worker: str) -> tuple[JobClaim, ...]:
        """The claims of a worker, as it was given them: for one that has lost its memory."""
        return self._held_by(worker, "1")

    def overtaken(self, worker: str) -> tuple[JobClaim, ...]:
        """Those among the claims of a worker that nobody would be given any more.

        A later revision of their series may yet have a result.
        """
        return self._held_by(worker, IS_JOB_OVERTAKEN)

    def note_failures(self, claim: JobClaim) -> None:
        """Let as many failures count against a job as its claim has; nothing if it is lost."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET deaths = max(deaths, ?), series_failures = max(series_failures, ?)"
                " WHERE id = ? AND fence = ?",
                (claim.failures, claim.series_failures, claim.job_id, claim.fence),
            )

    def prolong(self, worker: str, lease_s: float) -> int:
        """Prolong all leases of a worker from now on; gives how many."""
        with self._database.write() as connection:  # begun late where the disk hangs
            until_s = self._database.clock.steady_s() + lease_s
            return connection.execute(
                "UPDATE jobs INDEXED BY jobs_leased SET lease_until_s = ?"
                " WHERE worker IS NOT NULL AND worker = ?",
                (until_s, worker),
            ).rowcount

    def presume_dead(self, worker: str) -> int:
        """End the leases of a worker that is known to be gone; gives how many."""
        with self._database.write() as connection:
            return _LEASES.expire(connection, worker)

    def give_back(self, worker: str) -> int:
        """Free the jobs of a worker that was ended by us, as ``release`` does; gives how many."""
        with self._database.write() as connection:
            jobs = connection.execute(
                "UPDATE jobs SET attempts = attempts - 1 WHERE worker = ? RETURNING id", (worker,)
            ).fetchall()
            for job in jobs:
                _LEASES.let_go(connection, job["id"])
                self._set_state(connection, job["id"], State.READY)
        return len(jobs)

    def _held_by(self, worker: str, condition: str) -> tuple[JobClaim, ...]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs INDEXED BY jobs_leased"  # noqa: S608 - constants
                f" WHERE worker IS NOT NULL AND worker = ? AND {condition}",
                (worker,),
            ).fetchall()
            return tuple(_claim(connection, row, worker) for row in rows)

    def _lease(
        self, connection: sqlite3.Connection, row: sqlite3.Row, worker: str, until_s: float
    ) -> JobClaim:
        leased = connection.execute(
            "UPDATE jobs SET worker = ?, lease_until_s = ?, fence = fence + 1,"
            " attempts = attempts + 1, deaths = deaths + ? WHERE id = ? RETURNING *",
            (worker, until_s, int(row["worker"] is not None), row["id"]),
        ).fetchone()
        self._set_state(connection, row["id"], State.CLAIMED)
        return _claim(connection, leased, worker)

    def _complete(
        self,
        connection: sqlite3.Connection,
        claim: JobClaim,
        results: Sequence[ResultFile],
        findings: Sequence[Finding],
    ) -> None:
        if not results:
            raise ValueError("a job without results is skipped, not complete")
        _LEASES.held(connection, claim.job_id, claim.fence)
        replace_results(connection, claim.job_id, results)
        connection.execute("DELETE FROM findings WHERE job_id = ?", (claim.job_id,))
        connection.executemany(
            "INSERT INTO findings VALUES (?, ?, ?)",
            [(claim.job_id, finding.reason, finding.detail) for finding in findings],
        )
        _LEASES.let_go(connection, claim.job_id)
        self._set_state(connection, claim.job_id, State.SENDING)
        now = self._database.now_text()
        replace_earlier(connection, now, claim.job_id)
        insert_deliveries(connection, now, claim, results)

    def _end(
        self,
        connection: sqlite3.Connection,
        job_id: int,
        state: State,
        reason: Reason,
        detail: str,
    ) -> None:
        _LEASES.let_go(connection, job_id)
        self._set_state(connection, job_id, state, reason, detail)

    def _set_state(
        self,
        connection: sqlite3.Connection,
        job_id: int,
        state: State,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        set_job_state(connection, self._database.now_text(), job_id, state, reason, detail)


def insert_job(connection: sqlite3.Connection, now: str, request: JobRequest) -> int:
    """Make a job, READY; the same request again gives the id that it has."""
    known = connection.execute(
        "SELECT id FROM jobs WHERE series_instance_uid = ? AND revision = ? AND route = ?"
        " AND model = ?",
        (request.series_instance_uid, request.revision, request.route, request.model),
    ).fetchone()
    if known is not None:
        return int(known[0])
    job_id = connection.execute(
        "INSERT INTO jobs (series_instance_uid, revision, route, model, destinations, priority,"
        " source, study_instance_uid, state, created_at, state_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'ready', ?, ?) RETURNING id",
        (
            request.series_instance_uid,
            request.revision,
            request.route,
            request.model,
            json.dumps(request.destinations),
            RANK[request.priority],
            request.source,
            request.study_instance_uid,
            now,
            now,
        ),
    ).fetchone()[0]
    change = Change(
        request.series_instance_uid, request.revision, State.READY, None, "", int(job_id)
    )
    note(connection, now, change)
    return int(job_id)


def set_job_state(
    connection: sqlite3.Connection,
    now: str,
    job_id: int,
    state: State,
    reason: Reason | None = None,
    detail: str = "",
) -> None:
    """Let a job pass into a state and note it."""
    row = connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, detail = ?, state_at = ? WHERE id = ?"
        " RETURNING series_instance_uid, revision",
        (state, reason, detail, now, job_id),
    ).fetchone()
    note(connection, now, Change(row[0], row[1], state, reason, detail, job_id))


def _claim(connection: sqlite3.Connection, row: sqlite3.Row, worker: str) -> JobClaim:
    """The claim that a leased row stands for."""
    request = request_of(row)
    return JobClaim(
        job_id=row["id"],
        fence=row["fence"],
        request=request,
        attempt=row["attempts"],
        worker=worker,
        created=datetime.fromisoformat(row["created_at"]),
        predecessors=sent_results_before(connection, row["id"]),
        failures=row["deaths"],
        series_failures=row["series_failures"],
    )
