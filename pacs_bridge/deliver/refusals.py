"""Results that a destination does not take for now, and whether they themselves may be why.

Where nothing is taken the destination is at fault, and the most urgent result stays the first
one. A result that is refused again although others were taken in between is what is at fault: it
must not be the first one for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 3


@dataclass(slots=True)
class _Refused:
    """A result that was refused."""

    taken_before: int  #: how many others were, at its last refusal
    alone: int = 0  #: refusals although others were taken since the one before


class Refusals:
    """What one destination refused since this process began; for one thread."""

    def __init__(self) -> None:
        self._taken = 0
        self._refused: dict[int, _Refused] = {}

    def lately(self) -> frozenset[int]:
        """The deliveries that were refused since the last one that was taken."""
        return frozenset(
            delivery_id
            for delivery_id, each in self._refused.items()
            if each.taken_before == self._taken
        )

    def note(self, delivery_id: int) -> int:
        """Count a refusal; gives by how much longer than usual it is to wait: 0, 1, 2, 4 or 8."""
        known = self._refused.setdefault(delivery_id, _Refused(self._taken))
        if known.taken_before != self._taken:
            known.taken_before = self._taken
            known.alone += 1
        return 2 ** min(known.alone - 1, _MOST_DOUBLINGS) if known.alone else 0

    def taken(self, delivery_id: int) -> None:
        """Count one that was taken."""
        self._taken += 1
        self.forget(delivery_id)

    def forget(self, delivery_id: int) -> None:
        """A delivery is over."""
        self._refused.pop(delivery_id, None)
