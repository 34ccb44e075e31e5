"""Labels between the voxels of the network's grid: linear near borders, nearest elsewhere.

Scores of all classes are interpolated linearly between the eight voxels around a point, and
the largest wins, as if logits had been resampled, which no machine holds for 105 classes.
What stands in for them is the standing of each voxel (``inference.standings``): its first
class scores 0 there, its second minus its lead, and every other minus its lead over the third,
which is true of the third and too much for those behind it.

Candidates are the first classes of those of the eight that have a weight: no label moves by a
voxel of the grid or more along any axis. Among them the result is that of linear logits, to
the rounding of leads, unless one comes fourth or later at another of the eight; then its score
is a bound, too high.

Where all eight have the same first class, or one of them was not computed, the nearest holds.
Ties go to the nearest as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from inference.geometry import FloatArray
from inference.plane_map import PlaneMap
from inference.resampling import IndexArray, nearest_in_plane, neighbours
from inference.standings import FIRST, LEAD, LEAD_OVER_THIRD, SECOND, leads, ranked

_Float32 = npt.NDArray[np.float32]

#: Points that are worked on at a time: a few MB, which stay in a processor's cache.
_POINTS = 16384
#: Scores this close are equal within their rounding, logits.
_TIE = 1e-4
#: In place of a class that is not a candidate any more.
_SPENT = 255


def sample_smooth(
    standings: npt.NDArray[np.uint8], where: PlaneMap, out: npt.NDArray[np.uint8]
) -> None:
    """Fill ``out`` with labels; the border of the grid is continued outward.

    Memory beyond input and output: a few planes of either.

    Parameters
    ----------
    standings
        ``(z, y, x, 4)`` uint8.
    where
        Where the voxels of ``out`` lie between those of ``standings``.
    out
        ``(k, j, i)``.
    """
    depth = standings.shape[0]
    below, shares = neighbours(where.planes, depth)
    nearest = np.rint(np.clip(where.planes, 0, depth - 1)).astype(np.intp)
    layer: _Layer | None = None
    for k, first in enumerate(below):
        if layer is None or layer.first != first:
            layer = _Layer.between(standings, int(first))
        rows, columns = where.rows_of(k), where.columns_of(k)
        out[k] = nearest_in_plane(layer.labels[nearest[k] - first], rows, columns)
        layer.refine(float(shares[k]), rows, columns, out[k])


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """Two neighbouring planes of the grid, the same one twice where there is but one."""

    first: int  #: which plane of the grid the first is
    labels: npt.NDArray[np.uint8]  #: ``(2, y, x)``
    words: npt.NDArray[np.uint32]  #: ``(2, y, x)``, a standing each
    mixed: npt.NDArray[np.bool_]  #: ``(y, x)``, cells from that voxel on that have borders

    @classmethod
    def between(cls, standings: npt.NDArray[np.uint8], first: int) -> Self:
        """The planes from ``first`` on."""
        planes = standings[[first, min(first + 1, len(standings) - 1)]]
        labels = np.ascontiguousarray(planes[..., FIRST])
        lowest, highest = labels.min(axis=0), labels.max(axis=0)
        known = ranked(planes).all(axis=0)
        for axis in (0, 1):
            after = [*range(1, lowest.shape[axis]), lowest.shape[axis] - 1]
            lowest = np.minimum(lowest, lowest.take(after, axis))
            highest = np.maximum(highest, highest.take(after, axis))
            known = known & known.take(after, axis)
        return cls(first, labels, planes.view(np.uint32)[..., 0], (lowest < highest) & known)

    def refine(
        self, share: float, rows: FloatArray, columns: FloatArray, out: npt.NDArray[np.uint8]
    ) -> None:
        """Replace nearest labels near borders.

        Parameters
        ----------
        share
            Of the second plane, 0 to 1.
        rows, columns
            As ``PlaneMap`` has them.
        out
            ``(j, i)``, nearest labels.
        """
        _, height, width = self.labels.shape
        above, row_shares = neighbours(rows, height)
        left, column_shares = neighbours(columns, width)
        near = self.mixed[above]
        near = near.take(left, axis=1) if left.ndim == 1 else np.take_along_axis(near, left, axis=1)
        j, i = np.nonzero(near)
        for at in range(0, j.size, _POINTS):
            row, column = j[at : at + _POINTS], i[at : at + _POINTS]
            across = column if left.ndim == 1 else (row, column)
            found = _winners(
                self._around(above[row], left[across]),
                _weights(share, row_shares[row], column_shares[across]),
                out[row, column],
            )
            out[row, column] = found

    def _around(self, above: IndexArray, left: IndexArray) -> npt.NDArray[np.uint8]:
        """``(8, n, 4)`` standings around points, in the order of ``_weights``."""
        _, height, width = self.words.shape
        below, right = np.minimum(above + 1, height - 1), np.minimum(left + 1, width - 1)
        words = np.empty((8, above.size), dtype=np.uint32)
        pairs = itertools.product((above * width, below * width), (left, right))
        for corner, (line, column) in enumerate(pairs):
            index = line + column
            self.words[0].take(index, out=words[corner], mode="clip")
            self.words[1].take(index, out=words[4 + corner], mode="clip")
        return words.view(np.uint8).reshape(8, -1, 4)


def _weights(share: float, row_shares: FloatArray, column_shares: FloatArray) -> _Float32:
    """``(8, n)``, linear weights: planes, rows in them, columns in these."""
    rows, columns = (each.astype(np.float32) for each in (row_shares, column_shares))
    sides = itertools.product((1 - share, share), (1 - rows, rows), (1 - columns, columns))
    return np.stack([row * (np.float32(plane) * column) for plane, row, column in sides])


def _winners(
    around: npt.NDArray[np.uint8], weights: _Float32, nearest: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The classes with the largest scores, ``(n,)``.

    Parameters
    ----------
    around, weights
        ``(8, n, 4)`` standings and their weights.
    nearest
        ``(n,)``, labels that win ties.
    """
    first, second = (np.ascontiguousarray(around[..., which]) for which in (FIRST, SECOND))
    over_third = leads(around[..., LEAD_OVER_THIRD])
    as_second = (over_third - leads(around[..., LEAD])) * weights
    over_third *= weights

    def scores(of: npt.NDArray[np.uint8]) -> _Float32:  # above that of any other class
        gained: _Float32 = ((first == of) * over_third).sum(axis=0)
        gained += ((second == of) * as_second).sum(axis=0)
        return gained

    winners, best = nearest.copy(), scores(nearest)
    here = np.arange(nearest.size)
    left = np.where((first == nearest) | (weights == 0), np.uint8(_SPENT), first)
    while True:
        other = left.min(axis=0)
        if not (more := other != _SPENT).all():
            first, second, left = first[:, more], second[:, more], left[:, more]
            over_third, as_second = over_third[:, more], as_second[:, more]
            here, other = here[more], other[more]
        if not here.size:
            return winners
        found = scores(other)
        better = found > best[here] + _TIE
        winners[here[better]], best[here[better]] = other[better], found[better]
        left[left == other] = _SPENT
