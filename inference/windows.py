"""How windows of the network cover a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from inference.network import WINDOW_VOXELS


class Precision(StrEnum):
    """Arithmetic of the network."""

    FP32 = "fp32"  #: as published on a CPU
    BF16 = "bf16"  #: several times faster where the processor has it; labels differ at ties


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How windows cover a scan; the default is as published.

    Parameters
    ----------
    window_voxels
        Edge of the cubic window; a multiple of 8.
    overlap
        Share of the edge that neighbouring windows have in common, at least.
    precision
        Of the network; blending is always in single precision.
    channels_last
        Memory layout that is faster on most processors; changes rounding only.
    """

    window_voxels: int = WINDOW_VOXELS
    overlap: float = 0.25
    precision: Precision = Precision.FP32
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.window_voxels < 8 or self.window_voxels % 8:
            raise ValueError(f"window_voxels must be a multiple of 8: {self.window_voxels}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be in [0, 1): {self.overlap}")


def window_starts(extent: int, window: int, overlap: float) -> tuple[int, ...]:
    """Where windows begin along an axis of ``extent`` voxels, ``extent >= window``.

    MONAI's ``dense_patch_slices``: regular steps, the last window moved back to end with the
    axis.
    """
    if extent == window:
        return (0,)
    interval = max(int(window * (1 - overlap)), 1)
    count = math.ceil((extent - window) / interval) + 1
    return tuple(min(i * interval, extent - window) for i in range(count))
