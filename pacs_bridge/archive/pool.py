"""Processes that read headers for a plan."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the planner ends them
    # prctl(2): the process that forks them goes with the planner, however that one ends
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def header_readers(count: int | None = None) -> Iterator[Executor]:
    """So many processes; by default one for each processor that this process may use."""
    wanted = count or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pacs_bridge.archive.reading", "pacs_bridge.archive.examining"])
    pool = ProcessPoolExecutor(wanted, mp_context=context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
