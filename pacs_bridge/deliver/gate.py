"""When a destination that failed is worth another connection.

A PACS that is down would otherwise be asked once for every result that waits for it. The gate
closes for the whole destination, with growing waits, and any success opens it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pacs_bridge.retry_policy import RetryPolicy


class DestinationGates:
    """Which destinations may be tried now.

    Parameters
    ----------
    policies
        Waiting times by name of the destination.
    """

    def __init__(self, policies: Mapping[str, RetryPolicy]) -> None:
        self._policies = dict(policies)
        self._failures: dict[str, int] = {}
        self._closed_until_s: dict[str, float] = {}

    def open_at(self, now_s: float) -> tuple[str, ...]:
        """Names of the destinations that may be tried at ``now_s`` steady seconds."""
        return tuple(
            name for name in self._policies if self._closed_until_s.get(name, now_s) <= now_s
        )

    def failed(self, name: str, now_s: float) -> float:
        """Close the gate after a failure; gives the seconds that it stays closed."""
        failures = self._failures.get(name, 0) + 1
        self._failures[name] = failures
        wait_s = self._policies[name].wait_s(failures)
        self._closed_until_s[name] = now_s + wait_s
        return wait_s

    def succeeded(self, name: str) -> None:
        """Open the gate: the destination answers."""
        self._failures.pop(name, None)
        self._closed_until_s.pop(name, None)
