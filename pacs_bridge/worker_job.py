"""A claimed job on disk: the files that it reads, the folder that it writes."""

from __future__ import annotations

import shutil

from dicom_seg.provenance import SourceInstance
from dicom_seg.segmentation import Predecessor, SegKind
from inference.durable import flush
from inference.reasons import Reason
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.instances import InstanceBook
from pacs_bridge.process import EarlierResult, ProcessOptions, SeriesSource
from pacs_bridge.queue import JobClaim, ResultFile
from pacs_bridge.report import REPORT_NAME, LeftOutInstance, SeriesReport


class ClaimedJob:
    """One claim: what goes in, and where results go.

    Parameters
    ----------
    config
        The whole configuration.
    claim
        The lease of the job.
    """

    def __init__(self, config: BridgeConfig, claim: JobClaim) -> None:
        self.claim = claim
        self._config = config
        # one folder a claim: a worker that was presumed dead writes into its own
        self.folder = config.results_folder / f"{claim.job_id:08d}" / f"{claim.fence:04d}"

    def source(self, instances: InstanceBook) -> SeriesSource:
        """The files of the series, and everything of it that is not among them.

        Raises
        ------
        PermanentError
            ``source-missing`` if a file is gone or not what was acknowledged.
        """
        request = self.claim.request
        spooled = instances.sources(request.series_instance_uid, request.revision)
        lost = [each.sop_instance_uid for each in spooled if each.problem()]
        if lost or not spooled:
            raise PermanentError(
                Reason.SOURCE_MISSING,
                f"{len(lost)} of {len(spooled)} files are gone or changed: {lost[:3]}",
            )
        return SeriesSource(
            paths=tuple(each.path for each in spooled),
            created=self.claim.created,
            root=self._config.data_folder,
            revision=request.revision,
            predecessors=tuple(self._earlier(result) for result in self.claim.predecessors),
            digests=tuple(SourceInstance(each.sop_instance_uid, each.digest) for each in spooled),
            set_aside=tuple(
                LeftOutInstance(
                    file=each.path.name,
                    sop_instance_uid=each.sop_instance_uid,
                    frame_number=None,
                    reason=each.reason,
                    detail="in quarantine",
                )
                for each in instances.set_aside(request.series_instance_uid)
            ),
        )

    def _earlier(self, result: ResultFile) -> EarlierResult:
        """A result of the revision that is replaced; it rests on nothing if its report is gone."""
        try:
            path = (self._config.data_folder / result.path).with_name(REPORT_NAME)
            used = SeriesReport.read(path).stacks[result.stack].used
        except (OSError, ValueError, IndexError):
            used = ()
        return EarlierResult(
            SegKind(result.kind),
            Predecessor(result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid),
            frozenset((plane.sop_instance_uid, plane.frame_number) for plane in used),
        )

    def options(self) -> ProcessOptions:
        """Every kind that some destination may be given; the sender then only sends files."""
        wanted = {
            SegKind(kind)
            for name in self.claim.request.destinations
            if (destination := self._config.destination(name)) is not None
            for kind in destination.kinds
        }
        texts = self._config.results
        return ProcessOptions(
            kinds=tuple(kind for kind in SegKind if kind in wanted or not wanted),
            rules=self._config.series.rules(),
            series_description=texts.series_description,
            content_description=texts.content_description,
        )

    def results(self, report: SeriesReport) -> tuple[ResultFile, ...]:
        """What the report lists, with paths as the ledger keeps them."""
        folder = self.folder.relative_to(self._config.data_folder)
        return tuple(
            ResultFile(
                stack=number,
                kind=output.kind,
                path=(folder / output.file).as_posix(),
                sop_class_uid=output.sop_class_uid,
                sop_instance_uid=output.sop_instance_uid,
                series_instance_uid=output.series_instance_uid,
                transfer_syntax_uid=output.transfer_syntax_uid,
                sha256=output.sha256,
                size_bytes=output.size_bytes,
            )
            for number, stack in enumerate(report.stacks)
            for output in stack.outputs
        )

    def make_durable(self) -> None:
        """Bring files and names to the disk before the ledger says that they are there."""
        for path in (*self.folder.iterdir(), self.folder, *self.folder.parents[:3]):
            flush(path)

    def discard(self) -> None:
        """Delete what was written so far; nobody else writes here."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_others(self) -> None:
        """Delete what earlier claims left behind when their worker died."""
        for folder in self.folder.parent.iterdir():
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)
