"""Where the files of a job come from: the spool, or a peer that is asked for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dicom_seg.provenance import SourceInstance
from dicom_seg.segmentation import Predecessor, SegKind
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.instances import SetAside
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.process import EarlierResult, SeriesSource
from pacs_bridge.queue import JobClaim, ResultFile
from pacs_bridge.report import REPORT_NAME, LeftOutInstance, SeriesReport


class JobSources(Protocol):
    """Gets the files of a job onto a disk of this machine."""

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """The files of the series, and everything of it that is not among them.

        Parameters
        ----------
        claim
            Of the job.
        scratch
            A folder for files that have to be fetched first. It need not exist, and is deleted
            when the job is over.
        check
            To be called between files: raises when the job is to end.

        Raises
        ------
        TransientError
            If they cannot be had for now.
        PermanentError
            ``source-missing`` if they are gone, or not what was acknowledged or planned.
        """
        ...


class SeriesInstances(Protocol):
    """Knows the files of the series that were received."""

    def sources(self, series_instance_uid: str, revision: int, /) -> tuple[SpooledInstance, ...]:
        """The instances of a series up to a revision, by SOP Instance UID."""
        ...

    def set_aside(self, series_instance_uid: str, /) -> tuple[SetAside, ...]:
        """The instances of a series that lie in quarantine."""
        ...


class SpoolSources:
    """The files that were received here.

    Parameters
    ----------
    instances
        Knows the files of a series.
    data_folder
        Of the bridge: names of files in it may be told.
    """

    def __init__(self, instances: SeriesInstances, data_folder: Path) -> None:
        self._instances = instances
        self._data_folder = data_folder

    def fetch(self, claim: JobClaim, _scratch: Path, check: Callable[[], None]) -> SeriesSource:
        """See ``JobSources.fetch``: looks whether the files are what was acknowledged."""
        request = claim.request
        spooled = self._instances.sources(request.series_instance_uid, request.revision)
        lost = []
        for each in spooled:
            check()
            if each.problem():
                lost.append(each.sop_instance_uid)
        if lost or not spooled:
            raise PermanentError(
                Reason.SOURCE_MISSING,
                f"{len(lost)} of {len(spooled)} files are gone or changed: {lost[:3]}",
            )
        return SeriesSource(
            paths=tuple(each.path for each in spooled),
            created=claim.created,
            root=self._data_folder,
            revision=request.revision,
            predecessors=earlier_results(claim.predecessors, self._data_folder),
            digests=tuple(SourceInstance(each.sop_instance_uid, each.digest) for each in spooled),
            set_aside=tuple(
                LeftOutInstance(
                    file=each.path.name,
                    sop_instance_uid=each.sop_instance_uid,
                    frame_number=None,
                    reason=each.reason,
                    detail="in quarantine",
                )
                for each in self._instances.set_aside(request.series_instance_uid)
            ),
        )


def earlier_results(
    predecessors: tuple[ResultFile, ...], data_folder: Path
) -> tuple[EarlierResult, ...]:
    """The results that a job is to replace; one rests on nothing if its report is gone."""
    return tuple(_earlier(result, data_folder) for result in predecessors)


def _earlier(result: ResultFile, data_folder: Path) -> EarlierResult:
    try:
        path = (data_folder / result.path).with_name(REPORT_NAME)
        used = SeriesReport.read(path).stacks[result.stack].used
    except (OSError, ValueError, IndexError):
        used = ()
    return EarlierResult(
        SegKind(result.kind),
        Predecessor(result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid),
        frozenset((plane.sop_instance_uid, plane.frame_number) for plane in used),
    )
