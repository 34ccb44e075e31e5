"""Linear and nearest sampling of planes, one plane at a time.

No volume is ever converted as a whole: memory beyond input and output is a few planes.
Interpolation is in double precision, as MONAI's is by default.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inference.geometry import FloatArray
from inference.plane_map import PlaneMap
from inference.volume import PADDING_HU

IndexArray = npt.NDArray[np.intp]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def sample_linear(
    hu: npt.NDArray[np.int16],
    where: PlaneMap,
    out: npt.NDArray[np.float32],
    clamp_hu: tuple[int, int] | None,
) -> None:
    """Fill ``out`` with trilinear samples of ``hu``; the border is continued outward.

    Parameters
    ----------
    hu
        ``(z, y, x)``.
    where
        Where the voxels of ``out`` lie in ``hu``.
    out
        ``(k, j, i)``, HU. Where ``clamp_hu`` is given: NaN at voxels whose nearest source
        voxel is padding, and at voxels beyond the border by more than their own size.
    clamp_hu
        Lowest and highest value, applied before values mix. None: padding is a value.
    """
    depth = hu.shape[0]
    tilted = bool(where.row_shifts.any() or where.column_shifts.any())
    resampled: dict[int, FloatArray] = {}  # source planes that the next voxels may need again
    for k, z in enumerate(np.clip(where.planes, 0, depth - 1)):
        rows, columns = where.rows_of(k), where.columns_of(k)
        below = min(int(z), max(depth - 2, 0))
        weight = float(z - below)
        resampled = {p: kept for p, kept in resampled.items() if p >= below and not tilted}
        for p in (below, below + 1) if weight > 0 else (below,):
            if p not in resampled:
                resampled[p] = _bilinear(hu[p], rows, columns, clamp_hu)
        if weight > 0:
            out[k] = resampled[below] * (1 - weight) + resampled[below + 1] * weight
        else:
            out[k] = resampled[below]
        if clamp_hu is not None:
            out[k][nearest_in_plane(hu[int(np.rint(z))] == PADDING_HU, rows, columns)] = np.nan
            _fill_beyond(out[k], where, k, hu.shape, np.nan)


def sample_as_published(
    hu: npt.NDArray[np.int16],
    where: PlaneMap,
    out: npt.NDArray[np.float32],
    network_axes: tuple[int, int, int],
) -> None:
    """Fill ``out`` with what torch's ``grid_sample`` gives, to the last bit.

    The same samples as ``sample_linear`` without clamping but for rounding, which the
    published chain turns into contrast: voxels at exactly 0 HU are treated apart. So the
    eight neighbours are weighted and added in torch's order, the network's z fastest.

    Parameters
    ----------
    hu
        ``(z, y, x)``.
    where
        Where the voxels of ``out`` lie in ``hu``; without in-plane shear.
    out
        ``(k, j, i)``, HU.
    network_axes
        Which of the network's axes ``k``, ``j`` and ``i`` are.
    """
    across = _both_neighbours(where.planes, hu.shape[0])
    for k in range(where.planes.size):
        rows = _both_neighbours(where.rows_of(k), hu.shape[1])
        columns = _both_neighbours(where.columns_of(k), hu.shape[2])
        total = np.zeros(out.shape[1:])
        for corner in itertools.product((0, 1), repeat=3):
            z, y, x = (corner[axis] for axis in network_axes)
            weights: dict[int, FloatArray] = {
                network_axes[0]: across[z][1][k],
                network_axes[1]: rows[y][1][:, None],
                network_axes[2]: columns[x][1],
            }
            values = hu[across[z][0][k]][rows[y][0]].take(columns[x][0], axis=1)
            total += values * (weights[2] * weights[1] * weights[0])
        out[k] = total


def sample_nearest(
    labels: npt.NDArray[np.uint8], where: PlaneMap, out: npt.NDArray[np.uint8]
) -> None:
    """Fill ``out`` with the nearest values of ``labels``; the border is continued outward.

    Parameters
    ----------
    labels
        ``(z, y, x)``.
    where
        Where the voxels of ``out`` lie in ``labels``.
    out
        ``(k, j, i)``.
    """
    for k, z in enumerate(np.rint(np.clip(where.planes, 0, labels.shape[0] - 1)).astype(int)):
        out[k] = nearest_in_plane(labels[z], where.rows_of(k), where.columns_of(k))


def clear_beyond(out: npt.NDArray[np.uint8], where: PlaneMap, shape: tuple[int, int, int]) -> None:
    """Make voxels background that lie beyond the border by more than their own size.

    Parameters
    ----------
    out
        ``(k, j, i)``.
    where
        Where the voxels of ``out`` lie in planes of ``shape``.
    shape
        ``(z, y, x)``.
    """
    for k, plane in enumerate(out):
        _fill_beyond(plane, where, k, shape, 0)


def _bilinear(
    plane: npt.NDArray[np.int16],
    rows: FloatArray,
    columns: FloatArray,
    clamp_hu: tuple[int, int] | None,
) -> FloatArray:
    """``(j, i)`` samples; ``columns`` is ``(i,)``, or ``(j, i)`` where rows are sheared."""
    height, width = plane.shape
    above, row_weight = neighbours(rows, height)
    left, column_weight = neighbours(columns, width)
    first, second = plane[above], plane[np.minimum(above + 1, height - 1)]
    if clamp_hu is not None:
        np.clip(first, *clamp_hu, out=first)
        np.clip(second, *clamp_hu, out=second)
    mixed = first * (1 - row_weight)[:, None]
    mixed += second * row_weight[:, None]
    right = np.minimum(left + 1, width - 1)
    if columns.ndim == 1:
        sampled = mixed.take(left, axis=1)
        sampled *= 1 - column_weight
        sampled += mixed.take(right, axis=1) * column_weight
        return sampled
    sampled = np.take_along_axis(mixed, left, axis=1) * (1 - column_weight)
    sampled += np.take_along_axis(mixed, right, axis=1) * column_weight
    return sampled


def neighbours(at: FloatArray, count: int) -> tuple[IndexArray, FloatArray]:
    """The voxel at or before each position, and the share of the one after it.

    Parameters
    ----------
    at
        Fractional indices; beyond the border they are taken to it.
    count
        Voxels of the axis. The voxel before is never the last one, unless it is the only one.
    """
    inside = np.clip(at, 0, count - 1)
    before = np.minimum(inside.astype(np.intp), max(count - 2, 0))
    return before, inside - before


def _both_neighbours(at: FloatArray, count: int) -> tuple[tuple[IndexArray, FloatArray], ...]:
    """Index and weight of the voxel at or before each position, and of the one after it."""
    before, after_weight = neighbours(at, count)
    after = np.minimum(before + 1, count - 1)
    return (before, 1 - after_weight), (after, after_weight)


def nearest_in_plane(
    plane: npt.NDArray[_Scalar], rows: FloatArray, columns: FloatArray
) -> npt.NDArray[_Scalar]:
    """The nearest values of a plane; the border is continued outward.

    Parameters
    ----------
    plane
        ``(y, x)``.
    rows, columns
        ``(j,)`` and ``(i,)``, or ``(j, i)`` where rows are sheared: fractional indices.
    """
    height, width = plane.shape
    taken = plane[np.rint(np.clip(rows, 0, height - 1)).astype(np.intp)]
    index = np.rint(np.clip(columns, 0, width - 1)).astype(np.intp)
    if columns.ndim == 1:
        return taken.take(index, axis=1)
    return np.take_along_axis(taken, index, axis=1)


def _fill_beyond(
    out: npt.NDArray[_Scalar], where: PlaneMap, k: int, shape: tuple[int, ...], value: float
) -> None:
    """Set voxels of plane ``k`` that lie beyond the border by more than their own size."""
    depth, height, width = shape
    plane_size, row_size, column_size = where.voxel_size
    if _beyond(where.planes, depth, plane_size)[k]:
        out[...] = value
        return
    rows = _beyond(where.rows_of(k), height, row_size)
    columns = _beyond(where.columns_of(k), width, column_size)
    if rows.any():
        out[rows] = value
    if columns.any():
        out[np.broadcast_to(columns, out.shape)] = value


def _beyond(at: FloatArray, count: int, size: float) -> npt.NDArray[np.bool_]:
    return np.asarray((at < -size) | (at > count - 1 + size))
