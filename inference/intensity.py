"""How CT numbers become the network's input values, -1 to 1.

The published chain is a z-score over non-zero voxels followed by a min-max to -1..1. The
min-max undoes the z-score, so the extremes of a volume decide its contrast: 40 HU becomes
-0.48 in a scan of -1024..3071 HU, +0.005 with a vendor's padding of -3024 HU and -0.90 with
metal at 20000 HU. Masking padding and clamping first keeps the contrast that the published
weights were trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Scaling(StrEnum):
    """How values are brought to -1..1."""

    PER_VOLUME = "per-volume"  #: z-score of non-zero voxels, then min-max, as published
    CLAMP_RANGE = "clamp-range"  #: ``clamp_hu`` to -1..1, the same for every volume


@dataclass(frozen=True, slots=True)
class IntensitySpec:
    """From Hounsfield units to network values.

    Parameters
    ----------
    clamp_hu
        Lowest and highest HU, inclusive. Padding becomes the lowest and takes no part in
        statistics. None: values and padding enter as they are (as published).
    scaling
        How the values are brought to -1..1.
    """

    clamp_hu: tuple[int, int] | None
    scaling: Scaling

    def __post_init__(self) -> None:
        if self.clamp_hu is None:
            if self.scaling is Scaling.CLAMP_RANGE:
                raise ValueError("scaling by the clamp range needs a clamp range")
        elif not -32768 < self.clamp_hu[0] < self.clamp_hu[1] <= 32767:
            raise ValueError(f"clamp_hu must be low < high within int16: {self.clamp_hu}")


#: The published chain to the letter.
PUBLISHED_INTENSITY = IntensitySpec(clamp_hu=None, scaling=Scaling.PER_VOLUME)
#: -1024..3071 HU is what 12 stored bits hold at the usual intercept, the range of nearly all
#: of the published training data: ordinary scans pass unchanged, padding below and metal or
#: extended-scale values above no longer decide the contrast.
ROBUST_INTENSITY = IntensitySpec(clamp_hu=(-1024, 3071), scaling=Scaling.PER_VOLUME)


def normalise(hu: npt.NDArray[np.float32], spec: IntensitySpec) -> None:
    """Bring HU to -1..1 in place, plane by plane along the first axis.

    Parameters
    ----------
    hu
        Resampled values, clamped where ``spec`` says so; NaN is padding and becomes -1.
    spec
        How.
    """
    if spec.scaling is Scaling.CLAMP_RANGE:
        assert spec.clamp_hu is not None
        low, high = map(float, spec.clamp_hu)
        for plane in hu:
            _rescale(plane, low, high)
        return
    mean, deviation = _nonzero_statistics(hu)
    low, high = np.inf, -np.inf
    for plane in hu:
        zeros = plane == 0
        plane -= np.float32(mean)
        plane /= np.float32(deviation)
        plane[zeros] = 0
        if not np.isnan(plane).all():
            low, high = min(low, float(np.nanmin(plane))), max(high, float(np.nanmax(plane)))
    for plane in hu:
        _rescale(plane, low, high)


def _nonzero_statistics(hu: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of voxels that are neither 0 HU nor padding."""
    count, total = 0, 0.0
    for plane in hu:
        values = plane[(plane != 0) & ~np.isnan(plane)]
        count += values.size
        total += float(values.sum(dtype=np.float64))
    if not count:
        return 0.0, 1.0
    mean, squares = total / count, 0.0
    for plane in hu:
        values = plane[(plane != 0) & ~np.isnan(plane)].astype(np.float64) - mean
        squares += float(np.square(values, out=values).sum())
    return mean, (squares / count) ** 0.5 or 1.0


def _rescale(plane: npt.NDArray[np.float32], low: float, high: float) -> None:
    if high > low:
        plane -= np.float32(low)
        plane /= np.float32(high) - np.float32(low)
        plane *= np.float32(2)
        plane -= np.float32(1)
    else:
        plane *= np.float32(-1)  # a constant scan, as MONAI's ``rescale_array`` does it
    plane[np.isnan(plane)] = -1
