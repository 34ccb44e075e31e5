"""When a series is complete, and what is then done with it."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from arrivals import SERIES, arrival_of

from inference.reasons import Reason
from pacs_bridge.config.bridge import CollectorConfig
from pacs_bridge.config.routes import RouteConfig, SelectConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.announcements import Announcement
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import (
    AssociationEnd,
    AssociationOutcome,
)
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.ledger.series import ForceOutcome
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import JobClaim, JobRequest, Priority, ResultFile, State
from pacs_bridge.receive.collector import Collector
from pacs_bridge.receive.selection import matches, select_route
from pacs_bridge.worker_job import folder_of

QUIET_S = 60.0


class Bench:
    """A collector on a stepped clock, and a sender without a network."""

    def __init__(self, folder: Path, clock, routes=None) -> None:
        self.clock = clock
        self.folder = folder
        self.ledger = Ledger.open(folder / "ledger.sqlite", clock)
        self.disputed: set[str] = set()
        self.routes = routes or [RouteConfig(name="all", model="m", destinations=("archive",))]
        self.collector = self.start()
        self.newest = 0

    def start(self) -> Collector:
        log = JsonLog.open(self.folder / "log.jsonl", IdentityHash(b"k"))
        config = CollectorConfig(quiet_period_s=QUIET_S)
        return Collector(
            self.ledger, config, self.routes, self.clock, log, self.disputed.__contains__
        )

    def open(self) -> int:
        self.newest += 1
        return self.newest

    def arrive(self, number: int, association: int, **changes: object) -> None:
        arrival = arrival_of(number, association, size_bytes=0, **changes)
        self.ledger.instances.enter([arrival], self)

    def place(self, arrival: Arrival, fate: Fate) -> str | None:
        (self.folder / arrival.digest).touch()
        return arrival.digest

    def settle(self) -> None:
        pass

    def end(
        self, association: int, outcome=AssociationOutcome.RELEASED, refused: tuple[int, ...] = ()
    ) -> None:
        lost = tuple(RefusedInstance(SERIES, f"{SERIES}.{n}", "A700", "CT1") for n in refused)
        end = AssociationEnd(association, outcome, self.newest, refused=lost)
        self.ledger.associations.end([end])

    def send(self, *numbers: int, **changes: object) -> None:
        """A whole association that is released."""
        association = self.open()
        for number in numbers:
            self.arrive(number, association, **changes)
        self.end(association)

    def look_for(self, seconds: float, step_s: float = 1.0) -> None:
        """Let time pass, looking every second."""
        for _ in range(int(seconds / step_s)):
            self.clock.pass_s(step_s)
            self.collector.look()

    @property
    def states(self) -> list[tuple[int, State]]:
        return [(view.revision, view.state) for view in self.ledger.view.series(SERIES)]

    def only(self):
        (view,) = self.ledger.view.series(SERIES)
        return view


def result_of(claim: JobClaim) -> ResultFile:
    uid = f"2.25.{claim.job_id}"
    return ResultFile(0, "binary", "r.dcm", "1.2", uid, f"{uid}.1", "1.2", "00", 1)


@pytest.fixture
def bench(ram_folder, clock) -> Bench:
    return Bench(ram_folder, clock)


def test_a_released_series_is_ready_after_the_quiet_period_and_not_before(bench):
    bench.send(1, 2, 3)
    bench.look_for(QUIET_S)
    assert bench.states == [(1, State.QUIET)]
    bench.look_for(2)
    assert bench.states == [(1, State.READY)]

    claim = bench.ledger.jobs.claim("w", 60)
    assert (claim.request.route, claim.request.model) == ("all", "m")
    assert claim.request.destinations == ("archive",)


def test_an_open_association_that_sent_some_of_it_holds_a_series_back(bench):
    association = bench.open()
    bench.arrive(1, association)
    bench.look_for(10 * QUIET_S, step_s=10)
    assert bench.states == [(1, State.RECEIVING)]
    bench.end(association)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_an_open_association_that_sent_none_of_it_does_not(bench):
    bench.arrive(9, bench.open(), series_instance_uid="1.2.9")
    bench.send(1)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_slow_sender_of_one_instance_an_association_is_never_split(bench):
    for number in range(12):
        bench.send(number)
        bench.look_for(QUIET_S - 1)
    assert bench.states == [(1, State.QUIET)]
    bench.look_for(QUIET_S)
    assert bench.states == [(1, State.READY)]
    assert bench.only().instance_count == 12


def test_a_sender_that_is_slower_still_makes_revisions_and_the_last_one_has_all(bench):
    for number in range(3):
        bench.send(number)
        bench.look_for(QUIET_S + 2)

    claim = bench.ledger.jobs.claim("w", 60)
    assert claim.request.revision == 3
    assert bench.ledger.jobs.claim("w", 60) is None
    assert len(bench.ledger.instances.sources(SERIES, 3)) == 3
    bench.ledger.jobs.complete(claim, [result_of(claim)], [])
    assert bench.states == [
        (1, State.SUPERSEDED), (2, State.SUPERSEDED), (3, State.SENDING),
    ]  # fmt: skip


def test_a_complete_series_gets_its_result_when_a_late_stray_comes_to_nothing(bench):
    bench.send(1, 2, 3)
    bench.look_for(QUIET_S + 2)
    claim = bench.ledger.jobs.claim("w", 1e6)
    bench.ledger.jobs.advance(claim, State.SEGMENTED)
    stray = bench.open()
    bench.arrive(4, stray)
    bench.end(stray, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.SEGMENTED), (2, State.INCOMPLETE)]

    bench.ledger.jobs.complete(claim, [result_of(claim)], [])
    delivery = bench.ledger.outbox.claim("s", 60)
    assert delivery.job_id == claim.job_id


def test_a_series_that_outgrows_its_route_is_segmented_as_it_was_when_it_was_ready(
    ram_folder, clock
):
    select = SelectConfig(max_slices=2)
    route = RouteConfig(name="short", model="m", destinations=("a",), select=select)
    bench = Bench(ram_folder, clock, [route])
    bench.send(1, 2)
    bench.look_for(QUIET_S + 2)
    bench.send(3)
    assert bench.ledger.jobs.claim("w", 60) is None
    bench.look_for(QUIET_S + 2)

    assert bench.states == [(1, State.READY), (2, State.SKIPPED)]
    assert bench.ledger.jobs.claim("w", 60).request.revision == 1


def test_an_aborted_association_holds_the_series_until_it_is_sent_again(bench):
    association = bench.open()
    bench.arrive(1, association)
    bench.end(association, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)
    held = bench.only()
    assert (held.state, held.reason) == (State.INCOMPLETE, Reason.INCOMPLETE)
    bench.look_for(100 * QUIET_S, step_s=60)
    assert bench.ledger.jobs.claim("w", 60) is None

    bench.send(1, 2)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_an_operator_can_force_a_held_series(bench):
    association = bench.open()
    bench.arrive(1, association)
    bench.end(association, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)

    assert bench.ledger.series.force(SERIES) is ForceOutcome.FORCED
    bench.look_for(QUIET_S + 2)

    assert bench.states == [(1, State.READY)]


def give_up(bench: Bench) -> None:
    """Have all of a series arrive over an association that is aborted, and nothing for long."""
    association = bench.open()
    for number in (1, 2, 3):
        bench.arrive(number, association)
    bench.end(association, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)
    bench.clock.pass_s(100)
    assert bench.ledger.series.give_up_incomplete(99) == (SERIES,)
    assert bench.states == [(1, State.DEAD)]


def test_a_series_that_was_given_up_is_taken_up_again_when_it_is_sent_again(bench):
    give_up(bench)
    association = bench.open()
    bench.arrive(1, association)
    bench.end(association, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.DEAD)]

    bench.send(1, 2, 3)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_an_operator_can_force_a_series_that_was_given_up(bench):
    give_up(bench)
    assert bench.ledger.series.force(SERIES) is ForceOutcome.FORCED
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]
    assert bench.ledger.series.force(SERIES) is ForceOutcome.NOT_HELD


def test_an_operator_has_a_skipped_series_looked_at_again_when_the_routes_are_mended(
    ram_folder, clock
):
    select = SelectConfig(body_parts=("HEAD",))
    heads = RouteConfig(name="heads", model="m", destinations=("a",), select=select)
    bench = Bench(ram_folder, clock, [heads])
    bench.send(1)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.SKIPPED)]
    bench.routes = [RouteConfig(name="all", model="m", destinations=("a",))]
    bench.collector = bench.start()

    assert bench.ledger.series.force(SERIES) is ForceOutcome.FORCED
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_only_the_current_revision_of_a_series_is_forced(bench):
    give_up(bench)
    bench.send(4)
    bench.look_for(QUIET_S + 2)
    assert bench.ledger.series.force(SERIES) is ForceOutcome.NOT_HELD
    bench.send(1, 2, 3, 4)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.DEAD), (2, State.READY)]


def test_a_refused_instance_is_owed_over_any_number_of_associations(bench):
    bench.send(1)
    bench.end(bench.open(), refused=(2,))  # one association an image, and no other word of it
    bench.send(3)
    bench.look_for(QUIET_S + 2)

    held = bench.only()
    assert (held.state, held.reason, held.owed_count) == (State.INCOMPLETE, Reason.INCOMPLETE, 1)
    assert held.detail == "2 instances here; 1 were refused and have not come since"
    bench.send(1, 3)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.INCOMPLETE)]

    bench.send(2)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]
    assert (bench.only().instance_count, bench.only().owed_count) == (3, 0)


def test_an_instance_that_was_refused_before_its_series_was_known_is_owed(bench):
    bench.end(bench.open(), refused=(1,))
    (unseen,) = bench.ledger.view.series(SERIES)
    assert (unseen.state, unseen.revision, unseen.owed_count) == (State.INCOMPLETE, 0, 1)
    assert bench.ledger.view.state_counts() == {State.INCOMPLETE: 1}

    bench.send(2, 3)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.INCOMPLETE)]
    assert bench.ledger.jobs.claim("w", 60) is None


def test_an_instance_that_comes_after_its_refusal_in_the_same_association_is_not_owed(bench):
    association = bench.open()
    bench.ledger.refusals.note([RefusedInstance(SERIES, f"{SERIES}.1", "A700", "CT1")])
    bench.arrive(1, association)
    bench.end(association, refused=(1,))
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_resend_that_is_refused_takes_nothing_from_a_series_that_has_it(bench):
    bench.send(1, 2)
    bench.end(bench.open(), refused=(2,))
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_an_operator_vouches_for_a_series_without_what_was_refused(bench):
    bench.end(bench.open(), refused=(1,))
    bench.send(2)
    bench.look_for(QUIET_S + 2)
    assert bench.ledger.series.force(SERIES) is ForceOutcome.FORCED
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]
    assert bench.ledger.refusals.owed(SERIES) == ()


def test_what_is_owed_too_long_is_given_up_and_told(bench, clock):
    bench.end(bench.open(), refused=(1,))
    clock.pass_s(100)
    assert bench.ledger.series.give_up_incomplete(99) == (SERIES,)
    assert bench.ledger.view.series(SERIES) == ()

    bench.end(bench.open(), refused=(1,))
    bench.send(2)
    bench.look_for(QUIET_S + 2)
    clock.pass_s(100)
    assert bench.ledger.series.give_up_incomplete(99) == (SERIES,)
    assert (bench.only().state, bench.only().owed_count) == (State.DEAD, 1)


def test_a_series_that_lacks_instances_by_the_word_of_its_sender_is_held(bench):
    bench.send(1, 2, expected_instances=3)
    bench.look_for(QUIET_S + 2)
    held = bench.only()
    assert (held.state, held.detail) == (State.INCOMPLETE, "2 of 3 instances here")

    bench.send(3, expected_instances=3)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_series_that_is_said_to_have_less_than_it_was_held_for_goes_on(bench):
    bench.ledger.series.expect(Announcement(SERIES, 4))
    bench.send(1, 2)
    bench.look_for(QUIET_S + 2)
    assert bench.only().detail == "2 of 4 instances here"
    bench.ledger.series.expect(Announcement(SERIES, 3))
    bench.look_for(QUIET_S + 2)
    assert bench.only().detail == "2 of 3 instances here"
    bench.ledger.series.expect(Announcement(SERIES, 3, Priority.ARCHIVE))
    assert bench.only().state is State.INCOMPLETE

    bench.ledger.series.expect(Announcement(SERIES, 2))
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_series_that_is_held_for_something_else_is_not_freed_by_what_is_said_of_it(bench):
    bench.ledger.series.expect(Announcement(SERIES, 4))
    association = bench.open()
    bench.arrive(1, association)
    bench.end(association, AssociationOutcome.ABORTED)
    bench.look_for(QUIET_S + 2)
    held = bench.only()

    bench.ledger.series.expect(Announcement(SERIES, 1))

    assert bench.only() == held
    assert held.state is State.INCOMPLETE


def test_a_series_of_two_identities_is_held_and_a_resend_does_not_free_it(bench):
    bench.send(1)
    bench.send(2, patient_key="another")
    bench.look_for(QUIET_S + 2)
    bench.send(1)
    bench.look_for(QUIET_S + 2)

    held = bench.only()
    assert (held.state, held.reason) == (State.INCOMPLETE, Reason.MIXED_IDENTITY)


def test_a_series_that_cannot_be_judged_holds_up_no_other(bench, monkeypatch):
    bench.send(1)
    bench.arrive(9, bench.open(), series_instance_uid="1.2.9", facts=SeriesFacts(kernel="bad"))
    bench.end(bench.newest)

    def select(routes, facts, slices):
        if facts.kernel == "bad":
            raise ZeroDivisionError
        return select_route(routes, facts, slices)

    monkeypatch.setattr("pacs_bridge.receive.collector.select_route", select)
    bench.look_for(QUIET_S + 2)

    assert bench.states == [(1, State.READY)]
    (bad,) = bench.ledger.view.series("1.2.9")
    assert bad.state is State.QUIET
    assert "series-not-judged" in (bench.folder / "log.jsonl").read_text()


def test_absurd_counts_of_an_old_ledger_overflow_nothing(bench):
    for number in (1, 2):
        bench.send(number, frame_count=2**62)
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_series_of_which_something_is_known_that_is_unwritten_waits(bench):
    bench.send(1)
    bench.disputed.add(SERIES)
    bench.look_for(3 * QUIET_S)
    assert bench.states == [(1, State.RECEIVING)]
    bench.disputed.clear()
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_a_series_that_no_route_describes_is_skipped_with_its_reason(ram_folder, clock):
    select = SelectConfig(body_parts=("HEAD",))
    route = RouteConfig(name="heads", model="m", destinations=("a",), select=select)
    bench = Bench(ram_folder, clock, [route])
    bench.send(1)
    bench.look_for(QUIET_S + 2)

    skipped = bench.only()
    assert (skipped.state, skipped.reason) == (State.SKIPPED, Reason.NOT_SELECTED)
    assert bench.ledger.jobs.claim("w", 60) is None


@pytest.mark.parametrize("step_h", [-24, -1, 1, 24 * 400])
def test_a_step_of_the_clock_closes_nothing_early_and_loses_nothing(bench, clock, step_h):
    from datetime import timedelta

    bench.send(1)
    bench.look_for(QUIET_S / 2)
    clock.time += timedelta(hours=step_h)
    bench.look_for(QUIET_S / 2 - 1)
    assert bench.states == [(1, State.QUIET)]
    bench.look_for(3)
    assert bench.states == [(1, State.READY)]


def test_a_new_start_of_the_collector_waits_the_quiet_period_again(bench):
    bench.send(1)
    bench.look_for(QUIET_S - 1)
    bench.collector = bench.start()
    bench.look_for(QUIET_S - 1)
    assert bench.states == [(1, State.QUIET)]
    bench.look_for(3)
    assert bench.states == [(1, State.READY)]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_the_route_of_a_series_does_not_hang_on_which_instance_comes_first(
    ram_folder, clock, order
):
    select = SelectConfig(image_type_without=("LOCALIZER",), kernel="B30")
    route = RouteConfig(name="axial", model="m", destinations=("a",), select=select)
    bench = Bench(ram_folder, clock, [route])
    facts = {
        1: SeriesFacts(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), kernel="B30"),
        2: SeriesFacts(image_type=("ORIGINAL", "PRIMARY", "AXIAL")),
        3: SeriesFacts(image_type=("ORIGINAL", "PRIMARY", "AXIAL"), kernel="B30"),
    }
    for number in order:
        bench.send(number, facts=facts[number])
    bench.look_for(QUIET_S + 2)
    assert bench.states == [(1, State.READY)]


def test_series_that_come_interleaved_are_told_apart(bench):
    association = bench.open()
    arrivals = [(series, number) for series in range(5) for number in range(4)]
    random.Random(1).shuffle(arrivals)
    for series, number in arrivals:
        bench.arrive(
            number,
            association,
            series_instance_uid=f"1.2.{series}",
            sop_instance_uid=f"1.2.{series}.{number}",
            digest=f"{series}.{number}",
        )
    bench.end(association)
    bench.look_for(QUIET_S + 2)

    counts = {view.series_instance_uid: view.instance_count for view in bench.ledger.view.jobs()}
    assert counts == {f"1.2.{series}": 4 for series in range(5)}
    assert bench.ledger.view.state_counts() == {State.READY: 5}


def test_one_series_over_many_associations_is_one_series(bench):
    associations = [bench.open() for _ in range(20)]
    for number, association in enumerate(associations):
        bench.arrive(number, association)
    for association in associations:
        bench.end(association)
    bench.look_for(QUIET_S + 2)

    assert bench.states == [(1, State.READY)]
    assert bench.only().instance_count == 20


# --- selection ---

FACTS = SeriesFacts(
    calling_ae_title="CT1",
    modality="CT",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    body_part="CHEST",
    series_description="Thorax 1.5 B30f",
    study_description="CT thorax",
    protocol_name="ThoraxRoutine",
    kernel="B30f",
    manufacturer="SIEMENS",
    slice_thickness_mm=1.5,
)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"calling_ae_titles": ("CT1",)}, True),
        ({"calling_ae_titles": ("CT2",)}, False),
        ({"modalities": ("MR",)}, False),
        ({"modalities": ("ct",)}, True),
        ({"body_parts": ("Abdomen", "chest")}, True),
        ({"body_parts": ("HEAD",)}, False),
        ({"series_description": "thorax"}, True),
        ({"series_description": "^1.5"}, False),
        ({"not_series_description": "b30"}, False),
        ({"not_series_description": "scout"}, True),
        ({"study_description": "abdomen"}, False),
        ({"protocol_name": "routine$"}, True),
        ({"kernel": "^B[23]"}, True),
        ({"kernel": "B70"}, False),
        ({"manufacturer": "siemens"}, True),
        ({"image_type_without": ("axial",)}, False),
        ({"min_slices": 100}, True),
        ({"min_slices": 101}, False),
        ({"max_slices": 99}, False),
        ({"max_slice_thickness_mm": 1.5}, True),
        ({"max_slice_thickness_mm": 1.0}, False),
        ({"body_parts": ("CHEST",), "kernel": "B70"}, False),
    ],
)
def test_conditions(condition, holds):
    assert matches(SelectConfig(**condition), FACTS, slice_count=100) is holds


def test_what_a_series_does_not_say_does_not_match():
    silent = SeriesFacts(modality="CT")
    assert matches(SelectConfig(), silent, 1)
    assert not matches(SelectConfig(body_parts=("CHEST",)), silent, 1)
    assert not matches(SelectConfig(kernel="B30"), silent, 1)
    assert not matches(SelectConfig(max_slice_thickness_mm=5.0), silent, 1)


def test_a_route_without_conditions_takes_every_series():
    """What is not for us is told apart by the examination, which gives it its own code."""
    assert matches(SelectConfig(), SeriesFacts(), 1)


def test_the_first_route_that_describes_a_series_wins():
    stat = RouteConfig(
        name="stat",
        model="m",
        destinations=("a",),
        priority=Priority.STAT,
        select=SelectConfig(body_parts=("HEAD",)),
    )
    rest = RouteConfig(name="rest", model="m", destinations=("a",))

    assert select_route([stat, rest], FACTS, 100) is rest
    head = dataclasses.replace(FACTS, body_part="HEAD")
    assert select_route([stat, rest], head, 100) is stat
    assert select_route([stat], FACTS, 100) is None


def test_as_many_series_are_deleted_as_come(ram_folder, clock):
    select = SelectConfig(body_parts=("HEAD",))
    routes = [RouteConfig(name="head", model="m", destinations=("archive",), select=select)]
    bench = Bench(ram_folder, clock, routes)
    for series in range(130):
        uid = f"9.{series}"
        bench.send(series, series_instance_uid=uid, sop_instance_uid=f"{uid}.1")
    bench.look_for(2 * QUIET_S)
    files = list(ram_folder.glob("digest*"))
    assert len(files) == 130
    clock.pass_s(CollectorConfig().keep_sources_h * 3600)

    bench.look_for(10)
    assert not list(ram_folder.glob("digest*"))


def test_what_dead_workers_left_is_deleted_in_passing(bench):
    job_id = bench.ledger.jobs.submit(JobRequest(SERIES, 1, "all", "m", ()))
    bench.ledger.jobs.park(bench.ledger.jobs.claim("w", 60.0), Reason.MODEL_ERROR, "")
    left = bench.folder / "scratch" / folder_of(job_id, 1)
    left.mkdir(parents=True)
    bench.collector.look()

    assert not left.exists()
