"""Leases that are kept, and leases that are lost."""

from __future__ import annotations

import threading

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.lease import KeptLease
from pacs_bridge.queue import LeaseLostError


def test_a_lease_is_prolonged_until_the_work_is_done() -> None:
    often = threading.Event()
    calls: list[None] = []

    def prolong() -> None:
        calls.append(None)
        if len(calls) >= 3:
            often.set()

    with KeptLease(prolong, 0.01) as lease:
        assert often.wait(10)
    after = len(calls)
    threading.Event().wait(0.1)
    assert len(calls) == after
    assert not lease.is_lost


def test_a_lease_that_is_another_s_is_known_as_lost() -> None:
    tried = threading.Event()

    def prolong() -> None:
        tried.set()
        raise LeaseLostError("another has it")

    with KeptLease(prolong, 0.01) as lease:
        assert tried.wait(10)
        for _ in range(1000):
            if lease.is_lost:
                break
            threading.Event().wait(0.01)
    assert lease.is_lost


def test_a_ledger_that_is_away_for_a_moment_loses_no_lease() -> None:
    back = threading.Event()
    answers = [TransientError(Reason.LEDGER_UNAVAILABLE, "locked")] * 2

    def prolong() -> None:
        if answers:
            raise answers.pop()
        back.set()

    with KeptLease(prolong, 0.01) as lease:
        assert back.wait(10)
    assert not lease.is_lost
