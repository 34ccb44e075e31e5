"""The clock of the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.clock import SystemClock
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest

NIGHT_S = 8 * 3600.0


def test_a_night_in_which_the_machine_sleeps_ends_no_lease(
    ram_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(ram_folder / "ledger.sqlite", SystemClock())
    ledger.jobs.submit(JobRequest("1.2.3", 1, "route", "model", ()))
    claim = ledger.jobs.claim("sleeper", 60.0)
    assert claim is not None

    clock_gettime = time.clock_gettime

    def after_a_night(clock: int) -> float:  # as the kernel counts it (clock_gettime(2))
        slept_s = NIGHT_S if clock in (time.CLOCK_BOOTTIME, time.CLOCK_REALTIME) else 0.0
        return clock_gettime(clock) + slept_s

    monkeypatch.setattr(time, "clock_gettime", after_a_night)
    assert ledger.jobs.claim("another", 60.0) is None
    ledger.jobs.heartbeat(claim, 60.0)
    ledger.close()


def test_steady_seconds_are_told_from_those_that_counted_the_sleep(ram_folder: Path) -> None:
    clock = SystemClock()

    class CountedSleep:
        """As it was once: the same boot, and more seconds."""

        def now(self) -> Any:
            return clock.now()

        def steady_s(self) -> float:
            return clock.steady_s() + NIGHT_S

        def boot_id(self) -> str:
            return clock.boot_id().removesuffix(" awake")

    before = Ledger.open(ram_folder / "ledger.sqlite", CountedSleep())
    before.jobs.submit(JobRequest("1.2.3", 1, "route", "model", ()))
    assert before.jobs.claim("dead", 60.0) is not None
    before.close()

    ledger = Ledger.open(ram_folder / "ledger.sqlite", clock)
    assert ledger.jobs.claim("another", 60.0) is not None
    ledger.close()
