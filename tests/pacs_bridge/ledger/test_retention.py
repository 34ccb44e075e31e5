"""Deleting costs what is deleted, not what was ever received."""

from __future__ import annotations

import pytest

from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS

DAY_S = 86_400.0

_ASSOCIATION = (
    "INSERT INTO associations VALUES (1, 'CT1', 'BRIDGE', '10.0.0.1', 't', 't', 'released')"
)
_SERIES = (
    "INSERT INTO series (series_instance_uid, study_instance_uid, patient_key, revision)"
    " VALUES (?, '1', 'p', 1)"
)
_REVISION = (
    "INSERT INTO revisions VALUES (?, 1, 'skipped', NULL, '', 0, NULL, NULL,"
    " '2020-01-01', '2020-01-01', '2020-01-01')"
)
_INSTANCE = (
    "INSERT INTO instances (sop_instance_uid, series_instance_uid, revision, sop_class_uid,"
    " transfer_syntax_uid, digest, data_offset_bytes, size_bytes, frame_count, path, received_at,"
    " association_id, deleted_at) VALUES (?, ?, 1, 'c', 't', 'd', 0, 1, 1, ?, '2020-01-01', 1, ?)"
)


def _fill(database: Database, series_count: int, deleted_at: str | None) -> None:
    with database.write() as connection:
        connection.execute(_ASSOCIATION)
        for series in range(series_count):
            uid = f"1.{series}"
            connection.execute(_SERIES, (uid,))
            connection.execute(_REVISION, (uid,))
            for number in range(20):
                sop = f"{uid}.{number}"
                connection.execute(_INSTANCE, (sop, uid, f"spool/{sop}", deleted_at))


def _steps_of_a_look(ledger: Ledger) -> int:
    """Hundreds of instructions of SQLite's machine (sqlite.org/opcode.html)."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with ledger.database.read() as connection:
        connection.set_progress_handler(count, 100)
    ledger.retention.delete_sources(DAY_S)
    with ledger.database.read() as connection:
        connection.set_progress_handler(None, 0)
    return steps


@pytest.mark.parametrize("series_count", [5, 400])
def test_a_look_for_what_to_delete_does_not_read_what_was_deleted_before(
    ram_folder, clock, series_count
):
    path = ram_folder / "ledger.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:4])
    _fill(old, series_count, deleted_at="2020-02-01")
    old.close()

    ledger = Ledger.open(path, clock)

    assert _steps_of_a_look(ledger) <= 5


def test_sources_of_an_older_file_are_still_found(ram_folder, clock):
    path = ram_folder / "ledger.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:4])
    _fill(old, 2, deleted_at=None)
    old.close()

    ledger = Ledger.open(path, clock)

    assert ledger.retention.delete_sources(DAY_S) == 40
    assert ledger.retention.delete_sources(DAY_S) == 0
