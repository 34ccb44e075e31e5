"""Solids onto the planes of a geometry, each only where it can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.geometry import Geometry
from inference.synthetic.shapes import Box, Field, Matrix
from inference.synthetic.tissue import Part

#: Points evaluated at a time: the temporaries of a block stay in the cache.
_BLOCK_POINTS = 120_000
#: Bounds are widened by this much against rounding.
_MARGIN_MM = 0.01
_MARGIN_PIXELS = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Where a reference body lies: ``reference = matrix @ (lps - origin_mm)``."""

    matrix: Matrix  #: 3 x 3
    origin_mm: npt.NDArray[np.float64]  #: LPS position of the reference origin

    @classmethod
    def scanner(cls) -> Frame:
        """Shapes given in LPS millimetres themselves."""
        return cls(np.eye(3), np.zeros(3))

    def to_lps(self, points: npt.ArrayLike) -> Matrix:
        """``(n, 3)`` reference points in LPS mm."""
        inverse = np.linalg.inv(self.matrix)
        return np.asarray(np.asarray(points) @ inverse.T + self.origin_mm, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Planes:
    """What finding the pixels of a box needs of a geometry, computed once."""

    shape: tuple[int, int, int]
    positions_mm: npt.NDArray[np.float64]  #: (z,), along the normal
    normal: npt.NDArray[np.float64]  #: in the reference frame
    offset_mm: float  #: of the reference origin, along the normal
    origins: npt.NDArray[np.float64]  #: (z, 2), pixel of the reference origin, negated
    to_pixel: npt.NDArray[np.float64]  #: (2, 3), reference mm to (y, x)

    @classmethod
    def of(cls, geometry: Geometry, frame: Frame) -> _Planes:
        steps = np.stack([geometry.row_step_mm, geometry.column_step_mm], axis=1)
        inverse = np.linalg.pinv(steps)
        turn = np.linalg.inv(frame.matrix)
        return cls(
            shape=geometry.shape,
            positions_mm=geometry.positions_mm,
            normal=geometry.normal @ turn,
            offset_mm=float(frame.origin_mm @ geometry.normal),
            origins=(geometry.origins_mm - frame.origin_mm) @ inverse.T,
            to_pixel=inverse @ turn,
        )


@dataclass(frozen=True, slots=True)
class _Block:
    """A run of planes and the pixels of them that a part may touch."""

    planes: slice
    rows: slice
    columns: slice


def paint(
    parts: Iterable[Part],
    frame: Frame,
    geometry: Geometry,
    labels: npt.NDArray[np.uint8],
    hu: npt.NDArray[np.int16],
) -> None:
    """Paint ``parts`` in their order into ``labels`` and ``hu``, both ``(z, y, x)``.

    A voxel belongs to a part if its centre lies inside.
    """
    planes = _Planes.of(geometry, frame)
    origins = (geometry.origins_mm - frame.origin_mm) @ frame.matrix.T
    row_step = (frame.matrix @ geometry.row_step_mm).astype(np.float32)
    column_step = (frame.matrix @ geometry.column_step_mm).astype(np.float32)
    for part in parts:
        for block in _blocks(part.shape.box, planes):
            rows = np.arange(block.rows.start, block.rows.stop, dtype=np.float32)[:, None]
            columns = np.arange(block.columns.start, block.columns.stop, dtype=np.float32)
            x, y, z = (
                origins[block.planes, axis, None, None].astype(np.float32)
                + (rows * row_step[axis] + columns * column_step[axis])[None]
                for axis in range(3)
            )
            level = part.shape.level(x, y, z)
            _fill(part, level, labels, hu, block)


def _fill(
    part: Part,
    level: Field,
    labels: npt.NDArray[np.uint8],
    hu: npt.NDArray[np.int16],
    block: _Block,
) -> None:
    inside = level <= 0
    where = (block.planes, block.rows, block.columns)
    if part.structure_id is not None:
        np.copyto(labels[where], np.uint8(part.structure_id), where=inside)
    tissue = part.tissue
    np.copyto(hu[where], np.int16(round(tissue.hu)), where=inside)
    if tissue.shell_mm:
        inside &= level > -np.float32(tissue.shell_mm)
        np.copyto(hu[where], np.int16(round(tissue.shell_hu)), where=inside)


def _blocks(box: Box, planes: _Planes) -> Iterator[_Block]:
    """Cut the part of each plane that ``box`` may reach into blocks of bounded size."""
    corners = box.corners()
    along = corners @ planes.normal + planes.offset_mm
    positions = planes.positions_mm
    met = np.flatnonzero(
        (positions >= along.min() - _MARGIN_MM) & (positions <= along.max() + _MARGIN_MM)
    )
    if not met.size:
        return
    pixels = corners @ planes.to_pixel.T
    low, high = pixels.min(axis=0) - _MARGIN_PIXELS, pixels.max(axis=0) + _MARGIN_PIXELS
    count = max(1, int(_BLOCK_POINTS // np.prod(high - low + 1)))
    for first in range(int(met[0]), int(met[-1]) + 1, count):
        last = min(first + count, int(met[-1]) + 1)
        origins = planes.origins[first:last]
        start = np.floor(low - origins.max(axis=0)).astype(int)
        stop = np.ceil(high - origins.min(axis=0)).astype(int) + 1
        start = np.maximum(start, 0)
        stop = np.minimum(stop, planes.shape[1:])
        if (stop > start).all():
            yield _Block(slice(first, last), slice(start[0], stop[0]), slice(start[1], stop[1]))
