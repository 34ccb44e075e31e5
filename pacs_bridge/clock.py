"""The clock that is passed to whatever waits or stamps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Time of day for people, and steady seconds for waiting.

    Time of day may step, by NTP or by an operator; nothing waits by it. Steady seconds never
    step and are the same in every process of the machine, until it boots again.
    """

    def now(self) -> datetime:
        """Time of day, UTC."""
        ...

    def steady_s(self) -> float:
        """Seconds since the machine booted, without those in which it slept.

        All that waits on a machine sleeps with it: in that time no worker can be heard of.
        """
        ...

    def boot_id(self) -> str:
        """What tells this boot from every other: steady seconds of another mean nothing."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Time of day, UTC."""
        return datetime.now(UTC)

    def steady_s(self) -> float:
        """Seconds since the machine booted (``CLOCK_MONOTONIC``, clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def boot_id(self) -> str:
        """The kernel's random id of this boot (random(4)), and that its sleep is not counted."""
        return f"{_BOOT_ID.read_text(encoding='ascii').strip()} awake"
