"""Planes of a geometry as DICOM attributes (PS3.3 C.7.6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.valuerep import DSfloat

from inference.geometry import Geometry


def decimals(values: object) -> list[DSfloat]:
    """Decimal Strings of at most 16 characters, as exact as that allows (PS3.5 6.2)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in np.ravel(np.asarray(values))]


@dataclass(frozen=True, slots=True)
class PlaneAttributes:
    """Values that place the planes of a geometry.

    Raises
    ------
    ValueError
        If rows and columns are not at right angles: DICOM has no such image.
    """

    geometry: Geometry

    def __post_init__(self) -> None:
        rows, columns = self.geometry.row_step_mm, self.geometry.column_step_mm
        if abs(rows @ columns) > 1e-6 * float(np.linalg.norm(rows) * np.linalg.norm(columns)):
            raise ValueError("rows and columns are not at right angles")

    def position(self, plane: int) -> list[DSfloat]:
        """Image Position (Patient), LPS mm."""
        return decimals(self.geometry.origins_mm[plane])

    @property
    def orientation(self) -> list[DSfloat]:
        """Image Orientation (Patient): direction of a row, then of a column."""
        return decimals(
            [
                step / np.linalg.norm(step)
                for step in (self.geometry.column_step_mm, self.geometry.row_step_mm)
            ]
        )

    @property
    def pixel_spacing(self) -> list[DSfloat]:
        """Distance between rows, then between columns, mm (PS3.3 10.7.1.3)."""
        return decimals(self.geometry.spacing_mm[1:])

    @property
    def thickness(self) -> DSfloat:
        """Slice Thickness, mm: the median distance of planes, so that it misleads at a gap."""
        return decimals(self.geometry.spacing_mm[0])[0]

    def location(self, plane: int) -> DSfloat:
        """Slice Location, mm: position of the plane along its normal."""
        return decimals(self.geometry.positions_mm[plane])[0]

    @property
    def tilt(self) -> DSfloat:
        """Gantry/Detector Tilt, degrees, without sign."""
        return decimals(round(self.geometry.tilt_degrees, 6))[0]
