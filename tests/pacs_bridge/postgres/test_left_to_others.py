"""Jobs that one worker leaves to others, and jobs that nobody could have: neither stops anybody."""

from __future__ import annotations

import psycopg
import pytest
from queue_bench import LEASE_S, OWNER, POLICY, QUEUE_NAME, request_of

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.postgres.payload import JobPayload
from pacs_bridge.postgres.place import handed_over_jobs
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.recipe import Recipes
from pacs_bridge.queue import Priority, State

OTHERS = "others"  #: a route whose jobs the picky worker would do otherwise


class Picky:
    """A worker that would do the jobs of one route otherwise."""

    def __init__(self, site) -> None:
        self.looked_at: list[str] = []
        self.queue = PostgresQueue(
            site.bench.server,
            QUEUE_NAME,
            lambda: OWNER,
            3,
            self._difference,
            steady_s=site.bench.clock.steady_s,
        )

    def _difference(self, payload: JobPayload) -> str:
        self.looked_at.append(payload.series_instance_uid)
        return "weights" if payload.route == OTHERS else ""


@pytest.fixture
def picky(site) -> Picky:
    return Picky(site)


def crowd(site, number: int) -> None:
    """So many more jobs, each like the one that waits."""
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(
            "WITH made AS (INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args)"
            " SELECT queue_name, task_name, priority, args || jsonb_build_object('job', 1000 + n,"
            " 'series_instance_uid', '1.9.' || n)"
            " FROM procrastinate_jobs, generate_series(1, %s) n RETURNING id, priority, args)"
            " INSERT INTO pacs_bridge_jobs (queue, id, request_key, priority, ledger_fence,"
            " task_id, state, fence, attempts)"
            " SELECT %s, (args->>'job')::bigint, concat_ws('|', args->>'series_instance_uid',"
            " args->>'revision', args->>'route', args->>'model'), priority, 0, id, 'ready', 0, 0"
            " FROM made",
            (number, QUEUE_NAME),
        )


def test_a_job_that_is_for_others_keeps_none_behind_it_from_a_worker(site, picky):
    for_others = site.bench.queue.submit(request_of("1.1", route=OTHERS))
    for_us = site.bench.queue.submit(request_of("1.2"))

    claim = picky.queue.claim("w", LEASE_S)
    assert claim is not None
    assert claim.job_id == for_us
    with pytest.raises(TransientError) as error:
        picky.queue.claim("w", LEASE_S)
    assert error.value.reason is Reason.WRONG_RECIPE
    assert error.value.detail == f"job {for_others}: weights"
    assert site.bench.state(for_others) is State.READY


def test_no_number_of_jobs_for_others_hides_the_one_behind_them(site, picky):
    site.bench.queue.submit(request_of("1.1", route=OTHERS))
    crowd(site, 1000)
    for_us = site.bench.queue.submit(request_of("1.2"))

    assert picky.queue.claim("w", LEASE_S).job_id == for_us
    assert picky.looked_at == ["1.1", "1.2"]  # one of a kind says it for all


def test_jobs_for_others_stay_untouched_by_those_who_look_past_them(site, picky):
    site.bench.queue.submit(request_of("1.1", route=OTHERS))
    crowd(site, 3)
    site.bench.queue.submit(request_of("1.2"))
    assert picky.queue.claim("w", LEASE_S) is not None

    with psycopg.connect(site.bench.url) as connection:
        (seen,) = connection.execute(
            "SELECT array_agg(DISTINCT (status::text, attempts)::text) FROM procrastinate_jobs"
            " WHERE args->>'route' = %s",
            (OTHERS,),
        ).fetchone()
    assert seen == ["(todo,0)"]


def test_a_worker_says_now_and_then_that_all_jobs_are_for_others_and_goes_on_looking(site, picky):
    site.bench.queue.submit(request_of("1.1", route=OTHERS))
    with pytest.raises(TransientError):
        picky.queue.claim("w", LEASE_S)
    assert picky.queue.claim("w", LEASE_S) is None
    for_us = site.bench.queue.submit(request_of("1.2"))
    assert picky.queue.claim("w", LEASE_S).job_id == for_us

    site.bench.clock.pass_s(11)
    with pytest.raises(TransientError):
        picky.queue.claim("w", LEASE_S)


def test_an_urgent_job_for_others_keeps_no_job_from_a_worker_that_asks_for_urgent_ones(site, picky):
    site.bench.queue.submit(request_of("1.1", route=OTHERS, priority=Priority.STAT))
    for_us = site.bench.queue.submit(request_of("1.2", priority=Priority.ARCHIVE))

    assert picky.queue.claim("w", LEASE_S, Priority.STAT) is None
    assert picky.queue.claim("w", LEASE_S).job_id == for_us


def test_jobs_that_nobody_begins_keep_none_of_another_kind_in_the_ledger(site, picky):
    for number in range(5):
        site.ledger.jobs.submit(request_of(f"1.1.{number}", route=OTHERS))
    for_us = [site.ledger.jobs.submit(request_of(f"1.2.{number}")) for number in range(5)]
    dispatcher = site.new_dispatcher(waiting_jobs=2)

    claims = []
    for _ in for_us:
        while dispatcher.step():
            pass
        site.clock.pass_s(10)
        claims.append(picky.queue.claim("w", LEASE_S))

    assert [claim and claim.job_id for claim in claims] == for_us
    waiting = site.handed.waiting()
    assert len(waiting) == 2  # of those that nobody begins no more than there is room for
    assert not set(waiting) & set(for_us)


def test_an_urgent_job_of_a_kind_that_nobody_begins_is_handed_over_past_the_others(site):
    for number in range(3):
        site.ledger.jobs.submit(request_of(f"1.1.{number}", priority=Priority.ROUTINE))
    dispatcher = site.new_dispatcher(waiting_jobs=1)
    while dispatcher.step():
        pass
    urgent = site.ledger.jobs.submit(request_of("1.2", priority=Priority.STAT))
    dispatcher.step()

    assert site.bench.queue.claim("w", LEASE_S).job_id == urgent


def test_a_job_that_is_for_others_waits_for_nobody_who_left_it(site, picky):
    left = site.bench.queue.submit(request_of("1.1", route=OTHERS))
    site.bench.queue.submit(request_of("1.2"))
    picky.queue.claim("w", LEASE_S)

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
    assert site.handed.waiting() == ()
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
