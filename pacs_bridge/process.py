"""The whole flow, from the files of one series to checked results.

::

    files -> examine -> skip, refuse, quarantine
                     -> each stack: read -> segment -> check -> encode -> verify
                     -> report

It knows no queue, no ledger and no peer: ``segment``, the worker and every other door call it.
A series that is not fit gives a report that says so; a failure of ours is raised, and the caller
turns it into an exit code or a job state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import SourceInstance, source_instances
from dicom_seg.read.examination import SeriesIdentity
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import Outcome, SeriesRules, StackPlan, examine_series
from dicom_seg.segmentation import Predecessor, SegKind, SegRequest, write_segmentation
from dicom_seg.verification import verify_segmentation
from inference.label_map import LabelMap
from inference.quality import check_labels, truncated_structures
from inference.reasons import Reason
from inference.segmenter import Segmenter, fitted_segmenter
from pacs_bridge.memory_ledger import MemoryShare
from pacs_bridge.report import (
    Ending,
    LeftOutInstance,
    OutputFile,
    SeriesReport,
    SoftwareReport,
    StackReport,
    remove_result,
)
from pacs_bridge.report_parts import (
    ending,
    left_out_instances,
    model_report,
    refused,
    rule_texts,
    segmentation_output,
    segmenter_findings,
    series_names,
    stack_report,
    structure_volumes,
)
from pacs_bridge.stopwatch import ProgressReport, Stage, Stopwatch, no_progress

_VOXEL_BYTES = 2  #: int16

#: What a file ends with that cannot be read, or is not there any more.
_UNREAD = (Reason.UNREADABLE_FILE, Reason.SOURCE_MISSING)


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """A result of the revision that is replaced, and what it rests on."""

    kind: SegKind
    named: Predecessor
    planes: frozenset[tuple[str, int | None]]  #: SOP Instance UIDs and frame numbers


@dataclass(frozen=True, slots=True)
class SeriesSource:
    """The files of one series, and what is known of them beside their bytes."""

    paths: tuple[Path, ...]
    created: datetime  #: written into the results: the same moment gives the same bytes again
    root: Path | None = None  #: of a spool: names of files in it are made there, and may be told
    revision: int = 1
    predecessors: tuple[EarlierResult, ...] = ()  #: of all stacks and kinds
    digests: tuple[SourceInstance, ...] = ()  #: as received; those missing are taken from files
    set_aside: tuple[LeftOutInstance, ...] = ()  #: what belongs to the series and is not in paths
    fetch_s: float | None = None  #: seconds that it took to get them, where they had to be got
    #: raises if what was read is not the series that was meant
    confirm: Callable[[SeriesIdentity], None] | None = None
    #: called when a file could not be read: raises if that is not for good
    look_again: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What a site chooses about processing."""

    kinds: tuple[SegKind, ...] = (SegKind.LABELMAP, SegKind.BINARY)
    rules: SeriesRules = field(default_factory=SeriesRules)
    series_description: str | None = None  #: None: says that the result is investigational
    content_description: str | None = None  #: the same


def process_series(
    source: SeriesSource,
    segmenter: Segmenter,
    options: ProcessOptions,
    folder: Path,
    progress: ProgressReport = no_progress,
    memory: MemoryShare | None = None,
) -> SeriesReport:
    """Segment a series into ``folder``: verified Segmentations and ``report.json``.

    An earlier result in ``folder`` is removed first. What lies there in the end is one whole,
    verified result; a series that is skipped, refused or quarantined gives a report that says
    so and no other file; an error leaves nothing. ``memory`` is its part of what series that
    overlap may take; None: there is but this one.

    Raises
    ------
    SegmentationError
        ``seg-encode``, ``verification-failed`` and their like.
    InferenceError
        ``model-error``, ``oom-cpu``, ``oom-gpu``.
    OSError
        If ``folder`` cannot be written.
    Exception
        What ``source.confirm`` and ``source.look_again`` raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_result(folder)
    memory = memory or MemoryShare()
    watch = Stopwatch(progress, memory.working_s)
    run = _Run(source, segmenter, options, folder, watch, memory)
    with run.watch.stage(Stage.EXAMINE):
        examination = examine_series(source.paths, options.rules)
    if source.confirm is not None and examination.identity is not None:
        source.confirm(examination.identity)
    if any(left.reason in _UNREAD for left in examination.left_out):
        _look_again(source)
    stacks: tuple[StackReport, ...] = ()
    refusal: Ending | None = None
    if examination.outcome is Outcome.PROCESS:
        scans = [plan.table.geometry() for plan in examination.stacks]
        segmenter = fitted_segmenter(segmenter, *scans)
        run = replace(run, segmenter=segmenter)
        try:
            stacks = run.all_stacks(examination.stacks)
        except SegmentationError as error:  # pixels are decoded only here
            if error.reason in _UNREAD:
                _look_again(source)
            refusal = refused(error.reason, error.detail)
            if refusal is None:
                raise
    # one that was not needed is not loaded to be asked who it is
    identity = segmenter.identity if stacks else None
    wanted = () if identity is None else identity.wanted
    report = SeriesReport(
        created=source.created,
        ending=refusal or ending(examination, stacks, wanted),
        series=series_names(examination, source.revision),
        software=SoftwareReport.of_this_process(),
        model=None if identity is None else model_report(identity, stacks),
        parameters=rule_texts(options.rules),
        stacks=stacks,
        left_out=(*left_out_instances(examination, source.paths, source.root), *source.set_aside),
        timings_s=_with_fetching(source.fetch_s, run.watch.seconds()),
        peak_memory_bytes=run.watch.peak_memory_bytes(),
    )
    report.write(folder)
    return report


def _look_again(source: SeriesSource) -> None:
    if source.look_again is not None:
        source.look_again()


def _with_fetching(fetch_s: float | None, seconds: dict[Stage, float]) -> dict[Stage, float]:
    return seconds if fetch_s is None else {Stage.FETCH: round(fetch_s, 3), **seconds}


def _volume_bytes(plan: StackPlan) -> int:
    return _VOXEL_BYTES * math.prod(plan.table.geometry().shape)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the stacks of one series share."""

    source: SeriesSource
    segmenter: Segmenter
    options: ProcessOptions
    folder: Path
    watch: Stopwatch
    memory: MemoryShare
    #: verified results, and the names that they get when all of the series are
    verified: list[tuple[Path, Path]] = field(default_factory=list)

    def all_stacks(self, plans: Sequence[StackPlan]) -> tuple[StackReport, ...]:
        """One result a stack; all of them, or none."""
        done: list[StackReport] = []
        try:
            for number, plan in enumerate(plans):
                prefix = f"stack{number}-" if len(plans) > 1 else ""
                with self.memory.stack():
                    done.append(self.stack(plan, prefix))
            for partial, path in self.verified:
                partial.replace(path)
        except BaseException:
            for partial, path in self.verified:
                partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            raise
        return tuple(done)

    def stack(self, plan: StackPlan, prefix: str) -> StackReport:
        """From one plan to its verified Segmentations; file names begin with ``prefix``."""
        with self.watch.stage(Stage.READ) as progress, self.memory.reading(_volume_bytes(plan)):
            stack = read_stack(plan, progress=progress)
        with self.watch.stage(Stage.SEGMENT) as progress:
            labels = self.segmenter.segment(stack.volume, progress)
        algorithm = self.segmenter.identity
        of_pixels = [finding for finding in stack.findings if finding not in plan.findings]
        with self.watch.stage(Stage.CHECK):
            truncated = truncated_structures(labels, stack.volume)
            del stack  # a long series is half a gigabyte, and what follows needs its labels only
            structures = structure_volumes(labels, truncated)
            findings = (*of_pixels, *check_labels(labels, truncated))
            sources = self._sources(plan)
        requests = [
            SegRequest(
                kind=kind,
                algorithm=algorithm,
                created=self.source.created,
                findings=findings,
                truncated=truncated,
                revision=self.source.revision,
                predecessor=self._predecessor(plan, kind),
                sources=sources,
                series_description=self.options.series_description,
                content_description=self.options.content_description,
            )
            for kind in self.options.kinds
            if structures
        ]
        outputs = tuple(self._segmentation(prefix, labels, plan, each) for each in requests)
        remarks = (*plan.findings, *findings, *segmenter_findings(algorithm))
        report = stack_report(plan, labels.geometry, remarks, structures, outputs)
        parameters, execution = dict(algorithm.parameters), dict(algorithm.execution)
        return replace(report, parameters=parameters, execution=execution)

    def _segmentation(
        self, prefix: str, labels: LabelMap, plan: StackPlan, request: SegRequest
    ) -> OutputFile:
        """Write and read back; its name it gets when the whole series is verified."""
        path = self.folder / f"{prefix}seg-{request.kind}.dcm"
        partial = path.with_suffix(".partial")
        try:
            with self.watch.stage(Stage.ENCODE):
                encoded = write_segmentation(labels, plan, request, partial)
            with self.watch.stage(Stage.VERIFY):
                verify_segmentation(partial, labels, plan, request)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self.verified.append((partial, path))
        return segmentation_output(encoded, path.name)

    def _predecessor(self, plan: StackPlan, kind: SegKind) -> Predecessor | None:
        """The earlier result that rests on most of a stack's planes; None if none does on any.

        Not that of the stack's number: with another acquisition the stacks are counted anew.
        """
        planes = {(row.sop_instance_uid, row.frame_number) for row in plan.table.rows}
        earlier = [each for each in self.source.predecessors if each.kind == kind]
        nearest = max(earlier, key=lambda each: len(planes & each.planes), default=None)
        return nearest.named if nearest is not None and planes & nearest.planes else None

    def _sources(self, plan: StackPlan) -> tuple[SourceInstance, ...]:
        """The instances of one stack with their digests: as received, or of the files."""
        files = {row.sop_instance_uid: row.path for row in plan.table.rows}
        received = tuple(each for each in self.source.digests if each.sop_instance_uid in files)
        for each in received:
            del files[each.sop_instance_uid]
        return received + source_instances(tuple(files.items()))
