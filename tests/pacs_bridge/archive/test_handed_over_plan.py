"""A series of a plan that a machine works on which must not open the plan."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_seg.read.examination import SeriesIdentity
from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.plan_source import PlanSources, planned_files
from pacs_bridge.archive.planned_identities import PlannedIdentity
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import JobSources
from pacs_bridge.postgres.fence import first_fence
from pacs_bridge.postgres.planned_ticket import PlanLookup, PlanRow
from pacs_bridge.postgres.ticket import TicketBook, TicketPlans, TicketSources
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import JobClaim, JobRequest, Priority
from pacs_bridge.sources.configured_sources import ConfiguredSources

LEDGER_FENCE = 3
HIDE = IdentityHash(b"key")


def claim_of(series: str, fence: int = LEDGER_FENCE, source: str = "old") -> JobClaim:
    request = JobRequest(series, 1, "all", "m", ("a",), Priority.ARCHIVE, source, "1.2.3")
    return JobClaim(7, fence, request, 1, "w", datetime(2026, 11, 22, tzinfo=UTC), ())


def only_series(plan: PlanFile) -> str:
    series = SeriesBook(plan).next_planned()
    assert series is not None
    return series.series


@pytest.fixture
def book(make_config, ram_folder) -> TicketBook:
    """The tickets of a bridge that knows the plan in ``run``."""
    config = make_config(
        sources=f'[{{ name = "old", kind = "plan", folder = "{ram_folder}/run" }}]'
    )
    config.data_folder.mkdir()
    return TicketBook(config.data_folder, PlanLookup(config).of)


@pytest.fixture
def elsewhere(book, ram_folder, monkeypatch) -> Callable[[str], SeriesSource]:
    """Fetch a series that was handed over, on a machine that knows no plan and no SQLite."""

    def no_database(*_: object, **__: object) -> None:
        raise AssertionError("a database was opened")

    def run(series: str) -> SeriesSource:
        book.write(claim_of(series), (), ())
        shutil.move(ram_folder / "run", ram_folder / "hidden")
        there = TicketBook(book.data_folder)
        sources = TicketSources(there, ConfiguredSources({}), lambda: None)
        claim = claim_of(series, first_fence(LEDGER_FENCE) + 1)
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", no_database)
            return sources.fetch(claim, ram_folder / "scratch", lambda: None)

    return run


def here(run_folder: Path, data_folder: Path, series: str) -> SeriesSource:
    sources: JobSources = PlanSources(run_folder, data_folder)
    return sources.fetch(claim_of(series), run_folder.parent / "scratch", lambda: None)


@pytest.mark.parametrize("kind", ["twice", "split"])
def test_planned_files_are_fetched_without_the_plan(tree, plan_of, book, elsewhere, kind):
    tree.add_other(kind, os.fsdecode(b"st\xf6rung"))  # a name that is no text
    plan = plan_of(tree.root).plan
    run_folder, series = plan.path.parent, only_series(plan)
    known = here(run_folder, book.data_folder, series)

    source = elsewhere(series)

    assert len(source.paths) == 12
    assert (source.paths, source.set_aside) == (known.paths, known.set_aside)
    assert len(source.set_aside) == (12 if kind == "twice" else 0)
    planned = known.confirm.planned
    source.confirm(replace(planned, patient_id="PID-1"))
    with pytest.raises(PermanentError):
        source.confirm(replace(planned, patient_id="PID-2"))
    with pytest.raises(PermanentError):
        source.confirm(SeriesIdentity("PID-1", "1.2", planned.series_instance_uid))


def test_members_of_a_planned_zip_file_are_taken_out_elsewhere(
    tree, plan_of, zip_tree, ram_folder, elsewhere
):
    tree.add("run", "series")
    (ram_folder / "zipped").mkdir()
    zip_tree(tree.root, ram_folder / "zipped" / "a.zip")
    series = only_series(plan_of(ram_folder / "zipped").plan)

    source = elsewhere(series)

    contents = {path.read_bytes() for path in (tree.root / "series").iterdir()}
    assert {path.read_bytes() for path in source.paths} == contents


def test_an_archive_that_is_not_mounted_elsewhere_is_waited_for(tree, plan_of, elsewhere):
    tree.add("run", "series")
    plan = plan_of(tree.root).plan
    plan.set("roots", [str(tree.root)])
    series = only_series(plan)
    shutil.move(tree.root, tree.root.with_name("unmounted"))

    with pytest.raises(TransientError) as error:
        elsewhere(series)
    assert error.value.reason is Reason.SOURCE_UNREACHABLE


def test_a_file_that_changed_since_it_was_planned_ends_the_job_elsewhere_too(
    tree, plan_of, elsewhere
):
    tree.add("run", "series")
    series = only_series(plan_of(tree.root).plan)
    path = next((tree.root / "series").iterdir())
    path.write_bytes(path.read_bytes() + b"\0\0")

    with pytest.raises(PermanentError) as error:
        elsewhere(series)
    assert error.value.reason is Reason.SOURCE_MISSING


def test_a_ticket_that_holds_the_key_of_a_plan_is_for_its_owner_alone(tree, plan_of, book):
    tree.add("run", "series")
    series = only_series(plan_of(tree.root).plan)
    book.write(claim_of(series), (), ())

    (path,) = (book.data_folder / "tickets").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_folder_of_a_run_that_is_away_is_waited_for(tree, plan_of, book, ram_folder):
    tree.add("run", "series")
    plan = plan_of(tree.root).plan
    run_folder, series = plan.path.parent, only_series(plan)
    shutil.move(run_folder, ram_folder / "unmounted")

    for attempt in (
        lambda: here(run_folder, book.data_folder, series),
        lambda: book.write(claim_of(series), (), ()),
    ):
        with pytest.raises(TransientError) as error:
            attempt()
        assert error.value.reason is Reason.SOURCE_UNREACHABLE


def test_a_source_that_the_bridge_does_not_have_is_said_by_the_bridge(book):
    with pytest.raises(PermanentError) as error:
        book.write(claim_of("1.2.4", source="gone"), (), ())
    assert error.value.reason is Reason.UNKNOWN_SOURCE


@pytest.mark.parametrize("instance_count", [None, 120])
def test_what_an_archive_said_of_a_series_is_known_elsewhere(ram_folder, instance_count):
    planned = PlannedIdentity(instance_count, HIDE.word("PID-1"), b"key")
    TicketBook(ram_folder, lambda _request: PlanRow.of_identity(planned)).write(
        claim_of("1.2.4", source="pacs"), (), ()
    )
    plans = TicketPlans(TicketBook(ram_folder))

    expected = plans.expected(claim_of("1.2.4", first_fence(LEDGER_FENCE) + 1, "pacs"))

    assert expected.instance_count == instance_count
    assert expected.is_patient("PID-1")
    assert not expected.is_patient("PID-2")


def test_nothing_is_known_elsewhere_of_a_series_that_no_plan_has(ram_folder):
    TicketBook(ram_folder).write(claim_of("1.2.4", source="pacs"), (), ())
    plans = TicketPlans(TicketBook(ram_folder))

    assert plans.expected(claim_of("1.2.4", first_fence(LEDGER_FENCE) + 1, "pacs")) is None


def test_a_series_that_is_planned_again_is_handed_over_later(tree, plan_of, book):
    tree.add("run", "series")
    plan = plan_of(tree.root).plan
    series = only_series(plan)
    with plan.write() as connection:
        connection.execute("INSERT INTO unexamined VALUES (?)", (series,))

    with pytest.raises(TransientError):
        book.write(claim_of(series), (), ())
    with plan.write() as connection:
        connection.execute("DELETE FROM unexamined")
    assert len(planned_files(plan.path.parent, series).files) == 12


def test_a_bridge_with_other_settings_than_the_run_wants_hands_nothing_of_it_over(
    tree, plan_of, book
):
    tree.add("run", "series")
    plan = plan_of(tree.root).plan
    series = SeriesBook(plan)
    first = series.next_planned()
    series.note_settings("recipe", "e" * 64)
    series.intend(first, 1, "recipe")
    series.fed(first, 1, "recipe", datetime(2026, 3, 1, tzinfo=UTC))

    with pytest.raises(TransientError) as error:
        book.write(claim_of(first.series), (), ())
    assert error.value.reason is Reason.WRONG_RECIPE
