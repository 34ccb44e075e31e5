"""Which frames a Segmentation has, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_seg.codes import STRUCTURE_CODES
from dicom_seg.errors import SegmentationError
from dicom_seg.seg.request import SegKind
from inference.label_map import BACKGROUND, LabelMap
from inference.reasons import Reason


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the object."""

    z: int  #: plane of the label map, row of the slice table
    position: int  #: 1-based ordinal of its plane among the planes that have frames
    segment: int  #: segment number in a BINARY object; 0 in a LABELMAP, whose frame holds all


@dataclass(frozen=True, slots=True)
class FramePlan:
    """The segments and the frames of one object.

    Frames are ordered as their dimension indices are: by segment, then by position against
    the normal, from the last plane of the slice table to the first (PS3.3 C.7.6.17).
    """

    structure_ids: tuple[int, ...]  #: structure of segment 1, 2, ...
    frames: tuple[Frame, ...]

    def by_segment(self) -> Iterator[tuple[int, Frame]]:
        """Structure id and frame, for BINARY."""
        for frame in self.frames:
            yield self.structure_ids[frame.segment - 1], frame


def plan_frames(labels: LabelMap, kind: SegKind) -> FramePlan:
    """Segments are the structures that are present, numbered without gaps.

    BINARY has a frame for each structure and plane that it is present in. LABELMAP has one
    for each plane of the source, empty or not: readers rebuild the volume without guessing,
    and an empty plane costs next to nothing.

    Raises
    ------
    SegmentationError
        ``empty-result`` if there is no structure; ``seg-encode`` if a label is none of the
        class list.
    """
    by_plane = labels.slice_presence()
    present = np.flatnonzero(by_plane.any(axis=0))
    structure_ids = tuple(int(i) for i in present if i != BACKGROUND)
    if not structure_ids:
        raise SegmentationError(Reason.EMPTY_RESULT, "no structure in the label map")
    if structure_ids[-1] > len(STRUCTURE_CODES):
        raise SegmentationError(Reason.SEG_ENCODE, f"no structure has id {structure_ids[-1]}")
    if kind is SegKind.LABELMAP:
        frames = _labelmap_frames(len(by_plane))
    else:
        frames = _binary_frames(by_plane[:, structure_ids])
    return FramePlan(structure_ids, frames)


def _labelmap_frames(planes: int) -> tuple[Frame, ...]:
    return tuple(
        Frame(z, position, 0) for position, z in enumerate(reversed(range(planes)), start=1)
    )


def _binary_frames(present: npt.NDArray[np.bool_]) -> tuple[Frame, ...]:
    """Frames of a ``(z, segment)`` table of presence."""
    planes = np.flatnonzero(present.any(axis=1))[::-1]
    segment_index, plane_index = np.nonzero(present[planes].T)
    return tuple(
        Frame(int(planes[plane]), int(plane) + 1, int(segment) + 1)
        for segment, plane in zip(segment_index, plane_index, strict=True)
    )
