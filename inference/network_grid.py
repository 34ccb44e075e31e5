"""Where the network's array sits relative to the planes of a scan.

The published preprocessing turns axes to the nearest of right, anterior, superior (MONAI
``Orientationd``) and resamples to an isotropic grid with those axes (``Spacingd``): the grid
stays parallel to the acquisition, also of an oblique scan. This module computes the same
grid, extended to what MONAI cannot say in one affine matrix: unevenly spaced planes and
their true positions.

Three frames of index are in use: the source's ``(z, y, x)``; the same turned so that each
axis runs towards right, anterior or superior ("turned", a view of the array); and the
grid's ``(k, j, i)``, parallel to turned ``(z, y, x)``. The network's ``(x, y, z)`` is a
permutation of the grid's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from inference.geometry import FloatArray, Geometry
from inference.plane_map import PlaneMap, identity_map, plane_axes, plane_map, straight_map

#: MONAI keeps a spacing that is this close to the wanted one, mm, and a grid whose matrix is
#: this close to the source's (``AFFINE_TOL``).
MONAI_TOLERANCE = 1e-3
#: Axes whose cosine is below this are at right angles.
_RIGHT_ANGLE = 1e-6
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGrid:
    """An isotropic ``(x, y, z)`` grid, axes nearest to right, anterior and superior.

    Its axes are parallel to rows, columns and normal of the source planes.

    Parameters
    ----------
    source
        The planes that it covers.
    turned
        The same planes, each axis running towards right, anterior or superior.
    shape
        ``(x, y, z)``, voxels.
    affine_ras
        4 x 4, ``(x, y, z, 1)`` index -> RAS mm, the frame of NIfTI and of the network.
    flips
        Whether turned ``(z, y, x)`` runs against the source's.
    network_axes
        Which of the network's ``(x, y, z)`` turned ``z``, ``y`` and ``x`` are.
    """

    source: Geometry
    turned: Geometry
    shape: tuple[int, int, int]
    affine_ras: FloatArray
    flips: tuple[bool, bool, bool]
    network_axes: tuple[int, int, int]

    @classmethod
    def covering(cls, source: Geometry, spacing_mm: float) -> Self:
        """The grid that the published preprocessing makes of these planes.

        Parameters
        ----------
        source
            Planes of a scan.
        spacing_mm
            Of the grid; an axis whose spacing is that to 0.001 mm keeps its own.
        """
        steps = np.stack([source.column_step_mm, source.row_step_mm, source.stack_step_mm])
        affine = np.eye(4)
        affine[:3, :3] = _LPS_TO_RAS @ steps.T
        x, y, z = ((int(axis), direction < 0) for axis, direction in io_orientation(affine))
        network_axes = (z[0], y[0], x[0])
        flips = (bool(z[1]), bool(y[1]), bool(x[1]))
        turned = _turn(source, flips)
        shape, affine = _published_grid(turned, network_axes, spacing_mm)
        return cls(source, turned, shape, affine, flips, network_axes)

    def lps_mm(self, index_xyz: npt.ArrayLike) -> FloatArray:
        """Position of ``(..., 3)`` network indices ``(x, y, z)``."""
        index = np.asarray(index_xyz, dtype=np.float64)
        ras = index @ self.affine_ras[:3, :3].T + self.affine_ras[:3, 3]
        return np.asarray(ras @ _LPS_TO_RAS, dtype=np.float64)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """``(k, j, i)``, voxels across planes, rows and columns."""
        k, j, i = (self.shape[axis] for axis in self.network_axes)
        return (k, j, i)

    @property
    def spacing_mm(self) -> float:
        """The smallest of the three spacings; they are equal but for kept ones."""
        return float(np.linalg.norm(self.affine_ras[:3, :3], axis=0).min())

    def network_view(self, grid_array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """A ``(k, j, i)`` array seen as the network's ``(x, y, z)``; no copy."""
        return grid_array.transpose(np.argsort(self.network_axes))

    def grid_view(self, network_array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """A network ``(x, y, z)`` array seen as ``(k, j, i)``; no copy."""
        return network_array.transpose(self.network_axes)

    def turned_view(self, source_array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """A ``(z, y, x)`` array of the source with its axes turned; no copy."""
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return source_array[z, y, x]

    def to_source(self) -> PlaneMap:
        """Where the grid's voxels ``(k, j, i)`` lie in turned source indices."""
        return self._map(into_source=True)

    def from_source(self) -> PlaneMap:
        """Where turned source voxels ``(z, y, x)`` lie in the grid's ``(k, j, i)``."""
        return self._map(into_source=False)

    def _map(self, *, into_source: bool) -> PlaneMap:
        grid, planes = self.grid_shape, self.turned.shape
        counts, extents = (grid, planes) if into_source else (planes, grid)
        if self.turned.is_affine:
            affine = _affine_ras(self.turned, self.network_axes)
            if grid == planes and (
                np.allclose(affine, self.affine_ras, atol=MONAI_TOLERANCE)
                or np.allclose(
                    np.linalg.solve(affine, self.affine_ras), np.eye(4), atol=MONAI_TOLERANCE
                )
            ):
                return identity_map(grid)
            index = np.asarray(np.linalg.solve(affine, self.affine_ras), dtype=np.float64)
            if not into_source:  # MONAI remembers the grid as what it composed of the source
                index = np.asarray(np.linalg.solve(affine @ index, affine), dtype=np.float64)
            if _is_diagonal(index, self.shape):
                order = list(self.network_axes)
                return straight_map(counts, extents, np.diag(index)[order], index[order, 3])
        of, into = (
            (self._grid_geometry(), self.turned)
            if into_source
            else (self.turned, self._grid_geometry())
        )
        return plane_map(of, into)

    def _grid_geometry(self) -> Geometry:
        affine = np.eye(4)
        affine[:3] = _LPS_TO_RAS @ self.affine_ras[:3][:, [*self.network_axes, 3]]
        return Geometry.from_affine(affine, self.grid_shape)


def _turn(source: Geometry, flips: tuple[bool, bool, bool]) -> Geometry:
    """The same voxels, indexed the other way round along the flipped axes."""
    origins, row, column = source.origins_mm, source.row_step_mm, source.column_step_mm
    if flips[0]:
        origins = origins[::-1]
    if flips[1]:
        origins, row = origins + (source.shape[1] - 1) * row, -row
    if flips[2]:
        origins, column = origins + (source.shape[2] - 1) * column, -column
    return Geometry(source.shape, origins, row, column, source.frame_of_reference_uid)


def _affine_ras(planes: Geometry, network_axes: tuple[int, int, int]) -> FloatArray:
    """4 x 4, network-ordered index of turned planes -> RAS mm; the mean step across them."""
    affine = np.eye(4)
    steps = (planes.stack_step_mm, planes.row_step_mm, planes.column_step_mm)
    for axis, step in zip(network_axes, steps, strict=True):
        affine[:3, axis] = _LPS_TO_RAS @ step
    affine[:3, 3] = _LPS_TO_RAS @ planes.origins_mm[0]
    return affine


def _published_grid(
    planes: Geometry, network_axes: tuple[int, int, int], spacing_mm: float
) -> tuple[tuple[int, int, int], FloatArray]:
    """Shape ``(x, y, z)`` and RAS matrix of ``Spacingd``'s grid.

    The arithmetic is MONAI's (``zoom_affine``, ``compute_shape_offset``), to the last bit
    where that decides the rounding of a shape. The origin is the corner from which all
    others lie in positive direction; a sheared stack may have none, then the centres are
    aligned (by its convention of a centre, half of the shape).
    """
    affine = _affine_ras(planes, network_axes)
    steps = affine[:3, :3]
    lengths = np.sqrt(np.sum(steps * steps, axis=0))
    kept = np.abs(lengths - spacing_mm) <= MONAI_TOLERANCE
    triangle = np.linalg.cholesky(steps.T @ steps).T
    if (np.abs(np.triu(triangle, 1)) < _RIGHT_ANGLE * lengths).all():
        rotation = steps @ np.linalg.inv(triangle)
    else:  # MONAI straightens x, y, z in this order: for axial planes the same
        rotation = np.empty((3, 3))
        rotation[:, list(network_axes)] = _LPS_TO_RAS @ plane_axes(planes).T
    grid = np.eye(4)
    grid[:3, :3] = rotation @ np.diag(np.where(kept, lengths, spacing_mm))

    corners = _corners_ras(planes, affine, network_axes)
    index = np.linalg.solve(grid, corners)[:3]
    extents = np.round(np.ptp(index, axis=1) + 1.0).astype(int)
    shape = (int(extents[0]), int(extents[1]), int(extents[2]))
    low = index.min(axis=1, keepdims=True)
    first = np.flatnonzero(np.isclose(index, low, rtol=0, atol=1e-8).all(axis=0))
    if first.size:
        grid[:3, 3] = corners[:3, first[0]]
    elif planes.is_affine:
        count = np.array([planes.shape[network_axes.index(axis)] for axis in range(3)])
        grid[:3, 3] = steps @ (count / 2.0) + affine[:3, 3] - grid[:3, :3] @ (np.array(shape) / 2.0)
    else:
        grid[:3, 3] = grid[:3, :3] @ low[:, 0]
    return shape, grid


def _corners_ras(
    planes: Geometry, affine: FloatArray, network_axes: tuple[int, int, int]
) -> FloatArray:
    """``(4, n)``, corners of the stack, RAS mm and 1; those of all planes where uneven."""
    if planes.is_affine:
        last = [planes.shape[network_axes.index(axis)] - 1.0 for axis in range(3)]
        ends = np.meshgrid(*([0.0, end] for end in last), indexing="ij")
        index = np.stack([*(end.ravel() for end in ends), np.ones(8)])
        return np.asarray(affine @ index, dtype=np.float64)
    y, x = planes.shape[1] - 1.0, planes.shape[2] - 1.0
    in_plane = np.array([[0.0, 0.0], [0.0, x], [y, 0.0], [y, x]])
    across = in_plane @ np.stack([planes.row_step_mm, planes.column_step_mm])
    lps = (planes.origins_mm[:, None] + across).reshape(-1, 3)
    return np.concatenate([_LPS_TO_RAS @ lps.T, np.ones((1, lps.shape[0]))])


def _is_diagonal(index: FloatArray, shape: tuple[int, int, int]) -> bool:
    """Whether a matrix between indices moves no voxel of the grid along another axis."""
    mixing = np.abs(index[:3, :3] - np.diag(np.diag(index[:3, :3]))) * max(shape)
    return bool((mixing < MONAI_TOLERANCE).all())
