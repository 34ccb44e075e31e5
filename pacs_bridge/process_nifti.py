"""The flow for a NIfTI file: labels as NIfTI, for those who work without DICOM."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np

from inference.nifti import read_label_nifti, read_nifti, write_label_nifti
from inference.quality import check_labels, touches_border
from inference.reasons import Reason
from inference.segmenter import Segmenter
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
from pacs_bridge.report_parts import demonstration_findings, model_report, structure_volumes
from pacs_bridge.stopwatch import ProgressReport, Stage, Stopwatch, no_progress


def process_nifti(
    path: Path,
    segmenter: Segmenter,
    folder: Path,
    created: datetime,
    progress: ProgressReport = no_progress,
) -> SeriesReport:
    """Segment a NIfTI file into ``folder``: ``<name>-labels.nii.gz`` and ``report.json``.

    Raises
    ------
    InferenceError
        ``no-orientation``, ``unreadable-file`` and their like; those of the model.
    PermanentError
        ``verification-failed`` if the labels on disk are not those of the model.
    OSError
        If ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_result(folder)
    watch = Stopwatch(progress)
    with watch.stage(Stage.READ):
        volume = read_nifti(path)
    with watch.stage(Stage.SEGMENT) as told:
        labels = segmenter.segment(volume, told)
    with watch.stage(Stage.CHECK):
        structures = structure_volumes(labels, frozenset(touches_border(labels)))
        findings = (*check_labels(labels), *demonstration_findings(segmenter.identity))
    outputs: tuple[OutputFile, ...] = ()
    if structures:
        target = folder / f"{path.name.split('.nii')[0]}-labels.nii.gz"
        with watch.stage(Stage.ENCODE):
            write_label_nifti(labels, target)
        with watch.stage(Stage.VERIFY):
            read_back = read_label_nifti(target)
            same_place = read_back.geometry.matches(labels.geometry)
            if not same_place or not np.array_equal(read_back.labels, labels.labels):
                target.unlink()
                raise PermanentError(Reason.VERIFICATION_FAILED, f"{target.name}: labels differ")
        outputs = (_output(target),)
    reason = None if outputs else Reason.EMPTY_RESULT
    report = SeriesReport(
        created=created,
        ending=Ending("process" if outputs else "skip", reason, ""),
        series=SeriesNames("", "", 1),
        software=SoftwareReport.of_this_process(),
        model=model_report(segmenter.identity),
        parameters={"input": path.name},
        stacks=(
            StackReport(
                separated_by="",
                shape=labels.geometry.shape,
                spacing_mm=labels.geometry.spacing_mm,
                tilt_degrees=round(labels.geometry.tilt_degrees, 3),
                reason=reason,
                findings=findings,
                used=(),
                structures=structures,
                outputs=outputs,
            ),
        ),
        left_out=(),
        timings_s=watch.seconds(),
        peak_memory_bytes=watch.peak_memory_bytes(),
    )
    report.write(folder)
    return report


def _output(path: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OutputFile(path.name, "nifti", path.stat().st_size, digest)
