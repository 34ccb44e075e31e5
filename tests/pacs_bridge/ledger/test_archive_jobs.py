"""Jobs of archives beside those of what was received."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.archive_jobs import ArchiveJobs
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, LeaseLostError, Priority, State
from pacs_bridge.retry_policy import RetryPolicy


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


def submit(ledger: Ledger, series: str, revision: int = 1) -> int:
    return ledger.jobs.submit(
        JobRequest(series, revision, "r", "m", (), Priority.ARCHIVE, source="old")
    )


def test_the_next_revision_is_one_that_nothing_of_the_series_has(ledger):
    jobs = ArchiveJobs(ledger.database)
    assert jobs.next_revision("1.2") == 1
    submit(ledger, "1.2", 3)
    assert jobs.next_revision("1.2") == 4


def test_how_a_job_stands_is_told_with_where_it_came_from(ledger):
    job = submit(ledger, "1.2")
    ledger.jobs.skip(ledger.jobs.claim("w", 60), Reason.EMPTY_RESULT, "nothing")
    standing = ArchiveJobs(ledger.database).standings([job, 4711])[job]
    assert (standing.state, standing.reason) == (State.SKIPPED, Reason.EMPTY_RESULT)
    assert (standing.detail, standing.source, standing.result_path) == ("nothing", "old", "")


def test_of_several_jobs_in_hand_none_is_to_blame_and_each_goes_on_alone(ledger):
    for number in range(3):
        submit(ledger, f"1.{number}")
    jobs = ArchiveJobs(ledger.database)
    for _ in range(5):
        claims = [ledger.jobs.claim("w", 60) for _ in range(3)]
        assert None not in claims
        assert jobs.take_back() == 3
    assert ledger.jobs.claim("w", 60).attempt == 6  # not its first: the pipeline lets it go alone


def test_a_job_that_was_alone_in_hand_each_time_is_given_up(ledger):
    job = submit(ledger, "1.2")
    jobs = ArchiveJobs(ledger.database)
    while ledger.jobs.claim("w", 60) is not None:
        jobs.take_back()
    assert ledger.view.job(job).state is State.DEAD
    assert ledger.view.job(job).attempts == 3


def test_what_was_taken_back_is_refused_to_who_had_it(ledger):
    submit(ledger, "1.1")
    submit(ledger, "1.2")
    claims = [ledger.jobs.claim("w", 60) for _ in range(2)]
    ArchiveJobs(ledger.database).take_back()
    policy = RetryPolicy(1, 1, 1)
    for claim in claims:
        with pytest.raises(LeaseLostError):
            ledger.jobs.retry(claim, Reason.TIMEOUT, "", policy)
