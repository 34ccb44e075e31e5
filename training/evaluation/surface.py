"""The surface of one structure, in small pieces that know their place and area.

The discretisation is that of Nikolov et al. (2021, doi:10.2196/26151): every block of 2 x 2 x 2
voxel centres that holds both inside and outside is a piece of surface, at the middle of the
block, with the area that marching cubes gives it. Pieces are placed through ``Geometry``, so
that distances are true on tilted and unevenly spaced planes, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.geometry import FloatArray, Geometry
from inference.label_map import LabelMap

Box = tuple[slice, slice, slice]

_INSIDE = 255
#: Plane spacings closer than this share a table of areas, mm.
_SAME_SPACING_MM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Pieces of the surface of one structure."""

    positions_mm: FloatArray  #: (n, 3), LPS
    areas_mm2: FloatArray  #: (n,)


class SurfaceTables:
    """Area of a piece of surface by which of its eight voxels are inside.

    The tables come from MONAI; they hold for orthogonal voxels. On a tilted stack the area
    (a weight) is that of the stack with its shear taken out.

    Parameters
    ----------
    geometry
        Of the label maps; blocks between two planes take the distance of these planes.
    """

    def __init__(self, geometry: Geometry) -> None:
        steps = np.abs(np.diff(geometry.positions_mm))
        if not steps.size:
            steps = np.ones(1)
        # block z lies between planes z - 1 and z; the end steps are continued outward
        steps = np.concatenate([steps[:1], steps, steps[-1:]])
        _, first, self._which = np.unique(
            np.round(steps / _SAME_SPACING_MM), return_index=True, return_inverse=True
        )
        _, row_mm, column_mm = geometry.spacing_mm
        self._areas = [_area_table((float(steps[i]), row_mm, column_mm)) for i in first]

    def areas_mm2(self, block: int, codes: npt.NDArray[np.uint8]) -> FloatArray:
        """Areas of pieces in the layer of blocks before plane ``block``."""
        return np.asarray(self._areas[int(self._which[block])][codes], dtype=np.float64)


def surface_of(labels: LabelMap, structure_id: int, box: Box, tables: SurfaceTables) -> Surface:
    """The surface of a structure; where the scan cuts it, the border of the scan is surface.

    Memory: a few planes of ``box`` and the pieces.

    Parameters
    ----------
    labels
        Holds the structure.
    structure_id
        1..104.
    box
        ``(z, y, x)``, holds every voxel of the structure.
    tables
        Made from the geometry of ``labels``.
    """
    z_range, y_range, x_range = box
    pieces, areas = [], []
    before = _quads(None, y_range, x_range)
    for z in range(z_range.start, z_range.stop + 1):
        inside = None
        if z < z_range.stop:
            inside = labels.labels[z, y_range, x_range] == structure_id
        here = _quads(inside, y_range, x_range)
        codes: npt.NDArray[np.uint8] = (before << np.uint8(4)) | here
        y, x = np.nonzero((codes != 0) & (codes != _INSIDE))
        if y.size:
            areas.append(tables.areas_mm2(z, codes[y, x]))
            middle = np.empty((y.size, 3))
            middle[:, 0] = z - 0.5
            middle[:, 1] = y + (y_range.start - 0.5)
            middle[:, 2] = x + (x_range.start - 0.5)
            pieces.append(middle)
        before = here
    if not pieces:
        return Surface(np.empty((0, 3)), np.empty(0))
    return Surface(labels.geometry.lps_mm(np.concatenate(pieces)), np.concatenate(areas))


def _quads(
    inside: npt.NDArray[np.bool_] | None, y_range: slice, x_range: slice
) -> npt.NDArray[np.uint8]:
    """``(y + 1, x + 1)``, which of each 2 x 2 voxels of a plane are inside, as four bits."""
    height, width = y_range.stop - y_range.start, x_range.stop - x_range.start
    quads = np.zeros((height + 1, width + 1), dtype=np.uint8)
    if inside is not None:
        bits = inside.view(np.uint8)
        quads[1:, 1:] = bits << np.uint8(3)
        quads[1:, :-1] |= bits << np.uint8(2)
        quads[:-1, 1:] |= bits << np.uint8(1)
        quads[:-1, :-1] |= bits
    return quads


def _area_table(spacing_mm: tuple[float, float, float]) -> FloatArray:
    """``(256,)``, mm2 by code; the first voxel of a block is its highest bit."""
    from monai.metrics.utils import get_code_to_measure_table

    table, _ = get_code_to_measure_table(spacing_mm)
    return np.asarray(table.numpy(), dtype=np.float64)
