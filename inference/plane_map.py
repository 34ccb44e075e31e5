"""How the voxels of one stack of planes lie between the voxels of another, parallel one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.geometry import FloatArray, Geometry

#: Shears that move no voxel further than this, in voxels, are rounding of a header.
_NO_SHEAR_VOXELS = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMap:
    """Where the voxels of a stack of planes lie in the index space of another stack.

    The stacks are parallel: a voxel's plane depends on its plane alone, its row on plane and
    row, its column on all three.

    Parameters
    ----------
    planes
        ``(p,)``, fractional index of the other stack's plane.
    rows, columns
        ``(r,)`` and ``(c,)``, fractional indices in the other stack's planes before the shift.
    row_shifts, column_shifts
        ``(p,)``, added for plane ``p``; zero but for a tilted stack.
    column_per_row
        Added to the column index for each row: in-plane shear; zero but for NIfTI with
        axes that are not at right angles.
    """

    planes: FloatArray
    rows: FloatArray
    columns: FloatArray
    row_shifts: FloatArray
    column_shifts: FloatArray
    column_per_row: float
    reach: tuple[float, float, float] | None = None  #: of the whole map that this is a part of

    def cropped(self, box: tuple[slice, slice, slice]) -> PlaneMap:
        """The map of a box of its voxels; slices with start and stop, without step."""
        planes, rows, columns = box
        return PlaneMap(
            planes=self.planes[planes],
            rows=self.rows[rows],
            columns=self.columns[columns],
            row_shifts=self.row_shifts[planes],
            column_shifts=self.column_shifts[planes] + self.column_per_row * rows.start,
            column_per_row=self.column_per_row,
            reach=self.voxel_size,
        )

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Typical distance of neighbours ``(plane, row, column)``, voxels of the other stack."""
        if self.reach is not None:
            return self.reach
        planes, rows, columns = map(_typical_step, (self.planes, self.rows, self.columns))
        return planes, rows, columns

    def rows_of(self, plane: int) -> FloatArray:
        """``(r,)``, fractional row indices of the voxels of one plane."""
        return np.asarray(self.rows + self.row_shifts[plane], dtype=np.float64)

    def columns_of(self, plane: int) -> FloatArray:
        """Fractional column indices of one plane: ``(c,)``, or ``(r, c)`` where sheared."""
        columns = np.asarray(self.columns + self.column_shifts[plane], dtype=np.float64)
        if not self.column_per_row:
            return columns
        sheared = columns + self.column_per_row * np.arange(self.rows.size)[:, None]
        return np.asarray(sheared, dtype=np.float64)


def _typical_step(at: FloatArray) -> float:
    return float(np.median(np.diff(at))) if at.size > 1 else 1.0


def identity_map(shape: tuple[int, int, int]) -> PlaneMap:
    """Every voxel lies on its namesake."""
    planes, rows, columns = (np.arange(count, dtype=np.float64) for count in shape)
    still = np.zeros(shape[0])
    return PlaneMap(planes, rows, columns, still, still, 0.0)


def straight_map(
    counts: tuple[int, int, int],
    extents: tuple[int, int, int],
    scales: FloatArray,
    shifts: FloatArray,
) -> PlaneMap:
    """Each axis on its own: voxel ``i`` lies at ``i * scale + shift``.

    Parameters
    ----------
    counts
        ``(p, r, c)``, voxels to place.
    extents
        Shape of the stack in which they are placed.
    scales, shifts
        ``(3,)``, for planes, rows and columns.
    """
    planes, rows, columns = (
        _regular(*axis) for axis in zip(counts, extents, scales, shifts, strict=True)
    )
    still = np.zeros(counts[0])
    return PlaneMap(planes, rows, columns, still, still, 0.0)


def plane_axes(planes: Geometry) -> FloatArray:
    """``(3, 3)``, rows are unit vectors across the planes, along rows and along columns."""
    # times the reciprocal, as MONAI does: the last bit decides ties of nearest neighbours
    columns = planes.column_step_mm * (1.0 / np.linalg.norm(planes.column_step_mm))
    across_columns = planes.row_step_mm - (planes.row_step_mm @ columns) * columns
    rows = across_columns * (1.0 / np.linalg.norm(across_columns))
    normal = planes.normal * np.sign(planes.normal @ planes.stack_step_mm)
    return np.stack([normal, rows, columns])


def plane_map(of: Geometry, into: Geometry) -> PlaneMap:
    """Where the voxels of ``of`` lie in the index space of ``into``.

    Between two planes of ``into`` a voxel is placed along the line that joins their origins,
    as ``Geometry.lps_mm`` does.

    Parameters
    ----------
    of, into
        Parallel planes, stacked in the same direction, rows and columns in the same senses.
    """
    normal, along_rows, along_columns = plane_axes(into)
    row_mm = float(into.row_step_mm @ along_rows)
    column_mm = float(into.column_step_mm @ along_columns)
    planes = _between(of.origins_mm @ normal, into.origins_mm @ normal)
    corners = _origins_at(into, planes)
    offsets = of.origins_mm - corners
    row_scale = float(of.row_step_mm @ along_rows) / row_mm
    row_shifts = offsets @ along_rows / row_mm
    skew = float(into.row_step_mm @ along_columns)
    column_scale = float(of.column_step_mm @ along_columns) / column_mm
    column_shifts = (offsets @ along_columns - row_shifts * skew) / column_mm
    column_per_row = (float(of.row_step_mm @ along_columns) - row_scale * skew) / column_mm
    if abs(column_per_row) * of.shape[1] < _NO_SHEAR_VOXELS:
        column_per_row = 0.0
    row_shift, row_shifts = _split_shift(row_shifts)
    column_shift, column_shifts = _split_shift(column_shifts)
    return PlaneMap(
        planes=planes,
        rows=np.arange(of.shape[1], dtype=np.float64) * row_scale + row_shift,
        columns=np.arange(of.shape[2], dtype=np.float64) * column_scale + column_shift,
        row_shifts=row_shifts,
        column_shifts=column_shifts,
        column_per_row=column_per_row,
    )


def _split_shift(shifts: FloatArray) -> tuple[float, FloatArray]:
    """A shift of all planes, and what each plane adds to it: nothing unless tilted."""
    if float(np.ptp(shifts)) >= _NO_SHEAR_VOXELS:
        return 0.0, shifts
    middle = float(shifts[shifts.size // 2])
    return (middle if abs(middle) > 1e-9 else 0.0), np.zeros_like(shifts)


def _between(at_mm: FloatArray, planes_mm: FloatArray) -> FloatArray:
    """Fractional plane index of positions along the normal; end steps are continued."""
    if planes_mm.size == 1:
        return np.asarray(at_mm - planes_mm[0], dtype=np.float64)
    below = np.clip(np.searchsorted(planes_mm, at_mm, side="right") - 1, 0, planes_mm.size - 2)
    step = planes_mm[below + 1] - planes_mm[below]
    return np.asarray(below + (at_mm - planes_mm[below]) / step, dtype=np.float64)


def _origins_at(planes: Geometry, index: FloatArray) -> FloatArray:
    """``(p, 3)``, LPS position of voxel (index, 0, 0)."""
    zeros = np.zeros_like(index)
    return planes.lps_mm(np.stack([index, zeros, zeros], axis=-1))


def _regular(count: int, extent: int, scale: float, shift: float) -> FloatArray:
    """``arange(count) * scale + shift`` as indices of an axis with ``extent`` voxels.

    Computed through coordinates in -1..1 with the operations of torch's ``affine_grid`` and
    ``grid_sample`` (``align_corners=False``), on which MONAI's resampling rests. The detour
    changes the last bits only, and these decide how nearest neighbours break ties and
    whether a voxel is exactly 0 HU.
    """
    if count == 1:
        line = np.zeros(1)
    else:
        step = 2.0 / (count - 1)
        index = np.arange(count).astype(np.longdouble)  # torch's linspace rounds once
        halves = np.where(index < count // 2, -1 + index * step, 1 - index[::-1] * step)
        line = halves.astype(np.float64)
        line = line * (count - 1) / count
    gain = (2.0 / extent) * scale
    offset = (2.0 / extent) * shift + (1.0 / extent - 1.0)
    from_line = np.linalg.inv(np.array([[2.0 / count, 1.0 / count - 1.0], [0.0, 1.0]]))
    unit = line * (gain * from_line[0, 0]) + (gain * from_line[0, 1] + offset)
    return np.asarray(((unit + 1.0) * extent - 1.0) / 2.0, dtype=np.float64)
