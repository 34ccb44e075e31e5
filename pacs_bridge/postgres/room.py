"""How many more jobs may be handed over: some of each kind ahead of the workers.

A kind that no worker can do would take all the room there is, and keep every other job in the
ledger: so each kind has room of its own, and each urgency in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from pacs_bridge.queue import JobKind, JobRequest, Priority

_BY_URGENCY = tuple(Priority)

#: Jobs of a kind at one urgency, for which there is no more room.
Closed: TypeAlias = tuple[JobKind, Priority]


class Room:
    """What may still be handed over; for one round of it.

    Parameters
    ----------
    most
        How many jobs of the kind of one may wait for workers, of an urgency and those above it.
    waiting
        What waits for them now.
    """

    def __init__(self, most: Callable[[JobRequest], int], waiting: Iterable[JobRequest]) -> None:
        self._most_like = most
        self._most: dict[JobKind, int] = {}
        self._waiting: Counter[Closed] = Counter()
        for each in waiting:
            self._know(each)
            self._waiting[each.kind, each.priority] += 1

    def take(self, request: JobRequest) -> bool:
        """Count one more job in; False if there is no room for it."""
        self._know(request)
        if not self._has_room(request.kind, request.priority):
            return False
        self._waiting[request.kind, request.priority] += 1
        return True

    def taken_past(
        self, besides: Callable[[Sequence[Closed]], Sequence[tuple[int, JobRequest]]]
    ) -> tuple[int, ...]:
        """Count jobs in that wait behind those for which there is no room; gives their ids.

        Parameters
        ----------
        besides
            Gives the first jobs that are of none of these kinds at these urgencies.
        """
        while full := self._full():
            if not (found := besides(full)):
                break
            if taken := tuple(job_id for job_id, request in found if self.take(request)):
                return taken
        return ()

    def _know(self, request: JobRequest) -> None:
        if request.kind not in self._most:
            self._most[request.kind] = self._most_like(request)

    def _full(self) -> tuple[Closed, ...]:
        return tuple(
            (kind, urgency)
            for kind in self._most
            for urgency in _BY_URGENCY
            if not self._has_room(kind, urgency)
        )

    def _has_room(self, kind: JobKind, urgency: Priority) -> bool:
        """Whether few enough wait that a worker would take before a new one of this urgency."""
        before = _BY_URGENCY[: _BY_URGENCY.index(urgency) + 1]
        return sum(self._waiting[kind, each] for each in before) < self._most[kind]
