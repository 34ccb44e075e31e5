"""Where a stack of image planes sits in the patient.

``Geometry`` is the only carrier of spatial meaning in the project. Arrays are indexed
``(z, y, x)`` = (slice, row, column); positions are millimetres in the patient-based
coordinate system, LPS: +x to the patient's left, +y to the back, +z to the head
(PS3.3 C.7.6.2.1.1). RAS exists only inside the preprocessing of the network.

A CT series is a stack of parallel planes. Each plane carries its own origin, so a tilted
gantry, uneven spacing or a missing slice are plain values here and not special cases; an
affine grid is the case in which the origins happen to be evenly spaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidGeometryError

FloatArray = npt.NDArray[np.float64]

#: Origins further than this from their best line are unevenly spaced or bent, mm.
EVEN_TOLERANCE_MM = 0.01


@dataclass(frozen=True, slots=True, eq=False)  # eq: arrays have no truth value
class Geometry:
    """Parallel planes of one matrix in one frame of reference.

    Parameters
    ----------
    shape
        ``(z, y, x)``, voxels; every extent at least 1.
    origins_mm
        ``(z, 3)``, LPS position of the centre of voxel ``(z, 0, 0)``: Image Position
        (Patient) of each plane. Strictly monotone along ``normal``.
    row_step_mm
        ``(3,)``, LPS displacement of one step in ``y``, to the next row: the column
        direction cosine times the first value of Pixel Spacing (PS3.3 10.7.1.3).
    column_step_mm
        ``(3,)``, LPS displacement of one step in ``x``, to the next column.
    frame_of_reference_uid
        PS3.3 C.7.4.1; empty where the source has none (NIfTI).

    Raises
    ------
    InvalidGeometryError
        If a value is not finite, a step has no length, rows and columns are parallel, or the
        planes do not follow each other along the normal.
    """

    shape: tuple[int, int, int]
    origins_mm: FloatArray
    row_step_mm: FloatArray
    column_step_mm: FloatArray
    frame_of_reference_uid: str = ""

    def __post_init__(self) -> None:
        for name, expected in (
            ("origins_mm", (self.shape[0], 3)),
            ("row_step_mm", (3,)),
            ("column_step_mm", (3,)),
        ):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != expected or not np.isfinite(array).all():
                raise InvalidGeometryError(f"{name} must be finite and {expected}: {array}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if min(self.shape) < 1:
            raise InvalidGeometryError(f"empty grid {self.shape}")
        cross = np.cross(self.column_step_mm, self.row_step_mm)
        area = float(np.linalg.norm(self.column_step_mm) * np.linalg.norm(self.row_step_mm))
        if area == 0 or float(np.linalg.norm(cross)) < 1e-3 * area:
            raise InvalidGeometryError("rows and columns do not span a plane")
        steps = np.diff(self.positions_mm)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InvalidGeometryError("planes do not follow each other along the normal")

    @classmethod
    def from_affine(
        cls, affine: npt.ArrayLike, shape: tuple[int, int, int], frame_of_reference_uid: str = ""
    ) -> Self:
        """Evenly spaced planes from a 4 x 4 matrix, ``(z, y, x, 1)`` index -> LPS mm."""
        matrix = np.asarray(affine, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.allclose(matrix[3], [0, 0, 0, 1]):
            raise InvalidGeometryError(f"not a 4 x 4 affine: {matrix}")
        slices = np.arange(shape[0], dtype=np.float64)[:, None]
        return cls(
            shape=shape,
            origins_mm=matrix[:3, 3] + slices * matrix[:3, 0],
            row_step_mm=matrix[:3, 1],
            column_step_mm=matrix[:3, 2],
            frame_of_reference_uid=frame_of_reference_uid,
        )

    @property
    def normal(self) -> FloatArray:
        """Unit vector across the planes: row direction x column direction (PS3.3 C.7.6.2.1.1)."""
        cross = np.cross(self.column_step_mm, self.row_step_mm)
        return np.asarray(cross / np.linalg.norm(cross), dtype=np.float64)

    @property
    def positions_mm(self) -> FloatArray:
        """``(z,)``, signed distance of each plane from the LPS origin along ``normal``."""
        return np.asarray(self.origins_mm @ self.normal, dtype=np.float64)

    @property
    def stack_step_mm(self) -> FloatArray:
        """``(3,)``, mean LPS displacement of one step in ``z``; one ``normal`` for one plane."""
        if self.shape[0] == 1:
            return self.normal
        span = self.origins_mm[-1] - self.origins_mm[0]
        return np.asarray(span / (self.shape[0] - 1), dtype=np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """``(z, y, x)``; z is the median distance of neighbouring planes along the normal."""
        steps = np.abs(np.diff(self.positions_mm))
        return (
            float(np.median(steps)) if steps.size else 1.0,
            float(np.linalg.norm(self.row_step_mm)),
            float(np.linalg.norm(self.column_step_mm)),
        )

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the direction in which the planes are stacked."""
        step = self.stack_step_mm
        cosine = abs(float(step @ self.normal)) / float(np.linalg.norm(step))
        return math.degrees(math.acos(min(1.0, cosine)))

    @property
    def is_affine(self) -> bool:
        """True if one matrix describes all planes to ``EVEN_TOLERANCE_MM``."""
        slices = np.arange(self.shape[0], dtype=np.float64)[:, None]
        line = self.origins_mm[0] + slices * self.stack_step_mm
        return bool(np.abs(self.origins_mm - line).max() <= EVEN_TOLERANCE_MM)

    @property
    def affine(self) -> FloatArray:
        """4 x 4, ``(z, y, x, 1)`` index -> LPS mm.

        Raises
        ------
        InvalidGeometryError
            If the planes are unevenly spaced: no one matrix is true of them.
        """
        if not self.is_affine:
            raise InvalidGeometryError("unevenly spaced planes have no affine")
        matrix = np.eye(4)
        matrix[:3, 0] = self.stack_step_mm
        matrix[:3, 1] = self.row_step_mm
        matrix[:3, 2] = self.column_step_mm
        matrix[:3, 3] = self.origins_mm[0]
        return matrix

    def lps_mm(self, index: npt.ArrayLike) -> FloatArray:
        """Position of ``(..., 3)`` indices ``(z, y, x)``; fractions allowed between planes.

        Beyond the first and last plane the nearest step between planes is continued.
        """
        zyx = np.asarray(index, dtype=np.float64)
        z = zyx[..., 0]
        if self.shape[0] == 1:
            origin = self.origins_mm[0] + z[..., None] * self.stack_step_mm
        else:
            below = np.clip(np.floor(z).astype(np.intp), 0, self.shape[0] - 2)
            fraction = (z - below)[..., None]
            origin = self.origins_mm[below] * (1 - fraction) + self.origins_mm[below + 1] * fraction
        in_plane = zyx[..., 1:2] * self.row_step_mm + zyx[..., 2:3] * self.column_step_mm
        return np.asarray(origin + in_plane, dtype=np.float64)

    def index_of(self, lps_mm: npt.ArrayLike) -> FloatArray:
        """Fractional index ``(..., 3)`` = ``(z, y, x)`` of LPS positions; inverse of ``lps_mm``."""
        point = np.asarray(lps_mm, dtype=np.float64)
        distance = point @ self.normal
        positions = self.positions_mm
        if self.shape[0] == 1:
            z = distance - positions[0]
        else:
            sign = 1.0 if positions[1] > positions[0] else -1.0
            after = np.searchsorted(sign * positions, sign * distance, side="right")
            below = np.clip(after - 1, 0, self.shape[0] - 2)
            step = positions[below + 1] - positions[below]
            z = below + (distance - positions[below]) / step
        origin = self.lps_mm(np.stack([z, np.zeros_like(z), np.zeros_like(z)], axis=-1))
        plane = np.stack([self.row_step_mm, self.column_step_mm], axis=1)
        yx = (point - origin) @ np.linalg.pinv(plane).T
        return np.concatenate([z[..., None], yx], axis=-1)

    def slice_thickness_mm(self) -> FloatArray:
        """``(z,)``, the share of the stack that each plane stands for: half-way to its neighbours.

        An end plane stands for as much outward as inward.
        """
        positions = np.abs(self.positions_mm - self.positions_mm[0])
        if positions.size == 1:
            return np.ones(1)
        return np.asarray(np.gradient(positions, edge_order=1), dtype=np.float64)

    def voxel_volumes_ml(self) -> FloatArray:
        """``(z,)``, volume of one voxel of each plane in millilitres."""
        area = float(np.linalg.norm(np.cross(self.column_step_mm, self.row_step_mm)))
        return np.asarray(self.slice_thickness_mm() * area / 1000.0, dtype=np.float64)

    def matches(self, other: Geometry, tolerance_mm: float = 0.01) -> bool:
        """True if both put every voxel at the same place to ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        last = np.array([self.shape[1] - 1, self.shape[2] - 1], dtype=np.float64)
        far = self.origins_mm + last[0] * self.row_step_mm + last[1] * self.column_step_mm
        far_other = other.origins_mm + last[0] * other.row_step_mm + last[1] * other.column_step_mm
        rows = np.abs(last[0] * (self.row_step_mm - other.row_step_mm))
        return bool(
            np.abs(self.origins_mm - other.origins_mm).max() <= tolerance_mm
            and np.abs(far - far_other).max() <= tolerance_mm
            and rows.max() <= tolerance_mm
        )
