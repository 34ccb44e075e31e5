"""The order in which the results of two revisions leave the house."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.steering import RepeatOutcome
from pacs_bridge.queue import JobClaim, JobRequest, Priority, ResultFile, State
from pacs_bridge.retry_policy import RetryPolicy

SERIES = "1.2.3"


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


def submit(ledger: Ledger, revision: int) -> int:
    return ledger.jobs.submit(JobRequest(SERIES, revision, "r", "m", ("archive",)))


def complete(ledger: Ledger, claim: JobClaim) -> ResultFile:
    uid = f"2.25.{claim.job_id}"
    result = ResultFile(0, "binary", "r.dcm", "1.2", uid, f"{uid}.1", "1.2", "00", 1)
    ledger.jobs.complete(claim, [result], [])
    return result


def test_a_later_revision_is_begun_when_it_is_known_what_of_the_earlier_one_was_sent(ledger):
    submit(ledger, 1)
    result = complete(ledger, ledger.jobs.claim("w", 60))
    sending = ledger.outbox.claim("s", 60)
    submit(ledger, 2)
    assert ledger.jobs.claim("w", 60) is None
    ledger.outbox.sent(sending, result)

    assert ledger.jobs.claim("w", 60).predecessors == (result,)


def test_a_sender_that_died_with_an_earlier_result_holds_no_later_revision_up(ledger, clock):
    submit(ledger, 1)
    complete(ledger, ledger.jobs.claim("w", 60))
    ledger.outbox.claim("s", 60)
    submit(ledger, 2)
    clock.pass_s(61)

    assert ledger.jobs.claim("w", 60).request.revision == 2


def test_a_skipped_job_is_not_tried_again_when_a_later_revision_has_a_result(ledger):
    job = submit(ledger, 1)
    ledger.jobs.skip(ledger.jobs.claim("w", 60), Reason.TOO_FEW_SLICES, "")
    later = submit(ledger, 2)
    complete(ledger, ledger.jobs.claim("w", 60))

    assert not ledger.steering.retry_job(job)
    assert ledger.view.job(job).state is State.SKIPPED
    assert ledger.view.job(later).state is State.SENDING


CLINICAL = ("clinical", Priority.ROUTINE, "spool")
OTHER_ROUTE = ("research", Priority.ROUTINE, "spool")
ARCHIVE = ("clinical", Priority.ARCHIVE, "old-disk")
OTHER_ARCHIVE = ("research", Priority.ARCHIVE, "old-disk")


def submit_of(
    ledger: Ledger,
    revision: int,
    line: tuple[str, Priority, str],
    to: str = "archive",
    study: str = "1.2",
) -> int:
    route, priority, source = line
    return ledger.jobs.submit(
        JobRequest(SERIES, revision, route, "m", (to,), priority, source, study)
    )


@pytest.mark.parametrize(
    ("first", "second", "is_superseded"),
    [
        (CLINICAL, ARCHIVE, False),
        (CLINICAL, OTHER_ARCHIVE, False),
        (ARCHIVE, CLINICAL, False),
        (ARCHIVE, OTHER_ARCHIVE, False),
        (CLINICAL, OTHER_ROUTE, False),
        (CLINICAL, CLINICAL, True),
        (ARCHIVE, ARCHIVE, True),
    ],
)
def test_a_later_result_takes_the_place_of_earlier_ones_of_its_own_line_only(
    ledger, first, second, is_superseded
):
    job = submit_of(ledger, 1, first)
    complete(ledger, ledger.jobs.claim("w", 60))
    submit_of(ledger, 2, second, "elsewhere")
    complete(ledger, ledger.jobs.claim("w", 60))

    view = ledger.view.job(job)
    assert (view.state is State.SUPERSEDED) == is_superseded
    assert (ledger.outbox.claim("s", 60, ["archive"]) is None) == is_superseded


def test_a_clinical_job_that_waits_for_another_try_outlives_an_archive_result(ledger, clock):
    job = submit_of(ledger, 1, CLINICAL)
    policy = RetryPolicy(10, 10, 5)
    ledger.jobs.retry(ledger.jobs.claim("w", 60), Reason.OOM_GPU, "", policy)
    submit_of(ledger, 2, ARCHIVE)
    complete(ledger, ledger.jobs.claim("w", 60))
    clock.pass_s(11)
    assert ledger.jobs.claim("w", 60).job_id == job


def test_a_clinical_job_does_not_wait_for_what_is_sent_of_an_archive(ledger):
    submit_of(ledger, 1, ARCHIVE)
    complete(ledger, ledger.jobs.claim("w", 60))
    ledger.outbox.claim("s", 60)
    job = submit_of(ledger, 2, CLINICAL)
    assert ledger.jobs.claim("w", 60).job_id == job


@pytest.mark.parametrize(
    ("line", "first", "second", "is_superseded"),
    [
        (ARCHIVE, "1.8", "1.9", False),
        (ARCHIVE, "", "1.9", False),
        (ARCHIVE, "1.8", "", False),
        (ARCHIVE, "", "", True),
        (ARCHIVE, "1.8", "1.8", True),
        (CLINICAL, "", "1.9", True),
    ],
)
def test_an_archives_result_takes_the_place_of_those_of_its_own_study_only(
    ledger, line, first, second, is_superseded
):
    job = submit_of(ledger, 1, line, study=first)
    result = complete(ledger, ledger.jobs.claim("w", 60))
    sending = ledger.outbox.claim("s", 60)
    submit_of(ledger, 2, line, "elsewhere", study=second)
    later = None if is_superseded else ledger.jobs.claim("w", 60)
    ledger.outbox.sent(sending, result)
    later = later or ledger.jobs.claim("w", 60)
    complete(ledger, later)

    assert later.predecessors == ((result,) if is_superseded else ())
    assert (ledger.view.job(job).state is State.SUPERSEDED) == is_superseded
    repeated = RepeatOutcome.NOTHING_SENT if is_superseded else RepeatOutcome.REPEATED
    assert ledger.steering.repeat_job(job) is repeated
