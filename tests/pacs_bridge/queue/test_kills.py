"""Workers that are killed at random moments: every job ends once, as it should.

``make kills`` runs the same for longer.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from queue_bench import QueueBench, request_of
from stub_worker import Stubs, StubWork, destiny

from pacs_bridge.queue import State

#: Jobs of a run; `make kills` takes more.
JOBS = int(os.environ.get("PACS_BRIDGE_KILL_JOBS", "60"))
WORKERS = 3
LEASE_S = 0.5
WORK_S = 0.03
KILL_EVERY_S = 0.05
LIMIT_S = 60.0 + JOBS
FINAL = (State.SENDING, State.SKIPPED, State.DEAD)


@pytest.mark.timeout(600 + 3 * JOBS)
def test_every_job_ends_once_and_rightly_whenever_workers_are_killed(
    bench: QueueBench, tmp_path: Path
) -> None:
    jobs = {bench.queue.submit(request_of(f"1.2.{n}")): f"1.2.{n}" for n in range(JOBS)}
    rng = random.Random(20261122)
    open_jobs = set(jobs)
    stubs = Stubs(bench.opener(), tmp_path, WORKERS, StubWork(LEASE_S, WORK_S))
    try:
        deadline_s = time.monotonic() + LIMIT_S
        while open_jobs:
            assert time.monotonic() < deadline_s, {job: bench.state(job) for job in open_jobs}
            time.sleep(rng.uniform(0, 2 * KILL_EVERY_S))
            stubs.kill_one(rng)
            open_jobs = {job for job in open_jobs if bench.state(job) not in FINAL}
    finally:
        stubs.end()

    assert stubs.kills > 3
    assert {job: bench.state(job) for job in jobs} == {
        job: destiny(series)[0] for job, series in jobs.items()
    }
    assert stubs.ended_twice() == []
    assert bench.queue.claim("afterwards", LEASE_S) is None


def test_a_worker_that_hangs_loses_its_job_and_is_refused_when_it_comes_back(
    bench: QueueBench, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    job_id = bench.queue.submit(request_of("1.2.0"))
    work = StubWork(lease_s=1.0, seconds=0.3, is_even=True)
    folders = [tmp_path / "hung", tmp_path / "well"]
    for folder in folders:
        folder.mkdir()
    hung = Stubs(bench.opener(), folders[0], 1, work)
    try:
        wait_for(hung.events)
        hung.signal(0, signal.SIGSTOP)
        well = Stubs(bench.opener(), folders[1], 1, work)
        try:
            wait_for(lambda: bench.state(job_id) in FINAL)
        finally:
            well.end()
        other = bench.queue.submit(request_of("1.2.1"))
        hung.signal(0, signal.SIGCONT)
        wait_for(lambda: bench.state(other) in FINAL)
    finally:
        hung.end()

    assert bench.state(job_id) is destiny("1.2.0")[0]
    assert [(each.what, each.job_id) for each in well.events()] == [
        ("claimed", job_id),
        ("ended", job_id),
    ]
    assert [(each.what, each.job_id) for each in hung.events()][:2] == [
        ("claimed", job_id),
        ("claimed", other),
    ]
