"""When a destination that failed is worth another connection.

A PACS that is down would otherwise be asked once for every result that waits for it. The gate
closes for the whole destination, with growing waits, and any success opens it.
"""

from __future__ import annotations

from pacs_bridge.retry_policy import RetryPolicy


class Gate:
    """Whether one destination may be tried now; for one thread.

    Parameters
    ----------
    policy
        How long to stay closed after so many failures.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._closed_until_s = 0.0

    def is_open(self, now_s: float) -> bool:
        """Whether the destination may be tried at ``now_s`` steady seconds."""
        return self._failures == 0 or now_s >= self._closed_until_s

    def failed(self, now_s: float, at_least_s: float = 0.0) -> float:
        """Close after a failure; gives the seconds that the gate stays closed.

        Parameters
        ----------
        now_s
            Steady seconds.
        at_least_s
            What the destination itself asked for.
        """
        self._failures += 1
        wait_s = max(self._policy.wait_s(self._failures), at_least_s)
        self._closed_until_s = now_s + wait_s
        return wait_s

    def succeeded(self) -> None:
        """Open: the destination answers."""
        self._failures = 0
