"""From a scan to the network's array, and labels back onto the scan's own planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.intensity import PUBLISHED_INTENSITY, ROBUST_INTENSITY, IntensitySpec, Scaling
from inference.label_map import LabelMap
from inference.network_grid import NetworkGrid
from inference.volume import Volume

__all__ = [
    "PUBLISHED_INTENSITY",
    "ROBUST_INTENSITY",
    "IntensitySpec",
    "NetworkGrid",
    "NetworkInput",
    "Scaling",
    "labels_to_network",
    "labels_to_source",
    "to_network",
]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInput:
    """What the network sees, and where it is.

    Parameters
    ----------
    array
        ``(x, y, z)`` float32, -1..1; not necessarily contiguous.
    grid
        Where ``array`` sits.
    """

    array: npt.NDArray[np.float32]
    grid: NetworkGrid


def to_network(
    volume: Volume, spacing_mm: float, intensity: IntensitySpec = ROBUST_INTENSITY
) -> NetworkInput:
    """Resample a scan to the network's grid (linear) and bring it to -1..1."""
    raise NotImplementedError


def labels_to_source(labels: npt.NDArray[np.uint8], grid: NetworkGrid) -> LabelMap:
    """Put ``(x, y, z)`` labels onto the source planes, nearest."""
    raise NotImplementedError


def labels_to_network(label_map: LabelMap, grid: NetworkGrid) -> npt.NDArray[np.uint8]:
    """Sample a label map of the source at the network's voxels, ``(x, y, z)``, nearest."""
    raise NotImplementedError
