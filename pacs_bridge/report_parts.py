"""Parts of a report, made from the values of the flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_seg.read.examination import (
    Outcome,
    SeriesExamination,
    SeriesRules,
    StackPlan,
    file_numbers,
)
from dicom_seg.segmentation import EncodedSegmentation
from inference.finding import Finding
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.reasons import Reason, describe
from inference.structures import structure
from pacs_bridge.report import (
    Ending,
    LeftOutInstance,
    ModelReport,
    OutputFile,
    SeriesNames,
    StackReport,
    StructureVolume,
    UsedInstance,
)


def ending(examination: SeriesExamination, stacks: Sequence[StackReport]) -> Ending:
    """What came of a series: as examined, unless no stack gave a result."""
    if stacks and not any(stack.outputs for stack in stacks):
        return Ending(Outcome.SKIP.value, Reason.EMPTY_RESULT, "no structure in any stack")
    return Ending(examination.outcome.value, examination.reason, examination.detail)


def refused(reason: Reason, detail: str) -> Ending | None:
    """The end of an input that is refused for a reason; None if it is a failure of ours."""
    if describe(reason).outcome != "refused":
        return None
    return Ending(Outcome.REFUSE.value, reason, detail)


def series_names(examination: SeriesExamination, revision: int) -> SeriesNames:
    """Study and series; empty where the input has no one identity."""
    identity = examination.identity
    if identity is None:
        return SeriesNames("", "", revision)
    return SeriesNames(identity.study_instance_uid, identity.series_instance_uid, revision)


def rule_texts(rules: SeriesRules) -> Mapping[str, str]:
    """The limits that the series was examined with."""
    return {name: f"{value:g}" for name, value in dataclasses.asdict(rules).items()}


def model_report(identity: SegmenterIdentity, stacks: Sequence[StackReport]) -> ModelReport:
    """What the report says of the segmenter, and of how it ran what is true of every stack."""
    facts = [set(stack.execution.items()) for stack in stacks]
    shared = set.intersection(*facts) if facts else set()
    return ModelReport(
        name=identity.name,
        version=identity.version,
        digest=identity.digest,
        demonstration=identity.demonstration,
        intended_use=identity.intended_use,
        source=identity.source,
        parameters=dict(identity.parameters),
        execution={name: value for name, value in identity.execution if (name, value) in shared},
    )


def demonstration_findings(identity: SegmenterIdentity) -> tuple[Finding, ...]:
    """The remark that the model is for demonstration, if it is."""
    if not identity.demonstration:
        return ()
    return (Finding(Reason.MODEL_FOR_DEMONSTRATION, identity.intended_use),)


def structure_volumes(labels: LabelMap, truncated: frozenset[int]) -> tuple[StructureVolume, ...]:
    """Volume of each structure that is present; the scan cuts those in ``truncated``.

    A plane stands for what lies half-way to its neighbours; one without any has no volume.
    """
    alone = labels.geometry.shape[0] == 1
    return tuple(
        StructureVolume(
            id=each,
            name=structure(each).name,
            volume_ml=None if alone else round(ml, 3),
            truncated=each in truncated,
        )
        for each, ml in labels.volumes_ml().items()
    )


def segmentation_output(encoded: EncodedSegmentation, name: str) -> OutputFile:
    """A Segmentation as the report lists it, under its final name."""
    return OutputFile(
        file=name,
        kind=encoded.kind.value,
        size_bytes=encoded.size_bytes,
        sha256=encoded.sha256,
        sop_class_uid=encoded.sop_class_uid,
        sop_instance_uid=encoded.sop_instance_uid,
        series_instance_uid=encoded.series_instance_uid,
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        frame_count=encoded.frame_count,
    )


def stack_report(
    plan: StackPlan,
    geometry: Geometry,
    findings: tuple[Finding, ...],
    structures: tuple[StructureVolume, ...],
    outputs: tuple[OutputFile, ...],
) -> StackReport:
    """One stack of a DICOM series."""
    positions_mm = geometry.positions_mm
    used = tuple(
        UsedInstance(row.sop_instance_uid, row.frame_number, round(float(position_mm), 4))
        for row, position_mm in zip(plan.table.rows, positions_mm, strict=True)
    )
    return StackReport(
        separated_by=plan.told_as,
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        tilt_degrees=round(geometry.tilt_degrees, 3),
        reason=None if outputs else Reason.EMPTY_RESULT,
        findings=findings,
        used=used,
        structures=structures,
        outputs=outputs,
    )


def left_out_instances(
    examination: SeriesExamination, paths: Sequence[Path], spool: Path | None
) -> tuple[LeftOutInstance, ...]:
    """Everything that is not used, with its reason.

    Files in ``spool``, whose names are made there, are named relative to it; others by their
    number in ``paths``.
    """
    numbers = file_numbers(paths)

    def name(path: Path) -> str:
        if spool is not None and path.is_relative_to(spool):
            return path.relative_to(spool).as_posix()
        return f"file {numbers[path]}"

    return tuple(
        LeftOutInstance(
            file=name(each.path),
            sop_instance_uid=each.sop_instance_uid,
            frame_number=each.frame_number,
            reason=each.reason,
            detail=each.detail,
        )
        for each in examination.left_out
    )
