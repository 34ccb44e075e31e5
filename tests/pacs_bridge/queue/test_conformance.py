"""What every queue must do, whatever it is built on.

The tests know ``Queue`` and a clock only. A further implementation joins by another ``QueueBench``
among the parameters of ``bench``.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from queue_bench import LEASE_S, POLICY, request_of, result_of

from inference.reasons import Reason
from pacs_bridge.queue import LeaseLostError, Priority, State
from pacs_bridge.retry_policy import RetryPolicy


def test_the_same_request_again_makes_no_second_job(bench):
    first = bench.queue.submit(request_of())

    assert bench.queue.submit(request_of()) == first
    assert bench.queue.submit(request_of(revision=2)) != first
    assert bench.queue.claim("w1", LEASE_S) is not None
    assert bench.queue.submit(request_of()) == first
    assert bench.state(first) is State.CLAIMED


def test_a_claim_says_all_that_a_worker_needs(bench):
    request = request_of(
        destinations=("a", "b"),
        priority=Priority.STAT,
        source="archive",
        study_instance_uid="1.2",
    )
    job_id = bench.queue.submit(request)

    claim = bench.queue.claim("w1", LEASE_S)

    assert (claim.job_id, claim.request, claim.attempt) == (job_id, request, 1)
    assert claim.worker == "w1"
    assert abs(claim.created - bench.clock.time) < timedelta(minutes=1)
    assert claim.predecessors == ()


def test_a_claimed_job_is_nobody_elses(bench):
    bench.queue.submit(request_of())

    assert bench.queue.claim("w1", LEASE_S) is not None
    assert bench.queue.claim("w2", LEASE_S) is None
    assert bench.reopen().queue.claim("w3", LEASE_S) is None


def test_stat_comes_before_routine_before_archive_and_then_the_oldest(bench):
    for number, priority in enumerate(
        [Priority.ARCHIVE, Priority.ROUTINE, Priority.STAT, Priority.ROUTINE, Priority.STAT]
    ):
        bench.queue.submit(request_of(f"1.{number}", priority=priority))

    claims = [bench.queue.claim("w", LEASE_S) for _ in range(5)]

    assert [claim.request.series_instance_uid for claim in claims] == [
        "1.2", "1.4", "1.1", "1.3", "1.0",
    ]  # fmt: skip


def test_a_claim_for_urgent_jobs_leaves_the_others_alone(bench):
    routine = bench.queue.submit(request_of("1.1"))
    assert bench.queue.claim("w", LEASE_S, Priority.STAT) is None
    stat = bench.queue.submit(request_of("1.2", priority=Priority.STAT))

    assert bench.queue.claim("w", LEASE_S, Priority.STAT).job_id == stat
    assert bench.queue.claim("w", LEASE_S, Priority.STAT) is None
    left = bench.queue.claim("w", LEASE_S)
    assert (left.job_id, left.attempt) == (routine, 1)


def test_a_claim_says_how_many_failures_count_against_its_job(bench):
    bench.queue.submit(request_of())
    first = bench.queue.claim("w", LEASE_S)
    bench.queue.retry(first, Reason.OOM_GPU, "", POLICY)
    bench.clock.pass_s(41)
    second = bench.queue.claim("w", LEASE_S)
    bench.clock.pass_s(LEASE_S + 1)
    third = bench.queue.claim("w", LEASE_S)

    assert [each.failures for each in (first, second, third)] == [0, 1, 2]


def test_a_worker_that_is_not_heard_of_loses_its_job(bench):
    bench.queue.submit(request_of())
    lost = bench.queue.claim("w1", LEASE_S)

    bench.clock.pass_s(LEASE_S - 1)
    assert bench.queue.claim("w2", LEASE_S) is None
    bench.clock.pass_s(2)
    held = bench.queue.claim("w2", LEASE_S)

    assert held.job_id == lost.job_id
    assert held.fence > lost.fence
    assert held.attempt == 2
    assert held.created == lost.created


def test_heartbeats_keep_a_lease(bench):
    bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)

    for _ in range(10):
        bench.clock.pass_s(LEASE_S * 0.9)
        bench.queue.heartbeat(claim, LEASE_S)
        assert bench.queue.claim("w2", LEASE_S) is None


def test_whatever_a_presumed_dead_worker_still_reports_is_refused(bench):
    job_id = bench.queue.submit(request_of())
    late = bench.queue.claim("w1", LEASE_S)
    bench.clock.pass_s(LEASE_S + 1)
    held = bench.queue.claim("w2", LEASE_S)

    for report in (
        lambda: bench.queue.heartbeat(late, LEASE_S),
        lambda: bench.queue.advance(late, State.SEGMENTED),
        lambda: bench.queue.complete(late, [result_of()], []),
        lambda: bench.queue.retry(late, Reason.OOM_CPU, "", POLICY),
        lambda: bench.queue.park(late, Reason.MODEL_ERROR, ""),
        lambda: bench.queue.skip(late, Reason.TOO_FEW_SLICES, ""),
        lambda: bench.queue.release(late),
    ):
        with pytest.raises(LeaseLostError):
            report()
    assert bench.state(job_id) is State.CLAIMED
    bench.queue.complete(held, [result_of()], [])
    assert bench.state(job_id) is State.SENDING


def test_an_expired_lease_that_nobody_took_can_still_complete(bench):
    """A worker that was only slow has done the work: throwing it away helps nobody."""
    job_id = bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)
    bench.clock.pass_s(LEASE_S * 3)

    bench.queue.complete(claim, [result_of()], [])

    assert bench.state(job_id) is State.SENDING


def test_a_finished_claim_reports_nothing_more(bench):
    bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)
    bench.queue.complete(claim, [result_of()], [])

    with pytest.raises(LeaseLostError):
        bench.queue.complete(claim, [result_of()], [])
    with pytest.raises(LeaseLostError):
        bench.queue.heartbeat(claim, LEASE_S)


def test_stages_are_noted_and_only_those_of_a_worker(bench):
    job_id = bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)

    bench.queue.advance(claim, State.SEGMENTED)
    assert bench.state(job_id) is State.SEGMENTED
    bench.queue.advance(claim, State.ENCODED)
    assert bench.state(job_id) is State.ENCODED
    with pytest.raises(ValueError, match="sent"):
        bench.queue.advance(claim, State.SENT)


def test_a_job_that_dies_between_stages_begins_again(bench):
    bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)
    bench.queue.advance(claim, State.ENCODED)
    bench.clock.pass_s(LEASE_S + 1)

    again = bench.queue.claim("w2", LEASE_S)

    assert again.job_id == claim.job_id
    assert bench.state(claim.job_id) is State.CLAIMED


def test_a_job_that_failed_waits_longer_each_time_and_then_is_dead(bench):
    job_id = bench.queue.submit(request_of())
    for wait_s in (10, 20):
        claim = bench.queue.claim("w1", LEASE_S)
        assert bench.queue.retry(claim, Reason.OOM_CPU, "2 GiB short", POLICY) is State.RETRY
        bench.clock.pass_s(wait_s - 1)
        assert bench.queue.claim("w1", LEASE_S) is None
        bench.clock.pass_s(2)

    claim = bench.queue.claim("w1", LEASE_S)
    assert bench.queue.retry(claim, Reason.OOM_CPU, "2 GiB short", POLICY) is State.DEAD
    assert bench.state(job_id) is State.DEAD


def test_retries_end_when_their_time_is_up(bench):
    policy = RetryPolicy(first_wait_s=50, max_wait_s=50, give_up_after_s=100)
    job_id = bench.queue.submit(request_of())
    states = []
    while not states or states[-1] is State.RETRY:
        claim = bench.queue.claim("w1", LEASE_S)
        states.append(bench.queue.retry(claim, Reason.TIMEOUT, "", policy))
        bench.clock.pass_s(50)

    assert states == [State.RETRY, State.RETRY, State.DEAD]
    assert bench.state(job_id) is State.DEAD


def test_a_parked_job_is_not_claimed_again(bench):
    job_id = bench.queue.submit(request_of())
    bench.queue.park(bench.queue.claim("w1", LEASE_S), Reason.CORRUPT_PIXEL_DATA, "2.25.1")

    bench.clock.pass_s(1e7)
    assert bench.queue.claim("w1", LEASE_S) is None
    assert bench.state(job_id) is State.DEAD


def test_a_skipped_job_is_not_claimed_again(bench):
    job_id = bench.queue.submit(request_of())
    bench.queue.skip(bench.queue.claim("w1", LEASE_S), Reason.TOO_FEW_SLICES, "3 slices")

    bench.clock.pass_s(1e7)
    assert bench.queue.claim("w1", LEASE_S) is None
    assert bench.state(job_id) is State.SKIPPED


def test_a_released_job_has_not_been_tried(bench):
    job_id = bench.queue.submit(request_of())
    for _ in range(10):
        claim = bench.queue.claim("w1", LEASE_S)
        assert claim.attempt == 1
        bench.queue.release(claim)
        assert bench.state(job_id) is State.READY


def test_a_job_that_kills_its_workers_is_given_up(bench):
    job_id = bench.queue.submit(request_of())
    other = bench.queue.submit(request_of("1.2.4"))
    for _ in range(3):
        assert bench.queue.claim("w", LEASE_S).job_id == job_id
        bench.queue.release(bench.queue.claim("w", LEASE_S))
        bench.clock.pass_s(LEASE_S + 1)

    assert bench.queue.claim("w", LEASE_S).job_id == other
    assert bench.state(job_id) is State.DEAD


def test_what_the_machine_is_to_blame_for_does_not_count_against_a_job(bench):
    job_id = bench.queue.submit(request_of())
    machine = RetryPolicy(first_wait_s=10, max_wait_s=40, give_up_after_s=1e6)
    for _ in range(20):
        claim = bench.queue.claim("w", LEASE_S)
        assert bench.queue.retry(claim, Reason.DISK_FULL, "", machine) is State.RETRY
        bench.clock.pass_s(41)
    for wanted in (State.RETRY, State.RETRY, State.DEAD):
        claim = bench.queue.claim("w", LEASE_S)
        assert bench.queue.retry(claim, Reason.MODEL_ERROR, "", POLICY) is wanted
        bench.clock.pass_s(41)
    assert bench.state(job_id) is State.DEAD


def test_the_death_of_a_worker_counts_as_a_failure_does(bench):
    job_id = bench.queue.submit(request_of())
    for _ in range(2):
        bench.queue.retry(bench.queue.claim("w", LEASE_S), Reason.OOM_GPU, "", POLICY)
        bench.clock.pass_s(41)
    assert bench.queue.claim("w", LEASE_S).job_id == job_id
    bench.clock.pass_s(LEASE_S + 1)

    assert bench.queue.claim("w", LEASE_S) is None
    assert bench.state(job_id) is State.DEAD


def test_failures_of_a_series_leave_its_job_as_many_deaths_of_workers_as_any(bench):
    policy = RetryPolicy(10, 10, 1e6, max_attempts=5)
    job_id = bench.queue.submit(request_of())
    for _ in range(2):
        claim = bench.queue.claim("w", LEASE_S)
        bench.queue.retry(claim, Reason.SOURCE_INCOMPLETE, "", policy)
        bench.clock.pass_s(11)
    for deaths in range(2):
        claim = bench.queue.claim("w", LEASE_S)
        assert (claim.job_id, claim.failures, claim.series_failures) == (job_id, deaths, 2)
        bench.clock.pass_s(LEASE_S + 1)

    states = []
    for _ in range(3):
        claim = bench.queue.claim("w", LEASE_S)
        states.append(bench.queue.retry(claim, Reason.SOURCE_INCOMPLETE, "", policy))
        bench.clock.pass_s(11)
    assert states == [State.RETRY, State.RETRY, State.DEAD]


def test_a_job_without_results_cannot_complete(bench):
    bench.queue.submit(request_of())
    claim = bench.queue.claim("w1", LEASE_S)

    with pytest.raises(ValueError, match="skipped"):
        bench.queue.complete(claim, [], [])


# --- time ---


@pytest.mark.parametrize("step_h", [-24, -1, 1, 24 * 365])
def test_steps_of_the_clock_neither_end_leases_nor_waits(bench, step_h):
    bench.queue.submit(request_of("1.1"))
    bench.queue.submit(request_of("1.2"))
    held = bench.queue.claim("w1", LEASE_S)
    failed = bench.queue.claim("w1", LEASE_S)
    bench.queue.retry(failed, Reason.OOM_CPU, "", POLICY)

    bench.clock.time += timedelta(hours=step_h)

    assert bench.queue.claim("w2", LEASE_S) is None
    bench.clock.pass_s(11)
    assert bench.queue.claim("w2", LEASE_S).job_id == failed.job_id
    bench.clock.pass_s(LEASE_S)
    assert bench.queue.claim("w2", LEASE_S).job_id == held.job_id
