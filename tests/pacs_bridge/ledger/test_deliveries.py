"""Deliveries whose destination or sender is gone."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, LeaseLostError, ResultFile, State

SERIES = "1.2.3"


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


def test_a_delivery_whose_sender_died_is_parked_with_its_destination(ledger, clock):
    job = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("archive",)))
    claim = ledger.jobs.claim("w", 60)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    sending = ledger.outbox.claim("host:7:archive", 60, ["archive"])
    assert ledger.outbox.park_unknown(["other"]) == ()
    clock.pass_s(61)

    assert ledger.outbox.park_unknown(["other"]) == (("archive", 1),)
    view = ledger.view.job(job)
    assert (view.state, view.reason) == (State.DEAD, Reason.UNKNOWN_DESTINATION)
    with pytest.raises(LeaseLostError):
        ledger.outbox.sent(sending, result)
