"""When an archive run may begin series, and how many."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final

_BETWEEN: Final = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(h|min|d)")
_UNIT_S: Final = {"min": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The hours of each day in which series may be begun, as the clock on the wall shows them.

    It is asked again and again and never waits for a moment that was computed before: where the
    clock is put forward or back, the window opens and closes by what it shows.
    """

    begins: time
    ends: time  #: earlier than ``begins``: on the next day; equal: all day

    @classmethod
    def parse(cls, text: str) -> TimeWindow:
        """From ``19:00-06:00``.

        Raises
        ------
        ValueError
            If it is not made like that.
        """
        found = _BETWEEN.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not made like 19:00-06:00")
        hours = [int(number) for number in found.groups()]
        return cls(time(hours[0], hours[1]), time(hours[2], hours[3]))

    def is_open(self, local: datetime) -> bool:
        """Whether series may be begun at this local time."""
        now = local.time()
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        if self.begins > self.ends:
            return now >= self.begins or now < self.ends
        return True

    def __str__(self) -> str:
        return f"{self.begins:%H:%M}-{self.ends:%H:%M}"


@dataclass(frozen=True, slots=True)
class Rate:
    """How many series may be begun in a time, evenly spread."""

    interval_s: float  #: between the beginnings of two series

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From ``60/h``, ``2/min`` or ``500/d``.

        Raises
        ------
        ValueError
            If it is not made like that, or is zero.
        """
        found = _RATE.fullmatch(text.replace(" ", ""))
        if found is None or not float(found[1]):
            raise ValueError(f"{text!r} is not made like 60/h, 2/min or 500/d")
        return cls(_UNIT_S[found[2]] / float(found[1]))

    def wait_s(self, last: datetime | None, now: datetime) -> float:
        """Seconds until the next series may be begun.

        A beginning that lies in the future is one of a clock that was put back since: it counts
        as now.
        """
        if last is None:
            return 0.0
        since = now - min(last, now)
        return max(0.0, (timedelta(seconds=self.interval_s) - since).total_seconds())


@dataclass(frozen=True, slots=True)
class Pace:
    """When series may be begun, and how many."""

    window: TimeWindow | None = None
    rate: Rate | None = None
