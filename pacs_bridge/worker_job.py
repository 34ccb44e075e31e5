"""A claimed job on disk: the folders that it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from dicom_seg.segmentation import SegKind
from inference.durable import flush
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.process import ProcessOptions
from pacs_bridge.queue import JobClaim, ResultFile
from pacs_bridge.report import SeriesReport


class ClaimedJob:
    """One claim, and where its results go.

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
        own = folder_of(claim.job_id, claim.fence)
        self.folder = config.results_folder / own
        self.scratch = config.scratch_folder / own

    def options(self) -> ProcessOptions:
        """Every kind that some destination may be given; the sender then only sends files.

        Of a job that is not to be sent, the destinations of its route say which kinds it gives.
        """
        request = self.claim.request
        route = self._config.route(request.route)
        of_route = () if route is None else route.destinations
        wanted = {
            SegKind(kind)
            for name in request.destinations or of_route
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

    def discard_scratch(self) -> None:
        """Delete what was fetched for the job."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def discard_others(self) -> None:
        """Delete what earlier claims left behind when their worker died, where it is ours."""
        if not self.claim.is_handed_over:
            discard_but(self.folder)
        shutil.rmtree(self.scratch.parent, ignore_errors=True)


def folder_of(job_id: int, fence: int) -> Path:
    """Of one lease of a job, below the folder of all results or that of all scratch files."""
    return Path(f"{job_id:08d}") / f"{fence:04d}"


def discard_but(folder: Path) -> None:
    """Delete what other claims of a job left beside the folder of the one that counts."""
    for each in folder.parent.iterdir():
        if each != folder:
            shutil.rmtree(each, ignore_errors=True)
