"""Who elsewhere would take a job: the bridge's own workers have what nobody there would."""

from __future__ import annotations

import json

import psycopg
import pytest
from queue_bench import LEASE_S, OWNER, POLICY, QUEUE_NAME, request_of

from inference.reasons import Reason
from pacs_bridge.archive.patience import Patience
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.archive_jobs import ArchiveJobs, KnownJob
from pacs_bridge.postgres.payload import job_payload
from pacs_bridge.postgres.presence import LIVING_S, payload_kind
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.recipe import Recipe
from pacs_bridge.postgres.tables import prepare
from pacs_bridge.queue import DISPATCHER, Priority, State
from pacs_bridge.retry_policy import RetryPolicy

LONG = RetryPolicy(3600, 3600, 1e6)


def in_queue(site) -> set[int]:
    return {each.job_id for each in site.handed.all()}


def stepped(site, seconds: float = 2.0) -> None:
    """Some time, and what the dispatcher does in it."""
    site.clock.pass_s(seconds)
    for _ in range(5):
        site.dispatcher.step()


def worker_of(site, difference=lambda _payload: "", name=QUEUE_NAME, owner=OWNER) -> PostgresQueue:
    """A worker elsewhere."""
    return PostgresQueue(
        site.bench.server, name, lambda: owner, 3, difference, steady_s=site.clock.steady_s
    )


def claimed(worker: PostgresQueue):
    """What a worker is given; None, too, if it leaves all that there is."""
    try:
        return worker.claim("elsewhere", LEASE_S)
    except TransientError:
        return None


def test_a_worker_that_leaves_every_job_keeps_none_from_local_workers(site):
    site.new_dispatcher(has_local_workers=True)
    picky = worker_of(site, lambda _payload: "weights")
    assert claimed(picky) is None
    job_id = site.ledger.jobs.submit(request_of(priority=Priority.STAT))
    stepped(site)
    assert in_queue(site) == {job_id}  # nobody knows yet what it thinks of it
    assert claimed(picky) is None
    stepped(site)

    assert in_queue(site) == set()
    local = site.ledger.jobs.claim("local", 60)
    assert (local.job_id, local.attempt, local.failures) == (job_id, 1, 0)
    second = site.ledger.jobs.submit(request_of("1.2.4"))
    stepped(site)
    assert in_queue(site) == set()
    assert site.ledger.jobs.claim("local", 60).job_id == second


def test_a_worker_that_takes_one_kind_gets_it_past_those_that_local_workers_have(site):
    site.new_dispatcher(has_local_workers=True)
    picky = worker_of(site, lambda payload: "weights" if payload.route != "ours" else "")
    left = [
        site.ledger.jobs.submit(request_of(f"1.{ord(route)}.{number}", route=route))
        for route in "ab"
        for number in range(3)
    ]
    claimed(picky)
    stepped(site)
    assert claimed(picky) is None
    stepped(site)
    ours = site.ledger.jobs.submit(request_of("1.9", route="ours", priority=Priority.ARCHIVE))
    stepped(site, 11)

    assert in_queue(site) == {ours}
    assert claimed(picky).job_id == ours
    assert {site.job(each).state for each in left} == {State.READY}


def test_what_is_left_under_one_recipe_is_handed_over_under_another(site):
    site.new_dispatcher(has_local_workers=True)
    picky = worker_of(site, lambda payload: "weights" if payload.weights == "aa" * 32 else "")
    site.handed.recipe = lambda _request: Recipe(weights="aa" * 32)
    job_id = site.ledger.jobs.submit(request_of())
    claimed(picky)
    stepped(site)
    assert claimed(picky) is None
    stepped(site)
    assert in_queue(site) == set()

    site.handed.recipe = lambda _request: Recipe(weights="bb" * 32)
    site.new_dispatcher(has_local_workers=True)
    stepped(site)
    assert claimed(picky).job_id == job_id


def test_a_worker_of_another_queue_of_the_database_is_nobody_here(site):
    site.new_dispatcher(has_local_workers=True)
    prepare(site.bench.server, "second", "another")
    stranger = worker_of(site, name="second", owner="another")
    stranger.claim("elsewhere", LEASE_S)
    job_id = site.ledger.jobs.submit(request_of())
    stepped(site)

    assert in_queue(site) == set()
    assert site.ledger.jobs.claim("local", 60).job_id == job_id


@pytest.mark.parametrize("table", ["pacs_bridge_workers", "procrastinate_workers"])
def test_a_worker_that_was_struck_off_is_there_again_though_no_job_waits(site, table):
    site.new_dispatcher(has_local_workers=True)
    worker = worker_of(site)
    worker.claim("elsewhere", LEASE_S)
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(f"DELETE FROM {table}")
    stepped(site, 16)
    assert worker.claim("elsewhere", LEASE_S) is None
    job_id = site.ledger.jobs.submit(request_of())
    stepped(site)

    assert in_queue(site) == {job_id}


@pytest.mark.parametrize("step_s", [-1e5, 1e5])
def test_no_step_of_the_servers_clock_strikes_a_worker_off_or_keeps_a_dead_one(site, step_s):
    site.new_dispatcher(has_local_workers=True)
    worker = worker_of(site)
    worker.claim("elsewhere", LEASE_S)
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(
            "UPDATE pacs_bridge_workers SET shown_at = shown_at + make_interval(secs => %s)",
            (step_s,),
        )
    job_id = site.ledger.jobs.submit(request_of())
    stepped(site)
    assert in_queue(site) == {job_id}
    for _ in range(7):
        stepped(site, LIVING_S / 4)

    assert in_queue(site) == set()


def test_a_busy_worker_stays_one_that_is_there(site):
    site.new_dispatcher(has_local_workers=True)
    worker = worker_of(site)
    worker.claim("elsewhere", LEASE_S)
    first = site.ledger.jobs.submit(request_of("1.1"))
    stepped(site)
    claim = worker.claim("elsewhere", LEASE_S)
    assert claim.job_id == first
    second = site.ledger.jobs.submit(request_of("1.2"))
    for _ in range(10):
        stepped(site, LEASE_S / 4)
        worker.heartbeat(claim, LEASE_S)

    assert in_queue(site) == {first, second}


def test_local_workers_are_left_all_but_one_waiting_job_for_each_worker_elsewhere(site):
    site.new_dispatcher(waiting_jobs=10, has_local_workers=True)
    first, second = worker_of(site), worker_of(site)
    picky = worker_of(site, lambda _payload: "weights")
    for each in (first, second, picky):
        claimed(each)
    jobs = [site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(8)]
    stepped(site)
    assert claimed(picky) is None
    stepped(site)
    for worker in (first, second):
        assert claimed(worker) is not None
        stepped(site)

    assert in_queue(site) == set(jobs[:4])  # two of them are in hand
    assert [site.ledger.jobs.claim("local", 60).job_id for _ in range(4)] == jobs[4:]
    urgent = site.ledger.jobs.submit(request_of("1.9", priority=Priority.STAT))
    stepped(site)
    assert claimed(first).job_id == urgent


def test_one_that_signs_off_is_there_no_more(site):
    site.new_dispatcher(has_local_workers=True)
    worker = PostgresQueue(site.bench.reopen().server, QUEUE_NAME, lambda: OWNER)
    worker.claim("elsewhere", LEASE_S)
    site.ledger.jobs.submit(request_of())
    stepped(site)
    worker.close()
    stepped(site)

    assert in_queue(site) == set()


def test_bridge_and_workers_tell_kinds_apart_alike(site):
    recipe = Recipe("ab" * 32, "cd" * 32)
    site.handed.recipe = lambda _request: recipe
    request = request_of(route="head", destinations=("b", "a"), source="pacs")
    site.ledger.jobs.submit(request)
    site.dispatcher.step()
    assert claimed(worker_of(site, lambda _payload: "weights")) is None

    (leaves,) = site.handed.leaves()
    assert leaves == {site.handed.kind(request)}
    payload = job_payload(7, request_of("1.5"), "2026-11-22T04:00:00+00:00")
    assert "1.5" not in payload_kind(payload)
    assert json.loads(payload_kind(payload))["route"] == "route"


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "9" * 5000])
def test_what_others_write_as_a_kind_is_nobodys(site, text):
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(
            "INSERT INTO pacs_bridge_workers VALUES (1, %s, 1, now(), %s)", (QUEUE_NAME, [text])
        )
    site.new_dispatcher(has_local_workers=True)
    job_id = site.ledger.jobs.submit(request_of())
    stepped(site)

    assert in_queue(site) == {job_id}


@pytest.mark.parametrize("kind", ["waiting", "claimed"])
def test_what_waits_for_workers_that_have_left_is_taken_back(site, kind):
    site.new_dispatcher(has_local_workers=True)
    workers = [
        PostgresQueue(
            site.bench.reopen().server, QUEUE_NAME, lambda: OWNER, steady_s=site.clock.steady_s
        )
        for _ in range(3)
    ]
    for each in workers:
        each.claim("elsewhere", LEASE_S)
    jobs = [site.ledger.jobs.submit(request_of(f"1.{number}")) for number in range(3)]
    stepped(site)
    assert in_queue(site) == set(jobs)
    claims = [each.claim("elsewhere", LEASE_S) for each in workers[1:] if kind == "claimed"]
    for worker, claim in zip(workers[1:], claims, strict=False):
        worker.release(claim)
    for each in workers[1:]:
        each.close()
    stepped(site)

    assert in_queue(site) == {jobs[0]}
    assert [site.ledger.jobs.claim("local", 60).job_id for _ in range(2)] == jobs[1:]
    assert workers[0].claim("elsewhere", LEASE_S).job_id == jobs[0]
    workers[0].close()


def test_of_what_is_taken_back_and_what_stays_the_urgent_goes_first(site):
    site.new_dispatcher(has_local_workers=True)
    worker = worker_of(site)
    worker.claim("elsewhere", LEASE_S)
    priorities = (Priority.ARCHIVE, Priority.ROUTINE, Priority.STAT)
    jobs = []
    for number, priority in enumerate(priorities):
        jobs.append(site.ledger.jobs.submit(request_of(f"1.{number}", priority=priority)))
        stepped(site)
    handed_over = []
    for _ in range(5):
        stepped(site)
        handed_over.append(in_queue(site))

    assert handed_over == [{jobs[2]}] * 5  # one for one worker, and none goes to and fro
    assert [site.ledger.jobs.claim("local", 60).job_id for _ in range(2)] == [jobs[1], jobs[0]]
    assert claimed(worker).job_id == jobs[2]


def test_a_queue_that_was_emptied_is_filled_with_no_more_than_is_left_to_it(site):
    site.new_dispatcher(has_local_workers=True)
    worker = worker_of(site)
    worker.claim("elsewhere", LEASE_S)
    for number in range(3):
        site.ledger.jobs.submit(request_of(f"1.{number}"))
        stepped(site)
        assert claimed(worker) is not None
    with psycopg.connect(site.bench.url) as connection:
        connection.execute("DELETE FROM pacs_bridge_jobs")
        connection.execute("DELETE FROM procrastinate_jobs")
    stepped(site, 61)
    assert worker.claim("elsewhere", LEASE_S) is not None  # it is still there
    stepped(site)

    assert len(in_queue(site)) == 2  # one in hand, and one that waits
    assert site.ledger.jobs.claim("local", 60) is not None


def test_where_nobody_else_is_all_stays_that_was_handed_over(site):
    site.new_dispatcher(waiting_jobs=1)
    jobs = []
    for number, priority in enumerate((Priority.ARCHIVE, Priority.ROUTINE, Priority.STAT)):
        jobs.append(site.ledger.jobs.submit(request_of(f"1.{number}", priority=priority)))
        stepped(site)
    stepped(site)

    assert in_queue(site) == set(jobs)


# --- jobs that wait for their time ---


def test_a_job_that_failed_elsewhere_waits_in_the_ledger(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.bench.queue.retry(site.bench.queue.claim("w", LEASE_S), Reason.OOM_GPU, "8 GiB", POLICY)
    stepped(site)

    view = site.job(job_id)
    assert (view.state, view.reason, view.detail) == (State.RETRY, Reason.OOM_GPU, "8 GiB")
    assert in_queue(site) == set()
    assert site.tickets() == []
    assert site.ledger.jobs.claim("local", 60) is None
    site.clock.pass_s(11)
    again = site.ledger.jobs.claim("local", 60)
    assert (again.job_id, again.attempt, again.failures) == (job_id, 2, 1)


def test_a_wait_that_was_asked_for_elsewhere_is_kept(site):
    site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.bench.queue.retry(site.bench.queue.claim("w", 60), Reason.SOURCE_UNREACHABLE, "", LONG)
    stepped(site)
    site.clock.pass_s(3500)
    site.dispatcher.step()
    assert in_queue(site) == set()
    site.clock.pass_s(200)
    site.dispatcher.step()

    assert site.bench.queue.claim("w", 60) is not None


@pytest.mark.parametrize("waited", ["'infinity'", "'nan'", "-5", "1e300"])
def test_a_wait_that_others_wrote_holds_nothing_up(site, waited):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.bench.queue.retry(site.bench.queue.claim("w", 60), Reason.DISK_FULL, "", POLICY)
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(f"UPDATE pacs_bridge_jobs SET waited_s = {waited}")
    stepped(site)
    assert site.job(job_id).state is State.RETRY
    stepped(site, 11)

    assert in_queue(site) == {job_id}


def test_retries_elsewhere_end_when_their_time_is_up(site):
    job_id = site.ledger.jobs.submit(request_of())
    for _ in range(400):
        site.dispatcher.step()
        claim = site.bench.queue.claim("w", 60)
        if claim is None:
            break
        site.bench.queue.retry(claim, Reason.SOURCE_UNREACHABLE, "", LONG)
        site.dispatcher.step()
        site.clock.pass_s(3601)

    assert (site.job(job_id).state, site.job(job_id).reason) == (
        State.DEAD,
        Reason.SOURCE_UNREACHABLE,
    )


def test_failures_that_count_add_up_over_tries_elsewhere(site):
    job_id = site.ledger.jobs.submit(request_of())
    states = []
    for _ in range(3):
        site.dispatcher.step()
        claim = site.bench.queue.claim("w", 60)
        states.append(site.bench.queue.retry(claim, Reason.OOM_GPU, "", POLICY))
        stepped(site)
        site.clock.pass_s(41)

    assert states == [State.RETRY, State.RETRY, State.DEAD]
    assert site.job(job_id).state is State.DEAD


def test_failures_of_a_series_are_counted_by_themselves_over_tries_elsewhere(site):
    job_id = site.ledger.jobs.submit(request_of())
    policy = RetryPolicy(10, 10, 1e6, max_attempts=5)
    states = []
    for _ in range(5):
        site.dispatcher.step()
        claim = site.bench.queue.claim("w", 60)
        states.append(site.bench.queue.retry(claim, Reason.SOURCE_INCOMPLETE, "", policy))
        stepped(site)
        site.clock.pass_s(11)

    assert states == [State.RETRY] * 4 + [State.DEAD]
    assert site.deaths(job_id) == 0
    site.ledger.steering.retry_job(job_id)
    site.dispatcher.step()
    assert site.bench.queue.claim("w", 60).series_failures == 0


def test_an_archive_whose_source_is_away_is_not_handed_over_as_a_whole(site):
    site.new_dispatcher(waiting_jobs=2)
    jobs = [
        site.ledger.jobs.submit(request_of(f"1.{n}", priority=Priority.ARCHIVE)) for n in range(20)
    ]
    most = 0
    for _ in jobs:
        site.dispatcher.step()
        most = max(most, len(in_queue(site)))
        claim = site.bench.queue.claim("w", 60)
        site.bench.queue.retry(claim, Reason.SOURCE_UNREACHABLE, "", LONG)
    site.dispatcher.step()

    assert most <= 4
    assert len(site.tickets()) <= 4
    assert {site.job(each).state for each in jobs} == {State.RETRY}
    assert site.ledger.jobs.held_by(DISPATCHER) == ()


def test_an_archive_run_sees_what_fails_elsewhere_and_takes_it_back(site):
    job_id = site.ledger.jobs.submit(request_of("1.1", source="pacs", study_instance_uid="1.9"))
    jobs, patience = ArchiveJobs(site.ledger.database), Patience()
    is_over = []
    for _ in range(4):
        site.dispatcher.step()
        claim = site.bench.queue.claim("w", 60)
        site.bench.queue.retry(claim, Reason.SOURCE_UNREACHABLE, "", RetryPolicy(10, 10, 1e6))
        stepped(site)
        standing = jobs.standings([KnownJob(job_id, "1.1", 1)])[job_id]
        is_over.append(patience.is_over(job_id, standing))
        patience.note_came("pacs")  # others come from there
        site.clock.pass_s(11)

    assert is_over == [False, False, False, True]
    assert jobs.withdraw("1.1", 1)
    site.dispatcher.step()
    assert in_queue(site) == set()


def test_a_failure_that_was_entered_before_the_process_died_is_entered_once(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.bench.queue.retry(site.bench.queue.claim("w", 60), Reason.DISK_FULL, "", POLICY)
    held = site.ledger.jobs.held_by(DISPATCHER)[0]
    site.ledger.jobs.retry(held, Reason.DISK_FULL, "", LONG)  # and then it dies

    site.new_dispatcher().step()

    assert in_queue(site) == set()
    assert (site.job(job_id).state, site.job(job_id).attempts) == (State.RETRY, 1)
