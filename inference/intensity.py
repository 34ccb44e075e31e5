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


@dataclass(frozen=True, slots=True)
class Contrast:
    """What one scan's values become: the numbers behind its normalisation.

    Parameters
    ----------
    mean, deviation
        HU; of voxels that are neither 0 HU nor padding. 0 and 1 with a clamp range.
    low, high
        The values that become -1 and 1, after ``mean`` and ``deviation``.
    zeros_are_mean
        Voxels at exactly 0 HU land on the mean, as published.
    """

    mean: float
    deviation: float
    low: float
    high: float
    zeros_are_mean: bool

    def apply(self, plane: npt.NDArray[np.float32]) -> None:
        """Bring HU to -1..1 in place; NaN is padding and becomes -1."""
        if self.zeros_are_mean:
            zeros = plane == 0
            plane -= np.float32(self.mean)
            plane /= np.float32(self.deviation)
            plane[zeros] = 0
        _rescale(plane, self.low, self.high)


class ContrastMeter:
    """Measures the contrast of a scan that is seen plane by plane.

    Parameters
    ----------
    spec
        How HU become network values.
    """

    def __init__(self, spec: IntensitySpec) -> None:
        self._spec = spec
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._low, self._high = np.inf, -np.inf  # of voxels that are not 0 HU
        self._zeros = False

    def add(self, plane: npt.NDArray[np.float32]) -> None:
        """Take in resampled HU, clamped where the specification says so; NaN is padding."""
        if self._spec.scaling is Scaling.CLAMP_RANGE:
            return
        chosen = plane != 0
        chosen &= ~np.isnan(plane)
        values = plane[chosen]
        self._zeros = self._zeros or bool((plane == 0).any())
        if not values.size:
            return
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        # T. F. Chan et al., Updating formulae and a pairwise algorithm, 1979
        mean = float(values.mean(dtype=np.float64))
        difference = values.astype(np.float64)
        difference -= mean
        squares = float(np.vdot(difference, difference))
        count = self._count + values.size
        shift = mean - self._mean
        self._squares += squares + shift * shift * self._count * values.size / count
        self._mean += shift * values.size / count
        self._count = count

    def contrast(self) -> Contrast:
        """The contrast of everything that was added."""
        if self._spec.scaling is Scaling.CLAMP_RANGE:
            assert self._spec.clamp_hu is not None
            low, high = map(float, self._spec.clamp_hu)
            return Contrast(0.0, 1.0, low, high, zeros_are_mean=False)
        deviation = (self._squares / self._count) ** 0.5 or 1.0 if self._count else 1.0
        mean = self._mean if self._count else 0.0
        # the arithmetic of ``apply``: the extremes land on -1 and 1 exactly
        ends = [
            float((np.float32(end) - np.float32(mean)) / np.float32(deviation))
            for end in (self._low, self._high)
            if self._count
        ]
        ends += [0.0] if self._zeros else []
        low, high = min(ends, default=np.inf), max(ends, default=-np.inf)
        return Contrast(mean, deviation, low, high, zeros_are_mean=True)


def normalise(hu: npt.NDArray[np.float32], spec: IntensitySpec) -> None:
    """Bring HU to -1..1 in place, plane by plane along the first axis.

    Parameters
    ----------
    hu
        Resampled values, clamped where ``spec`` says so; NaN is padding and becomes -1.
    spec
        How.
    """
    meter = ContrastMeter(spec)
    for plane in hu:
        meter.add(plane)
    contrast = meter.contrast()
    for plane in hu:
        contrast.apply(plane)


def _rescale(plane: npt.NDArray[np.float32], low: float, high: float) -> None:
    if high > low:
        plane -= np.float32(low)
        plane /= np.float32(high) - np.float32(low)
        plane *= np.float32(2)
        plane -= np.float32(1)
    else:
        plane *= np.float32(-1)  # a constant scan, as MONAI's ``rescale_array`` does it
    plane[np.isnan(plane)] = -1
