"""The files of a job, from wherever its request says that they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.job_source import JobSources, earlier_results
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import JobClaim
from pacs_bridge.sources.remote_archive import RemoteArchive


class ConfiguredSources:
    """Every source that a job may name; a ``JobSources`` itself.

    Parameters
    ----------
    sources
        By name, ``SPOOL`` among them.
    """

    def __init__(self, sources: Mapping[str, JobSources]) -> None:
        self._sources = dict(sources)

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``.

        Raises
        ------
        PermanentError
            ``unknown-source`` if the configuration has no such source, too.
        """
        name = claim.request.source
        source = self._sources.get(name)
        if source is None:
            known = ", ".join(sorted(self._sources))
            raise PermanentError(Reason.UNKNOWN_SOURCE, f"no source {name!r}; there is {known}")
        return source.fetch(claim, scratch, check)


class RemoteSources:
    """The files of jobs whose series lie in a remote archive; a ``JobSources``.

    Parameters
    ----------
    archive
        Where they are.
    data_folder
        Of the bridge: earlier results are named relative to it.
    reserve_free_bytes
        Below it nothing is fetched: the disk is the listener's first.
    """

    def __init__(
        self, archive: RemoteArchive, data_folder: Path, reserve_free_bytes: int = 0
    ) -> None:
        self._archive = archive
        self._data_folder = data_folder
        self._reserve_free_bytes = reserve_free_bytes

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``: asks the archive for all instances of the series."""
        request = claim.request

        def check_disk_too() -> None:
            check()
            self._check_disk(scratch)

        return SeriesSource(
            paths=self._archive.fetch(
                request.study_instance_uid, request.series_instance_uid, scratch, check_disk_too
            ),
            created=claim.created,
            root=scratch,
            revision=request.revision,
            predecessors=earlier_results(claim.predecessors, self._data_folder),
        )

    def _check_disk(self, scratch: Path) -> None:
        folder = next(each for each in (scratch, *scratch.parents) if each.exists())
        if self._reserve_free_bytes and shutil.disk_usage(folder).free < self._reserve_free_bytes:
            raise TransientError(Reason.DISK_FULL, "fetching would take the reserve of the disk")
