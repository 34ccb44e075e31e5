"""Queues under test, and what the tests of queues share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg

from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.tables import prepare
from pacs_bridge.queue import JobRequest, Queue, ResultFile, State
from pacs_bridge.retry_policy import RetryPolicy

POLICY = RetryPolicy(first_wait_s=10, max_wait_s=40, give_up_after_s=1e6, max_attempts=3)
LEASE_S = 60.0
QUEUE_NAME = "default"
OWNER = "bridge-under-test"
MANY = 1_000_000


class QueueBench(Protocol):
    """A queue under test, and what the tests need beside it."""

    queue: Queue
    clock: Any  #: ``time``, and ``pass_s`` to let time pass

    def state(self, job_id: int) -> State: ...

    def reopen(self) -> QueueBench:
        """The same queue, from another process's point of view."""
        ...

    def opener(self) -> Callable[[], Queue]:
        """Opens the queue in another process, where no number of deaths ends a job."""
        ...

    def close(self) -> None: ...


class LedgerBench:
    """The ledger's queue; ``clock`` is a ``SteppedClock`` of the fixtures."""

    def __init__(self, path: Path, clock: Any) -> None:
        self._path = path
        self.clock = clock
        self.ledger = Ledger.open(path, clock)
        self.queue = self.ledger.jobs
        self.outbox = self.ledger.outbox

    def state(self, job_id: int) -> State:
        view = self.ledger.view.job(job_id)
        assert view is not None
        return view.state

    def reopen(self) -> LedgerBench:
        return LedgerBench(self._path, self.clock)

    def opener(self) -> Callable[[], Queue]:
        path = self._path
        return lambda: Ledger.open(path, max_failures=MANY).jobs

    def close(self) -> None:
        self.ledger.close()


class PostgresBench:
    """The queue on PostgreSQL; its clock lets every time in the database grow older."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._others: list[PostgresBench] = []
        self.server = Server(url)
        prepare(self.server, QUEUE_NAME, OWNER)
        self.queue = PostgresQueue(self.server, QUEUE_NAME, lambda: OWNER)
        self.clock = ServerClock(url)

    def state(self, job_id: int) -> State:
        return self.queue.state(job_id)

    def reopen(self) -> PostgresBench:
        self._others.append(PostgresBench(self.url))
        return self._others[-1]

    def opener(self) -> Callable[[], Queue]:
        url = self.url
        return lambda: PostgresQueue(Server(url), QUEUE_NAME, lambda: OWNER, MANY)

    def close(self) -> None:
        for each in self._others:
            each.close()
        self.queue.close()
        self.server.close()


class ServerClock:
    """The clock of a PostgreSQL server, as far as a queue can see it."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: Of a worker's machine.
        self.time = datetime.now(UTC)

    def pass_s(self, seconds: float) -> None:
        with psycopg.connect(self.url) as connection:
            for table, column in (
                ("pacs_bridge_jobs", "lease_until"),
                ("procrastinate_jobs", "scheduled_at"),
                ("procrastinate_workers", "last_heartbeat"),
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)",
                    (seconds,),
                )
        self.time += timedelta(seconds=seconds)


def request_of(series: str = "1.2.3", **changes: object) -> JobRequest:
    request = JobRequest(series, 1, "route", "model", ("archive",))
    return dataclasses.replace(request, **changes)


def result_of(stack: int = 0, kind: str = "binary") -> ResultFile:
    return ResultFile(
        stack=stack,
        kind=kind,
        path=f"results/{stack}-{kind}.dcm",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=f"2.25.{stack}.{kind == 'binary':d}",
        series_instance_uid="2.25.7",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256="00" * 32,
        size_bytes=100,
    )
