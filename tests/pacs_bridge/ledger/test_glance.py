"""A look at a ledger changes nothing of it."""

from __future__ import annotations

import shutil

import pytest

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.glance import LedgerGlance
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.ledger.views import LedgerView
from pacs_bridge.queue import JobRequest, State


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    made = Ledger.open(ram_folder / "data" / "ledger.sqlite", clock)
    made.jobs.submit(JobRequest("1.2.3", 1, "r", "m", ("a",)))
    return made


def files(folder) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_what_was_closed_is_seen_as_it_is(ledger, ram_folder):
    ledger.close()
    before = files(ram_folder / "data")

    glance = LedgerGlance(ledger.database.path, is_in_use=False)

    assert LedgerView(glance).state_counts() == {State.READY: 1}
    assert glance.version() == len(MIGRATIONS)
    assert files(ram_folder / "data") == before


def test_what_a_crash_left_is_seen_whole_and_put_in_order_by_nobody(ledger, ram_folder):
    shutil.copytree(ram_folder / "data", ram_folder / "crashed")
    before = files(ram_folder / "crashed")
    assert before["ledger.sqlite-wal"][0]

    glance = LedgerGlance(ram_folder / "crashed" / "ledger.sqlite", is_in_use=False)

    assert LedgerView(glance).state_counts() == {State.READY: 1}
    assert files(ram_folder / "crashed") == before
    ledger.close()


def test_what_is_at_work_is_seen_up_to_its_last_commit(ledger):
    glance = LedgerGlance(ledger.database.path, is_in_use=True)
    for number in range(2, 5):
        ledger.jobs.submit(JobRequest(f"1.2.{number}4", 1, "r", "m", ("a",)))
        assert LedgerView(glance).state_counts() == {State.READY: number}
    ledger.close()


def test_an_older_ledger_is_left_as_old_as_it_is(ram_folder, clock):
    path = ram_folder / "old" / "ledger.sqlite"
    Database(path, clock, migrations=MIGRATIONS[:4]).close()
    before = files(path.parent)

    assert LedgerGlance(path, is_in_use=False).version() == 4
    assert files(path.parent) == before


def test_what_is_no_ledger_is_said_to_be_none(ram_folder):
    path = ram_folder / "ledger.sqlite"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(BridgeError) as caught:
        LedgerGlance(path, is_in_use=False).version()
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
