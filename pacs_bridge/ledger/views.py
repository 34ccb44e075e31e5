"""What people want to see of the ledger; read only."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from inference.reasons import Reason
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.glance import LedgerGlance
from pacs_bridge.queue import DeliveryState, Priority, State

_PRIORITIES = tuple(Priority)


@dataclass(frozen=True, slots=True)
class JobView:
    """One line of a job list: a series revision, with its job if it has one.

    ``state`` is the job's where there is one, and the revision's before. A series of which
    nothing came but what was refused has revision 0.
    """

    series_instance_uid: str
    revision: int
    state: State
    reason: Reason | None
    detail: str
    instance_count: int  #: of the series up to this revision
    owed_count: int  #: instances of the series that were refused and have not come since
    first_at: datetime | None  #: first instance, UTC; None for a job without received series
    state_at: datetime  #: UTC
    job_id: int | None
    route: str
    model: str
    priority: Priority | None
    attempts: int
    due_at: datetime | None  #: when it is tried again, UTC
    worker: str | None
    source: str  #: where the files are: the spool, or a name in the configuration


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One delivery."""

    delivery_id: int
    job_id: int
    stack: int
    destination: str
    state: DeliveryState
    reason: Reason | None
    detail: str
    attempts: int
    due_at: datetime | None
    sent_sop_instance_uid: str | None


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One change of state, from the history."""

    at: datetime
    revision: int
    job_id: int | None
    delivery_id: int | None
    state: str
    reason: Reason | None
    detail: str


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """Whose a series is."""

    study_instance_uid: str
    patient_key: str  #: keyed hash of the Patient ID


class LedgerView:
    """Reading the ledger.

    Parameters
    ----------
    database
        The ledger's file.
    """

    def __init__(self, database: Database | LedgerGlance) -> None:
        self._database = database

    def jobs(
        self, states: Collection[State] | None = None, limit: int = 1000
    ) -> tuple[JobView, ...]:
        """Series revisions and their jobs, the latest change first."""
        wanted = [str(state) for state in (State if states is None else states)]
        marks = ", ".join("?" * len(wanted))
        latest = f"AND state IN ({marks}) ORDER BY state_at DESC LIMIT ?"
        return self._views(latest, [*wanted, limit], "ORDER BY state_at DESC LIMIT ?", [limit])

    def job(self, job_id: int) -> JobView | None:
        """One job."""
        views = self._views("AND job_id = ?", [job_id])
        return views[0] if views else None

    def series(self, series_instance_uid: str) -> tuple[JobView, ...]:
        """All revisions and jobs of one series, the first revision first."""
        order = "ORDER BY revision, job_id"
        return self._views("AND series_instance_uid = ?", [series_instance_uid], order)

    def identity(self, series_instance_uid: str) -> SeriesIdentity | None:
        """Whose a series is; None if nothing of it was received."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT study_instance_uid, patient_key FROM series WHERE series_instance_uid = ?",
                (series_instance_uid,),
            ).fetchone()
        return None if row is None else SeriesIdentity(*row)

    def studies_elsewhere(self, series_instance_uid: str) -> Mapping[int, str]:
        """Of which study a series is, by each job whose files did not come here; empty: unsaid."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, study_instance_uid FROM jobs"
                " WHERE series_instance_uid = ? AND source <> 'spool'",
                (series_instance_uid,),
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    def _views(
        self,
        condition: str,
        values: Sequence[object],
        order: str = "",
        order_values: Sequence[object] = (),
    ) -> tuple[JobView, ...]:
        """Jobs, and revisions that have none, that meet a condition."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"{_COUNTED} (SELECT * FROM (SELECT * FROM ({_JOBS}) WHERE 1 {condition})"  # noqa: S608
                f" UNION ALL SELECT * FROM (SELECT * FROM ({_JOBLESS}) WHERE 1 {condition})"
                f" UNION ALL SELECT * FROM (SELECT * FROM ({_UNSEEN}) WHERE 1 {condition})"
                f" {order}) v",
                [*values, *values, *values, *order_values],
            ).fetchall()
        return tuple(_job_view(row) for row in rows)

    def deliveries(self, job_id: int) -> tuple[DeliveryView, ...]:
        """The deliveries of one job."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM deliveries WHERE job_id = ? ORDER BY id", (job_id,)
            ).fetchall()
        return tuple(_delivery_view(row) for row in rows)

    def history(self, series_instance_uid: str) -> tuple[ChangeView, ...]:
        """What happened to a series, its jobs and deliveries, in order."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM history WHERE series_instance_uid = ? ORDER BY id",
                (series_instance_uid,),
            ).fetchall()
        return tuple(
            ChangeView(
                at=datetime.fromisoformat(row["at"]),
                revision=row["revision"],
                job_id=row["job_id"],
                delivery_id=row["delivery_id"],
                state=row["state"],
                reason=_reason(row["reason"]),
                detail=row["detail"],
            )
            for row in rows
        )

    def state_counts(self) -> Mapping[State, int]:
        """How many series revisions or their jobs stand in each state."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM jobs GROUP BY state UNION ALL"  # noqa: S608
                " SELECT state, count(*) FROM revisions"
                " WHERE state IN ('receiving', 'quiet', 'incomplete', 'skipped', 'dead')"
                " GROUP BY state"
                f" UNION ALL SELECT 'incomplete', count(*) FROM ({_UNSEEN})"
            ).fetchall()
        counts = dict.fromkeys(State, 0)
        for state, number in rows:
            counts[State(state)] += number
        return {state: number for state, number in counts.items() if number}

    def counts(self) -> Mapping[str, int]:
        """Counted outcomes of instances, by reason code: known again, quarantined, our own."""
        with self._database.read() as connection:
            return dict(connection.execute("SELECT name, value FROM counts").fetchall())

    def waiting(self) -> int:
        """How many jobs wait or are being worked on."""
        with self._database.read() as connection:
            return int(
                connection.execute(
                    "SELECT (SELECT count(*) FROM jobs WHERE state IN ('ready', 'retry'))"
                    " + (SELECT count(*) FROM jobs WHERE worker IS NOT NULL)"
                ).fetchone()[0]
            )


#: Instances are counted only of the rows that are shown.
_COUNTED = """
SELECT v.*, (SELECT count(*) FROM instances i WHERE i.series_instance_uid = v.series_instance_uid
              AND i.revision <= v.revision) AS instance_count,
       (SELECT count(*) FROM refused f WHERE f.series_instance_uid = v.series_instance_uid)
         AS owed_count FROM
"""
_JOBS = """
SELECT j.series_instance_uid, j.revision, j.state, j.reason, j.detail, r.first_at, j.state_at,
       j.id AS job_id, j.route, j.model, j.priority, j.attempts, j.due_at, j.worker, j.source
  FROM jobs j LEFT JOIN revisions r USING (series_instance_uid, revision)
"""
_JOBLESS = """
SELECT series_instance_uid, revision, state, reason, detail, first_at, state_at,
       NULL AS job_id, '' AS route, '' AS model, NULL AS priority, 0 AS attempts,
       NULL AS due_at, NULL AS worker, 'spool' AS source
  FROM revisions WHERE state IN ('receiving', 'quiet', 'incomplete', 'skipped', 'dead')
"""
_UNSEEN = """
SELECT series_instance_uid, 0 AS revision, 'incomplete' AS state, 'incomplete' AS reason,
       'nothing is here but for what was refused' AS detail, min(refused_at) AS first_at,
       max(refused_at) AS state_at, NULL AS job_id, '' AS route, '' AS model, NULL AS priority,
       0 AS attempts, NULL AS due_at, NULL AS worker, 'spool' AS source
  FROM refused f
 WHERE NOT EXISTS (SELECT 1 FROM series s WHERE s.series_instance_uid = f.series_instance_uid)
 GROUP BY series_instance_uid
"""


def _job_view(row: sqlite3.Row) -> JobView:
    state = State(row["state"])
    return JobView(
        series_instance_uid=row["series_instance_uid"],
        revision=row["revision"],
        state=state,
        reason=_reason(row["reason"]),
        detail=row["detail"],
        instance_count=row["instance_count"],
        owed_count=row["owed_count"],
        first_at=_moment(row["first_at"]),
        state_at=datetime.fromisoformat(row["state_at"]),
        job_id=row["job_id"],
        route=row["route"],
        model=row["model"],
        priority=None if row["priority"] is None else _PRIORITIES[row["priority"]],
        attempts=row["attempts"],
        due_at=_moment(row["due_at"]) if state is State.RETRY else None,
        worker=row["worker"],
        source=row["source"],
    )


def _delivery_view(row: sqlite3.Row) -> DeliveryView:
    return DeliveryView(
        delivery_id=row["id"],
        job_id=row["job_id"],
        stack=row["stack"],
        destination=row["destination"],
        state=DeliveryState(row["state"]),
        reason=_reason(row["reason"]),
        detail=row["detail"],
        attempts=row["attempts"],
        due_at=_moment(row["due_at"]) if row["state"] == DeliveryState.PENDING else None,
        sent_sop_instance_uid=row["sent_sop_instance_uid"],
    )


def _reason(code: str | None) -> Reason | None:
    return None if code is None else Reason(code)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
