"""A DICOM Segmentation as one side of a comparison (PS3.3 A.51, C.8.20).

This reader shares nothing with what writes and verifies Segmentations elsewhere in the
project, so that comparing is a check of its own. It reads BINARY and LABELMAP objects of any
tool: frames are placed by Image Position (Patient), never by their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.sr.coding import Code

from inference.errors import InferenceError, InvalidGeometryError
from inference.finding import Finding
from inference.geometry import Geometry
from inference.reasons import Reason
from inference.structures import structure
from training.compare.matching import structure_by_code, structure_by_name
from training.compare.plane_stack import distinct_planes, with_empty_planes
from training.compare.side import LayeredLabels, Side
from training.errors import TrainingError

MAX_VOXELS = 1_500_000_000
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_BACKGROUND = Code("125040", "DCM", "Background")
#: Positions along the normal that are this close are one plane, mm.
_SAME_PLANE_MM = 0.01
_VALUES = 65536


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Which structure each segment number is."""

    structure_ids: npt.NDArray[np.uint8]  #: (65536,), 0 for what is no structure
    described: npt.NDArray[np.bool_]  #: (65536,)
    findings: tuple[Finding, ...]


def read_seg_side(path: Path) -> Side:
    """Read a Segmentation object.

    Segments that are no structure of the class list are left out, several that are the same
    one are taken together; findings say so.

    Raises
    ------
    TrainingError
        ``unreadable-file`` if it is no BINARY or LABELMAP Segmentation; ``missing-geometry``,
        ``mixed-orientation`` or ``mixed-matrix`` if its frames make no stack of planes;
        ``unknown-label`` if a LABELMAP holds a value without a segment; ``too-large``;
        ``unsupported-syntax`` or ``corrupt-pixel-data`` if frames cannot be decoded.
    """
    ds = _open(path)
    try:
        segments = _segments(ds)
        frames, geometry = _place(ds, path)
        labelmap = ds.SegmentationType == "LABELMAP"
        numbers = None if labelmap else [_segment_number(groups) for groups in _groups(ds)]
    except InferenceError:
        raise
    except (AttributeError, IndexError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {_first_line(error)}") from error
    labels = LayeredLabels(geometry.shape)
    padding = int(ds.get("PixelPaddingValue", 0))
    for frame, (z, pixels) in enumerate(zip(frames, _pixels(ds, path, len(frames)), strict=True)):
        if numbers is None:
            _add_values(labels, z, pixels, padding, segments, path)
        elif structure_id := int(segments.structure_ids[numbers[frame]]):
            labels.add(structure_id, z, pixels.astype(np.bool_))
    return labels.side(geometry, segments.findings, sparse=True)


def _open(path: Path) -> Dataset:
    try:
        ds = pydicom.dcmread(path)
    except Exception as error:  # whatever the bytes provoke inside pydicom means the same here
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {_first_line(error)}") from error
    kind = ds.get("SegmentationType")
    if ds.get("SOPClassUID") not in _CLASSES or kind not in ("BINARY", "LABELMAP"):
        name = kind or ds.get("Modality") or "no Segmentation"
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {name}, not BINARY or LABELMAP")
    return ds


def _segments(ds: Dataset) -> _Segments:
    ids = np.zeros(_VALUES, dtype=np.uint8)
    described = np.zeros(_VALUES, dtype=np.bool_)
    left_out, differing, names = [], [], []
    for item in ds.SegmentSequence:
        number = int(item.SegmentNumber)
        described[number] = True
        kind = _code(item.SegmentedPropertyTypeCodeSequence[0])
        if kind == _BACKGROUND:
            continue
        structure_id = _structure_of(item, kind)
        if structure_id is None:
            left_out.append(f"{item.get('SegmentLabel', '')} ({kind.meaning})")
            continue
        ids[number] = structure_id
        names.append(structure(structure_id).name)
        label = str(item.get("SegmentLabel", ""))
        if structure_by_name(label) not in (None, structure_id):
            differing.append(f"{label} is {names[-1]} by its code")
    findings = []
    if differing:
        findings.append(Finding(Reason.LABEL_DIFFERS, ", ".join(differing)))
    if left_out:
        findings.append(Finding(Reason.UNKNOWN_LABEL, f"left out: {', '.join(left_out)}"))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        findings.append(Finding(Reason.DUPLICATE_SEGMENT, ", ".join(twice)))
    return _Segments(ids, described, tuple(findings))


def _structure_of(item: Dataset, kind: Code) -> int | None:
    """By code and side; by the label where the code is none of ours or lacks the side."""
    modifiers = item.SegmentedPropertyTypeCodeSequence[0].get(
        "SegmentedPropertyTypeModifierCodeSequence"
    )
    found = structure_by_code(kind, _code(modifiers[0]) if modifiers else None)
    return structure_by_name(str(item.get("SegmentLabel", ""))) if found is None else found


def _code(item: Dataset) -> Code:
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return Code(
        str(value), str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeMeaning", ""))
    )


def _groups(ds: Dataset) -> Any:
    return ds.PerFrameFunctionalGroupsSequence


def _segment_number(groups: Dataset) -> int:
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _place(ds: Dataset, path: Path) -> tuple[list[int], Geometry]:
    """The plane of each frame, and all planes."""
    frames = _groups(ds)
    orientations = {_values(ds, g, "PlaneOrientation", "ImageOrientationPatient") for g in frames}
    if len(orientations) != 1:
        raise TrainingError(Reason.MIXED_ORIENTATION, f"{path}: {len(orientations)} orientations")
    spacings = {_values(ds, g, "PixelMeasures", "PixelSpacing") for g in frames}
    if len(spacings) != 1:
        raise TrainingError(Reason.MIXED_MATRIX, f"{path}: {len(spacings)} pixel spacings")
    cosines = np.array(orientations.pop(), dtype=np.float64)
    row_mm, column_mm = spacings.pop()
    origins = np.array([_values(ds, g, "PlanePosition", "ImagePositionPatient") for g in frames])
    if not (np.isfinite(origins).all() and np.isfinite(cosines).all()):
        raise TrainingError(Reason.MISSING_GEOMETRY, f"{path}: positions that are not finite")
    normal = np.cross(cosines[:3], cosines[3:])
    planes, which = distinct_planes(origins, normal, _SAME_PLANE_MM)
    planes, place = with_empty_planes(planes, normal, _step_mm(ds, frames[0], len(planes) == 1))
    shape = (len(planes), int(ds.Rows), int(ds.Columns))
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise TrainingError(Reason.TOO_LARGE, f"{path}: {shape} voxels")
    try:
        geometry = Geometry(
            shape,
            planes,
            cosines[3:] * row_mm,
            cosines[:3] * column_mm,
            str(ds.get("FrameOfReferenceUID", "")),
        )
    except InvalidGeometryError as error:
        raise TrainingError(Reason.MISSING_GEOMETRY, f"{path}: {error.detail}") from error
    return [int(place[z]) for z in which], geometry


def _values(ds: Dataset, groups: Dataset, macro: str, keyword: str) -> tuple[float, ...]:
    """Of the frame, or shared by all frames."""
    sequence = f"{macro}Sequence"
    holder = groups if sequence in groups else ds.SharedFunctionalGroupsSequence[0]
    return tuple(float(v) for v in holder[sequence].value[0][keyword].value)


def _step_mm(ds: Dataset, groups: Dataset, alone: bool) -> float | None:
    """Distance of neighbouring planes as the object states it.

    Slice Thickness is none (PS3.3 C.7.6.16.2.1): slices overlap or leave gaps. It serves for
    a plane that is alone.
    """
    sequence = "PixelMeasuresSequence"
    holder = groups if sequence in groups else ds.SharedFunctionalGroupsSequence[0]
    measures = holder[sequence].value[0]
    value = measures.get("SpacingBetweenSlices")
    if not value and alone:
        value = measures.get("SliceThickness")
    return abs(float(value)) if value else None


def _pixels(ds: Dataset, path: Path, count: int) -> Iterator[npt.NDArray[Any]]:
    """``(y, x)`` frames in the order in which they are stored."""
    packed = ds.BitsAllocated == 1 and not ds.file_meta.TransferSyntaxUID.is_encapsulated
    done = 0
    try:
        for pixels in _packed_frames(ds, count) if packed else iter_pixels(ds, raw=True):
            done += 1
            yield pixels
    except NotImplementedError as error:
        raise TrainingError(Reason.UNSUPPORTED_SYNTAX, f"{path}: {_first_line(error)}") from error
    except (RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise TrainingError(Reason.CORRUPT_PIXEL_DATA, f"{path}: {_first_line(error)}") from error
    if done != count:
        raise TrainingError(Reason.CORRUPT_PIXEL_DATA, f"{path}: {done} of {count} frames")


def _packed_frames(ds: Dataset, count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Eight voxels a byte, the first in the lowest bit, without a gap between frames (PS3.5 8.2).

    pydicom 3.0 iterates over such frames only where each begins with a byte.
    """
    rows, columns = int(ds.Rows), int(ds.Columns)
    data, size = np.frombuffer(ds.PixelData, dtype=np.uint8), rows * columns
    if data.size * 8 < count * size:
        raise ValueError(f"{data.size} bytes for {count} frames of {size} voxels")
    for frame in range(count):
        first, last = frame * size, (frame + 1) * size
        bits = np.unpackbits(data[first // 8 : (last + 7) // 8], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(rows, columns)


def _add_values(
    labels: LayeredLabels,
    z: int,
    pixels: npt.NDArray[Any],
    padding: int,
    segments: _Segments,
    path: Path,
) -> None:
    for value in np.unique(pixels):
        if value in (0, padding) and not segments.structure_ids[value]:
            continue
        if not segments.described[value]:
            raise TrainingError(Reason.UNKNOWN_LABEL, f"{path}: value {value} has no segment")
        if structure_id := int(segments.structure_ids[value]):
            labels.add(structure_id, z, pixels == value)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
