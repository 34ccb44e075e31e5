"""Which part of a scan is worth computing: the body, or what a coarse result points at.

A region is a mask of coarse blocks of the network's grid. It decides which windows are
computed; voxels outside all windows are background. It must never cut anatomy, so it errs
towards too much: everything but the air around the patient that is thicker than a table top
counts, with a margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from inference.engine.network_scan import Box, NetworkScan
from inference.engine.surrounding_air import surrounding_air
from inference.engine.tiling import Range

#: Thinner things are no body: table tops, blankets, tubes. Also what the margin must exceed.
_OPENING_BLOCKS = 1
_BODY_MARGIN_MM = 12.0
#: How far a coarse result may be wrong about where a structure ends.
STRUCTURE_MARGIN_MM = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Blocks of a network grid that matter.

    Parameters
    ----------
    mask
        ``(k, j, i)`` bool, one a block.
    block
        Edge of a block, voxels.
    shape
        ``(k, j, i)`` of the grid, voxels.
    """

    mask: npt.NDArray[np.bool_]
    block: int
    shape: tuple[int, int, int]

    @classmethod
    def body(cls, scan: NetworkScan) -> Region:
        """Everything but the air around the patient, 12 mm and more of margin included."""
        solid = ~surrounding_air(scan)
        thick = sitk.BinaryMorphologicalOpening(
            _padded(solid), [_OPENING_BLOCKS] * 3, sitk.sitkCross
        )
        inside = (slice(1, -1),) * 3
        found = sitk.GetArrayFromImage(thick)[inside] > 0
        if not found.any():
            found = solid  # a finger or a thin slab: rather a table top than nothing
        block_mm = scan.block * scan.sampler.grid.spacing_mm
        margin = max(math.ceil(_BODY_MARGIN_MM / block_mm), _OPENING_BLOCKS + 1)
        return cls(grown(found, margin), scan.block, scan.shape)

    @classmethod
    def of_labels(
        cls,
        labels: npt.NDArray[np.uint8],
        wanted: npt.NDArray[np.bool_],
        block: int,
        spacing_mm: float,
    ) -> Region:
        """Where a coarse result has certain labels, 30 mm of margin included.

        Parameters
        ----------
        labels
            ``(k, j, i)`` on the network's grid.
        wanted
            ``(256,)``, by label.
        block
            Edge of a block, voxels.
        spacing_mm
            Of the grid.
        """
        mask = _blocks_with(labels, wanted, block)
        depth, height, width = labels.shape
        margin = math.ceil(STRUCTURE_MARGIN_MM / (block * spacing_mm))
        return cls(grown(mask, margin), block, (depth, height, width))

    @classmethod
    def everything(cls, shape: tuple[int, int, int]) -> Region:
        """The whole of a grid."""
        return cls(np.ones((1, 1, 1), dtype=np.bool_), max(shape), shape)

    @property
    def is_empty(self) -> bool:
        """Whether nothing matters."""
        return not self.mask.any()

    @property
    def share(self) -> float:
        """Voxels that matter, as a share of all."""
        share = self.mask.astype(np.float64)
        for extent in reversed(self.shape):  # blocks at the far ends are smaller
            share = share @ np.diff(np.r_[0 : extent : self.block, extent]) / extent
        return float(share)

    def meet(self, other: Region) -> Region:
        """What matters to both."""
        return Region(self.mask & other.mask, self.block, self.shape)

    def cuts(
        self, labels: npt.NDArray[np.uint8], wanted: npt.NDArray[np.bool_], whole: Region
    ) -> bool:
        """Whether certain labels lie in, or in a block beside, one that only ``whole`` has.

        Windows reach beyond the region: what they see there may go on where none was.

        Parameters
        ----------
        labels
            ``(k, j, i)`` on the network's grid.
        wanted
            ``(256,)``, by label.
        whole
            What would have been computed otherwise.
        """
        beyond = whole.mask & ~self.mask
        rim = whole.mask & grown(beyond, 1)
        return bool((rim & _blocks_with(labels, wanted, self.block)).any())

    def box(self, within: Box | None = None) -> Box | None:
        """The smallest box of voxels around the blocks that matter, ``(k, j, i)``.

        Parameters
        ----------
        within
            Blocks that reach into this box of voxels; None: all.
        """
        blocks = self.mask
        first = (0, 0, 0)
        if within is not None:
            k, j, i = (slice(s.start // self.block, -(-s.stop // self.block)) for s in within)
            blocks, first = blocks[k, j, i], (k.start, j.start, i.start)
        if not blocks.any():
            return None
        sides = []
        for axis, (start, extent) in enumerate(zip(first, self.shape, strict=True)):
            others = tuple(other for other in range(3) if other != axis)
            hit = np.flatnonzero(blocks.any(axis=others)) + start
            stop = min((int(hit[-1]) + 1) * self.block, extent)
            sides.append(slice(int(hit[0]) * self.block, stop))
        return sides[0], sides[1], sides[2]


@dataclass(frozen=True, slots=True, eq=False)
class NeededIn:
    """A region seen from a part of its grid with axes in another order.

    Parameters
    ----------
    region
        What matters.
    part
        The box of the grid that is tiled, ``(k, j, i)``.
    order
        Which axes of the grid ``a``, ``b`` and ``c`` are.
    """

    region: Region
    part: Box
    order: tuple[int, int, int]

    def extent(self, axis: int, within: tuple[Range, Range, Range]) -> Range | None:
        """See ``inference.engine.tiling.Needed``."""
        sides = list(self.part)
        for of_grid, (first, last) in zip(self.order, within, strict=True):
            start = self.part[of_grid].start
            sides[of_grid] = slice(start + first, min(start + last, self.part[of_grid].stop))
        found = self.region.box((sides[0], sides[1], sides[2]))
        if found is None:
            return None
        of_grid = self.order[axis]
        start, side = self.part[of_grid].start, found[of_grid]
        asked = sides[of_grid]
        return max(side.start, asked.start) - start, min(side.stop, asked.stop) - start


def _blocks_with(
    labels: npt.NDArray[np.uint8], wanted: npt.NDArray[np.bool_], block: int
) -> npt.NDArray[np.bool_]:
    """Which blocks hold a voxel with one of certain labels."""
    mask = np.zeros([-(-n // block) for n in labels.shape], dtype=np.bool_)
    for k, plane in enumerate(labels):
        hits = wanted[plane]
        rows, columns = (np.arange(0, count, block) for count in plane.shape)
        here = np.logical_or.reduceat(np.logical_or.reduceat(hits, rows, 0), columns, 1)
        mask[k // block] |= here
    return mask


def grown(mask: npt.NDArray[np.bool_], blocks: int) -> npt.NDArray[np.bool_]:
    """The mask with a margin of so many blocks to every side, edges and corners included."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    wider = sitk.BinaryDilate(image, [blocks] * 3, sitk.sitkBox)
    return np.asarray(sitk.GetArrayFromImage(wider) > 0)


def _padded(mask: npt.NDArray[np.bool_]) -> sitk.Image:
    """The mask continued outward: what the field of view cuts is not thin."""
    return sitk.GetImageFromArray(np.pad(mask, 1, mode="edge").view(np.uint8))
