"""Entering many arrivals at once: what fails for one fails for no other."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from arrivals import arrival_of

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.instances import InstanceBook
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.receive.committer import Committer
from pacs_bridge.receive.spool import Spool


class Bench:
    """A committer, and threads that enter arrivals while the ledger is locked."""

    def __init__(self, config: BridgeConfig, busy_timeout_s: float) -> None:
        self.config = config
        self.spool = Spool(config.data_folder, config.spool_folder, config.quarantine_folder)
        self.spool.landing_folder.mkdir()
        self.ledger = Ledger.open(config.ledger_path, busy_timeout_s=busy_timeout_s)
        log = JsonLog.open(None, IdentityHash(b"test"))
        self.committer = Committer(self.ledger, self.spool, log)
        self.numbers = itertools.count(1)

    def arrival(self, name: str, **changes: object) -> Arrival:
        landed = self.spool.landing_folder / f"{next(self.numbers)}.part"
        landed.write_text(name)
        usual = {"landed_path": landed, "data_offset_bytes": 0, "size_bytes": len(name)}
        return arrival_of(name, **(usual | changes))

    def enter_together(
        self, *arrivals: Arrival, wait_for: Callable[..., None], is_freed: bool
    ) -> list[Fate | type[Exception]]:
        """Enter the first alone and the others as one batch behind it."""
        holder = sqlite3.connect(self.config.ledger_path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        outcomes: dict[int, Fate | type[Exception]] = {}

        def enter(index: int) -> None:
            try:
                outcomes[index] = self.committer.enter(arrivals[index])
            except Exception as error:
                outcomes[index] = type(error)

        threads = [threading.Thread(target=enter, args=(n,)) for n in range(len(arrivals))]
        threads[0].start()
        wait_for(lambda: self.committer._commit_lock.locked() and not self.committer._waiting)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: len(self.committer._waiting) == len(arrivals) - 1)
        if is_freed:
            holder.execute("ROLLBACK")
        for thread in threads:
            thread.join()
        holder.close()
        return [outcomes[index] for index in range(len(arrivals))]


@pytest.fixture
def make_bench(make_config) -> Callable[[float], Bench]:
    return lambda busy_timeout_s: Bench(make_config(), busy_timeout_s)


def test_one_arrival_that_cannot_be_entered_takes_no_other_with_it(make_bench, wait_for):
    bench = make_bench(60.0)
    bad = bench.arrival("bad", frame_count=None)
    unidentified = bench.arrival("x", is_identified=False)

    outcomes = bench.enter_together(
        bench.arrival("1"),
        bench.arrival("2"),
        unidentified,
        bad,
        bench.arrival("3"),
        wait_for=wait_for,
        is_freed=True,
    )

    kept, aside = Fate.KEPT, Fate.MISSING_IDENTITY
    assert outcomes == [kept, kept, aside, sqlite3.IntegrityError, kept]
    sources = bench.ledger.instances.sources("1.2.3", 1)
    assert [source.path.read_text() for source in sources] == ["1", "2", "3"]
    (quarantined,) = bench.ledger.instances.set_aside("1.2.3")
    assert quarantined.path.read_text() == "x"
    files = {path.name for path in bench.config.spool_folder.rglob("*.dcm")}
    assert files == {"digest1.dcm", "digest2.dcm", "digest3.dcm"}
    assert bad.landed_path.exists()  # its owner's to delete


def test_a_batch_that_fails_leaves_in_quarantine_what_lay_there_by_right(make_bench, wait_for):
    bench = make_bench(60.0)
    unidentified = bench.arrival("x", is_identified=False)
    bench.committer.enter(unidentified)
    again = bench.arrival("x", is_identified=False)
    bad = bench.arrival("bad", frame_count=None)

    outcomes = bench.enter_together(
        bench.arrival("1"), again, bad, wait_for=wait_for, is_freed=True
    )

    assert outcomes == [Fate.KEPT, Fate.MISSING_IDENTITY, sqlite3.IntegrityError]
    (quarantined,) = bench.ledger.instances.set_aside("1.2.3")
    assert quarantined.path.read_text() == "x"


def test_a_ledger_that_is_locked_too_long_is_waited_for_once_a_batch(
    make_bench, wait_for, monkeypatch
):
    """The answers of many senders would otherwise wait for each other's time-outs, in a row."""
    bench = make_bench(1.0)
    batches: list[int] = []
    enter = InstanceBook.enter

    def counted(book: InstanceBook, arrivals, placer) -> list[Fate]:
        batches.append(len(arrivals))
        return enter(book, arrivals, placer)

    monkeypatch.setattr(InstanceBook, "enter", counted)
    arrivals = [bench.arrival(str(number)) for number in range(5)]

    outcomes = bench.enter_together(*arrivals, wait_for=wait_for, is_freed=False)

    assert outcomes == [TransientError] * 5
    assert batches == [1, 4]
    assert all(Path(arrival.landed_path).exists() for arrival in arrivals)
