"""A site, its queue, and a worker elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from queue_bench import QUEUE_NAME, PostgresBench, result_of

from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.postgres.dispatcher import Dispatcher, DispatchRules
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.ticket import TicketBook
from pacs_bridge.queue import JobClaim, ResultFile
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.worker_job import folder_of


class Site:
    """A bridge that hands jobs over; ``bench.queue`` is what its workers see."""

    def __init__(self, folder: Path, bench: PostgresBench, clock) -> None:
        self.folder = folder
        self.bench = bench
        self.clock = clock
        self.ledger = Ledger.open(folder / "ledger.sqlite", clock)
        self.handed = HandedOver(bench.server, QUEUE_NAME, steady_s=clock.steady_s)
        self.book = TicketBook(folder)
        self.dispatcher = self.new_dispatcher()

    def new_dispatcher(
        self, waiting_jobs: int = 10, *, has_local_workers: bool = False
    ) -> Dispatcher:
        """The same, after its process was started again."""
        rules = DispatchRules(60.0, waiting_jobs, RetryPolicy(10, 10, 1e6), has_local_workers)
        log = JsonLog.open(self.folder / "log.jsonl", IdentityHash(b"test"), "debug")
        self.dispatcher = Dispatcher(
            self.ledger, self.handed, self.book, rules, log, self.clock.steady_s
        )
        return self.dispatcher

    def job(self, job_id: int):
        """What the ledger says of a job."""
        view = self.ledger.view.job(job_id)
        assert view is not None
        return view

    def deaths(self, job_id: int) -> int:
        with self.ledger.database.read() as connection:
            return connection.execute("SELECT deaths FROM jobs WHERE id = ?", (job_id,)).fetchone()[
                0
            ]

    def result(self, claim: JobClaim) -> ResultFile:
        """A result of a lease, which lies in the shared folder."""
        path = self.folder / "results" / folder_of(claim.job_id, claim.fence) / "a.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"segmentation")
        return replace(
            result_of(),
            path=path.relative_to(self.folder).as_posix(),
            sha256=hashlib.sha256(b"segmentation").hexdigest(),
            size_bytes=path.stat().st_size,
        )

    def complete(self, claim: JobClaim) -> None:
        """Report a result as a worker elsewhere does."""
        self.bench.queue.complete(claim, [self.result(claim)], [])

    def work_one(self) -> JobClaim:
        """Claim a job and complete it, as a worker elsewhere does."""
        claim = self.bench.queue.claim("w", 60.0)
        assert claim is not None
        self.complete(claim)
        return claim

    def tickets(self) -> list[Path]:
        return list((self.folder / "tickets").glob("*"))


@pytest.fixture
def site(ram_folder, clock, postgres) -> Iterator[Site]:
    bench = PostgresBench(postgres.new_database())
    made = Site(ram_folder, bench, clock)
    yield made
    made.handed.turn.end()
    made.ledger.close()
    bench.close()
