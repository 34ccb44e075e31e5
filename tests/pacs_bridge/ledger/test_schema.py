"""Older files of the ledger, and what becomes of what they hold."""

from __future__ import annotations

from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS


def test_facts_that_were_kept_once_a_series_are_kept_by_how_many_instances_say_so(
    ram_folder, clock
):
    path = ram_folder / "old.sqlite"
    facts = SeriesFacts(modality="CT", kernel="B30")
    old = Database(path, clock, migrations=MIGRATIONS[:2])
    with old.write() as connection:
        connection.execute(
            "INSERT INTO series VALUES ('1.2', '1', 'p', 1, ?, 5)", (facts.to_json(),)
        )
        connection.execute(
            "INSERT INTO revisions VALUES ('1.2', 1, 'receiving', NULL, '', 0, NULL, NULL,"
            " 't', 't', 't')"
        )
    old.close()

    (revision,) = Ledger.open(path, clock).series.open_revisions()
    assert (revision.facts, revision.expected_instances) == (facts, 5)
