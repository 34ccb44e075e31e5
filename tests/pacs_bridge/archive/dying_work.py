"""Work for processes that die, for tests that look at who starts them again."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.cli import archive_own
from pacs_bridge.cli.archive_own import OwnOrder
from pacs_bridge.time_limit import EX_SOFTWARE


def _begun(notes: Path) -> int:
    """Note a beginning; gives how many there were."""
    with notes.open("ab", buffering=0) as file:
        file.write(b"x")
    return notes.stat().st_size


def crash_twice(notes: Path, _leaving: Leaving) -> int:
    """Hang, crash, and then be done."""
    number = _begun(notes)
    if number == 1:
        os._exit(EX_SOFTWARE)
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def crash(notes: Path, _leaving: Leaving) -> int:
    """Crash each time."""
    _begun(notes)
    os._exit(EX_SOFTWARE)


def refuse(notes: Path, _leaving: Leaving) -> int:
    """Say that the call is wrong."""
    _begun(notes)
    return 2


def wait_for_the_word(notes: Path, leaving: Leaving) -> int:
    """End when told to, in the way that is told."""
    _begun(notes)
    leaving.stop.wait()
    return 3 if leaving.leave.wait(0.5) else 4


def hang(notes: Path, _leaving: Leaving) -> int:
    """Hang, and say again and again which process does."""
    while True:
        with notes.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.02)


def die_when_the_model_loads(better: Path, store: Path, order: OwnOrder, leaving: Leaving) -> int:
    """Die the first time, when a better model has come into the store; then do the work."""
    if not better.exists():
        return archive_own.work(order, leaving)
    better.rename(store / better.name)
    with patch("pacs_bridge.archive.running.warm_segmenters", lambda *_: os._exit(EX_SOFTWARE)):
        return archive_own.work(order, leaving)


def compute_on_threads(notes: Path, _leaving: Leaving) -> int:
    """Take and return blocks like those of windows, twice a job; note the pages that came new."""
    for _ in range(2):
        job = threading.Thread(target=_two_windows, args=(notes,))
        job.start()
        job.join()
    return 0


def _two_windows(notes: Path) -> None:
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [np.ones(110_000_000, dtype=np.uint8) for _ in range(2)]
        del blocks
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        with notes.open("a") as file:
            file.write(f"{faults}\n")
