"""Queues under test, and what the tests of queues share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg

from pacs_bridge.errors import TransientError
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
_LOOKS = 8  #: while a time passes


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
    """The queue on PostgreSQL, looked at by a process that lives as long as the bench."""

    def __init__(self, url: str, clock: QueueClock | None = None) -> None:
        self.url = url
        self._others: list[PostgresBench] = []
        self.server = Server(url)
        prepare(self.server, QUEUE_NAME, OWNER)
        self.clock = clock or QueueClock(url)
        self.queue = PostgresQueue(
            self.server, QUEUE_NAME, lambda: OWNER, steady_s=self.clock.steady_s
        )
        self.clock.observers.append(self.queue)

    def state(self, job_id: int) -> State:
        return self.queue.state(job_id)

    def reopen(self) -> PostgresBench:
        self._others.append(PostgresBench(self.url, self.clock))
        return self._others[-1]

    def opener(self) -> Callable[[], Queue]:
        url = self.url
        return lambda: PostgresQueue(Server(url), QUEUE_NAME, lambda: OWNER, MANY)

    def close(self) -> None:
        for each in self._others:
            each.close()
        self.clock.observers.remove(self.queue)
        self.queue.close()
        self.server.close()


class QueueClock:
    """Time as a queue on PostgreSQL sees it: steady seconds of processes, and the server's."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: Of a worker's machine.
        self.time = datetime.now(UTC)
        self.steady = 1000.0
        #: Look on while time passes, as processes do that live that long.
        self.observers: list[PostgresQueue] = []

    def steady_s(self) -> float:
        return self.steady

    def pass_s(self, seconds: float) -> None:
        self._look()
        for _ in range(_LOOKS):
            self.steady += seconds / _LOOKS
            self._look()
        with psycopg.connect(self.url) as connection:
            for table, column in (
                ("procrastinate_jobs", "scheduled_at"),
                ("pacs_bridge_workers", "shown_at"),
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)",
                    (seconds,),
                )
        self.time += timedelta(seconds=seconds)

    def _look(self) -> None:
        for each in self.observers:
            with suppress(TransientError):
                each.look()


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
