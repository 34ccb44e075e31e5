"""What an operator can have done again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from arrivals import SERIES, arrival_of

from inference.reasons import Reason
from pacs_bridge.ledger.arrival import Arrival, Fate
from pacs_bridge.ledger.associations import (
    AssociationEnd,
    AssociationOutcome,
)
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.series import Verdict
from pacs_bridge.ledger.steering import RepeatOutcome
from pacs_bridge.queue import JobRequest, ResultFile, State

DAY_S = 86_400.0


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


@pytest.fixture
def sent(ledger, ram_folder) -> tuple[int, ResultFile]:
    """A job, of files that are fetched from elsewhere, whose result has arrived."""
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("archive",), source="pacs"))
    result = write_result(ram_folder)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.NOTHING_SENT
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    return job_id, result


def write_result(folder: Path, uid: str = "2.25.5") -> ResultFile:
    (folder / "r.dcm").write_bytes(b"result")
    digest = hashlib.sha256(b"result").hexdigest()
    return ResultFile(0, "binary", "r.dcm", "1.2", uid, f"{uid}.1", "1.2", digest, 6)


class Shelf:
    """A ``Placer`` that writes small files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, arrival: Arrival, _fate: Fate) -> str:
        (self._folder / arrival.digest).write_bytes(b"instance")
        return arrival.digest

    def settle(self) -> None:
        return


def receive(ledger: Ledger, folder: Path, number: int, association: int) -> Fate:
    """An instance of the series, over an association of its own."""
    arrival = arrival_of(number, association, data_offset_bytes=0)
    (fate,) = ledger.instances.enter([arrival], Shelf(folder))
    end = AssociationEnd(association, AssociationOutcome.RELEASED, association)
    ledger.associations.end([end])
    return fate


def make_ready(ledger: Ledger) -> int:
    """Let the open revision of the series become a job; gives its id."""
    (revision,) = ledger.series.open_revisions()
    job = JobRequest(SERIES, revision.revision, "r", "m", ("archive",))
    assert ledger.series.conclude(revision, Verdict(State.READY, job=job))
    return ledger.jobs.submit(job)


@pytest.fixture
def long_ago(ledger, ram_folder, clock) -> tuple[int, ResultFile]:
    """The job of a received series whose result arrived, and was deleted after its time."""
    receive(ledger, ram_folder, 1, association=1)
    job_id = make_ready(ledger)
    result = write_result(ram_folder)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    clock.pass_s(31 * DAY_S)
    assert ledger.retention.delete_results(30 * DAY_S) == 1
    return job_id, result


def test_a_result_that_was_sent_is_sent_again_without_a_new_inference(ledger, sent):
    job_id, result = sent

    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.REPEATED

    assert ledger.view.job(job_id).state is State.SENDING
    assert ledger.jobs.claim("w", 60) is None
    again = ledger.outbox.claim("s", 60)
    assert (again.candidates, again.attempt) == ((result,), 1)
    ledger.outbox.sent(again, result)
    assert ledger.view.job(job_id).state is State.SENT


def test_a_result_whose_file_was_deleted_is_made_again(ledger, sent, ram_folder):
    job_id, _ = sent
    (ram_folder / "r.dcm").unlink()

    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.REPEATED

    assert ledger.outbox.claim("s", 60) is None
    assert ledger.jobs.claim("w", 60).job_id == job_id


def test_a_result_in_whose_place_a_later_one_stands_is_not_sent_again(ledger, sent):
    job_id, _ = sent
    ledger.jobs.submit(JobRequest(SERIES, 2, "r", "m", ("archive",)))
    later = ResultFile(0, "binary", "q.dcm", "1.2", "2.25.7", "2.25.8", "1.2", "00", 1)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [later], [])

    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.NOTHING_SENT
    assert ledger.steering.repeat_job(99) is RepeatOutcome.NOTHING_SENT


def test_what_can_neither_be_sent_nor_made_again_stays_as_it_is(ledger, long_ago, ram_folder):
    job_id, result = long_ago
    assert ledger.retention.delete_sources(7 * DAY_S) == 1
    job, deliveries = ledger.view.job(job_id), ledger.view.deliveries(job_id)

    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.SOURCES_DELETED

    assert ledger.view.job(job_id) == job
    assert ledger.view.deliveries(job_id) == deliveries
    assert job.state is State.SENT
    receive(ledger, ram_folder, 2, association=2)
    make_ready(ledger)
    assert ledger.jobs.claim("w", 60).predecessors == (result,)


@pytest.mark.parametrize("way", ["deleted after its time", "lost"])
def test_a_series_that_was_sent_once_more_is_made_and_sent_again(ledger, long_ago, ram_folder, way):
    job_id, result = long_ago
    if way == "lost":
        (ram_folder / "digest1").unlink()
    else:
        ledger.retention.delete_sources(7 * DAY_S)
    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.SOURCES_DELETED

    assert receive(ledger, ram_folder, 1, association=2) is Fate.KNOWN

    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.REPEATED
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [write_result(ram_folder)], [])
    delivery = ledger.outbox.claim("s", 60)
    assert (delivery.candidates, delivery.attempt) == ((result,), 1)
    ledger.outbox.sent(delivery, result)
    assert ledger.view.job(job_id).state is State.SENT


def test_what_was_sent_is_known_while_it_is_made_again_and_if_that_fails(ledger, long_ago):
    job_id, result = long_ago
    deliveries = ledger.view.deliveries(job_id)
    assert ledger.steering.repeat_job(job_id) is RepeatOutcome.REPEATED
    assert ledger.view.deliveries(job_id) == deliveries

    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.MODEL_ERROR, "not finite")

    assert ledger.view.deliveries(job_id) == deliveries
    assert ledger.outbox.claim("s", 60) is None
    assert ledger.steering.retry_job(job_id)
    claim = ledger.jobs.claim("w", 60)
    ledger.jobs.complete(claim, [result], [])
    (delivery,) = ledger.view.deliveries(job_id)
    assert delivery.sent_sop_instance_uid == result.sop_instance_uid
    assert ledger.outbox.claim("s", 60).job_id == job_id


def test_a_new_result_in_the_place_of_a_sent_one_is_not_taken_for_sent(
    ledger, long_ago, ram_folder
):
    job_id, _ = long_ago
    ledger.steering.repeat_job(job_id)
    other = write_result(ram_folder, "2.25.9")
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [other], [])

    assert ledger.view.deliveries(job_id)[0].sent_sop_instance_uid is None
    assert ledger.outbox.claim("s", 60).candidates == (other,)


def test_a_stack_that_is_there_no_more_is_not_sent_again(ledger, ram_folder, long_ago):
    job_id, result = long_ago
    with ledger.database.write() as connection:
        connection.execute("UPDATE deliveries SET stack = 1")
    ledger.steering.repeat_job(job_id)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [write_result(ram_folder)], [])

    assert [each.stack for each in ledger.view.deliveries(job_id)] == [0]
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    assert ledger.view.job(job_id).state is State.SENT


def test_a_job_that_is_repeated_and_lacks_a_source_goes_on_when_that_is_sent_again(
    ledger, long_ago, ram_folder, clock
):
    job_id, _ = long_ago
    ledger.steering.repeat_job(job_id)
    (ram_folder / "digest1").unlink()
    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.SOURCE_MISSING, "1 of 1")
    clock.pass_s(1)

    receive(ledger, ram_folder, 1, association=2)

    assert ledger.jobs.claim("w", 60).job_id == job_id


def test_a_delivery_that_failed_when_it_was_repeated_knows_what_it_had_sent(
    ledger, sent, ram_folder
):
    job_id, result = sent
    ledger.steering.repeat_job(job_id)
    ledger.outbox.park(ledger.outbox.claim("s", 60), Reason.SEND_REFUSED, "0xC000")
    (ram_folder / "r.dcm").unlink()

    assert ledger.steering.retry_job(job_id)

    assert ledger.outbox.claim("s", 60) is None
    (delivery,) = ledger.view.deliveries(job_id)
    assert delivery.sent_sop_instance_uid == result.sop_instance_uid
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [write_result(ram_folder)], [])
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    assert ledger.view.job(job_id).state is State.SENT
