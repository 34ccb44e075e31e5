"""A site with a dispatcher in a process of its own, which may be killed as well."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
from queue_bench import MANY, OWNER, QUEUE_NAME, request_of, result_of
from stub_worker import FORK, StubWork, end_process

from pacs_bridge.errors import TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.jobs import insert_job
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.postgres.dispatcher import Dispatcher, DispatchRules
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.tables import prepare
from pacs_bridge.postgres.ticket import TicketBook
from pacs_bridge.queue import Priority, Queue
from pacs_bridge.retry_policy import RetryPolicy

_RULES = DispatchRules(60.0, 64, RetryPolicy(1.0, 1.0, 1e9))


class StubSite:
    """A ledger, and a dispatcher between it and a queue on PostgreSQL.

    Parameters
    ----------
    folder
        Of the ledger and the one result that all jobs share.
    url
        Of the database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        server = Server(url)
        prepare(server, QUEUE_NAME, OWNER)
        server.close()
        path = folder / "results" / "shared.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"segmentation")
        digest = hashlib.sha256(b"segmentation").hexdigest()
        self.result = replace(result_of(), path="results/shared.dcm", sha256=digest, size_bytes=12)
        self._busy_s = FORK.Value("d", 0.0, lock=False)
        self._process: multiprocessing.process.BaseProcess | None = None
        self.kills = 0

    @property
    def busy_s(self) -> float:
        """Seconds that dispatchers spent on other things than waiting."""
        return float(self._busy_s.value)

    def work(self, lease_s: float, seconds: float, is_even: bool = False) -> StubWork:
        """Work whose result lies here."""
        return StubWork(lease_s, seconds, is_even, self.result, self._folder)

    def open_queue(self) -> Queue:
        """The queue, as a worker elsewhere sees it."""
        return PostgresQueue(Server(self._url), QUEUE_NAME, lambda: OWNER, MANY)

    def submit(self, series: list[str], priority: Priority = Priority.ARCHIVE) -> None:
        """Make a job of each series, whose files lie in an archive."""
        ledger = self._ledger()
        with ledger.database.write() as connection:
            for each in series:
                request = request_of(each, source="pacs", priority=priority)
                insert_job(connection, ledger.database.now_text(), request)
        ledger.close()

    def start(self) -> None:
        """Start the dispatcher."""
        self._process = FORK.Process(target=self._dispatch, daemon=True)
        self._process.start()

    def kill_dispatcher(self) -> None:
        """SIGKILL the dispatcher, and start another."""
        self.end()
        self.start()
        self.kills += 1

    def end(self) -> None:
        """SIGKILL the dispatcher."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def open_jobs(self) -> int:
        """How many jobs have not come back yet."""
        ledger = self._ledger()
        number = ledger.view.waiting()
        ledger.close()
        return number

    def was_handed_over(self, series: str) -> bool:
        """Whether the job of a series stands in the queue, or a worker has begun it."""
        with psycopg.connect(self._url) as connection:
            found = connection.execute(
                "SELECT 1 FROM pacs_bridge_jobs WHERE request_key LIKE %s", (f"{series}|%",)
            ).fetchone()
        return found is not None

    def account(self) -> Counter[tuple[str, str | None]]:
        """How many jobs stand in which state, for which reason."""
        ledger = self._ledger()
        with ledger.database.read() as connection:
            rows = connection.execute(
                "SELECT state, reason, count(*) FROM jobs GROUP BY state, reason"
            ).fetchall()
        ledger.close()
        return Counter({(row[0], row[1]): row[2] for row in rows})

    def deliveries(self) -> int:
        """How many deliveries were made."""
        ledger = self._ledger()
        with ledger.database.read() as connection:
            number = int(connection.execute("SELECT count(*) FROM deliveries").fetchone()[0])
        ledger.close()
        return number

    def _ledger(self) -> Ledger:
        return Ledger.open(self._folder / "ledger.sqlite", max_failures=MANY)

    def _dispatch(self) -> None:
        log = JsonLog.open(self._folder / "log.jsonl", IdentityHash(b"stub"), "error")
        handed = HandedOver(Server(self._url), QUEUE_NAME)
        dispatcher = Dispatcher(self._ledger(), handed, TicketBook(self._folder), _RULES, log)
        while True:
            begun_s = time.monotonic()
            is_busy = False
            with suppress(TransientError):
                is_busy = dispatcher.step()
            self._busy_s.value += time.monotonic() - begun_s
            if not is_busy:
                time.sleep(0.05)


def shuffled_series(number: int) -> list[str]:
    """UIDs of so many series."""
    series = [f"1.2.840.99.{n}" for n in range(number)]
    random.Random(20261122).shuffle(series)
    return series
