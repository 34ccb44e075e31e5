"""The ledger: fates of instances, revisions of series, and one file under many processes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from arrivals import SERIES, arrival_of

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import (
    AssociationEnd,
    AssociationOutcome,
)
from pacs_bridge.ledger.audit import audit
from pacs_bridge.ledger.database import Database
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.ledger.schema import MIGRATIONS
from pacs_bridge.ledger.series import ForceOutcome, Verdict
from pacs_bridge.queue import DeliveryState, JobRequest, Priority, ResultFile, State
from pacs_bridge.retry_policy import RetryPolicy

POLICY = RetryPolicy(first_wait_s=10, max_wait_s=10, give_up_after_s=1e6)


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


class Shelf:
    """A ``Placer`` that writes small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settled = 0

    def place(self, arrival: Arrival, fate: Fate) -> str | None:
        if fate is not Fate.KEPT and not fate.is_quarantine:
            return None
        name = f"{fate.value}-{arrival.digest}"
        (self.folder / name).write_bytes(b"instance")
        return name

    def settle(self) -> None:
        self.settled += 1


@pytest.fixture
def enter(ledger, ram_folder):
    shelf = Shelf(ram_folder)

    def run(*arrivals: Arrival) -> list[Fate]:
        return ledger.instances.enter(arrivals, shelf)

    return run


@pytest.fixture
def release(ledger):
    def run(association: int = 1, newest: int = 1, **more: object) -> None:
        end = AssociationEnd(association, AssociationOutcome.RELEASED, newest, **more)
        ledger.associations.end([end])

    return run


@pytest.fixture
def abort(ledger):
    def run(association: int = 1, newest: int = 1) -> None:
        end = AssociationEnd(association, AssociationOutcome.ABORTED, newest)
        ledger.associations.end([end])

    return run


def conclude_ready(ledger: Ledger) -> int:
    """Let the one open revision become READY; gives its job's id."""
    (revision,) = ledger.series.open_revisions()
    job = JobRequest(
        revision.series_instance_uid, revision.revision, "route", "model", ("archive",)
    )
    assert ledger.series.conclude(revision, Verdict(State.READY, job=job))
    return next(
        view.job_id
        for view in ledger.view.series(revision.series_instance_uid)
        if view.revision == revision.revision
    )


def deliver(ledger: Ledger, kind: str = "binary") -> ResultFile:
    """Work off the waiting job and send its result."""
    claim = ledger.jobs.claim("w", 60)
    uid = f"2.25.{claim.job_id}"
    result = ResultFile(0, kind, "r.dcm", "1.2", uid, f"{uid}.1", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    delivery = ledger.outbox.claim("s", 60)
    ledger.outbox.sent(delivery, result)
    return result


# --- instances ---


def test_an_instance_is_kept_once_and_then_known(ledger, enter):
    assert enter(arrival_of(1)) == [Fate.KEPT]
    assert enter(arrival_of(1), arrival_of(1, association=2)) == [Fate.KNOWN, Fate.KNOWN]

    (source,) = ledger.instances.sources(SERIES, 1)
    assert (source.sop_instance_uid, source.digest) == (f"{SERIES}.1", "digest1")
    assert source.path.read_bytes() == b"instance"
    assert ledger.view.counts() == {"duplicate-instance": 2}


def test_a_batch_decides_in_its_own_order(enter):
    first, second, third = arrival_of(1), arrival_of(1), arrival_of(1, digest="other")
    assert enter(first, second, third) == [Fate.KEPT, Fate.KNOWN, Fate.CONFLICTING]


def test_other_bytes_of_a_known_instance_go_into_quarantine_and_the_first_stays(ledger, enter):
    enter(arrival_of(1))
    assert enter(arrival_of(1, digest="other")) == [Fate.CONFLICTING]

    (source,) = ledger.instances.sources(SERIES, 1)
    assert source.digest == "digest1"
    (aside,) = ledger.instances.set_aside(SERIES)
    assert aside.reason is Reason.CONFLICTING_INSTANCE
    assert aside.path.exists()


def test_conflicting_bytes_sent_again_take_no_second_place(ledger, enter):
    enter(arrival_of(1))
    enter(arrival_of(1, digest="other"))
    enter(arrival_of(1, digest="other"))

    assert len(ledger.instances.set_aside(SERIES)) == 1


@pytest.mark.parametrize("change", [{"patient_key": "q"}, {"study_instance_uid": "1.9"}])
def test_a_series_of_two_identities_is_held(ledger, enter, release, change):
    enter(arrival_of(1))
    assert enter(arrival_of(2, **change)) == [Fate.MIXED_IDENTITY]
    release()

    (revision,) = ledger.series.open_revisions()
    assert revision.hold_reason is Reason.MIXED_IDENTITY
    assert revision.instance_count == 1


@pytest.mark.parametrize("is_first", [False, True])
def test_a_series_that_uses_the_instance_uid_of_another_series_is_held(
    ledger, enter, release, is_first
):
    enter(arrival_of(1))
    conclude_ready(ledger)
    mine = {"series_instance_uid": "1.2.9"}
    own = arrival_of(2, association=2, **mine)
    reused = arrival_of(1, association=2, digest="other", **mine)
    enter(*((reused, own) if is_first else (own, reused)))
    release(2, newest=2)

    (revision,) = ledger.series.open_revisions()
    assert revision.hold_reason is Reason.CONFLICTING_INSTANCE
    assert revision.instance_count == 1


def test_other_bytes_of_an_instance_that_the_series_has_hold_nothing_up(ledger, enter):
    enter(arrival_of(1), arrival_of(1, digest="other"))
    assert ledger.series.open_revisions()[0].hold_reason is None


def test_an_instance_without_identity_goes_into_quarantine(ledger, enter):
    assert enter(arrival_of(1, is_identified=False)) == [Fate.MISSING_IDENTITY]

    assert ledger.series.open_revisions() == ()
    assert ledger.view.counts() == {"missing-identity": 1}


def test_a_series_that_lacks_an_instance_without_identity_is_held(ledger, enter, release):
    enter(arrival_of(1))
    assert enter(arrival_of(2, is_identified=False)) == [Fate.MISSING_IDENTITY]
    release()

    (revision,) = ledger.series.open_revisions()
    assert revision.hold_reason is Reason.MISSING_IDENTITY


def test_a_series_whose_first_instance_came_without_identity_is_held(ledger, enter, release):
    assert enter(arrival_of(2, is_identified=False)) == [Fate.MISSING_IDENTITY]
    enter(arrival_of(1))
    release()

    (revision,) = ledger.series.open_revisions()
    assert revision.hold_reason is Reason.MISSING_IDENTITY
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.MISSING_IDENTITY))
    assert ledger.series.force(SERIES) is ForceOutcome.FORCED
    conclude_ready(ledger)
    enter(arrival_of(3, association=2))  # what the operator has vouched for is not asked again
    assert ledger.series.open_revisions()[0].hold_reason is None


def test_a_known_instance_whose_file_was_lost_is_put_back(ledger, enter):
    enter(arrival_of(1))
    (source,) = ledger.instances.sources(SERIES, 1)
    source.path.unlink()

    assert enter(arrival_of(1)) == [Fate.KNOWN]
    (source,) = ledger.instances.sources(SERIES, 1)
    assert source.path.exists()


def test_a_known_instance_whose_file_was_cut_is_put_back(ledger, enter):
    enter(arrival_of(1))
    (source,) = ledger.instances.sources(SERIES, 1)
    source.path.write_bytes(b"inst")

    assert enter(arrival_of(1)) == [Fate.KNOWN]
    assert source.path.read_bytes() == b"instance"


def true_arrival(number: int, association: int = 1) -> Arrival:
    """An arrival whose digest is that of what the ``Shelf`` writes."""
    digest = hashlib.sha256(b"instance"[number:]).hexdigest()
    return arrival_of(number, association=association, digest=digest, data_offset_bytes=number)


@pytest.fixture
def bereft(ledger, enter, release) -> int:
    """A job that a worker gave up because a file of its series had changed."""
    enter(true_arrival(1), true_arrival(2))
    release()
    job = conclude_ready(ledger)
    source = ledger.instances.sources(SERIES, 1)[0]
    source.path.write_bytes(b"INSTANCE")
    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.SOURCE_MISSING, "1 of 2")
    return job


def test_a_job_that_lacked_a_source_is_tried_again_when_it_was_put_back(
    ledger, enter, release, clock, bereft
):
    clock.pass_s(5)
    enter(true_arrival(1, association=2))
    assert ledger.instances.sources(SERIES, 1)[0].problem() == ""
    assert ledger.view.job(bereft).state is State.DEAD  # the sender may have more
    release(2, newest=2)

    assert ledger.view.job(bereft).state is State.READY
    assert ledger.jobs.claim("w", 60).attempt == 1


def test_a_job_that_lacked_a_source_is_not_tried_again_for_another(
    ledger, enter, release, clock, bereft
):
    clock.pass_s(5)
    enter(true_arrival(2, association=2))
    release(2, newest=2)
    assert ledger.view.job(bereft).state is State.DEAD


def test_what_we_made_ourselves_is_not_taken_in(ledger, enter, release):
    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    result = deliver(ledger)

    returned = arrival_of(1, series_instance_uid=result.series_instance_uid)
    same_series = dataclasses.replace(returned, sop_instance_uid="2.25.99")
    same_instance = arrival_of(1, sop_instance_uid=result.sop_instance_uid)
    assert enter(same_series) == [Fate.OWN_RESULT]
    assert enter(same_instance) == [Fate.OWN_RESULT]
    assert ledger.instances.is_own_result(result.sop_instance_uid)
    assert not ledger.instances.is_own_result("2.25.1000")
    assert ledger.view.counts()["own-result"] == 3


def test_nothing_is_entered_when_a_file_cannot_be_placed(ledger, ram_folder):
    class FullDisk(Shelf):
        def place(self, arrival: Arrival, fate: Fate) -> str | None:
            if arrival.sop_instance_uid.endswith(".2"):
                raise OSError("no space")
            return super().place(arrival, fate)

    with pytest.raises(OSError, match="no space"):
        ledger.instances.enter([arrival_of(1), arrival_of(2)], FullDisk(ram_folder))

    assert ledger.instances.sources(SERIES, 1) == ()
    assert ledger.series.open_revisions() == ()


# --- series and associations ---


def test_a_series_is_not_quiet_while_an_association_that_sent_some_is_open(ledger, enter, release):
    enter(arrival_of(1, association=1), arrival_of(2, association=2))
    assert ledger.series.open_revisions()[0].open_associations == 2
    release(1, newest=2)
    assert ledger.series.open_revisions()[0].open_associations == 1
    release(2, newest=2)
    assert ledger.series.open_revisions()[0].open_associations == 0


def test_an_aborted_association_leaves_its_series_interrupted(ledger, enter, abort):
    enter(arrival_of(1))
    abort()
    assert ledger.series.open_revisions()[0].is_interrupted


def test_a_later_association_that_is_released_makes_up_for_an_aborted_one(
    ledger, enter, abort, release
):
    enter(arrival_of(1, association=1))
    abort(1, newest=1)
    enter(arrival_of(1, association=2), arrival_of(2, association=2))
    release(2, newest=2)
    assert not ledger.series.open_revisions()[0].is_interrupted


def test_an_association_that_ran_beside_the_aborted_one_does_not(ledger, enter, abort, release):
    enter(arrival_of(1, association=1), arrival_of(2, association=2))
    abort(1, newest=2)
    release(2, newest=2)
    assert ledger.series.open_revisions()[0].is_interrupted


def test_not_even_if_its_first_instance_came_after_the_abort(ledger, enter, abort, release):
    enter(arrival_of(1, association=1))
    abort(1, newest=2)  # 2 was open, and had sent nothing
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    assert ledger.series.open_revisions()[0].is_interrupted


def test_a_refused_instance_is_owed_to_its_series_and_no_other(ledger, enter, release):
    enter(arrival_of(1), arrival_of(9, series_instance_uid="1.2.9"))
    release(refused=(RefusedInstance(SERIES, f"{SERIES}.2", "A700", "CT1"),))

    owed = {one.series_instance_uid: one.owed_count for one in ledger.series.open_revisions()}
    assert owed == {SERIES: 1, "1.2.9": 0}


def test_a_refused_instance_that_cannot_be_told_interrupts_all_that_was_sent(
    ledger, enter, release
):
    enter(arrival_of(1), arrival_of(9, series_instance_uid="1.2.9"))
    release(has_unknown_loss=True)
    assert all(one.is_interrupted for one in ledger.series.open_revisions())


def test_associations_that_were_open_at_a_crash_count_as_aborted(ledger, enter):
    enter(arrival_of(1))
    first_id = ledger.associations.begin_epoch()

    (revision,) = ledger.series.open_revisions()
    assert revision.open_associations == 0
    assert revision.is_interrupted
    assert first_id >= 1 << 32


def test_a_conclusion_is_void_when_something_has_arrived_meanwhile(ledger, enter):
    enter(arrival_of(1))
    (seen,) = ledger.series.open_revisions()
    enter(arrival_of(2))

    assert not ledger.series.conclude(seen, Verdict(State.READY))
    assert ledger.series.open_revisions()[0].state is State.RECEIVING


def test_a_late_instance_makes_the_next_revision_and_the_waiting_job_waits_for_what_comes_of_it(
    ledger, enter, release
):
    enter(arrival_of(1))
    release()
    first = conclude_ready(ledger)
    enter(arrival_of(2, association=2))
    release(2, newest=2)

    assert ledger.jobs.claim("w", 60) is None
    assert ledger.view.job(first).state is State.READY
    assert len(ledger.instances.sources(SERIES, 1)) == 1
    assert len(ledger.instances.sources(SERIES, 2)) == 2
    second = conclude_ready(ledger)
    claim = ledger.jobs.claim("w", 60)
    assert claim.job_id == second
    assert ledger.jobs.claim("w", 60) is None
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    assert ledger.view.job(first).state is State.SUPERSEDED
    assert ledger.view.state_counts() == {State.SUPERSEDED: 1, State.SENDING: 1}


def test_a_resend_of_all_after_a_result_makes_nothing_new(ledger, enter, release):
    enter(arrival_of(1), arrival_of(2))
    release()
    job = conclude_ready(ledger)
    deliver(ledger)

    enter(arrival_of(1, association=2), arrival_of(2, association=2))
    release(2, newest=2)

    assert ledger.series.open_revisions() == ()
    assert ledger.view.job(job).state is State.SENT
    assert len(ledger.view.series(SERIES)) == 1


def test_a_late_instance_after_the_result_names_the_result_that_it_replaces(ledger, enter, release):
    enter(arrival_of(1))
    release()
    first = conclude_ready(ledger)
    result = deliver(ledger)
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    conclude_ready(ledger)

    claim = ledger.jobs.claim("w", 60)
    assert claim.predecessors == (result,)
    assert ledger.view.job(first).state is State.SENT
    ledger.jobs.complete(claim, [result], [])
    assert ledger.view.job(first).state is State.SUPERSEDED


def test_a_job_at_work_keeps_its_lease_until_a_later_revision_has_a_result(ledger, enter, release):
    from pacs_bridge.queue import LeaseLostError

    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    claim = ledger.jobs.claim("w", 60)
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    ledger.jobs.heartbeat(claim, 60)
    conclude_ready(ledger)
    later = ledger.jobs.claim("v", 60)
    ledger.jobs.heartbeat(claim, 60)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(later, [result], [])

    with pytest.raises(LeaseLostError):
        ledger.jobs.heartbeat(claim, 60)


def test_a_job_whose_worker_died_waits_for_what_comes_of_a_late_instance(
    ledger, enter, release, clock
):
    enter(arrival_of(1))
    release()
    first = conclude_ready(ledger)
    ledger.jobs.claim("w", 60)
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    second = conclude_ready(ledger)
    clock.pass_s(61)

    claim = ledger.jobs.claim("v", 60)
    assert claim.job_id == second
    assert ledger.jobs.claim("v", 60) is None
    ledger.jobs.park(claim, Reason.MODEL_ERROR, "")
    assert ledger.jobs.claim("v", 60).job_id == first


def test_a_superseded_result_that_waits_is_not_sent_and_one_on_its_way_may_arrive(
    ledger, enter, release, clock
):
    enter(arrival_of(1))
    release()
    (revision,) = ledger.series.open_revisions()
    job = JobRequest(SERIES, 1, "route", "model", ("a", "b", "c"))
    ledger.series.conclude(revision, Verdict(State.READY, job=job))
    claim = ledger.jobs.claim("w", 60)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    on_its_way, failing = (ledger.outbox.claim("s", 60, [name]) for name in "ab")
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    conclude_ready(ledger)
    clock.pass_s(61)  # the senders are not heard of, and are at work all the same
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])

    ledger.outbox.sent(on_its_way, result)
    assert ledger.outbox.retry(failing, Reason.SEND_TIMEOUT, "", POLICY) is DeliveryState.SUPERSEDED
    states = [one.state for one in ledger.view.deliveries(claim.job_id)]
    assert states == [DeliveryState.SENT, DeliveryState.SUPERSEDED, DeliveryState.SUPERSEDED]
    assert ledger.view.job(claim.job_id).state is State.SUPERSEDED


def overtake_a_waiting_result(ledger, enter, release) -> int:
    """A late instance comes before the result of the first revision is sent; gives its job."""
    enter(arrival_of(1))
    release()
    job = conclude_ready(ledger)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    return job


def test_a_result_that_a_late_instance_overtakes_waits_for_what_comes_of_it(
    ledger, enter, release, clock
):
    job = overtake_a_waiting_result(ledger, enter, release)
    assert ledger.outbox.claim("s", 60) is None
    conclude_ready(ledger)
    assert ledger.outbox.claim("s", 60) is None
    claim = ledger.jobs.claim("w", 60)
    assert ledger.outbox.claim("s", 60) is None
    ledger.jobs.retry(claim, Reason.MODEL_ERROR, "", POLICY)
    assert ledger.outbox.claim("s", 60) is None
    assert ledger.view.job(job).state is State.SENDING

    clock.pass_s(60)
    claim = ledger.jobs.claim("w", 60)
    result = ResultFile(0, "binary", "r2.dcm", "1.2", "2.25.7", "2.25.8", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    assert ledger.view.job(job).state is State.SUPERSEDED
    assert ledger.outbox.claim("s", 60).job_id == claim.job_id
    assert ledger.outbox.claim("s", 60) is None


@pytest.mark.parametrize("end", ["held", "skipped", "given up", "job skipped", "job dead"])
def test_a_result_is_sent_when_the_later_revision_ends_without_one(
    ledger, enter, release, clock, end
):
    job = overtake_a_waiting_result(ledger, enter, release)
    if end.startswith("job"):
        conclude_ready(ledger)
        claim = ledger.jobs.claim("w", 60)
        stop = ledger.jobs.skip if end == "job skipped" else ledger.jobs.park
        stop(claim, Reason.MODEL_ERROR, "")
    else:
        (revision,) = ledger.series.open_revisions()
        state = State.SKIPPED if end == "skipped" else State.INCOMPLETE
        ledger.series.conclude(revision, Verdict(state, Reason.INCOMPLETE))
    if end == "given up":
        clock.pass_s(100)
        ledger.series.give_up_incomplete(99)

    delivery = ledger.outbox.claim("s", 60)
    assert delivery.job_id == job
    ledger.outbox.sent(delivery, delivery.candidates[0])
    assert ledger.view.job(job).state is State.SENT


def test_a_result_waits_again_when_the_held_revision_goes_on(ledger, enter, release):
    overtake_a_waiting_result(ledger, enter, release)
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE))
    enter(arrival_of(3, association=3))
    assert ledger.outbox.claim("s", 60) is None


def test_an_expired_lease_on_a_superseded_result_is_given_to_nobody(ledger, enter, release, clock):
    enter(arrival_of(1))
    release()
    job = conclude_ready(ledger)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    ledger.outbox.claim("dies", 60)
    enter(arrival_of(2, association=2))
    release(2, newest=2)
    second = conclude_ready(ledger)
    clock.pass_s(61)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])

    assert ledger.outbox.claim("s", 60).job_id == second
    assert ledger.outbox.claim("s", 60) is None
    (old,) = ledger.view.deliveries(job)
    assert old.state is DeliveryState.SUPERSEDED


def test_a_held_series_opens_again_when_it_is_sent_again(ledger, enter, abort, release):
    enter(arrival_of(1))
    abort()
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE))
    assert ledger.series.open_revisions() == ()

    enter(arrival_of(1, association=2))
    assert ledger.series.open_revisions() == ()
    release(2, newest=2)

    (revision,) = ledger.series.open_revisions()
    assert (revision.revision, revision.is_interrupted) == (1, False)


def test_an_operator_can_force_a_held_series(ledger, enter, abort):
    enter(arrival_of(1, expected_instances=5))
    assert ledger.series.force(SERIES) is ForceOutcome.NOT_HELD
    abort()
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE))

    assert ledger.series.force(SERIES) is ForceOutcome.FORCED

    (revision,) = ledger.series.open_revisions()
    assert not revision.is_interrupted
    assert revision.expected_instances is None


def test_a_held_series_is_given_up_and_a_late_instance_opens_it_again(ledger, enter, abort, clock):
    enter(arrival_of(1))
    abort()
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE, "1 here"))
    clock.pass_s(99)
    assert ledger.series.give_up_incomplete(100) == ()
    clock.pass_s(2)
    assert ledger.series.give_up_incomplete(100) == (SERIES,)
    (view,) = ledger.view.series(SERIES)
    assert (view.state, view.reason) == (State.DEAD, Reason.INCOMPLETE)

    enter(arrival_of(2, association=2))
    assert ledger.series.open_revisions()[0].revision == 2


def test_facts_of_a_series_come_back_as_they_were(ledger, enter):
    facts = SeriesFacts(
        "CT1", "CT", ("ORIGINAL", "PRIMARY"), "CHEST", "x", "y", "z", "B30", "M", 1.5
    )
    enter(arrival_of(1, facts=facts))
    assert ledger.series.open_revisions()[0].facts == facts


# --- operators ---


def test_a_dead_job_is_tried_again_from_the_start(ledger):
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("a",)))
    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.MODEL_ERROR, "not finite")

    assert ledger.steering.retry_job(job_id)
    assert ledger.jobs.claim("w", 60).attempt == 1
    assert not ledger.steering.retry_job(job_id)


def test_a_job_that_was_only_refused_is_sent_again_and_not_segmented_again(ledger, ram_folder):
    (ram_folder / "r.dcm").write_bytes(b"result")
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("a", "b")))
    claim = ledger.jobs.claim("w", 60)
    digest = hashlib.sha256(b"result").hexdigest()
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", digest, 6)
    ledger.jobs.complete(claim, [result], [])
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    ledger.outbox.park(ledger.outbox.claim("s", 60), Reason.SEND_REFUSED, "0xC000")
    assert ledger.view.job(job_id).state is State.DEAD
    assert ledger.view.job(job_id).detail == "b: 0xC000"

    assert ledger.steering.retry_job(job_id)

    assert ledger.jobs.claim("w", 60) is None
    again = ledger.outbox.claim("s", 60)
    assert (again.destination, again.attempt) == ("b", 1)
    ledger.outbox.sent(again, result)
    assert ledger.view.job(job_id).state is State.SENT


@pytest.mark.parametrize("is_there", [False, True], ids=["lost", "changed"])
def test_a_result_that_is_lost_or_changed_is_made_again(ledger, ram_folder, is_there):
    if is_there:
        (ram_folder / "r.dcm").write_bytes(b"resuLt")
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("a", "b")))
    claim = ledger.jobs.claim("w", 60)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    ledger.outbox.park(ledger.outbox.claim("s", 60), Reason.SOURCE_MISSING, "r.dcm")

    assert ledger.steering.retry_job(job_id)

    assert ledger.outbox.claim("s", 60) is None
    again = ledger.jobs.claim("w", 60)
    assert (again.job_id, again.attempt) == (job_id, 1)
    ledger.jobs.complete(again, [result], [])
    delivery = ledger.outbox.claim("s", 60)
    assert delivery.destination == "b"
    ledger.outbox.sent(delivery, result)
    assert ledger.view.job(job_id).state is State.SENT


def test_a_worker_that_is_known_to_be_gone_holds_nothing_up(ledger):
    ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("a",)))
    ledger.jobs.claim("w1", 3600)

    assert ledger.jobs.presume_dead("w1") == 1
    assert ledger.jobs.claim("w2", 60).attempt == 2


def test_every_change_of_state_is_in_the_history(ledger, enter, release):
    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    deliver(ledger)

    told = [
        (change.state, change.job_id is not None, change.delivery_id is not None)
        for change in ledger.view.history(SERIES)
    ]
    assert told == [
        ("receiving", False, False),
        ("ready", False, False),
        ("ready", True, False),
        ("claimed", True, False),
        ("sending", True, False),
        ("sent", True, True),
        ("sent", True, False),
    ]


def test_counts_by_state_take_each_revision_once(ledger, enter, release):
    enter(arrival_of(1), arrival_of(9, series_instance_uid="1.2.9"))
    release()
    revision = ledger.series.open_revisions()[0]
    job = JobRequest(revision.series_instance_uid, 1, "r", "m", ("a",), Priority.STAT)
    ledger.series.conclude(revision, Verdict(State.READY, job=job))

    assert ledger.view.state_counts() == {State.READY: 1, State.RECEIVING: 1}
    assert {view.state for view in ledger.view.jobs()} == {State.READY, State.RECEIVING}
    assert [view.priority for view in ledger.view.jobs([State.READY])] == [Priority.STAT]
    assert ledger.view.waiting() == 1


# --- the file ---


def test_the_file_keeps_everything_over_a_new_start(ram_folder, clock, ledger, enter):
    enter(arrival_of(1))
    job_id = ledger.jobs.submit(JobRequest("9", 1, "r", "m", ("a",)))
    ledger.close()

    again = Ledger.open(ram_folder / "ledger.sqlite", clock)

    assert again.jobs.claim("w", 60).job_id == job_id
    assert again.series.open_revisions()[0].instance_count == 1


def test_every_commit_reaches_the_disk(ledger):
    with ledger.database.read() as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_an_older_file_is_migrated_in_one_piece(ram_folder, clock):
    path = ram_folder / "old.sqlite"
    Database(path, clock).close()

    def fails_half_way(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE jobs ADD COLUMN colour TEXT")
        raise RuntimeError("killed")

    def succeeds(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE jobs ADD COLUMN colour TEXT")

    with pytest.raises(RuntimeError):
        Database(path, clock, migrations=[*MIGRATIONS, fails_half_way])
    Database(path, clock).close()  # still the old version
    database = Database(path, clock, migrations=[*MIGRATIONS, succeeds])
    with database.read() as connection:
        assert connection.execute("SELECT colour FROM jobs").fetchall() == []


def test_a_file_of_the_first_version_is_migrated_with_what_it_holds(ram_folder, clock):
    path = ram_folder / "old.sqlite"
    old = Database(path, clock, migrations=MIGRATIONS[:1])
    with old.write() as connection:
        connection.execute("INSERT INTO associations VALUES (1, 'CT1', 'B', 'a', 't', 't', NULL)")
        connection.execute(
            "INSERT INTO quarantine VALUES (1, 'missing-identity', '', '1.2', 'd', 'p', 't', 1)"
        )
    old.close()

    ledger = Ledger.open(path, clock)

    assert len(ledger.instances.set_aside("1.2")) == 1
    ledger.refusals.note([RefusedInstance("1.2", "1.2.1", "A700", "CT1")])
    assert [one.sop_instance_uid for one in ledger.refusals.owed("1.2")] == ["1.2.1"]


def test_a_file_of_a_later_version_or_another_program_is_refused(ram_folder, clock):
    later = ram_folder / "later.sqlite"
    Database(later, clock, migrations=[*MIGRATIONS, lambda _: None]).close()
    with pytest.raises(PermanentError, match=f"version {len(MIGRATIONS) + 1}"):
        Database(later, clock)

    foreign = ram_folder / "foreign.sqlite"
    connection = sqlite3.connect(foreign)
    connection.execute("PRAGMA application_id = 7")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(PermanentError, match="application id 0x7"):
        Database(foreign, clock)


def test_a_file_that_is_no_database_is_refused(ram_folder, clock):
    path = ram_folder / "ledger.sqlite"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(PermanentError) as caught:
        Database(path, clock)
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE


def test_a_ledger_that_somebody_locks_is_a_fault_that_passes(ram_folder, clock):
    path = ram_folder / "ledger.sqlite"
    ledger = Ledger.open(path, clock, busy_timeout_s=0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(TransientError) as caught:
        ledger.jobs.submit(JobRequest("9", 1, "r", "m", ("a",)))
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE

    holder.execute("ROLLBACK")
    holder.close()
    ledger.jobs.submit(JobRequest("9", 1, "r", "m", ("a",)))


WORKER = """
    import sys
    from pathlib import Path
    from pacs_bridge.ledger.ledger import Ledger
    from pacs_bridge.queue import ResultFile

    ledger = Ledger.open(Path(sys.argv[1]))
    while (claim := ledger.jobs.claim(sys.argv[2], 60)) is not None:
        print(claim.job_id, flush=True)
        if sys.argv[3] == "die":
            sys.exit(9)
        result = ResultFile(0, "binary", "r", "1", "2", "3", "4", "00", 1)
        ledger.jobs.complete(claim, [result], [])
"""


def run_worker(path: Path, name: str, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(path), name, way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_the_work_and_no_job_is_done_twice(ram_folder):
    path = ram_folder / "ledger.sqlite"
    ledger = Ledger.open(path)
    jobs = {ledger.jobs.submit(JobRequest(f"1.{n}", 1, "r", "m", ("a",))) for n in range(60)}

    workers = [run_worker(path, f"w{n}", "live") for n in range(3)]
    done = Counter(line for worker in workers for line in worker.communicate()[0].split())

    assert done == Counter(map(str, jobs))
    assert ledger.view.state_counts() == {State.SENDING: 60}


def test_the_job_of_a_worker_that_died_is_done_by_another(ram_folder):
    path = ram_folder / "ledger.sqlite"
    ledger = Ledger.open(path)
    job_id = ledger.jobs.submit(JobRequest("1.1", 1, "r", "m", ("a",)))
    dead = run_worker(path, "w1", "die")
    dead.communicate()
    assert dead.returncode == 9

    ledger.jobs.presume_dead("w1")
    run_worker(path, "w2", "live").communicate()

    assert ledger.view.job(job_id).state is State.SENDING


# --- what has served its purpose ---

DAY_S = 86_400.0


def test_sources_are_deleted_only_when_all_results_have_long_arrived(ledger, enter, release, clock):
    enter(arrival_of(1), arrival_of(2))
    release()
    conclude_ready(ledger)
    clock.pass_s(30 * DAY_S)
    assert ledger.retention.delete_sources(DAY_S) == 0
    deliver(ledger)
    assert ledger.retention.delete_sources(DAY_S) == 0
    clock.pass_s(2 * DAY_S)

    sources = ledger.instances.sources(SERIES, 1)
    assert ledger.retention.delete_sources(DAY_S) == 2
    assert not any(source.path.exists() for source in sources)
    assert ledger.retention.delete_sources(DAY_S) == 0


def test_nothing_of_a_series_that_failed_or_is_held_is_ever_deleted(
    ledger, enter, release, abort, clock
):
    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.MODEL_ERROR, "")
    held = {"series_instance_uid": "1.2.9", "sop_instance_uid": "1.2.9.1", "digest": "held"}
    enter(arrival_of(9, association=2, **held))
    abort(2, newest=2)
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE))
    clock.pass_s(1000 * DAY_S)

    assert ledger.retention.delete_sources(DAY_S) == 0
    ledger.series.give_up_incomplete(DAY_S)
    clock.pass_s(1000 * DAY_S)
    assert ledger.retention.delete_sources(DAY_S) == 0


def test_a_skipped_series_is_deleted_when_its_time_is_over(ledger, enter, release, clock):
    enter(arrival_of(1))
    release()
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.SKIPPED, Reason.NOT_SELECTED))
    clock.pass_s(2 * DAY_S)
    assert ledger.retention.delete_sources(DAY_S) == 1


def test_a_deleted_instance_that_is_sent_again_is_put_back_and_makes_no_second_result(
    ledger, enter, release, clock
):
    enter(arrival_of(1))
    release()
    job = conclude_ready(ledger)
    deliver(ledger)
    clock.pass_s(2 * DAY_S)
    ledger.retention.delete_sources(DAY_S)

    assert enter(arrival_of(1, association=2)) == [Fate.KNOWN]
    (source,) = ledger.instances.sources(SERIES, 1)
    assert source.path.exists()
    assert ledger.view.job(job).state is State.SENT
    assert ledger.retention.delete_sources(DAY_S) == 0
    clock.pass_s(2 * DAY_S)
    assert ledger.retention.delete_sources(DAY_S) == 1


def test_a_deleted_instance_is_put_back_from_a_sender_that_encodes_it_anew(
    ledger, enter, release, clock
):
    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    deliver(ledger)
    clock.pass_s(2 * DAY_S)
    ledger.retention.delete_sources(DAY_S)
    anew = {"digest": "anew", "transfer_syntax_uid": "1.2.840.10008.1.2", "association": 2}

    assert enter(arrival_of(1, **anew, patient_key="q")) == [Fate.CONFLICTING]
    assert enter(arrival_of(1, **anew, data_offset_bytes=4)) == [Fate.KNOWN]
    (source,) = ledger.instances.sources(SERIES, 1)
    assert (source.digest, source.data_offset_bytes) == ("anew", 4)
    assert source.path.exists()
    assert enter(arrival_of(1)) == [Fate.CONFLICTING]


def test_a_late_instance_of_a_deleted_series_says_how_many_are_gone(ledger, enter, release, clock):
    enter(arrival_of(1), arrival_of(2))
    release()
    conclude_ready(ledger)
    deliver(ledger)
    clock.pass_s(2 * DAY_S)
    ledger.retention.delete_sources(DAY_S)
    enter(arrival_of(3, association=2))
    assert ledger.series.open_revisions()[0].deleted_count == 2
    enter(arrival_of(1, association=2), arrival_of(2, association=2))
    assert ledger.series.open_revisions()[0].deleted_count == 0


def test_a_file_that_was_put_back_by_one_who_died_is_put_back_again(
    ledger, ram_folder, enter, release, clock
):
    enter(arrival_of(1))
    release()
    conclude_ready(ledger)
    deliver(ledger)
    clock.pass_s(2 * DAY_S)
    (source,) = ledger.instances.sources(SERIES, 1)
    name = str(source.path.relative_to(ram_folder))
    assert ledger.instances.is_entered(source.sop_instance_uid, name)
    ledger.retention.delete_sources(DAY_S)
    source.path.write_bytes(b"instance")  # moved, and killed before the ledger knew

    assert not ledger.instances.is_entered(source.sop_instance_uid, name)
    assert enter(arrival_of(1, association=2), arrival_of(2, association=2))[0] is Fate.KNOWN
    assert ledger.series.open_revisions()[0].deleted_count == 0
    assert ledger.instances.is_entered(source.sop_instance_uid, name)


def test_an_operator_cannot_force_a_series_whose_files_were_deleted(ledger, enter, release, clock):
    enter(arrival_of(1), arrival_of(2))
    release()
    conclude_ready(ledger)
    deliver(ledger)
    clock.pass_s(2 * DAY_S)
    ledger.retention.delete_sources(DAY_S)
    enter(arrival_of(3, association=2))
    release(2, newest=2)
    (revision,) = ledger.series.open_revisions()
    ledger.series.conclude(revision, Verdict(State.INCOMPLETE, Reason.INCOMPLETE))

    assert ledger.series.force(SERIES) is ForceOutcome.SOURCES_DELETED
    assert ledger.series.open_revisions() == ()

    enter(arrival_of(1, association=3), arrival_of(2, association=3))
    assert ledger.series.force(SERIES) is ForceOutcome.FORCED


def test_files_of_results_are_deleted_when_they_have_long_arrived(ledger, ram_folder, clock):
    (ram_folder / "r.dcm").write_bytes(b"result")
    ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("a",)))
    clock.pass_s(2 * DAY_S)
    assert ledger.retention.delete_results(DAY_S) == 0
    deliver(ledger)
    assert ledger.retention.delete_results(DAY_S) == 0
    clock.pass_s(2 * DAY_S)

    assert ledger.retention.delete_results(DAY_S) == 1
    assert not (ram_folder / "r.dcm").exists()
    assert ledger.retention.delete_results(DAY_S) == 0


# --- audit ---


@pytest.fixture
def audited(ledger, ram_folder):
    spool, quarantine = ram_folder / "spool", ram_folder / "quarantine"

    def run() -> list[tuple[str, str]]:
        faults = audit(ledger.database, spool, quarantine)
        return [(fault.invariant, fault.problem) for fault in faults]

    class Spool(Shelf):
        def place(self, arrival: Arrival, fate: Fate) -> str | None:
            folder = spool / "s" if fate is Fate.KEPT else quarantine / "q"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / arrival.digest
            path.write_bytes(b"meta" + arrival.sop_instance_uid.encode())
            return str(path.relative_to(ram_folder))

    for number in (1, 2):
        body = f"{SERIES}.{number}".encode()
        arrival = arrival_of(
            number,
            digest=hashlib.sha256(body).hexdigest(),
            data_offset_bytes=4,
            size_bytes=4 + len(body),
        )
        ledger.instances.enter([arrival], Spool(ram_folder))
    return run


@pytest.mark.parametrize("problem", ["is missing", "has another digest"])
def test_the_audit_finds_a_result_that_is_lost_or_changed_before_it_is_sent(
    ledger, release, audited, ram_folder, problem
):
    if problem != "is missing":
        (ram_folder / "r.dcm").write_bytes(b"resuLt")
    release()
    conclude_ready(ledger)
    claim = ledger.jobs.claim("w", 60)
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    assert audited() == [("I3", f"is still to be sent and {problem}")]


def test_a_sound_ledger_passes_the_audit(ledger, release, audited):
    release()
    conclude_ready(ledger)
    deliver(ledger)
    assert audited() == []


def test_the_audit_finds_what_is_lost_changed_or_known_to_nobody(ledger, audited, ram_folder):
    lost, changed = (source.path for source in ledger.instances.sources(SERIES, 1))
    lost.unlink()
    changed.write_bytes(b"metA" + b"1.2.3.X")
    stray = ram_folder / "spool" / "s" / "stray"
    stray.write_bytes(b"")
    os.utime(stray, (0, 0))
    assert audited() == [
        ("I1", "is missing"),
        ("I1", "has another digest"),
        ("I4", "is known to nobody: 1 file, 0 bytes"),
    ]


def test_the_audit_finds_states_that_contradict_themselves(ledger, release, audited):
    release()
    job = conclude_ready(ledger)
    deliver(ledger)
    with ledger.database.write() as connection:
        connection.execute("UPDATE deliveries SET sent_sop_instance_uid = '2.25.4711'")
        connection.execute("UPDATE jobs SET state = 'claimed' WHERE id = ?", (job,))
    assert [invariant for invariant, _ in audited()] == ["I2", "I3"]


@pytest.mark.parametrize(
    ("destinations", "problems"),
    [((), []), (("a",), [("I3", "is sent and a delivery of it is not")])],
)
def test_a_job_whose_files_are_elsewhere_is_sound_when_all_that_was_asked_for_is_done(
    ledger, release, audited, destinations, problems
):
    release()
    request = JobRequest("1.9", 1, "r", "m", destinations, source="old-pacs")
    ledger.jobs.submit(request)
    claim = ledger.jobs.claim("w", 60)
    assert claim.request == request
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    with ledger.database.write() as connection:
        connection.execute("DELETE FROM deliveries")
        connection.execute("UPDATE jobs SET state = 'sent'")

    faults = [fault for fault in audited() if fault[0] == "I3"]

    assert faults == problems
    assert ledger.view.job(claim.job_id).source == "old-pacs"


def test_a_series_that_came_from_an_archive_before_is_received_as_its_next_revision(
    ledger, enter, release
):
    archived = JobRequest(SERIES, 1, "r", "m", ("a",), source="old-pacs")
    ledger.jobs.submit(archived)
    enter(arrival_of(1))
    release()
    (revision,) = ledger.series.open_revisions()
    assert revision.revision == 2
    received = ledger.jobs.submit(JobRequest(SERIES, revision.revision, "r", "m", ("a",)))
    assert ledger.view.job(received).source == "spool"
