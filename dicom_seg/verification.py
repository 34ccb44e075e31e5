"""Reads a Segmentation back and compares it with what was meant, before it may leave.

A mirrored or shifted segmentation looks plausible; so does one in the wrong patient's folder.
Everything is read from the file anew, frames are placed by their own position in millimetres
and named by their own codes, and compared with the label map, the slice table and the source.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import VerificationError
from dicom_seg.examination import StackPlan
from dicom_seg.segmentation import SegKind, SegRequest
from dicom_seg.verify.frames import FrameReader, StoredFrame
from dicom_seg.verify.header_checks import check_claims, check_identity, check_image
from dicom_seg.verify.pixels import FramePixels
from dicom_seg.verify.place_checks import PlaneFinder, check_source
from dicom_seg.verify.segment_checks import stored_structures
from dicom_seg.verify.stored import StoredSegmentation, open_stored
from inference.label_map import BACKGROUND, LabelMap


def verify_segmentation(path: Path, labels: LabelMap, plan: StackPlan, request: SegRequest) -> None:
    """Check the object at ``path`` against labels, source and request.

    Raises
    ------
    VerificationError
        Naming what differs, by attribute or frame; free of patient data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of the source were copied as they are
        with open_stored(path) as stored:
            check_image(stored, labels, request)
            check_identity(stored, plan)
            check_claims(stored, request)
            structures = stored_structures(stored, labels, request)
            if request.kind is SegKind.BINARY:
                _check_binary_frames(stored, labels, plan, structures)
            else:
                _check_labelmap_frames(stored, labels, plan, structures)


def _check_binary_frames(
    stored: StoredSegmentation, labels: LabelMap, plan: StackPlan, structures: dict[int, int]
) -> None:
    """Each structure of each plane has its one frame, and the voxels that it should have."""
    pixels = FramePixels(stored)
    missing = _presence(labels)
    for frame, z in _placed_frames(stored, labels, plan):
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
    _require_none(missing)


def _check_labelmap_frames(
    stored: StoredSegmentation, labels: LabelMap, plan: StackPlan, structures: dict[int, int]
) -> None:
    """Each plane has its one frame, and each voxel the segment that it should have."""
    pixels = FramePixels(stored)
    structure_of = np.full(256, 255, dtype=np.uint8)  # 255: no structure has this id
    structure_of[BACKGROUND] = BACKGROUND
    for number, structure_id in structures.items():
        structure_of[number] = structure_id
    missing = np.ones(labels.labels.shape[0], dtype=np.bool_)
    for frame, z in _placed_frames(stored, labels, plan):
        if not np.array_equal(structure_of[pixels.frame(frame.number)], labels.labels[z]):
            raise VerificationError(f"frame {frame.number}: voxels on plane {z} differ")
        if not missing[z]:
            raise VerificationError(f"frame {frame.number}: plane {z} has another frame")
        missing[z] = False
    _require_none(_presence(labels) & missing[:, None])


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


def _presence(labels: LabelMap) -> npt.NDArray[np.bool_]:
    """``(z, 256)``: which ids each plane has, background left out."""
    present = labels.slice_counts() > 0
    present[:, BACKGROUND] = False
    return present


def _require_none(missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        z, structure_id = np.argwhere(missing)[0]
        raise VerificationError(f"structure {structure_id} has no frame on plane {z}")
