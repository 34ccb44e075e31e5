"""How long each stage of a series takes, and how much memory the whole of it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

#: Told the stage that runs and how much of it is done, 0..1.
ProgressReport = Callable[["Stage", float], None]

_KIB = 1024


class Stage(StrEnum):
    """The stages of one series, in their order."""

    FETCH = "fetch"
    EXAMINE = "examine"
    READ = "read"
    SEGMENT = "segment"
    CHECK = "check"
    ENCODE = "encode"
    VERIFY = "verify"


def no_progress(_stage: Stage, _fraction: float) -> None:
    """Report progress to nobody."""


class Stopwatch:
    """Adds up seconds by stage and tells the peak memory since it was made.

    Parameters
    ----------
    progress
        Told 0 when a stage begins and 1 when it ends well.
    monotonic
        The clock, seconds; passed in by tests.
    """

    def __init__(
        self,
        progress: ProgressReport = no_progress,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._monotonic = monotonic
        self._seconds: dict[Stage, float] = {}
        self._peak_is_own = _reset_peak_memory()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[Callable[[float], None]]:
        """Time the body; gives a callable that reports the fraction done within the stage."""
        self._progress(stage, 0.0)
        start = self._monotonic()
        try:
            yield lambda fraction: self._progress(stage, fraction)
        finally:
            elapsed = self._monotonic() - start
            self._seconds[stage] = self._seconds.get(stage, 0.0) + elapsed
        self._progress(stage, 1.0)

    def seconds(self) -> dict[Stage, float]:
        """Seconds of every stage that ran, in the order of ``Stage``."""
        return {stage: round(self._seconds[stage], 3) for stage in Stage if stage in self._seconds}

    def peak_memory_bytes(self) -> int:
        """Highest resident memory of this process since the stopwatch was made.

        Where the kernel does not let the high-water mark be reset, since the process began. A
        worker that overlaps jobs has several series in that memory, and resets it with each.
        """
        if self._peak_is_own:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * _KIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _reset_peak_memory() -> bool:
    """Start the high-water mark anew (proc(5), ``/proc/pid/clear_refs`` value 5)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
