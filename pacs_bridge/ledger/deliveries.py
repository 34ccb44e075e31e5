"""Deliveries in the ledger: each result to each destination, retried on its own."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from inference.reasons import Reason
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.history import Change, note
from pacs_bridge.ledger.leases import LeaseTable
from pacs_bridge.ledger.results import results_of
from pacs_bridge.ledger.supersession import IS_OVERTAKEN
from pacs_bridge.queue import (
    DeliveryClaim,
    DeliveryState,
    JobClaim,
    ResultFile,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy

_LEASES = LeaseTable("deliveries", "sender")


class DeliveryBox:
    """``Outbox`` on the ledger's file.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        sender: str,
        lease_s: float,
        destinations: Sequence[str] | None = None,
        besides: Collection[int] = (),
    ) -> DeliveryClaim | None:
        """See ``Outbox.claim``."""
        if destinations is not None and not destinations:
            return None
        steady_s = self._database.clock.steady_s()
        with self._database.read() as connection:
            if _next_delivery(connection, steady_s, destinations, besides) is None:
                return None
        with self._database.write() as connection:
            row = _next_delivery(connection, steady_s, destinations, besides)
            while row is not None and _is_superseded(connection, row["job_id"]):
                self._stop(connection, row, DeliveryState.SUPERSEDED)
                row = _next_delivery(connection, steady_s, destinations, besides)
            if row is None:
                return None
            connection.execute(
                "UPDATE deliveries SET state = 'claimed', sender = ?, lease_until_s = ?,"
                " fence = fence + 1, attempts = attempts + 1, state_at = ? WHERE id = ?",
                (sender, steady_s + lease_s, self._database.now_text(), row["id"]),
            )
            return DeliveryClaim(
                delivery_id=row["id"],
                fence=row["fence"] + 1,
                job_id=row["job_id"],
                stack=row["stack"],
                destination=row["destination"],
                attempt=row["attempts"] + 1,
                candidates=results_of(connection, row["job_id"], row["stack"]),
            )

    def heartbeat(self, claim: DeliveryClaim, lease_s: float) -> None:
        """See ``Outbox.heartbeat``."""
        until_s = self._database.clock.steady_s() + lease_s
        with self._database.write() as connection:
            _LEASES.prolong(connection, claim.delivery_id, claim.fence, until_s)

    def sent(self, claim: DeliveryClaim, result: ResultFile) -> None:
        """See ``Outbox.sent``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.delivery_id, claim.fence)
            connection.execute(
                "UPDATE deliveries SET sent_sop_instance_uid = ? WHERE id = ?",
                (result.sop_instance_uid, claim.delivery_id),
            )
            self._end(connection, claim, DeliveryState.SENT)

    def retry(
        self, claim: DeliveryClaim, reason: Reason, detail: str, policy: RetryPolicy
    ) -> DeliveryState:
        """See ``Outbox.retry``."""
        with self._database.write() as connection:
            row = _LEASES.held(connection, claim.delivery_id, claim.fence)
            if _is_superseded(connection, claim.job_id):
                self._end(connection, claim, DeliveryState.SUPERSEDED, reason, detail)
                return DeliveryState.SUPERSEDED
            if policy.is_over(row["attempts"], row["waited_s"]):
                self._end(connection, claim, DeliveryState.DEAD, reason, detail)
                return DeliveryState.DEAD
            wait_s = policy.wait_s(row["attempts"])
            _LEASES.postpone(connection, claim.delivery_id, wait_s, self._database.clock)
            self._end(connection, claim, DeliveryState.PENDING, reason, detail)
        return DeliveryState.PENDING

    def park(self, claim: DeliveryClaim, reason: Reason, detail: str) -> None:
        """See ``Outbox.park``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.delivery_id, claim.fence)
            self._end(connection, claim, DeliveryState.DEAD, reason, detail)

    def release(self, claim: DeliveryClaim) -> None:
        """See ``Outbox.release``."""
        with self._database.write() as connection:
            _LEASES.held(connection, claim.delivery_id, claim.fence)
            _LEASES.uncount(connection, claim.delivery_id)
            replaced = _is_superseded(connection, claim.job_id)
            state = DeliveryState.SUPERSEDED if replaced else DeliveryState.PENDING
            self._end(connection, claim, state)

    def park_unknown(self, destinations: Sequence[str]) -> tuple[tuple[str, int], ...]:
        """End what waits for a destination that is none of these: nobody would send it.

        What a sender has is left to it until its lease is over. Gives the names of those that
        are gone, with the number of their deliveries.
        """
        marks = ", ".join("?" * len(destinations))
        gone = (
            "(state = 'pending' OR sender IS NOT NULL AND lease_until_s <= ?)"
            f" AND destination NOT IN ({marks})"
        )
        values = [self._database.clock.steady_s(), *destinations]
        with self._database.read() as connection:
            if not connection.execute(
                f"SELECT 1 FROM deliveries WHERE {gone}",  # noqa: S608 - only question marks
                values,
            ).fetchone():
                return ()
        with self._database.write() as connection:
            rows = connection.execute(
                f"SELECT * FROM deliveries WHERE {gone} ORDER BY id",  # noqa: S608 - the same
                values,
            ).fetchall()
            for row in rows:
                state, detail = DeliveryState.DEAD, "the configuration has it no longer"
                self._stop(connection, row, state, Reason.UNKNOWN_DESTINATION, detail)
        return tuple(sorted(Counter(row["destination"] for row in rows).items()))

    def presume_dead(self, sender: str) -> int:
        """End the leases of a sender that is known to be gone; gives how many.

        A sender is one thread of a process: ``process:destination``.
        """
        with self._database.write() as connection:
            return _LEASES.expire(connection, sender)

    def _end(
        self,
        connection: sqlite3.Connection,
        claim: DeliveryClaim,
        state: DeliveryState,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        row = {"id": claim.delivery_id, "job_id": claim.job_id}
        self._stop(connection, row, state, reason, detail)

    def _stop(
        self,
        connection: sqlite3.Connection,
        row: sqlite3.Row | Mapping[str, int],
        state: DeliveryState,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        """Let the delivery of a row pass into a state, held by nobody."""
        now = self._database.now_text()
        connection.execute(
            "UPDATE deliveries SET state = ?, reason = ?, detail = ?, state_at = ? WHERE id = ?",
            (state, reason, detail, now, row["id"]),
        )
        _LEASES.let_go(connection, row["id"])
        job = connection.execute(
            "SELECT series_instance_uid, revision FROM jobs WHERE id = ?", (row["job_id"],)
        ).fetchone()
        change = Change(job[0], job[1], state, reason, detail, row["job_id"], row["id"])
        note(connection, now, change)
        settle_job(connection, now, row["job_id"])


def insert_deliveries(
    connection: sqlite3.Connection, now: str, claim: JobClaim, results: Sequence[ResultFile]
) -> None:
    """One delivery for each stack and destination; one that a former run made stays as it is.

    But for those that wait for their result to be made anew: they are due. What they sent before
    they know until then, and after it if it is the same.
    """
    priority = connection.execute(
        "SELECT priority FROM jobs WHERE id = ?", (claim.job_id,)
    ).fetchone()[0]
    for stack in sorted({result.stack for result in results}):
        for destination in claim.request.destinations:
            connection.execute(
                "INSERT OR IGNORE INTO deliveries"
                " (job_id, stack, destination, priority, state, state_at)"
                " VALUES (?, ?, ?, ?, 'pending', ?)",
                (claim.job_id, stack, destination, priority, now),
            )
    connection.execute(
        "DELETE FROM deliveries WHERE job_id = ? AND again = 1 AND NOT EXISTS (SELECT 1"
        " FROM results r WHERE r.job_id = deliveries.job_id AND r.stack = deliveries.stack)",
        (claim.job_id,),
    )
    connection.execute(
        "UPDATE deliveries SET state = 'pending', again = 0, due_s = 0, attempts = 0,"
        " waited_s = 0, reason = NULL, detail = '', state_at = ?,"
        " sent_sop_instance_uid = (SELECT r.sop_instance_uid FROM results r"
        " WHERE r.job_id = deliveries.job_id AND r.stack = deliveries.stack"
        " AND r.sop_instance_uid = deliveries.sent_sop_instance_uid)"
        " WHERE job_id = ? AND again = 1",
        (now, claim.job_id),
    )
    settle_job(connection, now, claim.job_id)


def settle_job(connection: sqlite3.Connection, now: str, job_id: int) -> None:
    """Let a job end when none of its deliveries is under way any more."""
    job = connection.execute(
        "SELECT state, series_instance_uid, revision FROM jobs WHERE id = ?", (job_id,)
    ).fetchone()
    deliveries = connection.execute(
        "SELECT state, destination, reason, detail FROM deliveries WHERE job_id = ? ORDER BY id",
        (job_id,),
    ).fetchall()
    states = {row["state"] for row in deliveries}
    if job["state"] not in (State.SENDING, State.SENT) or states & {"pending", "claimed"}:
        return
    reason, detail = None, ""
    if dead := [row for row in deliveries if row["state"] == DeliveryState.DEAD]:
        state, reason = State.DEAD, dead[0]["reason"]
        detail = "; ".join(f"{row['destination']}: {row['detail']}" for row in dead)
    elif states == {DeliveryState.COMMITTED}:
        state = State.COMMITTED
    else:
        state = State.SENT
    if state == job["state"]:
        return
    connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, detail = ?, state_at = ? WHERE id = ?",
        (state, reason, detail, now, job_id),
    )
    change = Change(job["series_instance_uid"], job["revision"], state, reason, detail, job_id)
    note(connection, now, change)


def _is_superseded(connection: sqlite3.Connection, job_id: int) -> bool:
    state = connection.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return bool(state[0] == State.SUPERSEDED)


def _next_delivery(
    connection: sqlite3.Connection,
    steady_s: float,
    destinations: Sequence[str] | None,
    besides: Collection[int],
) -> sqlite3.Row | None:
    """The most urgent delivery that is due: one that waits, or whose sender is presumed dead."""
    wanted, values = f" AND NOT {IS_OVERTAKEN}", [*(destinations or ()), json.dumps(list(besides))]
    if destinations is not None:
        wanted += f" AND destination IN ({', '.join('?' * len(destinations))})"
    wanted += " AND id NOT IN (SELECT value FROM json_each(?))"
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM ("  # noqa: S608 - only question marks are put in
        "SELECT * FROM (SELECT * FROM deliveries INDEXED BY deliveries_waiting"
        f" WHERE state = 'pending' AND due_s <= ?{wanted} ORDER BY priority, id LIMIT 1)"
        " UNION ALL "
        "SELECT * FROM (SELECT * FROM deliveries INDEXED BY deliveries_leased"
        f" WHERE sender IS NOT NULL AND lease_until_s <= ?{wanted} ORDER BY priority, id LIMIT 1)"
        ") ORDER BY priority, id LIMIT 1",
        [steady_s, *values, steady_s, *values],
    ).fetchone()
    return row
