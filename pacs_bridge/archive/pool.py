"""Processes that read headers for a plan."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection


def _begin(planner: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the planner ends them
    threading.Thread(target=_end_with, args=(planner,), daemon=True).start()


def _end_with(planner: Connection) -> None:
    """End this process when the planner is gone, however it ended: its end of the pipe is shut."""
    planner.poll(None)
    os._exit(1)


@contextmanager
def header_readers(count: int | None = None) -> Iterator[Executor]:
    """So many processes; by default one for each processor that this process may use."""
    wanted = count or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pacs_bridge.archive.reading", "pacs_bridge.archive.examining"])
    planner, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(wanted, mp_context=context, initializer=_begin, initargs=(planner,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        ours.close()
        planner.close()
