"""How long a series is waited for whose source gives others.

A source that is away fails every series alike. One that breaks off at the same series each time,
and gives others in between, will not give it for being asked a week long.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from pacs_bridge.ledger.archive_jobs import JobStanding
from pacs_bridge.queue import State
from pacs_bridge.series_faults import OF_ONE_SERIES

#: Tries between which others came.
_MOST_IN_VAIN: Final = 3
#: Tries after which a job takes no other's place: a few more show whether others come.
_PLACE_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class _Tries:
    attempts: int
    others_came: int  #: so many, when it failed last
    in_vain: int


class Patience:
    """Knows the jobs of one run that are tried again. For one thread."""

    def __init__(self) -> None:
        self._came: Counter[str] = Counter()
        self._tries: dict[int, _Tries] = {}

    def note_came(self, source: str) -> None:
        """A series of a source was there and could be read."""
        self._came[source] += 1

    def is_over(self, job_id: int, standing: JobStanding) -> bool:
        """Whether a job that waits for its next try has failed often enough beside others."""
        if standing.state is not State.RETRY:
            return False
        came = self._came[standing.source]
        before = self._tries.get(job_id)
        if before is None or standing.attempts > before.attempts:
            in_vain = 0 if before is None else before.in_vain + int(came > before.others_came)
            before = self._tries[job_id] = _Tries(standing.attempts, came, in_vain)
        return before.in_vain >= _MOST_IN_VAIN


def takes_place(standing: JobStanding) -> bool:
    """Whether a job that is not over takes the place of another one.

    One whose failures are its own, or that was tried often, waits beside the others.
    """
    if standing.state is not State.RETRY:
        return True
    return standing.reason not in OF_ONE_SERIES and standing.attempts < _PLACE_TRIES
