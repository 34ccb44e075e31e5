"""Deliveries over days: who is sent when, and what becomes of those that fail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.deliver.departure import LeavingError
from pacs_bridge.deliver.negotiation import Syntax
from pacs_bridge.deliver.sender import DestinationSender
from pacs_bridge.deliver.store_scu import Sent, UnreachableError
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import DeliveryState, JobRequest, Priority, ResultFile, State

DOWN = UnreachableError(Reason.SEND_TIMEOUT, "no association")
FULL = TransientError(Reason.SEND_REFUSED, "status A700H")
REFUSED = PermanentError(Reason.SEND_REFUSED, "status C000H")


class ScriptedScu:
    """Answers as it is told, and remembers who was sent: the network is tested elsewhere."""

    def __init__(self) -> None:
        self.answer: Exception | None = None
        self.answers: dict[str, Exception] = {}
        self.tried: list[str] = []
        self.sent: list[str] = []

    def send(self, candidates: Sequence[ResultFile], attempt: int = 1) -> Sent:
        name = candidates[0].sop_instance_uid
        self.tried.append(name)
        error = self.answers.get(name, self.answer)
        if error is not None:
            raise error
        self.sent.append(name)
        return Sent(candidates[0], Syntax.RLE, 0, "")


@pytest.fixture
def config(make_config: Callable[..., BridgeConfig]) -> BridgeConfig:
    return make_config()


@pytest.fixture
def ledger(config: BridgeConfig, clock):
    made = Ledger.open(config.ledger_path, clock)
    yield made
    made.close()


@pytest.fixture
def scu() -> ScriptedScu:
    return ScriptedScu()


@pytest.fixture
def sender(config: BridgeConfig, ledger: Ledger, scu: ScriptedScu, clock, tmp_path: Path):
    log = JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test"))
    return DestinationSender(config.destinations[0], scu, ledger.outbox, clock, log)


@pytest.fixture
def finish(ledger: Ledger) -> Callable[..., int]:
    """Make a job with one result of this name; its delivery waits in the outbox."""

    def make(name: str, priority: Priority = Priority.ROUTINE) -> int:
        ledger.jobs.submit(JobRequest(f"1.2.{name}", 1, "all", "m", ("archive",), priority))
        claim = ledger.jobs.claim("worker", 60.0)
        assert claim is not None
        ledger.database.path.with_name("x").write_bytes(b"result")
        digest = hashlib.sha256(b"result").hexdigest()
        result = ResultFile(0, "binary", "x", "1.2", name, "1.2", "1.2", digest, len(b"result"))
        ledger.jobs.complete(claim, [result], [])
        return claim.job_id

    return make


def _run_for(sender: DestinationSender, clock, seconds: float, step_s: float = 1.0) -> None:
    passed = 0.0
    while passed < seconds:
        while sender.send_one("sender"):
            pass
        clock.pass_s(step_s)
        passed += step_s


def test_what_is_sent_makes_the_job_sent(
    sender: DestinationSender, ledger: Ledger, finish: Callable[..., int]
) -> None:
    job = finish("a")
    assert sender.send_one("sender")
    assert not sender.send_one("sender")
    view = ledger.view.job(job)
    assert view is not None
    assert view.state is State.SENT


def test_a_pacs_that_is_down_for_three_days_gets_everything_by_priority(
    sender: DestinationSender,
    ledger: Ledger,
    scu: ScriptedScu,
    clock,
    finish: Callable[..., int],
    config: BridgeConfig,
) -> None:
    finish("routine-1")
    scu.answer = DOWN
    _run_for(sender, clock, 3600, step_s=10)
    for name, priority in (
        ("archive-1", Priority.ARCHIVE),
        ("routine-2", Priority.ROUTINE),
        ("stat-1", Priority.STAT),
    ):
        finish(name, priority)
    _run_for(sender, clock, 71 * 3600, step_s=60)
    down_s = 72 * 3600
    scu.answer = None
    scu.sent.clear()
    tried = len(scu.tried)
    _run_for(sender, clock, config.destinations[0].retry.max_wait_s + 60, step_s=10)

    assert scu.sent == ["stat-1", "routine-1", "routine-2", "archive-1"]
    # one connection a waiting step: ten doublings from 10 s up to half an hour, then each half
    assert tried <= 10 + down_s / config.destinations[0].retry.max_wait_s
    assert ledger.view.state_counts() == {State.SENT: 4}


def test_one_result_that_always_fails_holds_up_no_other(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int], ledger: Ledger
) -> None:
    finish("poison", Priority.STAT)
    finish("good-1")
    finish("good-2")
    scu.answers["poison"] = FULL
    _run_for(sender, clock, 300)
    assert scu.sent == ["good-1", "good-2"]
    assert scu.tried.count("poison") > 2


def test_a_pacs_out_of_resources_five_times_gets_it_in_the_end(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int]
) -> None:
    finish("a")
    scu.answer = FULL
    while len(scu.tried) < 5:
        _run_for(sender, clock, 1)
    scu.answer = None
    _run_for(sender, clock, 1000)
    assert scu.tried == ["a"] * 6
    assert scu.sent == ["a"]


def test_a_refused_result_is_dead_after_one_attempt_and_an_operator_can_retry_it(
    sender: DestinationSender,
    scu: ScriptedScu,
    clock,
    finish: Callable[..., int],
    ledger: Ledger,
) -> None:
    job = finish("a")
    scu.answer = REFUSED
    _run_for(sender, clock, 3600, step_s=60)
    assert scu.tried == ["a"]
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.reason) == (DeliveryState.DEAD, Reason.SEND_REFUSED)
    assert delivery.detail == "status C000H"

    scu.answer = None
    assert ledger.steering.retry_job(job)
    _run_for(sender, clock, 10)
    assert scu.sent == ["a"]


def test_a_destination_that_never_comes_back_is_given_up_after_its_time(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int], ledger: Ledger
) -> None:
    job = finish("a")
    scu.answer = DOWN
    _run_for(sender, clock, 10 * 24 * 3600, step_s=600)
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.reason) == (DeliveryState.DEAD, Reason.SEND_TIMEOUT)


def test_a_fault_of_ours_waits_like_any_failure_and_is_logged_by_its_type(
    sender: DestinationSender,
    scu: ScriptedScu,
    clock,
    finish: Callable[..., int],
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    job = finish("bad", Priority.STAT)
    finish("good")
    scu.answers["bad"] = ZeroDivisionError("Doe^Jane")
    _run_for(sender, clock, 300)
    assert scu.sent == ["good"]
    assert 2 < scu.tried.count("bad") < 10
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.reason) == (DeliveryState.PENDING, Reason.INTERNAL_ERROR)
    assert delivery.detail == "ZeroDivisionError"
    log = (tmp_path / "log.jsonl").read_text()
    assert '"error": "ZeroDivisionError at test_deliver_sender.py' in log
    assert "Doe" not in log
    _run_for(sender, clock, 10 * 24 * 3600, step_s=600)
    assert ledger.view.deliveries(job)[0].state is DeliveryState.DEAD


def test_what_a_newer_revision_replaced_is_not_sent_though_its_sender_died_with_it(
    sender: DestinationSender, ledger: Ledger, scu: ScriptedScu, finish: Callable[..., int]
) -> None:
    job = finish("old")
    assert ledger.outbox.claim("dead sender", 60.0) is not None
    with ledger.database.write() as connection:
        connection.execute("UPDATE jobs SET state = 'superseded' WHERE id = ?", (job,))
    ledger.outbox.presume_dead("dead sender")
    finish("new")
    while sender.send_one("sender"):
        pass
    assert scu.sent == ["new"]
    assert ledger.view.deliveries(job)[0].state is DeliveryState.SUPERSEDED


def test_a_delivery_that_is_given_back_after_its_job_was_replaced_is_not_sent(
    sender: DestinationSender, ledger: Ledger, scu: ScriptedScu, finish: Callable[..., int]
) -> None:
    job = finish("old")
    claim = ledger.outbox.claim("sender", 60.0)
    assert claim is not None
    with ledger.database.write() as connection:
        connection.execute("UPDATE jobs SET state = 'superseded' WHERE id = ?", (job,))
    ledger.outbox.release(claim)
    assert ledger.steering.send_now(job) == 0
    assert not sender.send_one("sender")
    assert scu.sent == []


def test_deliveries_to_a_destination_that_is_gone_are_parked_and_can_be_revived(
    sender: DestinationSender, ledger: Ledger, scu: ScriptedScu, finish: Callable[..., int]
) -> None:
    job = finish("a")
    assert ledger.outbox.park_unknown(["elsewhere"]) == (("archive", 1),)
    assert ledger.outbox.park_unknown(["elsewhere"]) == ()
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.reason) == (DeliveryState.DEAD, Reason.UNKNOWN_DESTINATION)
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.UNKNOWN_DESTINATION)

    assert ledger.steering.retry_job(job)
    assert ledger.outbox.park_unknown(["archive"]) == ()
    assert sender.send_one("sender")
    assert scu.sent == ["a"]


def test_what_was_broken_off_for_a_stop_is_due_at_once_and_has_not_failed(
    sender: DestinationSender, scu: ScriptedScu, finish: Callable[..., int], ledger: Ledger
) -> None:
    job = finish("a")
    scu.answer = LeavingError()
    assert sender.send_one("sender")
    (delivery,) = ledger.view.deliveries(job)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
    scu.answer = None
    assert sender.send_one("sender")
    assert scu.sent == ["a"]


def test_a_dead_process_holds_up_no_delivery(
    sender: DestinationSender, ledger: Ledger, finish: Callable[..., int]
) -> None:
    finish("a")
    assert ledger.outbox.claim("host:12:archive", 3600.0) is not None
    ledger.presume_dead("host:1")
    assert not sender.send_one("host:13:archive")
    ledger.presume_dead("host:12")
    assert sender.send_one("host:13:archive")


def test_no_delivery_causes_another_inference(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int], ledger: Ledger
) -> None:
    finish("a")
    scu.answer = DOWN
    _run_for(sender, clock, 3600, step_s=10)
    assert ledger.jobs.claim("worker", 60.0) is None


def test_a_destination_that_asks_for_a_wait_is_not_tried_before(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int]
) -> None:
    finish("a")
    scu.answer = UnreachableError(Reason.SEND_TIMEOUT, "status 503", 500.0)
    _run_for(sender, clock, 490, step_s=10)
    assert scu.tried == ["a"]
    scu.answer = None
    _run_for(sender, clock, 30, step_s=10)
    assert scu.sent == ["a"]


BUSY = UnreachableError(Reason.SEND_TIMEOUT, "status 429", 120.0)


def test_a_result_for_which_a_wait_is_asked_each_time_holds_up_no_other(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int]
) -> None:
    finish("poison", Priority.STAT)
    good = [f"good-{number}" for number in range(3)]
    for name in good:
        finish(name)
    scu.answers["poison"] = BUSY
    _run_for(sender, clock, 600)

    assert scu.sent == good


@pytest.mark.parametrize("answer", [BUSY, FULL, ZeroDivisionError("ours")])
def test_no_number_of_results_that_always_fail_holds_up_the_others(
    sender: DestinationSender,
    scu: ScriptedScu,
    clock,
    finish: Callable[..., int],
    answer: Exception,
) -> None:
    for number in range(4):
        finish(f"poison-{number}", Priority.STAT)
        scu.answers[f"poison-{number}"] = answer
    for number in range(20):
        finish(f"good-{number}", Priority.ARCHIVE)
    _run_for(sender, clock, 3600, step_s=5)

    assert scu.sent == [f"good-{number}" for number in range(20)]


def test_a_result_that_fails_though_others_are_taken_is_tried_less_and_less_and_given_up(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int], ledger: Ledger
) -> None:
    job = finish("poison", Priority.STAT)
    scu.answers["poison"] = BUSY
    tried = []
    for number in range(200):
        finish(f"good-{number}")
        _run_for(sender, clock, 120, step_s=20)
        tried.append(scu.tried.count("poison"))
    assert len(scu.sent) == 200
    assert tried[-1] - tried[99] < 10  # of a hundred times at which it could have been

    _run_for(sender, clock, 8 * 24 * 3600, step_s=600)
    assert ledger.view.deliveries(job)[0].state is DeliveryState.DEAD


def test_a_destination_that_is_busy_for_all_gets_the_most_urgent_result_first_when_it_is_not(
    sender: DestinationSender, scu: ScriptedScu, clock, finish: Callable[..., int]
) -> None:
    for number in range(5):
        finish(f"routine-{number}")
    finish("stat", Priority.STAT)
    scu.answer = BUSY
    _run_for(sender, clock, 1200, step_s=10)
    scu.answer = None
    _run_for(sender, clock, 1800, step_s=10)

    assert "stat" in scu.sent[:2]
    assert len(scu.sent) == 6
