"""Every queue, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from queue_bench import LedgerBench, PostgresBench, QueueBench

from pacs_bridge.clock import SystemClock


@pytest.fixture(params=["ledger", "postgres"])
def bench(request, ram_folder, clock) -> Iterator[QueueBench]:
    if request.param == "ledger":
        clock.boot = SystemClock().boot_id()  # of the worker processes that share the ledger
        made: QueueBench = LedgerBench(ram_folder / "ledger.sqlite", clock)
    else:
        made = PostgresBench(request.getfixturevalue("postgres").new_database())
    yield made
    made.close()
