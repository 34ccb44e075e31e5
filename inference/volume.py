"""A CT in Hounsfield units that knows where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidGeometryError
from inference.geometry import Geometry

#: Marks voxels that the scanner did not measure (Pixel Padding Value, PS3.3 C.7.5.1.1.2).
#: The lowest int16: no threshold above it finds padding, and clamping to the range of the
#: network turns it into air.
PADDING_HU = -32768
AIR_HU = -1024


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """CT numbers on a stack of planes.

    Parameters
    ----------
    hu
        ``(z, y, x)`` int16, Hounsfield units; ``PADDING_HU`` where nothing was measured.
    geometry
        Where ``hu`` sits; the same shape.

    Raises
    ------
    InvalidGeometryError
        If array and geometry differ in shape.
    TypeError
        If ``hu`` is not int16.
    """

    hu: npt.NDArray[np.int16]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.hu.dtype != np.int16:
            raise TypeError(f"hu must be int16, not {self.hu.dtype}")
        if self.hu.shape != self.geometry.shape:
            raise InvalidGeometryError(f"{self.hu.shape} voxels on a {self.geometry.shape} grid")
