"""Who elsewhere would take a job: a bridge with workers of its own leaves no more than that.

A process elsewhere that is there and takes no job of a kind, for it would do them otherwise than
the bridge means them, is nobody to hand such jobs over to. What waits for one that is at work
keeps no local worker idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pacs_bridge.errors import PermanentError
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.room import Room
from pacs_bridge.queue import JobClaim, JobKind, JobRequest, Priority

_LOOK_S = 1.0  #: from one look to the next
_BY_URGENCY = tuple(Priority)


class Takers:
    """The workers of a queue, as far as jobs may be left to them. For one thread.

    Parameters
    ----------
    handed
        The bridge's side of the queue.
    most
        Jobs of a kind that may wait for them.
    has_others
        Whether the bridge has workers of its own; if not, those elsewhere may have everything.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self, handed: HandedOver, most: int, has_others: bool, steady_s: Callable[[], float]
    ) -> None:
        self._handed = handed
        self._most = most
        self._has_others = has_others
        self._steady_s = steady_s
        self._looked_s = float("-inf")
        self._leaves: tuple[frozenset[str], ...] = ()  #: kinds, by each worker that is there
        self._kinds: dict[JobKind, str] = {}  #: as workers tell them apart, since the last look

    def look(self) -> bool:
        """See who is there, now and then; whether it did.

        Raises
        ------
        TransientError
            If the queue cannot be used now.
        """
        if self._steady_s() - self._looked_s < _LOOK_S:
            return False
        self._leaves = self._handed.leaves()
        self._kinds.clear()  # the store of models may have been away
        self._looked_s = self._steady_s()
        return True

    def are_none(self) -> bool:
        """Whether nothing may be left to workers elsewhere."""
        return self._has_others and not self._leaves

    def most_waiting(self, request: JobRequest) -> int:
        """How many jobs like this one may wait elsewhere: one a worker that would take them.

        As many as are wanted ahead at all if nobody else could take them.
        """
        if not self._has_others:
            return self._most
        there = len(self._leaves)
        if any(self._leaves):
            try:
                kind = self._kinds.get(request.kind) or self._handed.kind(request)
            except PermanentError:  # nobody's; it is said when it is handed over
                return self._most
            self._kinds[request.kind] = kind
            there -= sum(kind in leaves for leaves in self._leaves)
        return min(self._most, there)

    def beyond(self, waiting: Iterable[JobClaim]) -> tuple[JobClaim, ...]:
        """What of the jobs that wait elsewhere is more than may: workers have left, or took less.

        The most urgent stay, and of these the oldest: the next worker there has them before all
        else, and what is taken back has no room there.
        """
        if not self._has_others:
            return ()
        room = Room(self.most_waiting, ())
        return tuple(each for each in sorted(waiting, key=_turn) if not room.take(each.request))


def _turn(claim: JobClaim) -> tuple[int, int]:
    return _BY_URGENCY.index(claim.request.priority), claim.job_id
