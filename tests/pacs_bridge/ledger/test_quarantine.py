"""What cannot be believed is kept for people to look at, and not without end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from arrivals import SERIES, arrival_of

from inference.reasons import Reason
from pacs_bridge.config.bridge import CollectorConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.audit import audit
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.log import JsonLog
from pacs_bridge.receive.collector import Collector

DAY_S = 86_400.0
SIZE_BYTES = 8
_FOLDER = "quarantine/missing-identity"


class Shelf:
    """A ``Placer`` that writes files of one size, where the spool would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, arrival: Arrival, fate: Fate) -> str:
        path = self._folder / "quarantine" / fate.value / f"{arrival.digest}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * SIZE_BYTES)
        return str(path.relative_to(self._folder))

    def settle(self) -> None:
        return


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


@pytest.fixture
def set_aside(ledger, ram_folder, clock) -> Callable[..., None]:
    """Have instances without identity come, a second apart."""
    usual = {"data_offset_bytes": 0, "size_bytes": SIZE_BYTES, "is_identified": False}

    def run(*numbers: int) -> None:
        for number in numbers:
            fates = ledger.instances.enter([arrival_of(number, **usual)], Shelf(ram_folder))
            assert fates == [Fate.MISSING_IDENTITY]
            clock.pass_s(1)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / _FOLDER).iterdir())


def test_beyond_the_limit_the_oldest_goes_and_is_still_known(
    ledger, set_aside, ram_folder, monkeypatch
):
    set_aside(1, 2, 3, 4, 5)
    assert ledger.retention.delete_quarantined(None, 5 * SIZE_BYTES) == 0

    assert ledger.retention.delete_quarantined(None, 3 * SIZE_BYTES - 1) == 3

    assert names(ram_folder) == ["digest4.dcm", "digest5.dcm"]
    assert len(ledger.instances.set_aside(SERIES)) == 5
    assert ledger.retention.delete_quarantined(None, 3 * SIZE_BYTES - 1) == 0
    monkeypatch.setattr("pacs_bridge.ledger.unnamed._FILE_GRACE_S", -60.0)
    folders = (ram_folder / "spool", ram_folder / "quarantine")
    assert list(audit(ledger.database, *folders)) == []


def test_what_has_lain_long_enough_goes_whatever_there_is(ledger, set_aside, ram_folder, clock):
    set_aside(1, 2)
    clock.pass_s(2 * DAY_S)
    set_aside(3)
    assert ledger.retention.delete_quarantined(3 * DAY_S, None) == 0

    assert ledger.retention.delete_quarantined(DAY_S, None) == 2

    assert names(ram_folder) == ["digest3.dcm"]


def test_a_series_lacks_what_was_deleted_from_quarantine_all_the_same(
    ledger, set_aside, ram_folder
):
    set_aside(1)
    ledger.retention.delete_quarantined(None, 0)
    arrival = arrival_of(2, association=2, data_offset_bytes=0, size_bytes=SIZE_BYTES)
    ledger.instances.enter([arrival], Shelf(ram_folder))
    assert ledger.series.open_revisions()[0].hold_reason is Reason.MISSING_IDENTITY


def test_what_comes_again_after_it_was_deleted_lies_there_again(ledger, set_aside, ram_folder):
    set_aside(1, 2)
    ledger.retention.delete_quarantined(None, SIZE_BYTES)
    path = f"{_FOLDER}/digest1.dcm"
    assert not ledger.instances.is_entered(f"{SERIES}.1", path)

    set_aside(1)

    assert names(ram_folder) == ["digest1.dcm", "digest2.dcm"]
    assert ledger.instances.is_entered(f"{SERIES}.1", path)
    assert len(ledger.instances.set_aside(SERIES)) == 2
    assert ledger.retention.delete_quarantined(None, SIZE_BYTES) == 1
    assert names(ram_folder) == ["digest1.dcm"]  # it came last


def test_what_an_older_version_put_there_counts(ram_folder, clock):
    path = ram_folder / "old.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:5])
    (ram_folder / _FOLDER).mkdir(parents=True)
    with old.write() as connection:
        connection.execute(
            "INSERT INTO associations VALUES (1, 'CT1', 'BRIDGE', 'a', 't', 't', 'released')"
        )
        for number in (1, 2, 3):
            file = f"{_FOLDER}/{number}.dcm"
            if number != 2:  # somebody has deleted it
                (ram_folder / file).write_bytes(b"x" * 100)
            connection.execute(
                "INSERT INTO quarantine (reason, sop_instance_uid, series_instance_uid, digest,"
                " path, received_at, association_id)"
                " VALUES ('missing-identity', '', '1.2', 'd', ?, ?, 1)",
                (file, f"2026-02-0{number}T00:00:00.000000+00:00"),
            )
    old.close()

    ledger = Ledger.open(path, clock)

    assert ledger.retention.delete_quarantined(None, 200) == 0
    assert ledger.retention.delete_quarantined(None, 199) == 1
    assert names(ram_folder) == ["3.dcm"]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (CollectorConfig(), 0),
        (CollectorConfig(keep_quarantine_h=0.0), 4),
        (CollectorConfig(keep_quarantine_h=0.0, max_quarantine_gib=2 * SIZE_BYTES / 2**30), 2),
    ],
    ids=["after a year", "for ever", "too much"],
)
def test_the_collector_keeps_the_quarantine_small_and_says_so(
    ledger, set_aside, ram_folder, clock, config, left
):
    set_aside(1, 2, 3, 4)
    log_file = ram_folder / "log.jsonl"
    log = JsonLog.open(log_file, IdentityHash(b"k"))
    collector = Collector(ledger, config, [], clock, log)
    clock.pass_s(365 * DAY_S)

    collector.look()

    assert len(names(ram_folder)) == left
    told = [json.loads(line) for line in log_file.read_text().splitlines()]
    counts = [one["files"] for one in told if one["event"] == "quarantine-deleted"]
    assert sum(counts) == 4 - left
