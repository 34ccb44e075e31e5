"""Feeding a queue from a plan: beside clinical work, at its pace, and what is noted of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread

from dicom_seg.read.examination import SeriesRules
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from pacs_bridge.archive.accounts import account_of, outcome_counts
from pacs_bridge.archive.feeder import Feeder, FeedOrder
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.plan_source import PlanSources
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.remote_plan import plan_found, plan_listed
from pacs_bridge.archive.results_folder import ResultsFolder
from pacs_bridge.archive.series_book import SeriesBook, SeriesState
from pacs_bridge.archive.window import Rate, TimeWindow
from pacs_bridge.errors import TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import JobRequest, Priority, State
from pacs_bridge.sources.configured_sources import ConfiguredSources, RemoteSources
from pacs_bridge.sources.remote_archive import FoundSeries, SeriesQuery
from pacs_bridge.worker import Worker

RECIPE = Recipe("synthetic-3mm", "c" * 64, "first recipe")


@dataclass
class Feeding:
    """A plan, a ledger, a feeder between them, and a worker that may be let loose."""

    plan: PlanFile
    ledger: Ledger
    config: object
    feed: Callable[..., Feeder]
    work: Callable[[], None]
    out: Path

    @property
    def book(self) -> SeriesBook:
        return SeriesBook(self.plan)

    def outcomes(self) -> dict[tuple[str, str], int]:
        return {(c.state, c.reason): c.series for c in outcome_counts(self.plan)}


@pytest.fixture
def feeding(
    ram_folder, plan_of, make_config, bright_segmenter, clock
) -> Iterator[Callable[..., Feeding]]:
    ledgers: list[Ledger] = []

    def make(root: Path, archive: object = None) -> Feeding:
        plan = plan_of(root).plan
        plan.set("roots", [str(root)])
        config = make_config(workers="{ retry = { first_wait_s = 0.001, max_wait_s = 0.002 } }")
        ledger = Ledger.open(config.ledger_path, clock)
        ledgers.append(ledger)
        sources = {"old": PlanSources(ram_folder / "run", config.data_folder)}
        if archive is not None:
            sources["pacs"] = RemoteSources(archive, config.data_folder, 0)
        segmenters = SimpleNamespace(get=lambda *_: bright_segmenter, device_computes=lambda: True)
        log = JsonLog.open(ram_folder / "log", IdentityHash(b"test"))
        worker = Worker(
            config, ledger.jobs, ConfiguredSources(sources), segmenters, log, threading.Event()
        )
        out = ram_folder / "out"

        def feed(
            results: bool = True, destinations: tuple[str, ...] = (), **order: object
        ) -> Feeder:
            recipe = order.pop("recipe", RECIPE)
            made = FeedOrder("all", destinations, recipe, "old", **order)
            place = ResultsFolder(out) if results else None
            return Feeder(SeriesBook(plan), ledger, made, config.data_folder, clock, place)

        def work() -> None:
            while worker.work_one("w"):
                pass

        return Feeding(plan, ledger, config, feed, work, out)

    yield make
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def bright_archive(tree, bright_volume) -> Callable[[int], Path]:
    """Series with something to find in them."""

    def make(count: int) -> Path:
        for number in range(count):
            folder = tree.root / f"bright{number}"
            write_ct_series(bright_volume, folder, SeriesOptions(seed=number + 1))
        return tree.root

    return make


def test_clinical_jobs_go_first_and_stat_before_them(tree, feeding):
    tree.fill(6)
    fed = feeding(tree.root)
    fed.feed(destinations=("archive",)).step()
    fed.ledger.jobs.submit(JobRequest("1.2.9", 1, "all", "m", ("archive",)))
    fed.ledger.jobs.submit(JobRequest("1.2.8", 1, "all", "m", ("archive",), Priority.STAT))

    claims = [fed.ledger.jobs.claim("w", 60) for _ in range(8)]

    assert [claim.request.series_instance_uid for claim in claims[:2]] == ["1.2.8", "1.2.9"]
    assert {claim.request.priority for claim in claims[2:]} == {Priority.ARCHIVE}
    assert {claim.request.source for claim in claims[2:]} == {"old"}


def test_no_more_wait_at_a_time_than_are_allowed(tree, feeding):
    tree.fill(6)
    fed = feeding(tree.root)
    feeder = fed.feed(most_waiting=2)
    assert (feeder.step().waiting, feeder.step().waiting) == (2, 2)
    assert fed.ledger.view.waiting() == 2


def test_what_is_done_is_put_in_its_folder_and_accounted_for(bright_archive, feeding):
    fed = feeding(bright_archive(2))
    feeder = fed.feed()
    feeder.step()
    fed.work()

    assert feeder.step().is_over
    account = account_of(fed.plan)
    assert fed.outcomes() == {("done", ""): 2}
    assert (account.outputs, account.series) == (4, 2)
    assert account.seconds.keys() >= {"fetch", "read", "segment", "encode"}
    names = sorted(path.name for path in fed.out.glob("??/*/*"))
    assert names == sorted(2 * ["record.json", "report.json", "seg-binary.dcm", "seg-labelmap.dcm"])


def test_another_recipe_or_other_files_make_a_result_stale_and_nothing_else_does(
    bright_archive, feeding, plan_of, bright_segmenter
):
    root = bright_archive(2)
    fed = feeding(root)
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.book.refresh(RECIPE.digest) == 0
    one = next((root / "bright0").iterdir())
    os.utime(one)
    plan_of(root)

    assert fed.book.refresh(RECIPE.digest) == 1
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert bright_segmenter.calls == 3
    assert fed.book.refresh("second recipe") == 2


SECOND = Recipe("synthetic-3mm", "d" * 64, "second recipe")


def recipes(out: Path) -> list[str]:
    return [json.loads(path.read_text())["recipe"] for path in out.glob("??/*/record.json")]


def test_a_result_is_recorded_under_what_it_was_made_with_and_made_again(
    bright_archive, feeding, bright_segmenter
):
    fed = feeding(bright_archive(1))
    fed.feed().step()
    fed.work()
    fed.book.refresh(SECOND.digest)
    feeder = fed.feed(recipe=SECOND)

    assert not feeder.step().is_over  # fed again by now

    assert recipes(fed.out) == [RECIPE.digest]
    fed.work()
    assert feeder.step().is_over
    assert recipes(fed.out) == [SECOND.digest]
    assert bright_segmenter.calls == 2


def test_a_job_that_was_not_begun_when_the_settings_changed_is_made_anew(
    bright_archive, feeding, bright_segmenter
):
    fed = feeding(bright_archive(1))
    fed.feed().step()
    feeder = fed.feed(recipe=SECOND)
    feeder.step()
    fed.work()
    assert feeder.step().is_over
    assert recipes(fed.out) == [SECOND.digest]
    assert bright_segmenter.calls == 1


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_run_that_was_ended_between_a_move_and_its_note_goes_on(
    bright_archive, feeding, bright_segmenter, is_gone
):
    fed = feeding(bright_archive(1))
    feeder = fed.feed()
    feeder.step()
    fed.work()
    feeder.step()
    if is_gone:
        shutil.rmtree(fed.out)
    with fed.plan.write() as connection:  # as if it had not come to note the ending
        connection.execute("UPDATE series SET state = 'waiting', made = NULL")
    feeder = fed.feed()
    while not feeder.step().is_over:
        fed.work()
    assert fed.outcomes() == {("done", ""): 1}
    assert recipes(fed.out) == [RECIPE.digest]
    assert bright_segmenter.calls == (2 if is_gone else 1)


def test_a_result_that_lies_there_is_found_by_a_plan_that_knows_nothing_of_it(
    bright_archive, feeding, ram_folder, bright_segmenter, plan_of
):
    root = bright_archive(1)
    fed = feeding(root)
    fed.feed().step()
    fed.work()
    fed.feed().step()
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET state = 'planned', made = NULL, job = NULL")

    assert fed.feed().step().is_over
    assert fed.outcomes() == {("done", ""): 1}
    assert bright_segmenter.calls == 1


def test_a_job_that_was_made_just_before_its_feeder_died_is_not_made_again(tree, feeding):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed().step()
    with fed.plan.write() as connection:  # as if it had not come to note the job
        connection.execute("UPDATE series SET state = 'planned', job = NULL")

    fed.feed().step()

    assert fed.ledger.view.waiting() == 1


def test_an_archive_takes_no_revision_that_was_received(tree, feeding):
    tree.add("run", "a")
    fed = feeding(tree.root)
    uid = fed.book.next_planned().series
    fed.ledger.jobs.submit(JobRequest(uid, 1, "all", RECIPE.model, ("archive",)))

    fed.feed().step()

    revisions = [view.revision for view in fed.ledger.view.series(uid)]
    assert revisions == [1, 2]


def test_a_refusal_at_work_and_a_failure_are_told_apart_and_only_failures_run_again(
    bright_archive, feeding
):
    root = bright_archive(3)
    fed = feeding(root)
    fed.feed().step()
    claims = [fed.ledger.jobs.claim("w", 60) for _ in range(3)]
    fed.ledger.jobs.park(claims[0], Reason.CORRUPT_PIXEL_DATA, "")
    fed.ledger.jobs.park(claims[1], Reason.MODEL_ERROR, "")
    fed.ledger.jobs.skip(claims[2], Reason.EMPTY_RESULT, "")
    fed.feed().step()

    assert fed.outcomes() == {
        ("refused", "corrupt-pixel-data"): 1,
        ("failed", "model-error"): 1,
        ("skipped", "empty-result"): 1,
    }
    assert fed.book.refresh(RECIPE.digest) == 0
    assert fed.book.refresh(RECIPE.digest, (SeriesState.FAILED,)) == 1


def test_files_that_changed_since_they_were_planned_are_not_run(bright_archive, feeding):
    root = bright_archive(2)
    fed = feeding(root)
    next((root / "bright0").iterdir()).unlink()
    os.utime(next((root / "bright1").iterdir()))
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("failed", "source-missing"): 2}


def test_files_that_became_those_of_another_series_are_not_run_in_its_name(bright_archive, feeding):
    root = bright_archive(2)
    fed = feeding(root)
    for one, other in zip(
        sorted((root / "bright0").iterdir()), sorted((root / "bright1").iterdir()), strict=True
    ):
        status = one.stat()
        one.write_bytes(other.read_bytes())
        os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("done", ""): 1, ("failed", "source-missing"): 1}


def test_a_series_that_is_being_planned_again_waits(bright_archive, feeding, clock, plan_of):
    root = bright_archive(1)
    fed = feeding(root)
    fed.feed().step()
    with fed.plan.write() as connection:
        connection.execute("INSERT INTO unexamined SELECT series FROM series")
    fed.work()
    view = fed.ledger.view.jobs()[0]
    assert (view.state, view.reason) == (State.RETRY, Reason.SOURCE_UNREACHABLE)
    plan_of(root)
    clock.pass_s(10)
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("done", ""): 1}


def test_an_archive_whose_disk_is_away_waits_until_it_is_back(bright_archive, feeding, clock):
    root = bright_archive(1)
    fed = feeding(root)
    away = root.rename(root.with_name("away"))
    root.mkdir()
    fed.feed().step()
    fed.work()
    view = fed.ledger.view.jobs()[0]
    assert (view.state, view.reason) == (State.RETRY, Reason.SOURCE_UNREACHABLE)
    root.rmdir()
    away.rename(root)
    clock.pass_s(10)
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("done", ""): 1}


def test_series_in_zip_files_run_without_being_unpacked_by_hand(
    bright_archive, feeding, zip_tree, ram_folder
):
    root = bright_archive(1)
    inside = (root / "bright0").rename(ram_folder / "inside")
    zip_tree(inside, root / "all.zip")
    fed = feeding(root)
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("done", ""): 1}
    assert not any((ram_folder / "data" / "scratch").glob("*"))


def test_outside_its_window_nothing_is_begun(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    local = clock.now().astimezone()
    begins = (local + timedelta(hours=2)).time().replace(tzinfo=None)
    ends = (local + timedelta(hours=4)).time().replace(tzinfo=None)
    feeder = fed.feed(window=TimeWindow(begins, ends))
    assert (feeder.step().waiting, feeder.is_window_open()) == (0, False)
    clock.pass_s(3 * 3600)
    assert feeder.step().waiting == 3


def test_a_rate_holds_over_a_new_start(tree, feeding, clock):
    tree.fill(5)
    fed = feeding(tree.root)
    assert fed.feed(rate=Rate.parse("60/h")).step().waiting == 1
    assert fed.feed(rate=Rate.parse("60/h")).step().waiting == 1
    clock.pass_s(60)
    assert fed.feed(rate=Rate.parse("60/h")).step().waiting == 2


class DroppingArchive:
    """An archive that breaks every tenth association."""

    def __init__(self, series: dict[str, Path]) -> None:
        self.series = series
        self.associations = 0

    def find(self, query: SeriesQuery) -> Iterator[FoundSeries]:
        for uid in self.series:
            if not query.series_instance_uids or uid in query.series_instance_uids:
                yield FoundSeries("1.2", uid, "CT", 12, "20260101", SeriesFacts(modality="CT"))

    def fetch(self, _study, series, folder, check) -> tuple[Path, ...]:
        self.associations += 1
        if self.associations % 10 == 0:
            raise TransientError(Reason.SOURCE_UNREACHABLE, "the association was aborted")
        check()
        return tuple(sorted(self.series[series].iterdir()))

    def ask(self) -> str:
        return "there"


def test_an_archive_that_drops_every_tenth_association_gives_all_series_in_the_end(
    bright_archive, feeding, clock, ram_folder
):
    root = bright_archive(22)
    empty = ram_folder / "empty"
    empty.mkdir()
    by_uid = {
        str(dcmread(next(folder.iterdir())).SeriesInstanceUID): folder for folder in root.iterdir()
    }
    archive = DroppingArchive(by_uid)
    fed = feeding(empty, archive)
    plan_found(fed.plan, "pacs", archive.find(SeriesQuery()), SeriesRules())
    feeder = fed.feed()
    while not feeder.step().is_over:
        fed.work()
        clock.pass_s(1)
    assert fed.outcomes() == {("done", ""): 22}
    assert archive.associations == 22 + 2


def test_a_rate_holds_when_the_clock_was_put_back(tree, feeding, clock):
    tree.fill(5)
    fed = feeding(tree.root)
    feeder = fed.feed(rate=Rate.parse("60/h"))
    assert feeder.step().waiting == 1
    with fed.plan.write() as connection:
        connection.execute(
            "UPDATE series SET fed_at = ? WHERE fed_at IS NOT NULL",
            ((clock.now() + timedelta(days=30)).isoformat(),),
        )
    assert feeder.step().waiting == 2
    assert feeder.step().waiting == 2
    clock.pass_s(60)
    assert feeder.step().waiting == 3


def test_a_series_that_an_archive_has_in_two_studies_does_not_run(feeding, ram_folder):
    empty = ram_folder / "empty"
    empty.mkdir()
    fed = feeding(empty)
    found = [
        FoundSeries(study, series, "CT", 12, "", SeriesFacts(modality="CT"))
        for study, series in (("1.9", "1.1"), ("1.8", "1.1"), ("1.9", "1.1"), ("1.9", "1.2"))
    ]
    for _ in range(2):
        plan_found(fed.plan, "pacs", found, SeriesRules())
        assert fed.outcomes() == {("planned", ""): 1, ("left-out", "mixed-identity"): 1}


def test_results_that_are_gone_are_made_again(bright_archive, feeding, bright_segmenter):
    fed = feeding(bright_archive(2))
    fed.feed().step()
    fed.work()
    fed.feed().step()
    results = ResultsFolder(fed.out)
    assert results.replan_missing(fed.book) == 0
    shutil.rmtree(next(fed.out.glob("??/*")))
    assert results.replan_missing(fed.book) == 1
    fed.feed().step()
    fed.work()
    assert fed.feed().step().is_over
    assert len(list(fed.out.glob("??/*/record.json"))) == 2
    assert bright_segmenter.calls == 3


def test_listed_series_that_an_archive_does_not_have_are_coded(feeding, ram_folder):
    empty = ram_folder / "empty"
    empty.mkdir()
    archive = DroppingArchive({"1.2.3": empty})
    fed = feeding(empty, archive)
    listed = {"1.2.3": "", "1.2.4": "1.9"}
    plan_listed(fed.plan, "pacs", archive, listed, SeriesQuery(), SeriesRules())
    assert fed.outcomes() == {("planned", ""): 1, ("left-out", "source-missing"): 1}
