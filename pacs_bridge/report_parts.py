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


def ending(
    examination: SeriesExamination, stacks: Sequence[StackReport], wanted: Sequence[str] = ()
) -> Ending:
    """What came of a series: as examined, unless no stack gave a result.

    Parameters
    ----------
    examination
        Of the series.
    stacks
        All of them.
    wanted
        Names of the only structures that were looked for; empty: all.
    """
    if stacks and not any(stack.outputs for stack in stacks):
        return empty_ending(wanted, "any stack")
    return Ending(examination.outcome.value, examination.reason, examination.detail)


def empty_ending(wanted: Sequence[str], where: str) -> Ending:
    """The end of an input in which nothing was found, of what was wanted or at all."""
    what = "none of the wanted structures" if wanted else "no structure"
    return Ending(Outcome.SKIP.value, Reason.EMPTY_RESULT, f"{what} in {where}")


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
    """What the report says of the segmenter; settings and facts are those of every stack."""
    settings = [stack.parameters for stack in stacks]
    facts = [stack.execution for stack in stacks]
    return ModelReport(
        name=identity.name,
        version=identity.version,
        digest=identity.digest,
        demonstration=identity.demonstration,
        intended_use=identity.intended_use,
        source=identity.source,
        parameters=_of_all(identity.parameters, settings),
        execution=_of_all(identity.execution, facts),
    )


def _of_all(
    told: Sequence[tuple[str, str]], stacks: Sequence[Mapping[str, str]]
) -> Mapping[str, str]:
    """What is true of every stack."""
    return {name: value for name, value in told if all(each.get(name) == value for each in stacks)}


def segmenter_findings(identity: SegmenterIdentity) -> tuple[Finding, ...]:
    """Remarks that follow from who segmented: for demonstration, or not all structures."""
    found = []
    if identity.demonstration:
        found.append(Finding(Reason.MODEL_FOR_DEMONSTRATION, identity.intended_use))
    if identity.wanted:
        found.append(Finding(Reason.CHOSEN_STRUCTURES, ", ".join(identity.wanted)))
    return tuple(found)


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
