"""Checks of where frames are, in millimetres, and which slice they come from."""

from __future__ import annotations

from typing import Final

import numpy as np

from dicom_seg.errors import VerificationError
from dicom_seg.read.slice_table import SliceRow
from dicom_seg.verify.frames import StoredFrame
from dicom_seg.verify.stored import StoredSegmentation
from inference.geometry import FloatArray, Geometry

#: A voxel of the object may be so far from the voxel of the label map.
TOLERANCE_MM: Final = 0.01
SOURCE_IMAGE_PURPOSE: Final = "121322"
SEGMENTATION_DERIVATION: Final = "113076"


class PlaneFinder:
    """Finds the plane of a grid that a stored frame lies on, corner by corner.

    Raises
    ------
    VerificationError
        If Pixel Measures or Plane Orientation are missing, or say that planes are evenly
        spaced where they are not.
    """

    def __init__(self, stored: StoredSegmentation, geometry: Geometry) -> None:
        (shared,) = stored.attributes.SharedFunctionalGroupsSequence
        if "PixelMeasuresSequence" not in shared or "PlaneOrientationSequence" not in shared:
            raise VerificationError("PixelMeasuresSequence or PlaneOrientationSequence is missing")
        measures = shared.PixelMeasuresSequence[0]
        orientation = np.array(
            shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64
        )
        row_spacing_mm, column_spacing_mm = (float(value) for value in measures.PixelSpacing)
        _check_slice_spacing(measures.get("SpacingBetweenSlices"), geometry)
        _, rows, columns = geometry.shape
        corners = np.array([(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)])
        # Position of a pixel, PS3.3 C.7.6.2.1.1: a row runs along the first three cosines.
        self._offsets_mm: FloatArray = (
            corners[:, :1] * row_spacing_mm * orientation[3:]
            + corners[:, 1:] * column_spacing_mm * orientation[:3]
        )
        planes = np.arange(geometry.shape[0])
        zyx = np.stack([np.insert(corners, 0, z, axis=1) for z in planes])
        self._corners_mm = geometry.lps_mm(zyx)
        self._positions_mm = geometry.positions_mm
        self._normal = geometry.normal
        self._found: dict[tuple[float, ...], int] = {}

    def plane_of(self, frame: StoredFrame) -> int:
        """Index of the plane whose four corners are those of the frame.

        Raises
        ------
        VerificationError
            If there is none within ``TOLERANCE_MM``.
        """
        if frame.position_mm not in self._found:
            origin_mm = np.array(frame.position_mm)
            z = int(np.abs(self._positions_mm - origin_mm @ self._normal).argmin())
            away_mm = np.linalg.norm(origin_mm + self._offsets_mm - self._corners_mm[z], axis=1)
            if not away_mm.max() <= TOLERANCE_MM:
                raise VerificationError(
                    f"frame {frame.number} lies {away_mm.max():.3f} mm away from plane {z}"
                )
            self._found[frame.position_mm] = z
        return self._found[frame.position_mm]

    def check_index_values(self, placed: list[tuple[StoredFrame, int]]) -> None:
        """One dimension index for one plane, and the segment's own number (PS3.3 C.7.6.17).

        Raises
        ------
        VerificationError
            Naming the frame.
        """
        plane_of_index: dict[int, int] = {}
        for frame, z in placed:
            *segment, position = frame.index_values
            expected = [] if frame.segment is None else [frame.segment]
            if segment != expected or plane_of_index.setdefault(position, z) != z:
                raise VerificationError(f"frame {frame.number}: DimensionIndexValues differ")
        if len(set(plane_of_index.values())) != len(plane_of_index):
            raise VerificationError("two DimensionIndexValues stand for one plane")


def check_source(frame: StoredFrame, row: SliceRow) -> None:
    """The frame refers to its own slice, and says why.

    Raises
    ------
    VerificationError
        Naming the frame.
    """
    source = frame.source
    if (source.sop_class_uid, source.sop_instance_uid, source.frame_number) != (
        row.sop_class_uid,
        row.sop_instance_uid,
        row.frame_number,
    ):
        raise VerificationError(f"frame {frame.number} refers to another slice than its own")
    if (source.purpose, source.derivation) != (SOURCE_IMAGE_PURPOSE, SEGMENTATION_DERIVATION):
        raise VerificationError(f"frame {frame.number}: purpose or derivation code differs")


def _check_slice_spacing(spacing: object, geometry: Geometry) -> None:
    if spacing is None:
        if geometry.is_affine and geometry.shape[0] > 1:
            raise VerificationError("SpacingBetweenSlices is missing")
    elif not geometry.is_affine or (
        abs(float(str(spacing)) - geometry.spacing_mm[0]) > TOLERANCE_MM
    ):
        raise VerificationError(f"SpacingBetweenSlices is {spacing}")
