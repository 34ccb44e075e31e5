"""Whose result an outcome names: that of its own lease, and no other's."""

from __future__ import annotations

from dataclasses import asdict

import psycopg
import pytest
from psycopg.types.json import Jsonb
from queue_bench import LEASE_S, request_of

from inference.reasons import Reason
from pacs_bridge.queue import ResultFile, State


def name_instead(site, job_id: int, result: ResultFile) -> None:
    """Let the outcome of a job name another file, with its own digest."""
    outcome = Jsonb({"results": [asdict(result)], "findings": []})
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(
            "UPDATE pacs_bridge_jobs SET outcome = %s WHERE id = %s", (outcome, job_id)
        )


def is_refused(site, job_id: int) -> bool:
    view = site.job(job_id)
    return (view.state, view.reason) == (State.DEAD, Reason.BAD_PAYLOAD)


def test_the_result_of_another_patient_is_not_sent_under_this_job(site):
    for n in range(2):
        site.ledger.jobs.submit(request_of(f"1.{n}"))
    site.dispatcher.step()
    other, claim = (site.bench.queue.claim("w", LEASE_S) for _ in range(2))
    foreign = site.result(other)
    site.bench.queue.complete(other, [foreign], [])
    site.complete(claim)
    name_instead(site, claim.job_id, foreign)
    site.dispatcher.step()

    assert is_refused(site, claim.job_id)
    assert site.job(other.job_id).state is State.SENDING
    assert site.ledger.outbox.claim("s", LEASE_S).job_id == other.job_id
    assert site.ledger.outbox.claim("s", LEASE_S) is None


@pytest.mark.parametrize("folder", ["", "results/", "spool/", "results/{own}/deeper/"])
def test_a_file_that_is_no_result_of_the_lease_is_not_sent(site, folder):
    site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", LEASE_S)
    result = site.result(claim)
    own = result.path.split("/", 1)[1].rsplit("/", 1)[0]
    path = folder.format(own=own) + "b.dcm"
    (site.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (site.folder / path).write_bytes((site.folder / result.path).read_bytes())
    site.bench.queue.complete(claim, [result], [])
    name_instead(site, claim.job_id, ResultFile(**asdict(result) | {"path": path}))
    site.dispatcher.step()

    assert is_refused(site, claim.job_id)


def test_what_an_earlier_lease_left_is_no_result_of_a_later_one(site):
    site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    left = site.result(site.bench.queue.claim("w", LEASE_S))
    site.bench.clock.pass_s(LEASE_S + 1)
    claim = site.work_one()
    name_instead(site, claim.job_id, left)
    site.dispatcher.step()

    assert is_refused(site, claim.job_id)
