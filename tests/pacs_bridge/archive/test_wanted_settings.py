"""A worker with other settings than an archive run wants leaves its jobs."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe, settings_digest
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.archive_jobs import ArchiveJobs
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, Priority


@pytest.fixture
def planned(tree, plan_of, make_config):
    """A plan whose one series is to be made by the configuration of today, and its job."""
    tree.add("run", "a")
    config = make_config()
    recipe = Recipe("m", "d" * 64, "recipe", settings_digest(config, config.routes[0]))
    book = SeriesBook(plan_of(tree.root).plan)
    book.note_settings(recipe.digest, recipe.settings)
    series = book.next_planned()
    book.intend(series, 1, recipe.digest)
    route = config.routes[0].name
    return JobRequest(series.series, 1, route, "m", (), Priority.ARCHIVE, "old")


def test_the_same_settings_are_what_is_wanted(planned, make_config, ram_folder):
    WantedSettings(make_config()).check(ram_folder / "run", planned)


def test_a_process_that_started_with_other_settings_leaves_the_job(
    planned, make_config, ram_folder
):
    settings = WantedSettings(make_config(series="{ min_slices = 7 }"))
    with pytest.raises(TransientError) as caught:
        settings.check(ram_folder / "run", planned)
    assert caught.value.reason is Reason.WRONG_RECIPE


def test_a_series_that_the_plan_made_no_job_of_is_not_looked_at(planned, make_config, ram_folder):
    settings = WantedSettings(make_config(series="{ min_slices = 7 }"))
    other = JobRequest(planned.series_instance_uid, 2, planned.route, "m", (), Priority.ARCHIVE)
    settings.check(ram_folder / "run", other)
    settings.check(ram_folder / "no run", planned)


def test_a_process_that_computes_in_another_precision_leaves_the_job(
    planned, make_config, ram_folder
):
    settings = WantedSettings(make_config(workers='{ precision = "bf16" }'))
    with pytest.raises(TransientError) as caught:
        settings.check(ram_folder / "run", planned)
    assert caught.value.reason is Reason.WRONG_RECIPE


@pytest.mark.parametrize("is_own", [False, True])
def test_a_job_is_known_by_its_ledger_beside_its_revision(
    planned, make_config, ram_folder, clock, is_own
):
    config = make_config(series="{ min_slices = 7 }")
    ledger = Ledger.open(config.ledger_path, clock)
    plan = PlanFile(ram_folder / "run")
    plan.set("ledger", ArchiveJobs(ledger.database).ledger_id() if is_own else "another")
    plan.close()
    settings = WantedSettings(config)
    with pytest.raises(TransientError) if is_own else nullcontext():
        settings.check(ram_folder / "run", planned)
    ledger.close()
