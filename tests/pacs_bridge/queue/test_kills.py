"""Workers that are killed at random moments: every job ends once, as it should.

``make kills`` runs the same for longer.
"""

from __future__ import annotations

import math
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
#: A worker is killed after the submission of so many jobs, at a moment in which they are worked on.
JOBS_A_KILL = 6
KILLED_WITHIN_S = 0.06
LIMIT_S = 60.0 + JOBS
FINAL = (State.SENDING, State.SKIPPED, State.DEAD)


@pytest.mark.timeout(600 + 3 * JOBS)
def test_every_job_ends_once_and_rightly_whenever_workers_are_killed(
    bench: QueueBench, tmp_path: Path
) -> None:
    jobs: dict[int, str] = {}
    rng = random.Random(20261122)
    stubs = Stubs(bench.opener(), tmp_path, WORKERS, StubWork(LEASE_S, WORK_S))
    deadline_s = time.monotonic() + LIMIT_S

    def work_until_open(number: int) -> None:
        open_jobs = set(jobs)
        while len(open_jobs) > number:
            assert time.monotonic() < deadline_s, {job: bench.state(job) for job in open_jobs}
            time.sleep(0.01)
            open_jobs = {job for job in open_jobs if bench.state(job) not in FINAL}

    try:
        for first in range(0, JOBS, JOBS_A_KILL):
            for n in range(first, min(first + JOBS_A_KILL, JOBS)):
                jobs[bench.queue.submit(request_of(f"1.2.{n}"))] = f"1.2.{n}"
            time.sleep(rng.uniform(0, KILLED_WITHIN_S))
            stubs.kill_one(rng)
            work_until_open(WORKERS)
        work_until_open(0)
    finally:
        stubs.end()

    assert (len(jobs), stubs.kills) == (JOBS, math.ceil(JOBS / JOBS_A_KILL))
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
