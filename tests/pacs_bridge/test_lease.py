"""Leases that are kept, and leases that are lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from queue_bench import request_of

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.lease import KeptLease
from pacs_bridge.ledger.ledger import Ledger
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


def test_a_heartbeat_that_waited_for_the_disk_prolongs_from_when_it_was_written(
    ram_folder: Path, clock: Any
) -> None:
    asked = threading.Event()
    ledger = Ledger.open(ram_folder / "ledger.sqlite", _Asked(clock, asked))
    ledger.jobs.submit(request_of())
    claim = ledger.jobs.claim("w1", 60.0)
    assert claim is not None
    asked.clear()
    with ledger.database.write():  # nobody else can write
        beat = threading.Thread(target=ledger.jobs.heartbeat, args=(claim, 60.0))
        beat.start()
        asked.wait(0.3)
        clock.pass_s(120.0)
    beat.join()

    assert ledger.jobs.claim("w2", 60.0) is None
    ledger.close()


class _Asked:
    """A clock that tells when it is asked."""

    def __init__(self, clock: Any, asked: threading.Event) -> None:
        self._clock = clock
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def steady_s(self) -> float:
        self._asked.set()
        return float(self._clock.steady_s())
