"""Jobs that one worker leaves to others, and jobs that nobody could have: neither stops anybody."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from queue_bench import LEASE_S, OWNER, POLICY, QUEUE_NAME, request_of

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.postgres.payload import JobPayload
from pacs_bridge.postgres.place import handed_over_jobs
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.recipe import Recipes
from pacs_bridge.queue import State


@pytest.fixture
def picky(site) -> Callable[[str], PostgresQueue]:
    """A worker that would do the job of one series otherwise."""

    def make(series: str) -> PostgresQueue:
        def difference(payload: JobPayload) -> str:
            return "weights" if payload.series_instance_uid == series else ""

        return PostgresQueue(
            site.bench.server,
            QUEUE_NAME,
            lambda: OWNER,
            3,
            difference,
            steady_s=site.bench.clock.steady_s,
        )

    return make


def test_a_job_that_is_for_others_keeps_none_behind_it_from_a_worker(site, picky):
    for_others = site.bench.queue.submit(request_of("1.1"))
    for_us = site.bench.queue.submit(request_of("1.2"))
    worker = picky("1.1")

    claim = worker.claim("w", LEASE_S)
    assert claim is not None
    assert claim.job_id == for_us
    with pytest.raises(TransientError) as error:
        worker.claim("w", LEASE_S)
    assert error.value.reason is Reason.WRONG_RECIPE
    assert site.bench.state(for_others) is State.READY


def test_a_job_that_is_for_others_waits_for_nobody_who_left_it(site, picky):
    left = site.bench.queue.submit(request_of("1.1"))
    site.bench.queue.submit(request_of("1.2"))
    picky("1.1").claim("w", LEASE_S)

    claim = site.bench.queue.claim("w2", LEASE_S)
    assert (claim.job_id, claim.attempt) == (left, 1)


def test_a_worker_that_does_not_know_the_source_of_a_job_leaves_it(site, make_config):
    (site.folder / "data").mkdir()
    (site.folder / "data" / "queue.id").write_text(OWNER)
    pacs = '[{ name = "pacs", kind = "dicomweb", url = "https://pacs.example/dicom" }]'
    site.handed.recipe = Recipes(make_config(sources=pacs)).of
    job_id = site.ledger.jobs.submit(request_of(source="pacs", study_instance_uid="1.9"))
    site.dispatcher.step()
    stale = handed_over_jobs(make_config(), site.bench.url, QUEUE_NAME)

    with pytest.raises(TransientError) as error:
        stale.queue.claim("w", LEASE_S)
    stale.close()
    assert error.value.reason is Reason.WRONG_RECIPE
    assert "source" in error.value.detail
    assert site.bench.state(job_id) is State.READY
    right = handed_over_jobs(make_config(sources=pacs), site.bench.url, QUEUE_NAME)
    assert right.queue.claim("w", LEASE_S).job_id == job_id
    right.close()


def lose_task(site, job_id: int, change: str = "DELETE FROM procrastinate_jobs") -> None:
    """Do to the task of a job what nothing of ours does."""
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(
            f"{change} WHERE id = (SELECT task_id FROM pacs_bridge_jobs WHERE id = %s)", (job_id,)
        )


LOSSES = ("DELETE FROM procrastinate_jobs", "UPDATE procrastinate_jobs SET status = 'failed'")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_job_whose_task_is_gone_stops_no_worker_and_is_handed_over_again(site, loss):
    lost = site.ledger.jobs.submit(request_of("1.1"))
    other = site.ledger.jobs.submit(request_of("1.2"))
    site.dispatcher.step()
    assert site.bench.queue.claim("w", LEASE_S).job_id == lost
    lose_task(site, lost, loss)
    site.bench.clock.pass_s(LEASE_S + 1)

    assert site.bench.queue.claim("w", LEASE_S).job_id == other
    site.new_dispatcher().step()

    claim = site.bench.queue.claim("w", LEASE_S)
    assert (claim.job_id, claim.failures) == (lost, 1)
    site.complete(claim)
    site.dispatcher.step()
    assert site.job(lost).state is State.SENDING


@pytest.mark.parametrize("loss", LOSSES)
def test_a_waiting_job_whose_task_is_gone_is_handed_over_again(site, loss):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    lose_task(site, job_id, loss)
    assert site.handed.waiting() == {}
    site.new_dispatcher().step()

    assert site.bench.queue.claim("w", LEASE_S).job_id == job_id


@pytest.mark.parametrize(
    "report",
    [
        lambda queue, claim: queue.retry(claim, Reason.DISK_FULL, "", POLICY),
        lambda queue, claim: queue.release(claim),
        lambda queue, claim: queue.skip(claim, Reason.LOCALIZER, ""),
        lambda queue, claim: queue.park(claim, Reason.TIMEOUT, ""),
    ],
)
def test_a_report_of_a_job_whose_task_is_gone_is_taken(site, report):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", LEASE_S)
    lose_task(site, job_id)

    report(site.bench.queue, claim)
    site.new_dispatcher().step()

    again = site.bench.queue.claim("w", LEASE_S)
    assert (again is not None) is (site.job(job_id).state is State.CLAIMED)


def test_a_result_of_a_job_whose_task_is_gone_is_taken(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", LEASE_S)
    lose_task(site, job_id)
    site.complete(claim)
    site.dispatcher.step()

    assert site.job(job_id).state is State.SENDING
