"""Jobs of archives beside those of what was received."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.archive_jobs import ArchiveJobs, KnownJob
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, LeaseLostError, Priority, ResultFile, State
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
    known = [KnownJob(job, "1.2", 1), KnownJob(4711, "1.2", 1)]
    (standing,) = ArchiveJobs(ledger.database).standings(known).values()
    assert (standing.state, standing.reason) == (State.SKIPPED, Reason.EMPTY_RESULT)
    assert (standing.detail, standing.source, standing.result_path) == ("nothing", "old", "")


def test_an_id_is_not_believed_with_another_series_or_revision(ledger):
    job = submit(ledger, "1.2")
    jobs = ArchiveJobs(ledger.database)
    assert jobs.standings([KnownJob(job, "1.3", 1), KnownJob(job, "1.2", 2)]) == {}


def test_a_ledger_keeps_what_tells_it_from_all_others(ledger, ram_folder, clock):
    other = Ledger.open(ram_folder / "other.sqlite", clock)
    again = Ledger.open(ram_folder / "ledger.sqlite", clock)
    ids = [ArchiveJobs(each.database).ledger_id() for each in (ledger, other, again)]
    assert ids[0] == ids[2] != ids[1]
    assert "" not in ids


def test_a_job_of_a_received_series_is_never_taken_back(ledger):
    job = ledger.jobs.submit(JobRequest("1.2", 1, "r", "m", (), Priority.STAT))
    jobs = ArchiveJobs(ledger.database)
    assert not jobs.withdraw("1.2", 1)
    assert not jobs.give_up("1.2", 1, Reason.SOURCE_UNREACHABLE, "")
    assert jobs.withdraw_all() == 0
    assert ledger.view.job(job).state is State.READY


def test_only_what_nobody_has_in_hand_is_taken_back(ledger):
    held, free = submit(ledger, "1.1"), submit(ledger, "1.2")
    claim = ledger.jobs.claim("w", 60)
    jobs = ArchiveJobs(ledger.database)
    assert (claim.job_id, jobs.withdraw("1.1", 1), jobs.withdraw_all()) == (held, False, 1)
    standings = jobs.standings([KnownJob(held, "1.1", 1), KnownJob(free, "1.2", 1)])
    assert [standings[each].is_withdrawn for each in (held, free)] == [False, True]
    assert ledger.jobs.claim("w", 60) is None


def test_what_is_given_up_is_dead_with_its_reason(ledger):
    job = submit(ledger, "1.2")
    jobs = ArchiveJobs(ledger.database)
    assert jobs.give_up("1.2", 1, Reason.SOURCE_UNREACHABLE, "others came")
    view = ledger.view.job(job)
    assert (view.state, view.reason) == (State.DEAD, Reason.SOURCE_UNREACHABLE)


def send(ledger: Ledger, request: JobRequest) -> tuple[ResultFile, ...]:
    """A job of a series, with its result sent; gives what it was to replace."""
    ledger.jobs.submit(request)
    claim = ledger.jobs.claim("w", 60)
    uid = f"2.25.{request.revision}"
    result = ResultFile(0, "binary", f"results/{uid}", "1.2", uid, "3", "4", "a" * 64, 1)
    ledger.jobs.complete(claim, (result,), ())
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    return claim.predecessors


def test_an_archives_result_and_a_received_ones_do_not_say_that_they_replace_each_other(ledger):
    def received(revision: int) -> JobRequest:
        return JobRequest("1.2", revision, "r", "m", ("pacs",))

    def archived(revision: int) -> JobRequest:
        return JobRequest("1.2", revision, "r", "m", ("pacs",), Priority.ARCHIVE, "old")

    replaced = [
        [each.sop_instance_uid for each in send(ledger, request)]
        for request in (received(1), archived(2), received(3), archived(4))
    ]
    assert replaced == [[], [], ["2.25.1"], ["2.25.2"]]


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


def test_a_job_that_was_alone_in_hand_is_not_given_up_where_it_is_known_not_to_blame(ledger):
    job = submit(ledger, "1.2")
    for _ in range(5):
        assert ledger.jobs.claim("w", 60) is not None
        assert ArchiveJobs(ledger.database).take_back(may_blame=False) == 1
    assert ledger.view.job(job).state is State.READY


def test_what_was_taken_back_is_refused_to_who_had_it(ledger):
    submit(ledger, "1.1")
    submit(ledger, "1.2")
    claims = [ledger.jobs.claim("w", 60) for _ in range(2)]
    ArchiveJobs(ledger.database).take_back()
    policy = RetryPolicy(1, 1, 1)
    for claim in claims:
        with pytest.raises(LeaseLostError):
            ledger.jobs.retry(claim, Reason.TIMEOUT, "", policy)
