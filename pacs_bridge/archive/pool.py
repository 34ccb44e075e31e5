"""Processes that read headers for a plan."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Final

_ENDING: Final = frozenset({signal.SIGTERM})


def _begin(planner: Connection, planner_id: int) -> None:
    """The planner ends its readers: who tells all of its group to end tells them, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    threading.Thread(target=_end_with, args=(planner,), daemon=True).start()
    threading.Thread(target=_end_when_told_by, args=(planner_id,), daemon=True).start()


def _end_with(planner: Connection) -> None:
    """End this process when the planner is gone, however it ended: its end of the pipe is shut."""
    planner.poll(None)
    os._exit(1)


def _end_when_told_by(planner_id: int) -> None:
    """End this process by a signal of the planner, which ends all readers when one has died."""
    while signal.sigwaitinfo(_ENDING).si_pid != planner_id:
        pass
    os._exit(1)


def _start_server() -> None:
    """The process that readers are forked from outlives what the group of the planner is told."""
    resource_tracker.ensure_running()  # whose start, within that of a process, unblocks it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # it is inherited
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def header_readers(count: int | None = None) -> Iterator[Executor]:
    """So many processes; by default one for each processor that this process may use."""
    wanted = count or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pacs_bridge.archive.reading", "pacs_bridge.archive.examining"])
    _start_server()
    planner, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        wanted, mp_context=context, initializer=_begin, initargs=(planner, os.getpid())
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        ours.close()
        planner.close()
