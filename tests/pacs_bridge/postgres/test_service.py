"""The dispatcher as a process: what it holds stays its own while a share hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from postgres_peer import PostgresPeer
from queue_bench import QUEUE_NAME, request_of, result_of

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.server import Server
from pacs_bridge.postgres.ticket import identity
from pacs_bridge.queue import JobClaim
from pacs_bridge.worker_job import folder_of

LEASE_S = 1.0


def test_no_other_worker_gets_what_is_handed_over_while_the_share_hangs(
    make_config: Callable[..., BridgeConfig],
    postgres: PostgresPeer,
    wait_for: Callable[..., object],
    tmp_path: Path,
) -> None:
    url = postgres.new_database()
    config = make_config(
        queue=f"{{ url = {json.dumps(url)} }}",
        workers=f"{{ lease_s = {LEASE_S} }}",
        sources='[{ name = "pacs", kind = "dicomweb", url = "http://127.0.0.1:1" }]',
    )
    ledger = Ledger.open(config.ledger_path)
    jobs = {ledger.jobs.submit(request_of(f"1.{n}", source="pacs")) for n in range(2)}
    command = [sys.executable, "-m", "pacs_bridge", "dispatch", "--config"]
    with (tmp_path / "log").open("wb") as log:
        dispatcher = subprocess.Popen(
            [*command, str(config.data_folder.parent / "bridge.toml")], stderr=log
        )
    queue = PostgresQueue(Server(url), QUEUE_NAME, lambda: identity(config.data_folder))
    writers: list[int] = []
    try:
        claim = _claimed(queue, wait_for)
        assert claim.job_id in jobs
        pipe = config.results_folder / folder_of(claim.job_id, claim.fence) / "a.dcm"
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)  # whoever reads it waits, as at a share that hangs
        path = pipe.relative_to(config.data_folder).as_posix()
        queue.complete(claim, [replace(result_of(), path=path)], [])
        wait_for(lambda: _opened(pipe, writers))
        deadline_s = time.monotonic() + 3 * LEASE_S
        while time.monotonic() < deadline_s:
            assert ledger.jobs.claim("local", 60.0) is None
            time.sleep(0.05)
    finally:
        for each in writers:
            os.close(each)
        dispatcher.terminate()
        assert dispatcher.wait(60) == 0
        queue.close()
        ledger.close()


def _claimed(queue: PostgresQueue, wait_for: Callable[..., object]) -> JobClaim:
    claims: list[JobClaim] = []

    def claim() -> bool:
        with suppress(TransientError):  # until the dispatcher has made the queue
            found = queue.claim("w", 60.0)
            claims.extend([found] if found is not None else [])
        return bool(claims)

    wait_for(claim)
    return claims[0]


def _opened(pipe: Path, writers: list[int]) -> bool:
    """Open the writing end of a pipe, if somebody has opened the other one."""
    with suppress(OSError):
        writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return bool(writers)
