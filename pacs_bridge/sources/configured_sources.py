"""The files of a job, from wherever its request says that they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicom_seg.read.examination import SeriesIdentity
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.job_source import JobSources, earlier_results
from pacs_bridge.process import SeriesSource
from pacs_bridge.queue import JobClaim, JobRequest
from pacs_bridge.sources.remote_archive import RemoteArchive, SeriesQuery


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


@dataclass(frozen=True, slots=True)
class ExpectedSeries:
    """What was planned of a series that an archive is asked for."""

    instance_count: int | None  #: as the archive said; None: it did not say
    is_patient: Callable[[str], bool]  #: whether a Patient ID is that of the plan


class SeriesPlans(Protocol):
    """Knows what was planned of the series of archives."""

    def expected(self, claim: JobClaim, /) -> ExpectedSeries | None:
        """What was planned of the series of a job; None if no plan knows the job.

        Raises
        ------
        TransientError
            If a plan cannot be read now.
        PermanentError
            With its reason, if the series is not to run any more.
        """
        ...


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
    plans
        What was planned of the series; None: nothing was.
    """

    def __init__(
        self,
        archive: RemoteArchive,
        data_folder: Path,
        reserve_free_bytes: int = 0,
        plans: SeriesPlans | None = None,
    ) -> None:
        self._archive = archive
        self._data_folder = data_folder
        self._reserve_free_bytes = reserve_free_bytes
        self._plans = plans

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``: asks the archive for all instances of the series.

        Raises
        ------
        PermanentError
            ``source-missing``, too, if the archive has more or fewer instances than were
            planned. What is read is confirmed: ``bad-answer`` for another series or study,
            ``source-missing`` for another patient than was planned.
        """
        request = claim.request
        expected = None if self._plans is None else self._plans.expected(claim)

        def check_disk_too() -> None:
            check()
            self._check_disk(scratch)

        paths = self._archive.fetch(
            request.study_instance_uid, request.series_instance_uid, scratch, check_disk_too
        )
        if expected is not None and expected.instance_count not in (None, len(paths)):
            self._check_count(request, expected.instance_count, len(paths), check)
        return SeriesSource(
            paths=paths,
            created=claim.created,
            root=scratch,
            revision=request.revision,
            predecessors=earlier_results(claim.predecessors, self._data_folder),
            confirm=_Confirmation(request, expected),
        )

    def _check_count(
        self, request: JobRequest, planned: int | None, come: int, check: Callable[[], None]
    ) -> None:
        """Look whether those that did not come are objects that are not fetched."""
        study = request.study_instance_uid
        query = SeriesQuery(
            study_instance_uids=(study,) if study else (),
            series_instance_uids=(request.series_instance_uid,),
            modalities=(),
        )
        counts = {each.instance_count for each in self._archive.find(query, check)}
        if counts != {planned}:
            raise PermanentError(
                Reason.SOURCE_MISSING,
                f"the archive has other instances than were planned: {planned} then, {come} came:"
                " plan again",
            )

    def _check_disk(self, scratch: Path) -> None:
        folder = next(each for each in (scratch, *scratch.parents) if each.exists())
        if self._reserve_free_bytes and shutil.disk_usage(folder).free < self._reserve_free_bytes:
            raise TransientError(Reason.DISK_FULL, "fetching would take the reserve of the disk")


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """Looks whether what was read is the series that was asked for, of the planned patient."""

    request: JobRequest
    expected: ExpectedSeries | None

    def __call__(self, read: SeriesIdentity) -> None:
        request = self.request
        is_study = request.study_instance_uid in ("", read.study_instance_uid)
        if not is_study or read.series_instance_uid != request.series_instance_uid:
            raise PermanentError(Reason.BAD_ANSWER, "another series or study than was asked for")
        if self.expected is not None and not self.expected.is_patient(read.patient_id):
            raise PermanentError(
                Reason.SOURCE_MISSING, "the series is of another patient than was planned"
            )
