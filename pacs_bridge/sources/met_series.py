"""What an archive has listed so far in one search."""

from __future__ import annotations

from collections import Counter

from pacs_bridge.sources.remote_archive import FoundSeries, SeriesQuery


class MetSeries:
    """Tells what is listed for the first time from what an archive lists again, or unasked.

    A row without a valid UID can only be told by all that it says. An archive that gives the
    same answer to two requests gives as many copies of it each time; within one answer each
    copy is a row of its own.

    Parameters
    ----------
    query
        What is asked for.
    """

    def __init__(self, query: SeriesQuery) -> None:
        self._query = query
        self._seen: set[tuple[object, ...]] = set()
        self._copies: Counter[FoundSeries] = Counter()
        self.nameless = 0  #: rows without a valid UID

    def begin_answer(self) -> None:
        """Another request is answered from here on."""
        self._copies.clear()

    def is_new(self, found: FoundSeries) -> bool:
        """Whether it is wanted, and was not listed before."""
        if not self._query.wants(found):
            return False
        key: tuple[object, ...] = found.key
        if not found.is_named:
            self._copies[found] += 1
            key = (found, self._copies[found])
        if key in self._seen:
            return False
        self._seen.add(key)
        self.nameless += not found.is_named
        return True
