"""Whose holders of leases are heard of: told by change, timed by whoever looks.

A heartbeat raises a number in the row of a lease. Whoever wants the jobs of the dead looks at
these numbers again and again, and times by a clock of its own, which never steps, how long each
has stood still. So no step of the server's clock, or of a worker's, ends a lease; nor does a time
in which the server could not be reached, since nobody looked then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_LOOKS_A_LEASE = 12
#: Of the time between two looks so much of a lease counts, the time between two heartbeats: its
#: holder may not have been able to reach the server for the rest of it, and gets time to say so.
_MOST_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was found; it is another one after each heartbeat."""

    job_id: int
    fence: int
    heartbeats: int
    lease_s: float


class LeaseWatch:
    """How long the leases of one queue have not been heard of. For any number of threads.

    Parameters
    ----------
    steady_s
        Seconds that never step.
    """

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._unheard_s: dict[Lease, float] = {}

    def is_due(self, lease_s: float) -> bool:
        """Whether it is time to look again, for leases of this length."""
        return self._steady_s() - self._looked_s >= lease_s / _LOOKS_A_LEASE

    def look(self, leases: Iterable[Lease]) -> None:
        """Take in all leases of now."""
        with self._lock:
            now_s = self._steady_s()
            gap_s, self._looked_s = now_s - self._looked_s, now_s
            self._unheard_s = {
                each: self._unheard_s[each] + min(gap_s, each.lease_s * _MOST_BETWEEN_LOOKS)
                if each in self._unheard_s
                else 0.0
                for each in leases
            }

    def run_out(self, most: int) -> tuple[Lease, ...]:
        """Leases that had run out at the last look."""
        with self._lock:
            over = (each for each, unheard_s in self._unheard_s.items() if unheard_s > each.lease_s)
            return tuple(each for each, _ in zip(over, range(most), strict=False))
