"""The process that does the work of a run, started again where it dies.

What hangs in native code, or crashes in it, ends its process, and no run: the job is known by its
lease, or was parked when its time was up, and the next process goes on with the others.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final, Protocol

from inference.engine.heap import keep_heap
from pacs_bridge.time_limit import EX_SOFTWARE

#: Deaths without an end of a series in between: a job is given up after three that it is blamed
#: for, and before them it may have been one of several that were in hand.
_MOST_DEATHS: Final = 6
_LOOK_S: Final = 0.2
_PATIENCE_S: Final = 10.0
_STOP: Final = b"stop"
_LEAVE: Final = b"leave"
_PR_SET_PDEATHSIG: Final = 1
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Leaving:
    """How a run is told to end."""

    stop: threading.Event  #: begin nothing more, finish what is in hand
    leave: threading.Event  #: give back what is in hand


class Work(Protocol):
    """What the process does; it is pickled."""

    def __call__(self, leaving: Leaving, /) -> int:
        """Work until all is done or the run is told to end; gives the exit status.

        ``EX_SOFTWARE``: another process may go on.
        """
        ...


class WorkDiedError(Exception):
    """The process died again and again, and no series ended in between."""


def keep_working(
    work: Work,
    leaving: Leaving,
    open_series: Callable[[], int],
    tell_death: Callable[[int], None],
    tell_stop: Callable[[], None] = lambda: None,
    patience_s: float = _PATIENCE_S,
) -> int:
    """Have the work done in a process, and in another one if that dies; gives its exit status.

    It dies with this one, however that ends. For the main thread.

    Parameters
    ----------
    work
        To be done.
    leaving
        Told to this process; it is passed on.
    open_series
        How many series are not over.
    tell_death
        Told the exit status of one that died; negative: the signal that ended it.
    tell_stop
        Called when a process was told to end: what it had in hand may be lost with it.
    patience_s
        How long it may take to leave; then it is killed.

    Returns
    -------
    int
        Of ``work``; 0 if it died, or was killed, when it had been told to end.

    Raises
    ------
    WorkDiedError
        If it cannot be kept alive.
    """
    deaths, left = 0, open_series()
    while True:
        status = _WorkProcess(work).wait(leaving, tell_stop, patience_s)
        if status >= 0 and status != EX_SOFTWARE:
            return status
        if leaving.stop.is_set():
            return 0
        tell_death(status)
        before, left = left, open_series()
        deaths = 1 if left < before else deaths + 1
        if deaths >= _MOST_DEATHS:
            raise WorkDiedError(f"status {status}, {deaths} times in a row")


class _WorkProcess:
    """One process; signals that tell to end reach it through the other one alone."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        theirs, self._words = context.Pipe(duplex=False)
        self._process: SpawnProcess = context.Process(
            target=_begin, args=(work, theirs, os.getpid()), name="work"
        )
        resource_tracker.ensure_running()  # whose start, within that of a process, unblocks both
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # it is inherited
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def wait(self, leaving: Leaving, tell_stop: Callable[[], None], patience_s: float) -> int:
        """Pass on what is told; gives the exit status."""
        is_stopping, kill_at_s = False, math.inf
        try:
            while self._process.exitcode is None:
                if leaving.stop.is_set() and not is_stopping:
                    is_stopping = True
                    self._say(_STOP)
                    tell_stop()
                if leaving.leave.is_set() and kill_at_s == math.inf:
                    kill_at_s = time.monotonic() + patience_s
                    self._say(_LEAVE)
                if time.monotonic() >= kill_at_s:
                    self._process.kill()
                self._process.join(_LOOK_S)
            return self._process.exitcode
        finally:
            self._words.close()
            self._process.kill()  # where an error ends this one
            self._process.join()

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # it is gone
            self._words.send_bytes(word)


def _begin(work: Work, words: Connection, parent: int) -> None:
    """The life of the process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # prctl(2)
    if os.getppid() != parent:
        os._exit(EX_SOFTWARE)
    for number in _ENDING:  # that they are blocked may end with a process that it starts
        signal.signal(number, signal.SIG_IGN)
    keep_heap()  # not after the thread, which would have a second one made
    leaving = Leaving(threading.Event(), threading.Event())
    threading.Thread(target=_listen, args=(words, leaving), name="words", daemon=True).start()
    sys.exit(work(leaving))


def _listen(words: Connection, leaving: Leaving) -> None:
    with suppress(EOFError, OSError):
        while True:
            if words.recv_bytes() == _LEAVE:
                leaving.leave.set()
            leaving.stop.set()
