"""Older files of the ledger, and what becomes of what they hold."""

from __future__ import annotations

from pacs_bridge.ledger.announcements import Announcement
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.queue import SPOOL, JobRequest


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


def _say(path, clock, instance_count, **whose):
    ledger = Ledger.open(path, clock)
    assert ledger.series.expect(Announcement("1.2", instance_count, **whose))
    ledger.close()


def _announced(path, clock):
    database = Database(path, clock)
    with database.read() as connection:
        rows = connection.execute(
            "SELECT study_instance_uid, instance_count FROM announced ORDER BY id"
        ).fetchall()
    database.close()
    return [tuple(row) for row in rows]


def test_what_was_announced_in_an_older_file_is_kept_beside_what_is_said_of_another_study(
    ram_folder, clock
):
    path = ram_folder / "old.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:11])
    with old.write() as connection:
        connection.execute("INSERT INTO announced VALUES ('1.2', '1', 'p', 7, NULL, '2026-01-01')")
    old.close()

    _say(path, clock, 9, study_instance_uid="2")

    assert _announced(path, clock) == [("1", 7), ("2", 9)]


def test_a_file_that_had_the_table_of_announcements_early_is_left_as_it_is(ram_folder, clock):
    path = ram_folder / "early.sqlite"
    _say(path, clock, 7, study_instance_uid="1")
    early = Database(path, clock)
    with early.write() as connection:
        connection.execute("PRAGMA user_version = 11")
    early.close()

    _say(path, clock, 9, study_instance_uid="2")

    assert _announced(path, clock) == [("1", 7), ("2", 9)]


def test_a_job_of_an_older_file_has_its_instances_in_the_spool(ram_folder, clock):
    path = ram_folder / "old.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:3])
    with old.write() as connection:
        connection.execute(
            "INSERT INTO jobs (series_instance_uid, revision, route, model, destinations, priority,"
            " state, created_at, state_at) VALUES ('1.2', 1, 'r', 'm', '[\"a\"]', 1, 'ready',"
            " '2026-01-01T00:00:00+00:00', 't')"
        )
    old.close()

    ledger = Ledger.open(path, clock)

    claim = ledger.jobs.claim("w", 60)
    assert claim is not None
    assert claim.request == JobRequest("1.2", 1, "r", "m", ("a",))
    assert (claim.request.source, claim.request.study_instance_uid) == (SPOOL, "")
