"""Whether values can be those of a body in air."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from inference.volume import PADDING_HU

#: Voxels above this are body (or table), below it air and lung.
BODY_THRESHOLD_HU: Final = -500
#: Range in which the median of a body lies, whatever the part and the contrast phase.
BODY_MEDIAN_HU: Final = (-250, 350)
_SAMPLED_VOXELS: Final = 250_000


def implausible_hu(hu: npt.NDArray[np.int16]) -> str:
    """What is wrong with ``(z, y, x)`` values; empty if nothing is. A sample is looked at."""
    stride = max(1, int(np.ceil(np.sqrt(hu.size / _SAMPLED_VOXELS))))
    sample = hu[:, ::stride, ::stride]
    measured = sample[sample != PADDING_HU]
    if not measured.size:
        return "every voxel is padding"
    body = measured[measured > BODY_THRESHOLD_HU]
    if not body.size:
        return f"no voxel above {BODY_THRESHOLD_HU} HU"
    median = float(np.median(body))
    if not BODY_MEDIAN_HU[0] <= median <= BODY_MEDIAN_HU[1]:
        return f"median of the body {median:.0f} HU"
    if int(measured.min()) >= 0:
        return "no value below 0 HU: no fat and no air"
    return ""
