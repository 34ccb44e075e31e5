"""All attributes of a Segmentation but those of its frames (PS3.3 A.51)."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Final

from pydicom.dataset import Dataset

from dicom_seg.codes import CodedTerm
from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import ResultIdentity, derived_uid
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.read.slice_table import SliceRow
from dicom_seg.seg import elements
from dicom_seg.seg.copied import copy_source_attributes, text_of
from dicom_seg.seg.equipment import add_equipment
from dicom_seg.seg.frames import FramePlan
from dicom_seg.seg.functional_groups import shared_groups
from dicom_seg.seg.remarks import add_remarks
from dicom_seg.seg.request import SegKind, SegRequest
from dicom_seg.seg.segments import segment_items
from inference.geometry import Geometry
from inference.reasons import Reason

#: Purpose of a reference to an earlier instance of a succession (PS3.16 CID 7201).
TEMPORAL_PREDECESSOR: Final = CodedTerm("121348", "Temporal Predecessor", "DCM")

_REFERENCED_CLASS: Final = 0x00081150
_REFERENCED_INSTANCE: Final = 0x00081155
_SEGMENTS: Final = 0x00620002
_SERIES_INSTANCE: Final = 0x0020000E
_REFERENCED_SERIES: Final = 0x00081115
_REFERENCED_INSTANCES: Final = 0x0008114A

#: A stack that leans by less stands straight: 0.07 mm over 400 mm.
_STRAIGHT_DEGREES: Final = 0.01

#: A slice is not thinner, and not thicker: another value is none.
_THICKNESS_MM: Final = (1e-3, 1e3)

#: Dimensions: attribute, functional group that holds it, name (PS3.3 C.7.6.17).
_SEGMENT_DIMENSION: Final = (0x0062000B, 0x0062000A, "Referenced Segment Number")
_POSITION_DIMENSION: Final = (0x00200032, 0x00209113, "Image Position Patient")


def build_attributes(
    plan: StackPlan, frames: FramePlan, request: SegRequest, identity: ResultIdentity
) -> Dataset:
    """The data set without Per-Frame Functional Groups and Pixel Data.

    Raises
    ------
    SegmentationError
        ``missing-identity`` if the source has none to copy.
    """
    dataset = Dataset()
    copy_source_attributes(plan.header, dataset)
    _require_source_uids(plan)
    _add_identity(dataset, request, identity)
    add_equipment(dataset, plan.header, request)
    add_remarks(dataset, plan, frames, request)
    _add_references(dataset, plan, request)
    _add_image(dataset, plan, frames, request)
    _add_dimensions(dataset, plan, request, identity)
    charset = dataset.get("SpecificCharacterSet")
    segments = segment_items(frames.structure_ids, request, identity, charset)
    dataset[_SEGMENTS] = elements.raw_sequence(_SEGMENTS, segments)
    dataset.SharedFunctionalGroupsSequence = [shared_groups(plan.table, _slice_thickness_mm(plan))]
    return dataset


def frame_of_reference_uid(plan: StackPlan) -> str:
    """That of the source; where it has none, one that names this stack of this series."""
    uid = plan.table.frame_of_reference_uid
    if uid:
        return uid
    series_uid = text_of(plan.header, "SeriesInstanceUID")
    return derived_uid("frame of reference", series_uid, plan.separated_by)


def _require_source_uids(plan: StackPlan) -> None:
    if not text_of(plan.header, "SeriesInstanceUID"):
        raise SegmentationError(Reason.MISSING_IDENTITY, "SeriesInstanceUID is empty")
    for z, row in enumerate(plan.table.rows):
        if not row.sop_instance_uid or not row.sop_class_uid:
            raise SegmentationError(
                Reason.MISSING_IDENTITY, f"SOPInstanceUID or SOPClassUID of plane {z} is empty"
            )


def _add_identity(dataset: Dataset, request: SegRequest, identity: ResultIdentity) -> None:
    """Series, instance and times: all derived or asked for, so that bytes repeat."""
    created = _in_time_zone_of(dataset, request.created)
    day, moment = created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    dataset.SOPClassUID = request.kind.sop_class_uid
    dataset.SOPInstanceUID = identity.uid("instance")
    dataset.SeriesInstanceUID = identity.uid("series")
    dataset.Modality = "SEG"
    dataset.SeriesNumber = request.series_number
    dataset.InstanceNumber = 1
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = day
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = moment


def _in_time_zone_of(dataset: Dataset, created: datetime) -> datetime:
    """All times of an object share Timezone Offset From UTC (PS3.3 C.12.1.1.8)."""
    offset = text_of(dataset, "TimezoneOffsetFromUTC")
    if created.tzinfo is None:
        return created
    with suppress(ValueError):
        sign, hours, minutes = offset[:1], int(offset[1:3]), int(offset[3:5])
        delta = timedelta(hours=hours, minutes=minutes)
        return created.astimezone(timezone(-delta if sign == "-" else delta))
    return created


def _add_references(dataset: Dataset, plan: StackPlan, request: SegRequest) -> None:
    """Common Instance Reference (PS3.3 C.12.2): the source first, then what is replaced.

    As bytes: hundreds of alike items, for which a general encoder takes longer than for all
    the rest.
    """
    instances = {row.sop_instance_uid: row.sop_class_uid for row in plan.table.rows}
    series = [_referenced_series(text_of(plan.header, "SeriesInstanceUID"), instances)]
    before = request.predecessor
    if before is not None:
        replaced = {before.sop_instance_uid: before.sop_class_uid}
        series.append(_referenced_series(before.series_instance_uid, replaced))
    dataset[_REFERENCED_SERIES] = elements.raw_sequence(_REFERENCED_SERIES, series)
    if before is None:
        return
    # A Segmentation has no attribute of its own for what it replaces, as an SR has; a
    # purpose of reference says it (General Reference Module, PS3.3 C.12.4).
    image = Dataset()
    image.ReferencedSOPClassUID = before.sop_class_uid
    image.ReferencedSOPInstanceUID = before.sop_instance_uid
    purpose = Dataset()
    purpose.CodeValue = TEMPORAL_PREDECESSOR.value
    purpose.CodingSchemeDesignator = TEMPORAL_PREDECESSOR.scheme
    purpose.CodeMeaning = TEMPORAL_PREDECESSOR.meaning
    image.PurposeOfReferenceCodeSequence = [purpose]
    dataset.ReferencedImageSequence = [image]


def _referenced_series(series_uid: str, class_of: dict[str, str]) -> bytes:
    """Elements of an item: instances of one series, by SOP Instance UID."""
    instances = (
        elements.element(_REFERENCED_CLASS, "UI", class_uid.encode("ascii"))
        + elements.element(_REFERENCED_INSTANCE, "UI", uid.encode("ascii"))
        for uid, class_uid in class_of.items()
    )
    return elements.sequence(_REFERENCED_INSTANCES, *instances) + elements.element(
        _SERIES_INSTANCE, "UI", series_uid.encode("ascii")
    )


def _add_image(dataset: Dataset, plan: StackPlan, frames: FramePlan, request: SegRequest) -> None:
    """Segmentation Image Module (PS3.3 C.8.20.2)."""
    bits = 1 if request.kind is SegKind.BINARY else 8
    first = plan.table.rows[0]
    dataset.FrameOfReferenceUID = frame_of_reference_uid(plan)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SegmentationType = request.kind.name
    dataset.SegmentsOverlap = "NO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames = len(frames.frames)
    dataset.Rows = first.rows
    dataset.Columns = first.columns
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "01" if _is_lossy(plan) else "00"
    dataset.ContentLabel = "ANATOMY"
    dataset.ContentCreatorName = None


def _is_lossy(plan: StackPlan) -> bool:
    """What was compressed with loss once stays so in all that is derived from it."""
    return text_of(plan.header, "LossyImageCompression") == "01" or any(
        finding.reason is Reason.LOSSY_SOURCE for finding in plan.findings
    )


def _add_dimensions(
    dataset: Dataset, plan: StackPlan, request: SegRequest, identity: ResultIdentity
) -> None:
    """How frames are indexed (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = identity.uid("dimension organization")
    dataset.DimensionOrganizationSequence = [organization]
    dimensions = [_SEGMENT_DIMENSION, _POSITION_DIMENSION]
    if request.kind is SegKind.LABELMAP:
        dimensions = [_POSITION_DIMENSION]
        if _is_rectangular(plan.table.geometry()):
            dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = []
    for pointer, group, label in dimensions:
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = group
        index.DimensionDescriptionLabel = label
        dataset.DimensionIndexSequence.append(index)


def _is_rectangular(geometry: Geometry) -> bool:
    """Evenly spaced planes straight above each other: one volume for every reader."""
    straight = geometry.tilt_degrees < _STRAIGHT_DEGREES
    return geometry.shape[0] > 1 and geometry.is_affine and straight


def _slice_thickness_mm(plan: StackPlan) -> float:
    """As the source says; the distance of its planes where that is missing or impossible."""
    header = plan.header
    with quiet_pydicom(), suppress(AttributeError, IndexError, TypeError, ValueError):
        if "SliceThickness" in header:
            thickness_mm = float(header.SliceThickness)
        else:
            thickness_mm = _multiframe_thickness_mm(header, plan.table.rows[0])
        if _THICKNESS_MM[0] <= thickness_mm <= _THICKNESS_MM[1]:
            return thickness_mm
    return plan.table.geometry().spacing_mm[0]


def _multiframe_thickness_mm(header: Dataset, row: SliceRow) -> float:
    shared = header.SharedFunctionalGroupsSequence[0]
    if "PixelMeasuresSequence" in shared:
        return float(shared.PixelMeasuresSequence[0].SliceThickness)
    frame = header.PerFrameFunctionalGroupsSequence[(row.frame_number or 1) - 1]
    return float(frame.PixelMeasuresSequence[0].SliceThickness)
