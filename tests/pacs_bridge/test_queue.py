"""What every queue and outbox must do, whatever it is built on.

The tests know ``Queue``, ``Outbox`` and ``Clock`` only. A second implementation joins by adding a
``QueueBench`` to the parameters of ``bench``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import (
    DeliveryState,
    JobRequest,
    LeaseLostError,
    Outbox,
    Priority,
    Queue,
    ResultFile,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy

POLICY = RetryPolicy(first_wait_s=10, max_wait_s=40, give_up_after_s=1e6, max_attempts=3)
LEASE_S = 60.0


@dataclass
class QueueBench:
    """A queue under test, and what the tests need beside it."""

    queue: Queue
    outbox: Outbox
    clock: Any  #: ``SteppedClock`` of the fixtures
    state: Callable[[int], State]  #: of a job, by id
    reopen: Callable[[], QueueBench]  #: the same queue, from another process's point of view


def ledger_bench(path, clock) -> QueueBench:
    ledger = Ledger.open(path, clock)

    def state(job_id: int) -> State:
        view = ledger.view.job(job_id)
        assert view is not None
        return view.state

    return QueueBench(ledger.jobs, ledger.outbox, clock, state, lambda: ledger_bench(path, clock))


@pytest.fixture(params=["ledger"])
def bench(request, ram_folder, clock) -> QueueBench:
    assert request.param == "ledger"
    return ledger_bench(ram_folder / "ledger.sqlite", clock)


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


# --- jobs ---


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
    assert claim.created == bench.clock.time
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


def test_a_machine_that_is_started_again_counts_against_no_job(bench):
    job_id = bench.queue.submit(request_of())
    for boot in range(10):
        claim = bench.queue.claim("w", LEASE_S)
        assert (claim.job_id, claim.attempt) == (job_id, 1)
        bench.clock.boot = f"boot {boot}"
        bench = bench.reopen()
        assert bench.state(job_id) is State.READY


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


def test_after_a_boot_every_lease_is_over_and_every_wait_due(bench):
    bench.queue.submit(request_of("1.1"))
    bench.queue.submit(request_of("1.2"))
    held = bench.queue.claim("w1", LEASE_S)
    failed = bench.queue.claim("w1", LEASE_S)
    bench.queue.retry(failed, Reason.OOM_CPU, "", POLICY)

    bench.clock.boot = "second boot"
    bench.clock.steady = 5.0
    again = bench.reopen().queue

    assert {again.claim("w", LEASE_S).job_id for _ in range(2)} == {held.job_id, failed.job_id}


# --- deliveries ---


@pytest.fixture
def complete(bench):
    def run(**changes: object):
        bench.queue.submit(request_of(**changes))
        claim = bench.queue.claim("w", LEASE_S)
        results = [result_of(0, "binary"), result_of(0, "labelmap")]
        bench.queue.complete(claim, results, [Finding(Reason.GANTRY_TILT, "12.0 degrees")])
        return claim.job_id

    return run


def test_each_stack_goes_to_each_destination_in_every_kind_that_was_made(bench):
    bench.queue.submit(request_of(destinations=("a", "b")))
    results = [result_of(0, "binary"), result_of(0, "labelmap"), result_of(1, "binary")]
    bench.queue.complete(bench.queue.claim("w", LEASE_S), results, [])

    claims = [bench.outbox.claim("s", LEASE_S) for _ in range(4)]

    assert bench.outbox.claim("s", LEASE_S) is None
    assert {(claim.stack, claim.destination) for claim in claims} == {
        (0, "a"), (0, "b"), (1, "a"), (1, "b"),
    }  # fmt: skip
    assert claims[0].candidates == tuple(results[:2])


def test_a_job_is_sent_when_every_destination_has_it(bench, complete):
    job_id = complete(destinations=("a", "b"))

    first, second = (bench.outbox.claim("s", LEASE_S) for _ in range(2))
    bench.outbox.sent(first, first.candidates[0])
    assert bench.state(job_id) is State.SENDING
    bench.outbox.sent(second, second.candidates[0])
    assert bench.state(job_id) is State.SENT


def test_a_sender_serves_only_destinations_that_it_asks_for(bench, complete):
    complete(destinations=("a", "b"))

    assert bench.outbox.claim("s", LEASE_S, ["b"]).destination == "b"
    assert bench.outbox.claim("s", LEASE_S, ["b"]) is None
    assert bench.outbox.claim("s", LEASE_S, []) is None
    assert bench.outbox.claim("s", LEASE_S, ["a", "b"]).destination == "a"


def test_one_destination_that_is_down_does_not_hold_up_another(bench, complete):
    job_id = complete(destinations=("a", "b"))
    down = bench.outbox.claim("s", LEASE_S, ["a"])
    bench.outbox.retry(down, Reason.SEND_TIMEOUT, "no answer", POLICY)

    up = bench.outbox.claim("s", LEASE_S)
    assert up.destination == "b"
    bench.outbox.sent(up, up.candidates[0])

    assert bench.outbox.claim("s", LEASE_S) is None
    assert bench.state(job_id) is State.SENDING
    bench.clock.pass_s(11)
    assert bench.outbox.claim("s", LEASE_S).attempt == 2


def test_a_refused_delivery_ends_the_job_but_not_before_the_others_are_through(bench, complete):
    job_id = complete(destinations=("a", "b"))
    refused = bench.outbox.claim("s", LEASE_S)
    bench.outbox.park(refused, Reason.SEND_REFUSED, "0xC000")
    assert bench.state(job_id) is State.SENDING
    sent = bench.outbox.claim("s", LEASE_S)
    bench.outbox.sent(sent, sent.candidates[0])

    assert bench.state(job_id) is State.DEAD


def test_deliveries_give_up_when_their_time_is_up(bench, complete):
    job_id = complete()
    policy = RetryPolicy(first_wait_s=100, max_wait_s=100, give_up_after_s=250)
    states = []
    while not states or states[-1] is DeliveryState.PENDING:
        claim = bench.outbox.claim("s", LEASE_S)
        states.append(bench.outbox.retry(claim, Reason.SEND_TIMEOUT, "", policy))
        bench.clock.pass_s(100)

    assert states == [DeliveryState.PENDING] * 3 + [DeliveryState.DEAD]
    assert bench.state(job_id) is State.DEAD


def test_a_sender_that_is_not_heard_of_loses_its_delivery(bench, complete):
    complete()
    late = bench.outbox.claim("s1", LEASE_S)
    bench.outbox.heartbeat(late, LEASE_S)
    bench.clock.pass_s(LEASE_S + 1)
    held = bench.outbox.claim("s2", LEASE_S)

    assert (held.delivery_id, held.attempt) == (late.delivery_id, 2)
    for report in (
        lambda: bench.outbox.heartbeat(late, LEASE_S),
        lambda: bench.outbox.sent(late, late.candidates[0]),
        lambda: bench.outbox.retry(late, Reason.SEND_TIMEOUT, "", POLICY),
        lambda: bench.outbox.park(late, Reason.SEND_REFUSED, ""),
        lambda: bench.outbox.release(late),
    ):
        with pytest.raises(LeaseLostError):
            report()
    bench.outbox.sent(held, held.candidates[0])


def test_a_released_delivery_has_not_been_tried(bench, complete):
    complete()
    for _ in range(3):
        claim = bench.outbox.claim("s", LEASE_S)
        assert claim.attempt == 1
        bench.outbox.release(claim)


def test_urgent_results_are_sent_first(bench, complete):
    complete(series_instance_uid="1.1", priority=Priority.ARCHIVE)
    stat = complete(series_instance_uid="1.2", priority=Priority.STAT)

    assert bench.outbox.claim("s", LEASE_S).job_id == stat


def test_what_was_sent_before_is_named_to_the_next_revision(bench, complete):
    complete()
    sent = bench.outbox.claim("s", LEASE_S)
    bench.outbox.sent(sent, sent.candidates[0])

    bench.queue.submit(request_of(revision=2))
    claim = bench.queue.claim("w", LEASE_S)

    assert claim.predecessors == sent.candidates


def test_what_was_never_sent_is_nobodys_predecessor(bench, complete):
    complete()
    bench.queue.submit(request_of(revision=2))

    assert bench.queue.claim("w", LEASE_S).predecessors == ()
