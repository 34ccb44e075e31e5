"""Where the network's array sits relative to the planes of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.geometry import Geometry


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGrid:
    """An isotropic ``(x, y, z)`` grid, axes nearest to right, anterior and superior.

    Its axes are parallel to rows, columns and normal of the source planes.

    Parameters
    ----------
    source
        The planes that it covers.
    shape
        ``(x, y, z)``, voxels.
    spacing_mm
        Distance of neighbouring voxels along each axis.
    origin_mm
        ``(3,)``, LPS position of the centre of voxel (0, 0, 0).
    steps_mm
        ``(3, 3)``; row ``a`` is the LPS displacement of one step along network axis ``a``.
    """

    source: Geometry
    shape: tuple[int, int, int]
    spacing_mm: float
    origin_mm: npt.NDArray[np.float64]
    steps_mm: npt.NDArray[np.float64]
