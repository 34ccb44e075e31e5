"""Processes that read headers: they end with the planner and by its word, and by no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from pacs_bridge.archive.pool import header_readers

_PLANNER = """
import os, signal, sys
from pacs_bridge.archive.pool import header_readers
signal.signal(signal.SIGTERM, lambda *_: None)
with header_readers(1) as pool:
    print(pool.submit(os.getppid).result(), pool.submit(os.getpid).result(), flush=True)
    sys.stdin.readline()
    print(pool.submit(os.getpid).result(), flush=True)
    sys.stdin.readline()
    os._exit(0)
"""


def test_a_whole_group_that_is_told_to_end_leaves_that_to_the_planner() -> None:
    planner = subprocess.Popen(
        [sys.executable, "-c", _PLANNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server, reader = planner.stdout.readline().split()
    os.killpg(planner.pid, signal.SIGTERM)
    planner.stdin.write("\n")
    planner.stdin.flush()
    assert planner.stdout.readline().split() == [reader]
    planner.communicate("\n", timeout=60)
    for process in (reader, server):  # they end with the planner, however that ended
        while Path(f"/proc/{process}").exists():
            time.sleep(0.05)


def test_readers_end_when_one_of_them_has_died() -> None:
    with header_readers(2) as pool:
        list(pool.map(time.sleep, [0.3] * 2))
        server = pool.submit(os.getppid).result()
        readers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            pool.submit(time.sleep, 60).result()
    assert len(readers) == 2
    for reader in readers:
        while Path(f"/proc/{reader}").exists():
            time.sleep(0.05)
