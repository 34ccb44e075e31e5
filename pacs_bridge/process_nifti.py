"""The flow for a NIfTI file: labels as NIfTI, for those who work without DICOM."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np

from inference.errors import InferenceError
from inference.finding import Finding
from inference.label_map import LabelMap
from inference.nifti import (
    MAX_VOXELS,
    nifti_geometry,
    open_nifti,
    orientation_findings,
    read_label_nifti,
    read_nifti,
    write_label_nifti,
)
from inference.plausibility import implausible_hu
from inference.quality import check_labels, truncated_structures
from inference.reasons import Reason
from inference.segmenter import Segmenter, fitted_segmenter
from inference.volume import Volume
from pacs_bridge.errors import PermanentError
from pacs_bridge.report import (
    Ending,
    OutputFile,
    SeriesNames,
    SeriesReport,
    SoftwareReport,
    StackReport,
    remove_result,
)
from pacs_bridge.report_parts import (
    empty_ending,
    model_report,
    refused,
    segmenter_findings,
    structure_volumes,
)
from pacs_bridge.stopwatch import ProgressReport, Stage, Stopwatch, no_progress

#: Where the labels go; the name of the input may be the name of a patient.
LABELS_NAME = "labels.nii.gz"


def process_nifti(
    path: Path,
    segmenter: Segmenter,
    folder: Path,
    created: datetime,
    progress: ProgressReport = no_progress,
) -> SeriesReport:
    """Segment a NIfTI file into ``folder``: ``labels.nii.gz`` and ``report.json``.

    An earlier result in ``folder`` is removed first. Labels get their name when they have been
    read back; a file that is refused or empty gives a report that says so; an error leaves
    nothing.

    Raises
    ------
    InferenceError
        ``model-error``, ``oom-cpu``, ``oom-gpu``.
    PermanentError
        ``verification-failed`` if the labels on disk are not those of the model.
    OSError
        If ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_result(folder)
    watch = Stopwatch(progress)
    stacks: tuple[StackReport, ...] = ()
    try:
        with watch.stage(Stage.READ):
            header = open_nifti(path, MAX_VOXELS)
            # while the scan itself takes no memory yet
            segmenter = fitted_segmenter(segmenter, nifti_geometry(header, path))
            volume = read_nifti(path)
    except InferenceError as error:
        end = refused(error.reason, error.detail.replace(str(path), "the input"))
        if end is None:
            raise
    else:
        remarks = _findings(path, volume)
        stacks = (_stack(volume, remarks, segmenter, folder, watch),)
        wanted = segmenter.identity.wanted
        end = Ending("process", None, "") if stacks[0].outputs else empty_ending(wanted, "the scan")
    report = SeriesReport(
        created=created,
        ending=end,
        series=SeriesNames("", "", 1),
        software=SoftwareReport.of_this_process(),
        model=model_report(segmenter.identity, stacks) if stacks else None,
        parameters={"input_sha256": _sha256(path)},
        stacks=stacks,
        left_out=(),
        timings_s=watch.seconds(),
        peak_memory_bytes=watch.peak_memory_bytes(),
    )
    report.write(folder)
    return report


def _findings(path: Path, volume: Volume) -> tuple[Finding, ...]:
    """What the file itself shows to be doubtful: two orientations, values of no tissue."""
    of_header = orientation_findings(open_nifti(path, volume.hu.size))
    implausible = implausible_hu(volume.hu)
    return (*of_header, *([Finding(Reason.IMPLAUSIBLE_HU, implausible)] if implausible else []))


def _stack(
    volume: Volume,
    remarks: tuple[Finding, ...],
    segmenter: Segmenter,
    folder: Path,
    watch: Stopwatch,
) -> StackReport:
    with watch.stage(Stage.SEGMENT) as told:
        labels = segmenter.segment(volume, told)
    with watch.stage(Stage.CHECK):
        truncated = truncated_structures(labels, volume)
        structures = structure_volumes(labels, truncated)
        of_labels = check_labels(labels, truncated)
        findings = (*remarks, *of_labels, *segmenter_findings(segmenter.identity))
    outputs = (_write_verified(labels, folder, watch),) if structures else ()
    return StackReport(
        separated_by="",
        shape=labels.geometry.shape,
        spacing_mm=labels.geometry.spacing_mm,
        tilt_degrees=round(labels.geometry.tilt_degrees, 3),
        reason=None if outputs else Reason.EMPTY_RESULT,
        findings=findings,
        used=(),
        structures=structures,
        outputs=outputs,
        parameters=dict(segmenter.identity.parameters),
        execution=dict(segmenter.identity.execution),
    )


def _write_verified(labels: LabelMap, folder: Path, watch: Stopwatch) -> OutputFile:
    """Write and read back, and only then give it its name."""
    partial = folder / f"partial-{LABELS_NAME}"  # the format is told by the suffix
    try:
        with watch.stage(Stage.ENCODE):
            write_label_nifti(labels, partial)
        with watch.stage(Stage.VERIFY):
            read_back = read_label_nifti(partial)
            same_place = read_back.geometry.matches(labels.geometry)
            if not same_place or not np.array_equal(read_back.labels, labels.labels):
                raise PermanentError(Reason.VERIFICATION_FAILED, f"{LABELS_NAME}: labels differ")
        partial.replace(folder / LABELS_NAME)
    finally:
        partial.unlink(missing_ok=True)
    return _output(folder / LABELS_NAME)


def _output(path: Path) -> OutputFile:
    return OutputFile(path.name, "nifti", path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
