"""From a scan to the network's array, and labels back onto the scan's own planes.

Peak memory beyond the source is the network's own array: float32 of the isotropic grid,
plus a few planes. With ``PUBLISHED_INTENSITY`` the array equals that of the published
transforms (Orientationd, Spacingd, NormalizeIntensityd, ScaleIntensityd) to rounding, and
``labels_to_source`` equals Invertd with nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.border_sampling import sample_smooth
from inference.intensity import (
    PUBLISHED_INTENSITY,
    ROBUST_INTENSITY,
    IntensitySpec,
    Scaling,
    normalise,
)
from inference.label_map import LabelMap
from inference.network_grid import NetworkGrid
from inference.resampling import clear_beyond, sample_as_published, sample_linear, sample_nearest
from inference.standings import STANDING_BYTES
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
    "standings_to_source",
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
    """Resample a scan to the network's grid (linear) and bring it to -1..1.

    Parameters
    ----------
    volume
        CT numbers on parallel planes, tilted and uneven ones included.
    spacing_mm
        Isotropic spacing of the network's grid.
    intensity
        How HU become network values.
    """
    grid = NetworkGrid.covering(volume.geometry, spacing_mm)
    values = np.empty(grid.grid_shape, dtype=np.float32)
    where, hu = grid.to_source(), grid.turned_view(volume.hu)
    if intensity.clamp_hu is None and not where.column_per_row:
        sample_as_published(hu, where, values, grid.network_axes)
    else:
        sample_linear(hu, where, values, intensity.clamp_hu)
    normalise(values, intensity)
    return NetworkInput(grid.network_view(values), grid)


def labels_to_source(labels: npt.NDArray[np.uint8], grid: NetworkGrid) -> LabelMap:
    """Put ``(x, y, z)`` labels onto every source plane, in place, nearest."""
    if labels.shape != grid.shape:
        raise ValueError(f"{labels.shape} labels on a {grid.shape} grid")
    placed = np.empty(grid.source.shape, dtype=np.uint8)
    planes = np.ascontiguousarray(grid.grid_view(labels))
    sample_nearest(planes, grid.from_source(), grid.turned_view(placed))
    return LabelMap(placed, grid.source)


def standings_to_source(standings: npt.NDArray[np.uint8], grid: NetworkGrid) -> LabelMap:
    """Put labels onto every source plane, in place, with borders between voxels of the grid.

    Parameters
    ----------
    standings
        ``(k, j, i, 4)`` of the grid; see ``inference.standings``.
    grid
        Where they sit.
    """
    if standings.shape != (*grid.grid_shape, STANDING_BYTES):
        raise ValueError(f"{standings.shape} standings on a {grid.grid_shape} grid")
    placed = np.empty(grid.source.shape, dtype=np.uint8)
    sample_smooth(standings, grid.from_source(), grid.turned_view(placed))
    return LabelMap(placed, grid.source)


def labels_to_network(label_map: LabelMap, grid: NetworkGrid) -> npt.NDArray[np.uint8]:
    """Sample a label map of the source at the network's voxels, ``(x, y, z)``, nearest.

    Voxels of the grid that no source plane reaches (the corners beside a tilted stack) are
    background.
    """
    if not label_map.geometry.matches(grid.source):
        raise ValueError("the label map does not sit on the grid's source")
    sampled = np.empty(grid.grid_shape, dtype=np.uint8)
    where = grid.to_source()
    sample_nearest(grid.turned_view(label_map.labels), where, sampled)
    clear_beyond(sampled, where, grid.source.shape)
    return grid.network_view(sampled)
