"""The outbox of the ledger, and what a boot of the machine means to its jobs."""

from __future__ import annotations

import pytest
from queue_bench import LEASE_S, POLICY, LedgerBench, request_of, result_of

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.queue import DeliveryState, LeaseLostError, Priority, State
from pacs_bridge.retry_policy import RetryPolicy


@pytest.fixture
def bench(ram_folder, clock) -> LedgerBench:
    return LedgerBench(ram_folder / "ledger.sqlite", clock)


# --- boots ---


def test_a_machine_that_is_started_again_counts_against_no_job(bench):
    job_id = bench.queue.submit(request_of())
    for boot in range(10):
        claim = bench.queue.claim("w", LEASE_S)
        assert (claim.job_id, claim.attempt) == (job_id, 1)
        bench.clock.boot = f"boot {boot}"
        bench.close()
        bench = bench.reopen()
        assert bench.state(job_id) is State.READY


def test_after_a_boot_every_lease_is_over_and_every_wait_due(bench):
    bench.queue.submit(request_of("1.1"))
    bench.queue.submit(request_of("1.2"))
    held = bench.queue.claim("w1", LEASE_S)
    failed = bench.queue.claim("w1", LEASE_S)
    bench.queue.retry(failed, Reason.OOM_CPU, "", POLICY)

    bench.clock.boot = "second boot"
    bench.clock.steady = 5.0
    bench.close()
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
