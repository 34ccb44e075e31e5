"""Asking an archive for series by their UIDs, also one that looks for series in a study only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.sources.remote_archive import FoundSeries, RemoteArchive, SeriesQuery

#: Series UIDs that an archive is asked for in one question.
_UIDS_AT_ONCE: Final = 50
#: How an archive answers a search in all studies that it does not know, or one in a study that
#: it does not have.
_NOT_SO: Final = (Reason.SOURCE_REFUSED, Reason.SOURCE_MISSING)


class NamedSearch:
    """Searches one archive for series that are named.

    Parameters
    ----------
    archive
        To be asked.
    check
        Called while it is asked: what it raises ends the search.
    """

    def __init__(self, archive: RemoteArchive, check: Callable[[], None]) -> None:
        self._archive = archive
        self._check = check

    def find(self, query: SeriesQuery, studies: Mapping[str, Set[str]]) -> list[FoundSeries]:
        """The series of a query that names them.

        An archive without relational queries (PS3.4 C.4.1.2.2.1) refuses to look for series in
        no study, or finds none, and a service need not know the resource of all series
        (PS3.18 10.6.1.1): it is asked again for those of which a study is known, there.

        Parameters
        ----------
        query
            With Series Instance UIDs.
        studies
            By series, where it is known to be.

        Raises
        ------
        TransientError, PermanentError
            As ``RemoteArchive.find``.
        """
        wanted = query.series_instance_uids
        refusal: PermanentError | None = None
        try:
            named = list(self._archive.find(query, self._check))
        except PermanentError as error:
            if error.reason not in _NOT_SO or not any(map(studies.get, wanted)):
                raise
            named, refusal = [], error
        found = [each for each in named if each.series_instance_uid in wanted]
        met = {each.series_instance_uid for each in found}
        unmet = tuple(uid for uid in wanted if uid not in met and studies.get(uid))
        if refusal is not None and len(unmet) < len(wanted):
            raise refusal  # some are of no known study
        if unmet:
            known = tuple(sorted(set().union(*(studies[uid] for uid in unmet))))
            there = replace(query, study_instance_uids=known, series_instance_uids=unmet)
            found += [each for each in self._in_studies(there) if each.series_instance_uid in unmet]
        return found

    def _in_studies(self, query: SeriesQuery) -> list[FoundSeries]:
        """What is found in the studies of a query; nothing in those that the archive lacks."""
        studies = query.study_instance_uids
        try:
            return list(self._archive.find(query, self._check))
        except PermanentError as error:
            if error.reason is not Reason.SOURCE_MISSING:
                raise
        if len(studies) == 1:
            return []
        return [
            each
            for study in studies
            for each in self._in_studies(replace(query, study_instance_uids=(study,)))
        ]


def uids_at_once(uids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """UIDs, so many as an archive is asked for in one question."""
    for start in range(0, len(uids), _UIDS_AT_ONCE):
        yield tuple(uids[start : start + _UIDS_AT_ONCE])
