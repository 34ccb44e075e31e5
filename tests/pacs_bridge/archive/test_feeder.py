"""Feeding a queue from a plan: beside clinical work, at its pace, and what is noted of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread

from dicom_seg.read.examination import SeriesRules
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from pacs_bridge import process
from pacs_bridge.archive.accounts import account_of, outcome_counts, series_lines
from pacs_bridge.archive.feeder import Feeder, FeedOrder
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.plan_source import PlanSources
from pacs_bridge.archive.planned_identities import PlannedIdentities
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.remote_plan import RemotePlan
from pacs_bridge.archive.results_folder import ResultsFolder
from pacs_bridge.archive.run_log import RunClock
from pacs_bridge.archive.running import FedRun
from pacs_bridge.archive.series_book import SeriesBook, SeriesState
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.archive.window import Rate, TimeWindow
from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.archive_jobs import ArchiveJobs
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import JobRequest, Priority, State
from pacs_bridge.sources.configured_sources import ConfiguredSources, RemoteSources
from pacs_bridge.sources.remote_archive import FoundPatient, FoundSeries, SeriesQuery
from pacs_bridge.worker import Worker

RECIPE = Recipe("synthetic-3mm", "b" * 64, "first recipe")


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

    def plan_remote(self, archive: object) -> None:
        hide = IdentityHash(b"key")
        RemotePlan(self.plan, "pacs", archive, SeriesRules(), hide).found(SeriesQuery())

    def run_out(self, clock) -> dict[tuple[str, str], int]:
        feeder = self.feed()
        while not feeder.step().is_over:
            self.work()
            clock.pass_s(1)
        return self.outcomes()

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
            plans = PlannedIdentities([ram_folder / "run"])
            sources["pacs"] = RemoteSources(archive, config.data_folder, 0, plans)
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


SECOND = Recipe("synthetic-3mm", "b" * 64, "second recipe")


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


def test_what_another_run_has_made_takes_no_time_of_this_one(bright_archive, feeding, clock):
    fed = feeding(bright_archive(1))
    fed.run_out(clock)
    assert account_of(fed.plan).seconds
    (path,) = fed.out.glob("??/*/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "another"}))
    forget(fed)
    run = RunClock(fed.plan, RECIPE, clock, is_own=True)
    assert fed.feed().step().is_over
    clock.pass_s(1)
    run.tick(is_working=True, is_last=True)
    account = account_of(fed.plan)
    assert (account.outputs, account.seconds, account.segment_share) == (2, {}, 0.0)


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


class FolderArchive:
    """An archive of a folder a series; what it says can be made to differ from what it gives."""

    def __init__(self, root: Path) -> None:
        self.folders: dict[str, Path] = {}
        self.said: dict[str, FoundSeries] = {}
        self.given: dict[str, tuple[Path, ...]] = {}
        self.drops_every = 0
        self.broken: dict[str, Reason] = {}  #: series that it fails to give
        self.associations = 0
        for folder in sorted(root.iterdir()):
            self.add(folder)

    def add(self, folder: Path) -> None:
        paths = tuple(sorted(folder.iterdir()))
        ds = dcmread(paths[0], stop_before_pixels=True)
        uid = str(ds.SeriesInstanceUID)
        self.given[uid] = paths
        self.said[uid] = FoundSeries(
            study_instance_uid=str(ds.StudyInstanceUID),
            series_instance_uid=uid,
            modality="CT",
            instance_count=len(paths),
            study_date="20260101",
            facts=SeriesFacts(modality="CT"),
            patient=FoundPatient(str(ds.PatientID), "", str(ds.PatientName), "19700101"),
        )

    def find(self, query: SeriesQuery, _check=None) -> Iterator[FoundSeries]:
        for each in self.said.values():
            uids = query.series_instance_uids
            if not uids or each.series_instance_uid in uids:
                yield each

    def fetch(self, _study, series, folder, check) -> tuple[Path, ...]:
        self.associations += 1
        if self.drops_every and self.associations % self.drops_every == 0:
            raise TransientError(Reason.SOURCE_UNREACHABLE, "the association was aborted")
        if series in self.broken:
            raise TransientError(self.broken[series], "each time")
        check()
        return self.given[series]

    def ask(self) -> str:
        return "there"


@pytest.fixture
def at_a_pacs(
    bright_archive, feeding, ram_folder
) -> Callable[[int], tuple[Feeding, FolderArchive]]:
    """Series that an archive has and no folder."""

    def make(count: int) -> tuple[Feeding, FolderArchive]:
        archive = FolderArchive(bright_archive(count))
        empty = ram_folder / "empty"
        empty.mkdir()
        return feeding(empty, archive), archive

    return make


def test_an_archive_that_drops_every_tenth_association_gives_all_series_in_the_end(
    at_a_pacs, clock
):
    fed, archive = at_a_pacs(22)
    archive.drops_every = 10
    fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 22}
    assert archive.associations == 22 + 2


def test_what_comes_of_another_patient_than_was_planned_is_not_run(at_a_pacs, clock):
    fed, archive = at_a_pacs(2)
    (one, said), _ = archive.said.items()
    archive.said[one] = replace(said, patient=FoundPatient("PID-OTHER"))
    fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 1, ("failed", "source-missing"): 1}


def test_a_job_whose_priority_was_raised_is_not_run_on_another_patient_either(at_a_pacs, clock):
    fed, archive = at_a_pacs(2)
    (one, said), _ = archive.said.items()
    archive.said[one] = replace(said, patient=FoundPatient("PID-OTHER"))
    fed.plan_remote(archive)
    fed.feed().step()
    with fed.ledger.database.write() as connection:
        connection.execute("UPDATE jobs SET priority = 0")
    assert fed.run_out(clock) == {("done", ""): 1, ("failed", "source-missing"): 1}


def test_a_job_that_its_plan_has_let_go_is_not_run_on_another_patient(at_a_pacs):
    fed, archive = at_a_pacs(1)
    ((one, said),) = archive.said.items()
    archive.said[one] = replace(said, patient=FoundPatient("PID-OTHER"), instance_count=99)
    fed.plan_remote(archive)
    fed.feed().step()
    fed.book.enter_ledger("of a run in its own process")
    assert fed.book.waiting() == ()
    fed.work()
    (view,) = fed.ledger.view.jobs()
    assert (view.state, view.reason) == (State.DEAD, Reason.SOURCE_MISSING)
    assert "patient" in view.detail


def test_instances_of_two_patients_under_one_uid_are_refused_when_they_come(
    at_a_pacs, clock, ram_folder
):
    fed, archive = at_a_pacs(1)
    fed.plan_remote(archive)
    (uid,) = archive.given
    other = dcmread(archive.given[uid][-1])
    other.PatientID = "PID-OTHER"
    other.save_as(ram_folder / "other.dcm")
    archive.given[uid] = (*archive.given[uid][:-1], ram_folder / "other.dcm")
    assert fed.run_out(clock) == {("refused", "mixed-identity"): 1}


def test_another_series_than_was_asked_for_is_not_run_in_its_name(at_a_pacs, clock):
    fed, archive = at_a_pacs(2)
    fed.plan_remote(archive)
    one, other = archive.given
    archive.given[one] = archive.given[other]
    assert fed.run_out(clock) == {("done", ""): 1, ("failed", "bad-answer"): 1}


@pytest.mark.parametrize("planned", [11, 13])
def test_a_series_that_has_other_instances_than_were_planned_is_to_be_planned_again(
    at_a_pacs, clock, planned
):
    fed, archive = at_a_pacs(1)
    ((uid, said),) = archive.said.items()
    archive.said[uid] = replace(said, instance_count=planned)
    fed.plan_remote(archive)
    archive.said[uid] = said
    assert fed.run_out(clock) == {("failed", "source-missing"): 1}
    fed.plan_remote(archive)
    assert fed.book.refresh(RECIPE.digest) == 1
    assert fed.run_out(clock) == {("done", ""): 1}


def test_a_count_that_holds_objects_which_are_not_fetched_is_no_other_series(at_a_pacs, clock):
    fed, archive = at_a_pacs(1)
    ((uid, said),) = archive.said.items()
    archive.said[uid] = replace(said, instance_count=said.instance_count + 1)  # and a report
    fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 1}


def test_an_archive_that_says_neither_patient_nor_count_is_asked_for_its_series_all_the_same(
    at_a_pacs, clock
):
    fed, archive = at_a_pacs(1)
    ((uid, said),) = archive.said.items()
    archive.said[uid] = replace(said, instance_count=None, patient=FoundPatient())
    fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 1}


def end_as_of_two_patients(fed, archive):
    """The archive names a second patient once the job of its series is made; a worker ends it."""
    fed.plan_remote(archive)
    fed.feed().step()
    (said,) = archive.said.values()
    archive.said["again"] = replace(said, patient=FoundPatient("PID-OTHER"))
    fed.plan_remote(archive)
    fed.work()
    fed.feed().step()


def test_a_series_that_is_found_to_be_of_two_patients_after_its_job_was_made_is_not_run(
    at_a_pacs, clock
):
    fed, archive = at_a_pacs(1)
    end_as_of_two_patients(fed, archive)
    view = fed.ledger.view.jobs()[0]
    assert (view.state, view.reason) == (State.DEAD, Reason.MIXED_IDENTITY)
    assert fed.outcomes() == {("left-out", "mixed-identity"): 1}


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


@pytest.fixture
def service(ram_folder, clock) -> Iterator[Ledger]:
    """The ledger of a service, whose first job is of a received series."""
    ledger = Ledger.open(ram_folder / "service" / "ledger.sqlite", clock)
    ledger.jobs.submit(JobRequest("9.9", 1, "all", RECIPE.model, (), Priority.STAT))
    yield ledger
    ledger.close()


def fed_to(service: Ledger, fed: Feeding, clock, recipe: Recipe = RECIPE) -> Feeder:
    order = FeedOrder("all", (), recipe, "old")
    return Feeder(fed.book, service, order, fed.config.data_folder, clock)


@pytest.mark.parametrize("recipe", [RECIPE, SECOND])
@pytest.mark.parametrize("state", [State.READY, State.SKIPPED])
def test_jobs_of_another_ledger_are_not_taken_for_those_of_the_same_ids(
    tree, feeding, service, clock, recipe, state
):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed().step()
    (series,) = fed.book.waiting()
    if state is State.SKIPPED:
        service.jobs.skip(service.jobs.claim("w", 60), Reason.EMPTY_RESULT, "")

    fed_to(service, fed, clock, recipe).step()

    states = {view.series_instance_uid: view.state for view in service.view.jobs()}
    assert states == {"9.9": state, series.series: State.READY}
    assert fed.outcomes() == {("waiting", ""): 1}


def test_an_id_in_a_ledger_that_was_put_back_is_not_believed(tree, feeding):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed().step()
    other = fed.ledger.jobs.submit(JobRequest("9.9", 1, "all", "m", (), Priority.STAT))
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET job = ?", (other,))

    fed.feed(recipe=SECOND).step()

    assert fed.ledger.view.job(other).state is State.READY
    assert fed.book.waiting()[0].job != other


def test_what_waits_in_the_runs_own_ledger_since_it_was_left_is_not_made_twice(
    bright_archive, feeding, service, clock, bright_segmenter
):
    fed = feeding(bright_archive(2))
    fed.feed().step()
    fed_to(service, fed, clock).step()
    feeder = fed.feed()
    while not feeder.step().is_over:
        fed.work()
    assert fed.outcomes() == {("done", ""): 2}
    assert bright_segmenter.calls == 2


@pytest.mark.parametrize("has_worked", [False, True])
def test_a_job_of_other_settings_that_was_made_just_before_its_feeder_died_is_not_todays(
    bright_archive, feeding, bright_segmenter, has_worked
):
    fed = feeding(bright_archive(1))
    fed.feed().step()
    with fed.plan.write() as connection:  # as if it had not come to note the job
        connection.execute("UPDATE series SET state = 'planned', job = NULL")
    if has_worked:
        fed.work()
    feeder = fed.feed(recipe=SECOND)
    while not feeder.step().is_over:
        fed.work()
    assert recipes(fed.out) == [SECOND.digest]
    assert bright_segmenter.calls == 1 + has_worked


def test_what_was_taken_back_just_before_its_feeder_died_is_fed_again(tree, feeding):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed().step()
    (series,) = fed.book.waiting()
    assert ArchiveJobs(fed.ledger.database).withdraw(series.series, series.revision)
    fed.feed().step()
    assert fed.outcomes() == {("waiting", ""): 1}
    assert fed.ledger.view.waiting() == 1


def test_series_that_an_archive_has_in_part_hold_no_others_up_and_end(at_a_pacs, clock):
    fed, archive = at_a_pacs(3)
    archive.broken = dict.fromkeys(list(archive.said)[:2], Reason.SOURCE_INCOMPLETE)
    fed.plan_remote(archive)
    feeder = fed.feed(most_waiting=2)
    for _ in range(2):
        feeder.step()
        fed.work()
    feeder.step()
    assert fed.outcomes() == {("done", ""): 1, ("waiting", ""): 2}
    while not feeder.step().is_over:
        clock.pass_s(1)
        fed.work()
    assert fed.outcomes() == {("done", ""): 1, ("failed", "source-incomplete"): 2}
    assert archive.associations == 1 + 2 * 5


def test_series_at_which_an_archive_breaks_off_each_time_hold_no_others_up_and_end(
    at_a_pacs, clock
):
    fed, archive = at_a_pacs(10)
    archive.broken = dict.fromkeys(list(archive.said)[:2], Reason.SOURCE_UNREACHABLE)
    fed.plan_remote(archive)
    feeder = fed.feed(most_waiting=2)
    while not feeder.step().is_over:
        clock.pass_s(1)
        fed.work()
    assert fed.outcomes() == {("done", ""): 8, ("failed", "source-unreachable"): 2}
    dead = fed.ledger.view.jobs([State.DEAD])
    assert [view.reason for view in dead] == [Reason.SOURCE_UNREACHABLE] * 2


def test_an_archive_that_is_away_for_long_is_waited_for_with_few_series(at_a_pacs, clock):
    fed, archive = at_a_pacs(10)
    archive.broken = dict.fromkeys(archive.said, Reason.SOURCE_UNREACHABLE)
    fed.plan_remote(archive)
    feeder = fed.feed(most_waiting=2)
    for _ in range(30):
        assert feeder.step().waiting <= 8
        clock.pass_s(1)
        fed.work()
    archive.broken = {}
    while not feeder.step().is_over:
        clock.pass_s(1)
        fed.work()
    assert fed.outcomes() == {("done", ""): 10}


def test_a_file_that_is_gone_is_missing_although_another_folder_of_the_plan_is_away(
    bright_archive, feeding
):
    root = bright_archive(1)
    fed = feeding(root)
    fed.plan.set("roots", [str(root), str(root.with_name("gone"))])
    next((root / "bright0").iterdir()).unlink()
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("failed", "source-missing"): 1}


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_file_that_was_named_itself_and_is_gone_is_missing(
    bright_archive, feeding, zip_tree, is_zip
):
    root = bright_archive(1)
    named = sorted((root / "bright0").iterdir())[3]
    if is_zip:
        named = root / "all.zip"
        zip_tree(root / "bright0", named)
        shutil.rmtree(root / "bright0")
        (root / "notes").write_text("beside it")
    fed = feeding(root)
    fed.plan.set("roots", [str(named)])
    named.unlink()
    fed.feed().step()
    fed.work()
    fed.feed().step()
    assert fed.outcomes() == {("failed", "source-missing"): 1}


def test_a_file_that_cannot_be_read_beside_others_ends_its_series_after_some_tries(
    bright_archive, feeding, clock, monkeypatch
):
    root = bright_archive(2)
    fed = feeding(root)
    bad = next((root / "bright0").iterdir())
    stat = Path.stat

    def bad_sector(path: Path, **options: bool) -> os.stat_result:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", bad_sector)
    assert fed.run_out(clock) == {("done", ""): 1, ("failed", "source-incomplete"): 1}


def test_what_was_made_with_other_weights_is_not_booked_as_made_with_these(
    bright_archive, feeding, bright_segmenter
):
    fed = feeding(bright_archive(1))
    replaced = Recipe(RECIPE.model, "d" * 64, "of other weights")
    feeder = fed.feed(recipe=replaced)
    feeder.step()
    fed.work()
    with pytest.raises(PermanentError) as caught:
        feeder.step()
    assert caught.value.reason is Reason.WRONG_RECIPE
    assert fed.outcomes() == {("planned", ""): 1}
    assert recipes(fed.out) == []


@pytest.mark.parametrize("has_results", [False, True])
def test_what_was_made_with_other_weights_is_not_booked_where_limits_alone_changed_since(
    bright_archive, feeding, has_results
):
    fed = feeding(bright_archive(1))
    replaced = Recipe(RECIPE.model, "d" * 64, "of other weights")
    limited = replace(replaced, digest="with other limits")
    for recipe in (replaced, limited):
        fed.book.note_lasting(recipe.digest, "the same result")
    fed.feed(results=has_results, recipe=replaced).step()
    fed.work()
    feeder = fed.feed(results=has_results, recipe=limited)
    feeder.step()
    assert fed.outcomes() == {("waiting", ""): 1}  # for another job
    fed.work()
    with pytest.raises(PermanentError) as caught:
        feeder.step()
    assert caught.value.reason is Reason.WRONG_RECIPE
    assert fed.outcomes() == {("planned", ""): 1}


def test_what_a_service_has_made_with_other_weights_is_not_noted_as_made_with_these(
    bright_archive, feeding
):
    fed = feeding(bright_archive(1))
    replaced = Recipe(RECIPE.model, "d" * 64, "of other weights")
    fed.feed(results=False, recipe=replaced).step()
    fed.work()
    assert fed.feed(results=False).step().waiting == 1  # for what is made with today's settings
    ArchiveJobs(fed.ledger.database).withdraw_all()
    forget(fed)
    assert fed.feed(results=False, recipe=replaced).step().waiting == 1


def test_a_note_of_other_weights_than_are_wanted_is_not_believed(bright_archive, feeding, clock):
    fed = feeding(bright_archive(1))
    assert run_by_service(fed, clock) == {("done", ""): 1}
    forget(fed)
    replaced = replace(RECIPE, model_digest="d" * 64)
    assert fed.feed(results=False, recipe=replaced).step().waiting == 1


def test_what_was_made_in_less_precision_than_was_asked_for_is_not_booked(
    bright_archive, feeding, bright_segmenter, monkeypatch
):
    identity = replace(bright_segmenter.identity, parameters=(("precision", "bf16"),))
    monkeypatch.setattr(type(bright_segmenter), "identity", identity)
    fed = feeding(bright_archive(1))
    feeder = fed.feed(recipe=replace(RECIPE, digest="in single precision", precision="fp32"))
    feeder.step()
    fed.work()
    with pytest.raises(PermanentError) as caught:
        feeder.step()
    assert caught.value.reason is Reason.WRONG_RECIPE
    assert fed.outcomes() == {("planned", ""): 1}
    # where any will do it is told which it was
    feeder = fed.feed()
    feeder.step()
    fed.work()
    assert feeder.step().is_over
    assert [line.precision for line in series_lines(fed.plan)] == ["bf16"]
    assert [model[2:] for model in account_of(fed.plan).models] == [("bf16", 1)]


def test_a_series_that_is_stale_and_was_left_so_is_not_run_for_one_that_ends_in_the_meantime(
    bright_archive, feeding, bright_segmenter
):
    fed = feeding(bright_archive(2))
    feeder = fed.feed(most_waiting=1)
    feeder.step()
    fed.work()
    feeder.step()  # one is done, the other waits
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET done_contents = 'of before'")
    feeder = fed.feed(recipe=SECOND)
    while not feeder.step().is_over:
        fed.work()
    # the one that waited is made by the new recipe, the one that was done is left alone
    assert bright_segmenter.calls == 2
    assert sorted(recipes(fed.out)) == [RECIPE.digest, SECOND.digest]


def test_a_run_takes_back_what_workers_with_other_settings_have_left(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(results=False)
    feeder.step()
    claim = fed.ledger.jobs.claim("w", 60)
    fed.ledger.jobs.retry(claim, Reason.WRONG_RECIPE, "", fed.config.workers.retry.policy())
    with pytest.raises(PermanentError) as caught:
        feeder.step()
    assert caught.value.reason is Reason.WRONG_RECIPE
    assert fed.outcomes() == {("planned", ""): 3}
    clock.pass_s(1)
    assert fed.ledger.jobs.claim("w", 60) is None


def hours_around(clock) -> TimeWindow:
    """From an hour ago to an hour from now."""
    local = clock.now().astimezone()
    begins, ends = (local + timedelta(hours=each) for each in (-1, 1))
    return TimeWindow(begins.time(), ends.time())


def test_what_a_service_has_not_begun_when_the_hours_end_is_taken_back(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(results=False, window=hours_around(clock))
    assert feeder.step().waiting == 3
    day_s = 24 * 3600
    fed.ledger.jobs.claim("w", 2 * day_s)
    clock.pass_s(2 * 3600)
    assert feeder.step().waiting == 1
    assert fed.ledger.jobs.claim("w", 60) is None
    clock.pass_s(day_s - 2 * 3600)
    assert feeder.step().waiting == 3


@pytest.mark.parametrize(("has_window", "waiting"), [(True, 0), (False, 3)])
def test_a_run_by_a_service_that_ends_leaves_nothing_to_be_begun_outside_its_hours(
    tree, feeding, clock, has_window, waiting
):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(results=False, window=hours_around(clock) if has_window else None)
    feeder.step()
    feeder.leave()
    assert fed.ledger.view.waiting() == waiting
    assert len(fed.book.waiting()) == waiting


def test_what_a_worker_has_begun_is_in_hand_also_when_the_hours_have_ended(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(window=hours_around(clock))
    assert feeder.step().in_hand == 0
    fed.ledger.jobs.claim("w", 24 * 3600)
    clock.pass_s(2 * 3600)
    state = feeder.step()
    assert (state.is_window_open, state.in_hand, state.waiting) == (False, 1, 3)


def test_a_service_that_has_begun_nothing_gets_no_more_by_a_rate(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(results=False, rate=Rate.parse("60/h"))
    feeder.step()
    clock.pass_s(120)
    assert feeder.step().waiting == 1
    fed.ledger.jobs.claim("w", 3600)
    assert feeder.step().waiting == 2


def test_a_series_that_is_done_stays_so_with_its_result_named_when_its_files_are_gone(
    bright_archive, feeding, clock, plan_of
):
    root = bright_archive(2)
    fed = feeding(root)
    fed.run_out(clock)
    shutil.rmtree(root / "bright0")
    plan_of(root)
    assert fed.outcomes() == {("done", ""): 1, ("done", "source-missing"): 1}
    lines = list(series_lines(fed.plan))
    assert all((fed.out / line.result / "report.json").exists() for line in lines)
    assert account_of(fed.plan).open == 0
    # nobody can make it again
    (gone,) = (fed.out / line.result for line in lines if line.reason)
    shutil.rmtree(gone)
    assert ResultsFolder(fed.out).replan_missing(fed.book) == 1
    assert fed.outcomes() == {("done", ""): 1, ("left-out", "source-missing"): 1}


def test_a_job_whose_series_was_taken_out_of_the_plan_does_not_run_and_is_told_until_it_is_over(
    bright_archive, feeding
):
    fed = feeding(bright_archive(1))
    feeder = fed.feed()
    feeder.step()
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET plan_reason = 'not-selected'")
    assert fed.outcomes() == {("waiting", "not-selected"): 1}
    fed.work()
    assert feeder.step().is_over
    assert fed.outcomes() == {("left-out", "not-selected"): 1}
    assert [view.reason for view in fed.ledger.view.jobs()] == [Reason.NOT_SELECTED]


def forget(fed: Feeding) -> None:
    """What another plan of the same archive knows of what was made."""
    with fed.plan.write() as connection:
        connection.execute(
            "UPDATE series SET state = 'planned', job = NULL, revision = NULL, made = NULL,"
            " done_contents = NULL, done_recipe = NULL"
        )


def run_by_service(fed: Feeding, clock, **order: object) -> dict[tuple[str, str], int]:
    feeder = fed.feed(results=False, **order)
    while not feeder.step().is_over:
        fed.work()
        clock.pass_s(1)
    return fed.outcomes()


def test_what_a_service_has_made_is_made_again_for_another_run_only_where_it_is_stale(
    bright_archive, feeding, clock, bright_segmenter, plan_of
):
    root = bright_archive(2)
    fed = feeding(root)
    assert run_by_service(fed, clock) == {("done", ""): 2}
    forget(fed)
    assert run_by_service(fed, clock) == {("done", ""): 2}
    assert bright_segmenter.calls == 2
    assert all(line.model_digest == RECIPE.model_digest for line in series_lines(fed.plan))
    assert account_of(fed.plan).seconds == {}  # they were counted for the run that took them
    # other settings, another use, or another file
    forget(fed)
    assert run_by_service(fed, clock, recipe=SECOND) == {("done", ""): 2}
    assert bright_segmenter.calls == 4
    forget(fed)
    assert fed.feed(results=False, recipe=SECOND, destinations=("elsewhere",)).step().waiting == 2
    ArchiveJobs(fed.ledger.database).withdraw_all()
    forget(fed)
    os.utime(next((root / "bright0").iterdir()), ns=(1, 1))
    plan_of(root)
    assert run_by_service(fed, clock, recipe=SECOND) == {("done", ""): 2}
    assert bright_segmenter.calls == 5


def test_what_a_service_has_made_of_a_patient_is_not_taken_for_that_of_another(
    at_a_pacs, clock, bright_segmenter
):
    fed, archive = at_a_pacs(2)
    fed.plan_remote(archive)
    assert run_by_service(fed, clock) == {("done", ""): 2}
    forget(fed)
    (one, said), _ = archive.said.items()
    archive.said[one] = replace(said, patient=FoundPatient("PID-OTHER"))
    fed.plan_remote(archive)
    assert run_by_service(fed, clock) == {("done", ""): 1, ("failed", "source-missing"): 1}
    assert bright_segmenter.calls == 2


def test_what_a_service_made_of_a_series_of_an_archive_is_made_again_when_it_was_deleted(
    at_a_pacs, clock, bright_segmenter
):
    fed, archive = at_a_pacs(1)
    fed.plan_remote(archive)
    run_by_service(fed, clock)
    for path in fed.config.results_folder.rglob("*.dcm"):
        path.unlink()
    forget(fed)
    assert run_by_service(fed, clock) == {("done", ""): 1}
    assert bright_segmenter.calls == 2


@pytest.mark.parametrize("part", ["contents", "recipe"])
def test_a_result_in_whose_place_another_run_has_put_its_own_is_made_again(
    bright_archive, feeding, clock, part
):
    fed = feeding(bright_archive(1))
    fed.run_out(clock)
    (path,) = fed.out.glob("??/*/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: "of another run"}))
    assert ResultsFolder(fed.out).replan_missing(fed.book) == 1
    assert fed.outcomes() == {("planned", ""): 1}
    # and where it cannot be made again, either, nothing of it is told
    account = account_of(fed.plan)
    assert (account.outputs, account.output_bytes, account.models) == (0, 0, ())
    assert [line.result for line in series_lines(fed.plan)] == [""]


@pytest.mark.parametrize("after", ["fetch", "examine_series"])
def test_a_share_that_goes_between_the_look_at_the_files_and_their_reading_is_waited_for(
    bright_archive, feeding, clock, monkeypatch, after
):
    root = bright_archive(1)
    fed = feeding(root)
    away = root.with_name("away")
    place = PlanSources if after == "fetch" else process
    step = getattr(place, after)

    def then_away(*given: object) -> object:
        told = step(*given)
        root.rename(away)
        return told

    fed.feed().step()
    with monkeypatch.context() as patched:
        patched.setattr(place, after, then_away)
        fed.work()
    view = fed.ledger.view.jobs()[0]
    assert (view.state, view.reason) == (State.RETRY, Reason.SOURCE_UNREACHABLE)
    away.rename(root)
    assert fed.run_out(clock) == {("done", ""): 1}


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("is_header_read", [False, True])
def test_a_file_that_is_there_and_cannot_be_read_ends_its_series_after_some_tries(
    bright_archive, feeding, clock, monkeypatch, error, is_header_read
):
    root = bright_archive(2)
    fed = feeding(root)
    bad = next((root / "bright0").iterdir())
    opened, opening = [], Path.open

    def bad_sector(path: Path, *args: object, **options: object) -> object:
        if path == bad:
            opened.append(path)
            if not is_header_read or len(opened) % 3 != 1:  # header, pixels, second look
                raise OSError(error, os.strerror(error))
        return opening(path, *args, **options)

    monkeypatch.setattr(Path, "open", bad_sector)
    assert fed.run_out(clock) == {("done", ""): 1, ("failed", "source-incomplete"): 1}


def test_a_series_whose_job_ended_since_a_plan_left_it_out_runs_when_the_next_one_takes_it_in(
    at_a_pacs, clock
):
    fed, archive = at_a_pacs(1)
    end_as_of_two_patients(fed, archive)
    del archive.said["again"]
    fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 1}


def test_jobs_of_series_that_were_taken_out_of_the_plan_are_taken_back(tree, feeding, clock):
    tree.fill(3)
    fed = feeding(tree.root)
    feeder = fed.feed(results=False)
    feeder.step()
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET plan_reason = 'not-selected' WHERE number > 1")
    assert feeder.step().waiting == 1
    states = [view.state for view in fed.ledger.view.jobs()]
    assert sorted(states) == [State.READY, State.SUPERSEDED, State.SUPERSEDED]
    assert fed.outcomes() == {("waiting", ""): 1, ("left-out", "not-selected"): 2}


def test_a_job_that_was_left_before_the_service_was_put_right_ends_no_new_run(tree, feeding, clock):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed(results=False).step()
    policy = fed.config.workers.retry.policy()

    def leave() -> None:
        clock.pass_s(1)
        claim = fed.ledger.jobs.claim("w", 60)
        fed.ledger.jobs.retry(claim, Reason.WRONG_RECIPE, "", policy)

    leave()
    feeder = fed.feed(results=False)
    assert feeder.step().waiting == 1
    leave()
    with pytest.raises(PermanentError):
        feeder.step()


def test_a_run_that_is_killed_before_it_has_entered_its_own_ledger_again_makes_nothing_twice(
    tree, feeding, service, clock, monkeypatch
):
    tree.add("run", "a")
    fed = feeding(tree.root)
    fed.feed().step()
    fed_to(service, fed, clock).step()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for place, step in ((ArchiveJobs, "withdraw_all"), (SeriesBook, "enter_ledger")):
        with monkeypatch.context() as patched:
            patched.setattr(place, step, killed)
            with pytest.raises(KeyboardInterrupt):
                fed.feed().step()
    fed.feed().step()
    states = [view.state for view in fed.ledger.view.jobs()]
    assert sorted(states) == [State.READY, State.SUPERSEDED]


def test_a_run_by_a_service_that_an_error_ends_leaves_nothing_to_be_begun_outside_its_hours(
    tree, feeding, clock
):
    tree.fill(3)
    fed = feeding(tree.root)
    fed.ledger.close()
    order = FeedOrder("all", (), RECIPE, "old", window=hours_around(clock))
    run = FedRun(fed.plan.path.parent, fed.config, order)

    def states() -> list[State]:
        ledger = Ledger.open(fed.config.ledger_path)
        try:
            return [view.state for view in ledger.view.jobs()]
        finally:
            ledger.close()

    told: list[State] = []

    def nobody_reads(*_: object) -> None:
        told.extend(states())
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run.work(Leaving(threading.Event(), threading.Event()), clock, nobody_reads, _unheard)
    assert set(told) == {State.READY}
    assert states() == [State.SUPERSEDED] * len(told)


def _unheard(error: TransientError) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize("is_corrected", [False, True])
def test_a_result_in_the_folder_is_not_taken_for_that_of_the_patient_that_a_pacs_names_now(
    at_a_pacs, clock, is_corrected, bright_segmenter
):
    fed, archive = at_a_pacs(1)
    fed.plan_remote(archive)
    fed.run_out(clock)
    forget(fed)
    if is_corrected:
        ((one, said),) = archive.said.items()
        archive.said[one] = replace(said, patient=FoundPatient("PID-OTHER"))
        archive.given[one] = corrected(archive.given[one], fed.out.with_name("corrected"))
        fed.plan_remote(archive)
    assert fed.run_out(clock) == {("done", ""): 1}
    assert bright_segmenter.calls == 1 + is_corrected
    (path,) = fed.out.glob("??/*/seg-labelmap.dcm")
    assert (dcmread(path).PatientID == "PID-OTHER") == is_corrected


def test_a_result_whose_files_are_gone_is_nobodys(at_a_pacs, clock, bright_segmenter):
    fed, archive = at_a_pacs(1)
    fed.plan_remote(archive)
    fed.run_out(clock)
    forget(fed)
    for path in fed.out.glob("??/*/*.dcm"):
        path.unlink()
    assert fed.run_out(clock) == {("done", ""): 1}
    assert bright_segmenter.calls == 2
    assert len(list(fed.out.glob("??/*/*.dcm"))) == 2


def corrected(paths: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    """The same instances of another patient."""
    folder.mkdir()
    for path in paths:
        ds = dcmread(path)
        ds.PatientID = "PID-OTHER"
        ds.save_as(folder / path.name)
    return tuple(sorted(folder.iterdir()))


@pytest.mark.parametrize("is_here", [False, True])
def test_a_plan_says_of_jobs_in_its_own_ledger_alone_that_they_are_not_to_run(at_a_pacs, is_here):
    fed, archive = at_a_pacs(1)
    fed.plan_remote(archive)
    fed.feed().step()
    claim = fed.ledger.jobs.claim("w", 60)
    with fed.plan.write() as connection:
        connection.execute("UPDATE series SET plan_reason = 'not-selected'")
    if not is_here:
        fed.plan.set("ledger", "of a run in its own process")
    plans = PlannedIdentities([fed.plan.path.parent], WantedSettings(fed.config))
    if is_here:
        with pytest.raises(PermanentError):
            plans.expected(claim)
    else:
        assert plans.expected(claim).instance_count is None
