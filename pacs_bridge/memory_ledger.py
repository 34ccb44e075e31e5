"""Main memory among jobs that overlap in one process: who is let in to take how much.

What a look at free memory shows is what was taken, not what those who were let in before will
take. Here each job says what it will take before it takes it, and waits where it does not fit
beside what others will:

- the next volume is decoded when the network of the one before it was let in, and only where it
  fits beside all that this network may take; else when that network is done;
- the network is let in where it fits; else when what is being written is written, and then on
  its own: whoever asks then finds whether it fits at all, and in which way. Nobody is let in to
  read before that is known: the CPU in place of a full card takes more than was asked for.

So a job that is alone is never kept, and none waits for one that waits for it: decoding waits
for networks, networks for writing, and writing for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

from inference.engine.memory import available_bytes, free_bytes

_LOOK_INTERVAL_S = 0.5

#: Waits until what it is given says that the job is let in; may raise to end the wait.
Wait = Callable[[Callable[[], bool]], None]


class _Phase(Enum):
    READING = auto()  #: its volume is being decoded, or waits for the network
    FITTING = auto()  #: its network was let in, and how it runs is being settled
    COMPUTING = auto()
    WRITING = auto()


@dataclass(slots=True)
class _Part:
    """What one job is at, and the bytes that it may still take for it."""

    phase: _Phase
    volume_bytes: int
    promised_bytes: int


class MemoryLedger:
    """What the jobs of one process are about to take.

    Parameters
    ----------
    available
        Tells the main memory that can be had, bytes; None: not known.
    look_interval_s
        Between two looks of a job that waits.
    """

    def __init__(
        self,
        available: Callable[[], int | None] = available_bytes,
        look_interval_s: float = _LOOK_INTERVAL_S,
    ) -> None:
        self._available = available
        self._look_interval_s = look_interval_s
        self._changed = threading.Condition()
        self._parts: dict[MemoryShare, _Part] = {}

    def may_read(self, share: MemoryShare, volume_bytes: int) -> bool:
        """Let a job in to decode its volume; False, after a while, if it has to wait."""
        with self._changed:
            others = self._others(share)
            is_kept = any(part.phase in (_Phase.READING, _Phase.FITTING) for part in others)
            if is_kept or (others and not self._fits(volume_bytes, others, self._available())):
                self._changed.wait(self._look_interval_s)
                return False
            self._parts[share] = _Part(_Phase.READING, volume_bytes, volume_bytes)
            return True

    def note_read(self, share: MemoryShare) -> None:
        """A volume is in memory."""
        with self._changed:
            self._parts[share].promised_bytes = 0

    def may_compute(self, share: MemoryShare, wanted_bytes: int) -> bool:
        """Let the network of a job in; False, after a while, if it has to wait."""
        with self._changed:
            others = self._others(share)
            promised = sum(part.promised_bytes for part in others)
            free = free_bytes(wanted_bytes + promised, self._available)
            is_short = not self._fits(wanted_bytes, others, free)
            if is_short and any(part.phase is _Phase.WRITING for part in others):
                self._changed.wait(self._look_interval_s)
                return False
            volume_bytes = self._parts[share].volume_bytes if share in self._parts else 0
            self._parts[share] = _Part(_Phase.FITTING, volume_bytes, wanted_bytes)
            return True

    def note_fitted(self, share: MemoryShare, wanted_bytes: int) -> None:
        """How the network of a job runs is settled, and with it what it takes."""
        with self._changed:
            part = self._parts[share]
            part.phase, part.promised_bytes = _Phase.COMPUTING, wanted_bytes
            self._changed.notify_all()

    def note_computed(self, share: MemoryShare) -> None:
        """The network of a job is done, or has failed; to check and to write takes little."""
        with self._changed:
            part = self._parts[share]
            part.phase, part.promised_bytes = _Phase.WRITING, part.volume_bytes // 2
            self._changed.notify_all()

    def leave(self, share: MemoryShare) -> None:
        """A job is done with a stack, however it ended."""
        with self._changed:
            self._parts.pop(share, None)
            self._changed.notify_all()

    def promised_beside(self, share: MemoryShare) -> int:
        """Bytes that other jobs may still take."""
        with self._changed:
            return sum(part.promised_bytes for part in self._others(share))

    def _others(self, share: MemoryShare) -> list[_Part]:
        return [part for other, part in self._parts.items() if other is not share]

    @staticmethod
    def _fits(wanted_bytes: int, others: list[_Part], free: int | None) -> bool:
        promised = sum(part.promised_bytes for part in others)
        return free is None or wanted_bytes + promised <= free


def _wait(is_let_in: Callable[[], bool]) -> None:
    while not is_let_in():
        pass


class MemoryShare:
    """The part of one job in a ledger, for one thread.

    Parameters
    ----------
    ledger
        Shared with the other jobs of the process; None: there are none.
    wait
        How the job waits.
    monotonic
        The clock, seconds.
    """

    def __init__(
        self,
        ledger: MemoryLedger | None = None,
        wait: Wait = _wait,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger or MemoryLedger()
        self._wait = wait
        self._monotonic = monotonic
        self._waited_s = 0.0

    def working_s(self) -> float:
        """A clock that stands still while the job waits to be let in, seconds."""
        return self._monotonic() - self._waited_s

    @contextmanager
    def stack(self) -> Iterator[None]:
        """The whole work on one stack: what it was let in for ends with the body."""
        try:
            yield
        finally:
            self._ledger.leave(self)

    @contextmanager
    def reading(self, volume_bytes: int) -> Iterator[None]:
        """Wait until a volume may be decoded; it is in memory when the body ends well."""
        self._enter(lambda: self._ledger.may_read(self, volume_bytes))
        yield
        self._ledger.note_read(self)

    @contextmanager
    def computing(self, wanted_bytes: int) -> Iterator[int]:
        """Wait until the network may take its memory; gives what others may still take, bytes.

        No other volume is read before ``fitted`` is called, or the body has ended.
        """
        self._enter(lambda: self._ledger.may_compute(self, wanted_bytes))
        try:
            yield self._ledger.promised_beside(self)
        finally:
            self._ledger.note_computed(self)

    def fitted(self, wanted_bytes: int) -> None:
        """Say what the network that was let in takes, now that it is known how it runs."""
        self._ledger.note_fitted(self, wanted_bytes)

    def _enter(self, is_let_in: Callable[[], bool]) -> None:
        begun_s = self._monotonic()
        try:
            self._wait(is_let_in)
        finally:
            self._waited_s += self._monotonic() - begun_s
