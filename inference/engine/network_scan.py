"""A scan as the network sees it, computed where it is asked for.

The source stays int16. One pass over the network's grid, a plane at a time, measures the
contrast (statistics of the whole volume, as published) and a coarse picture in which the
body is found; after it any box of the grid can be filled with what the network sees there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.intensity import Contrast, ContrastMeter, IntensitySpec
from inference.network_grid import NetworkGrid
from inference.plane_map import PlaneMap
from inference.resampling import sample_as_published, sample_linear
from inference.volume import AIR_HU, Volume

Box = tuple[slice, slice, slice]

#: Edge of the blocks whose mean makes the coarse picture.
COARSE_MM = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Resamples boxes of a scan's network grid to HU.

    Parameters
    ----------
    hu
        ``(z, y, x)`` of the source, each axis turned as the grid has it.
    grid
        Covers them.
    where
        Where the grid's voxels lie in ``hu``.
    clamp_hu
        Lowest and highest value, applied before values mix; None: padding is a value.
    """

    hu: npt.NDArray[np.int16]
    grid: NetworkGrid
    where: PlaneMap
    clamp_hu: tuple[int, int] | None

    @classmethod
    def of(cls, volume: Volume, grid: NetworkGrid, intensity: IntensitySpec) -> Sampler:
        """For the planes that ``grid`` covers."""
        return cls(grid.turned_view(volume.hu), grid, grid.to_source(), intensity.clamp_hu)

    def fill(self, box: Box, out: npt.NDArray[np.float32]) -> None:
        """Sample the voxels of ``box`` into ``out``, both ``(k, j, i)``; NaN is padding."""
        part = self.where.cropped(box)
        if self.clamp_hu is None and not self.where.column_per_row:
            sample_as_published(self.hu, part, out, self.grid.network_axes)
        else:
            sample_linear(self.hu, part, out, self.clamp_hu)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkScan:
    """A scan on the network's grid, -1..1.

    Parameters
    ----------
    sampler
        Gives HU.
    contrast
        Makes network values of them.
    coarse_hu
        ``(k, j, i)`` float32, mean HU of blocks of ``block`` voxels a side; padding is air.
    block
        Voxels of the grid.
    """

    sampler: Sampler
    contrast: Contrast
    coarse_hu: npt.NDArray[np.float32]
    block: int

    @classmethod
    def of(cls, volume: Volume, grid: NetworkGrid, intensity: IntensitySpec) -> NetworkScan:
        """Look once at every voxel of the grid; no volume is made of them."""
        sampler = Sampler.of(volume, grid, intensity)
        block = max(round(COARSE_MM / grid.spacing_mm), 1)
        depth, height, width = grid.grid_shape
        meter = ContrastMeter(intensity)
        coarse = np.zeros([-(-n // block) for n in grid.grid_shape], dtype=np.float32)
        rows, columns = slice(0, height), slice(0, width)
        # a few planes at a time: neighbours share the source planes between them
        some = np.empty((block, height, width), dtype=np.float32)
        for index, first in enumerate(range(0, depth, block)):
            planes = some[: min(block, depth - first)]
            sampler.fill((slice(first, first + len(planes)), rows, columns), planes)
            for plane in planes:
                meter.add(plane)
                np.nan_to_num(plane, copy=False, nan=AIR_HU)
                coarse[index] += _block_means(plane, block)
            coarse[index] /= len(planes)
        return cls(sampler, meter.contrast(), coarse, block)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(k, j, i)``, voxels."""
        return self.sampler.grid.grid_shape

    @property
    def network_axes(self) -> tuple[int, int, int]:
        """Which of the network's ``(x, y, z)`` the axes ``k``, ``j`` and ``i`` are."""
        return self.sampler.grid.network_axes

    def fill(self, box: Box, out: npt.NDArray[np.float32]) -> None:
        """Put what the network sees in ``box`` into ``out``, both ``(k, j, i)``."""
        self.sampler.fill(box, out)
        for plane in out:
            self.contrast.apply(plane)


def _block_means(plane: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Mean of each ``block x block`` square; smaller ones at the far edges."""
    rows, columns = (np.arange(0, count, block) for count in plane.shape)
    sums = np.add.reduceat(np.add.reduceat(plane, rows, axis=0), columns, axis=1)
    heights, widths = (
        np.diff(np.append(starts, count))
        for starts, count in zip((rows, columns), plane.shape, strict=True)
    )
    return np.asarray(sums / (heights[:, None] * widths), dtype=np.float32)
