"""What an operator can have done again."""

from __future__ import annotations

import hashlib

import pytest

from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, ResultFile, State

SERIES = "1.2.3"


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


@pytest.fixture
def sent(ledger, ram_folder) -> tuple[int, ResultFile]:
    """A job whose result has arrived."""
    (ram_folder / "r.dcm").write_bytes(b"result")
    digest = hashlib.sha256(b"result").hexdigest()
    result = ResultFile(0, "binary", "r.dcm", "1.2", "2.25.5", "2.25.6", "1.2", digest, 6)
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", ("archive",)))
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    assert not ledger.steering.repeat_job(job_id)
    ledger.outbox.sent(ledger.outbox.claim("s", 60), result)
    return job_id, result


def test_a_result_that_was_sent_is_sent_again_without_a_new_inference(ledger, sent):
    job_id, result = sent

    assert ledger.steering.repeat_job(job_id)

    assert ledger.view.job(job_id).state is State.SENDING
    assert ledger.jobs.claim("w", 60) is None
    again = ledger.outbox.claim("s", 60)
    assert (again.candidates, again.attempt) == ((result,), 1)
    ledger.outbox.sent(again, result)
    assert ledger.view.job(job_id).state is State.SENT


def test_a_result_whose_file_was_deleted_is_made_again(ledger, sent, ram_folder):
    job_id, _ = sent
    (ram_folder / "r.dcm").unlink()

    assert ledger.steering.repeat_job(job_id)

    assert ledger.outbox.claim("s", 60) is None
    assert ledger.jobs.claim("w", 60).job_id == job_id


def test_a_result_in_whose_place_a_later_one_stands_is_not_sent_again(ledger, sent):
    job_id, _ = sent
    ledger.jobs.submit(JobRequest(SERIES, 2, "r", "m", ("archive",)))
    later = ResultFile(0, "binary", "q.dcm", "1.2", "2.25.7", "2.25.8", "1.2", "00", 1)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [later], [])

    assert not ledger.steering.repeat_job(job_id)
    assert not ledger.steering.repeat_job(99)
