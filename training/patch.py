"""One window of a case, as it goes into the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One window, ``(x, y, z)``."""

    image: npt.NDArray[np.float32]  #: -1..1
    labels: npt.NDArray[np.uint8]  #: 0..104
    frame: npt.NDArray[np.float64] | None  #: (3, 4), voxel (x, y, z, 1) to mm of a reference body
