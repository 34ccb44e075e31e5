"""Functional groups: what holds for all frames, and each frame's own place and source.

Thousands of frames differ in little: plane, position and segment. What belongs to a plane is
encoded once a plane, the rest is a template.
"""

from __future__ import annotations

import struct
from typing import Final

from highdicom import PixelMeasuresSequence, PlaneOrientationSequence
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_seg.codes import CodedTerm
from dicom_seg.read.slice_table import SliceRow, SliceTable
from dicom_seg.seg import elements
from dicom_seg.seg.frames import FramePlan

PER_FRAME_GROUPS: Final = 0x52009230

#: PS3.16 CID 7202 and CID 7203.
SOURCE_IMAGE_PURPOSE: Final = CodedTerm(
    "121322", "Source image for image processing operation", "DCM"
)
SEGMENTATION_DERIVATION: Final = CodedTerm("113076", "Segmentation", "DCM")

_DERIVATION_IMAGE: Final = 0x00089124
_SOURCE_IMAGE: Final = 0x00082112
_DERIVATION_CODE: Final = 0x00089215
_REFERENCED_CLASS: Final = 0x00081150
_REFERENCED_INSTANCE: Final = 0x00081155
_REFERENCED_FRAME: Final = 0x00081160
_LOCATIONS_PRESERVED: Final = 0x0028135A
_PURPOSE: Final = 0x0040A170
_FRAME_CONTENT: Final = 0x00209111
_DIMENSION_INDEX_VALUES: Final = 0x00209157
_PLANE_POSITION: Final = 0x00209113
_IMAGE_POSITION: Final = 0x00200032
_SEGMENT_IDENTIFICATION: Final = 0x0062000A
_REFERENCED_SEGMENT: Final = 0x0062000B


def shared_groups(table: SliceTable, thickness_mm: float) -> Dataset:
    """Orientation and pixel measures, which all frames share (PS3.3 C.7.6.16.2.1, .4).

    Spacing Between Slices is there only where it is one number: along the normal, between
    evenly spaced planes. Uneven planes carry their positions and no such number.
    """
    geometry = table.geometry()
    first = table.rows[0]
    even = geometry.is_affine and geometry.shape[0] > 1
    groups = Dataset()
    groups.PlaneOrientationSequence = PlaneOrientationSequence(
        "PATIENT", (*first.row_cosine, *first.column_cosine)
    )
    groups.PixelMeasuresSequence = PixelMeasuresSequence(
        pixel_spacing=(first.row_spacing_mm, first.column_spacing_mm),
        slice_thickness=thickness_mm,
        spacing_between_slices=geometry.spacing_mm[0] if even else None,
    )
    return groups


def per_frame_items(plan: FramePlan, table: SliceTable) -> list[bytes]:
    """The items of Per-Frame Functional Groups Sequence, one a frame, in order."""
    planes = [(_derivation(row), _plane_position(row)) for row in table.rows]
    items = []
    for frame in plan.frames:
        source, position = planes[frame.z]
        if frame.segment == 0:
            value = source + _frame_content(frame.position) + position
        else:
            content = _frame_content(frame.segment, frame.position)
            value = source + content + position + _segment(frame.segment)
        items.append(elements.item_header(len(value)) + value)
    return items


def _derivation(row: SliceRow) -> bytes:
    """From which image the frame was derived, and how (PS3.3 C.7.6.16.2.6)."""
    frame = b""
    if row.frame_number is not None:
        frame = elements.element(_REFERENCED_FRAME, "IS", str(row.frame_number).encode("ascii"))
    source = (
        elements.element(_REFERENCED_CLASS, "UI", row.sop_class_uid.encode("ascii"))
        + elements.element(_REFERENCED_INSTANCE, "UI", row.sop_instance_uid.encode("ascii"))
        + frame
        + elements.element(_LOCATIONS_PRESERVED, "CS", b"YES")
        + elements.code(_PURPOSE, SOURCE_IMAGE_PURPOSE)
    )
    return elements.sequence(
        _DERIVATION_IMAGE,
        elements.sequence(_SOURCE_IMAGE, source)
        + elements.code(_DERIVATION_CODE, SEGMENTATION_DERIVATION),
    )


def _plane_position(row: SliceRow) -> bytes:
    position = "\\".join(format_number_as_ds(value) for value in row.origin_mm)
    return elements.sequence(
        _PLANE_POSITION, elements.element(_IMAGE_POSITION, "DS", position.encode("ascii"))
    )


def _frame_content(*index_values: int) -> bytes:
    value = struct.pack(f"<{len(index_values)}I", *index_values)
    return elements.sequence(_FRAME_CONTENT, elements.element(_DIMENSION_INDEX_VALUES, "UL", value))


def _segment(number: int) -> bytes:
    return elements.sequence(
        _SEGMENT_IDENTIFICATION,
        elements.element(_REFERENCED_SEGMENT, "US", struct.pack("<H", number)),
    )
