"""Reads a Segmentation back and compares it with what was meant, before it may leave.

A mirrored or shifted segmentation looks plausible; so does one in the wrong patient's folder.
Everything is read from the file anew, frames are placed by their own position in millimetres
and named by their own codes, and compared with the label map, the slice table and the source.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import VerificationError
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.segmentation import SegKind, SegRequest
from dicom_seg.verify.frames import FrameReader, StoredFrame
from dicom_seg.verify.header_checks import check_claims, check_identity, check_image
from dicom_seg.verify.pixels import FramePixels
from dicom_seg.verify.place_checks import PlaneFinder, check_source
from dicom_seg.verify.segment_checks import stored_structures
from dicom_seg.verify.stored import StoredSegmentation, open_stored
from inference.label_map import BACKGROUND, LabelMap

#: ``(z, 256)``: which ids each plane has, background left out.
Presence = npt.NDArray[np.bool_]


def verify_segmentation(path: Path, labels: LabelMap, plan: StackPlan, request: SegRequest) -> None:
    """Check the object at ``path`` against labels, source and request.

    Raises
    ------
    VerificationError
        Naming what differs, by attribute or frame; free of patient data.
    """
    with quiet_pydicom(), open_stored(path) as stored:
        check_image(stored, labels, request)
        check_identity(stored, plan)
        check_claims(stored, request)
        present = labels.slice_presence()
        present[:, BACKGROUND] = False
        structures = stored_structures(stored, _ids(present), request)
        placed = _placed_frames(stored, labels, plan)
        if request.kind is SegKind.BINARY:
            missing = _check_binary_frames(stored, labels, placed, structures, present)
        else:
            missing = _check_labelmap_frames(stored, labels, placed, structures, present)
        if missing.any():
            z, structure_id = np.argwhere(missing)[0]
            raise VerificationError(f"structure {structure_id} has no frame on plane {z}")


def _check_binary_frames(
    stored: StoredSegmentation,
    labels: LabelMap,
    placed: list[tuple[StoredFrame, int]],
    structures: dict[int, int],
    present: Presence,
) -> Presence:
    """Each structure of each plane has its one frame, and the voxels that it should have.

    Returns what of ``present`` has no frame.
    """
    pixels = FramePixels(stored)
    missing = present.copy()
    for frame, z in placed:
        structure_id = structures.get(frame.segment or 0)
        if structure_id is None:
            raise VerificationError(f"frame {frame.number}: no segment {frame.segment}")
        expected = labels.labels[z] == structure_id
        if not np.array_equal(pixels.frame(frame.number), expected):
            raise VerificationError(
                f"frame {frame.number}: voxels of segment {frame.segment} on plane {z} differ"
            )
        if not missing[z, structure_id]:
            raise VerificationError(
                f"frame {frame.number}: segment {frame.segment} has another frame on plane {z}, "
                "or no voxel there"
            )
        missing[z, structure_id] = False
    return missing


def _check_labelmap_frames(
    stored: StoredSegmentation,
    labels: LabelMap,
    placed: list[tuple[StoredFrame, int]],
    structures: dict[int, int],
    present: Presence,
) -> Presence:
    """Each plane has its one frame, and each voxel the segment that it should have.

    Returns what of ``present`` has no frame.
    """
    pixels = FramePixels(stored)
    structure_of = bytearray(b"\xff" * 256)  # 255: no structure has this id
    structure_of[BACKGROUND] = BACKGROUND
    for number, structure_id in structures.items():
        structure_of[number] = structure_id
    missing = present.copy()
    seen = set()
    for frame, z in placed:
        found = pixels.frame(frame.number).tobytes().translate(structure_of)
        if found != labels.labels[z].tobytes():
            raise VerificationError(f"frame {frame.number}: voxels on plane {z} differ")
        if z in seen:
            raise VerificationError(f"frame {frame.number}: plane {z} has another frame")
        seen.add(z)
        missing[z] = False
    return missing


def _placed_frames(
    stored: StoredSegmentation, labels: LabelMap, plan: StackPlan
) -> list[tuple[StoredFrame, int]]:
    """Frames with the plane of the label map that each lies on, checked in millimetres."""
    finder = PlaneFinder(stored, labels.geometry)
    placed = []
    try:
        for frame in FrameReader(stored).frames():
            z = finder.plane_of(frame)
            check_source(frame, plan.table.rows[z])
            placed.append((frame, z))
    except KeyError as error:
        raise VerificationError(f"a frame lacks attribute {error.args[0]:08X}") from error
    finder.check_index_values(placed)
    return placed


def _ids(present: Presence) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(present.any(axis=0)))
