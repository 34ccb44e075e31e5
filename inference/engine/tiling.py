"""Which windows of the network cover a scan, in the order in which they are computed.

A scan is cut into layers across one axis, a layer into bands across a second, a band into
windows along the third. The axes ``(a, b, c)`` of this module are a permutation of the
scan's: what has to be kept between windows is ``window x window x c`` for the band and, for
the layer, its overlap with the next one times ``b x c``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from inference.windows import WindowSpec, window_starts

Range = tuple[int, int]  # first voxel and the one after the last
Order = tuple[int, int, int]  # which axes of a scan a, b and c are


@dataclass(frozen=True, slots=True)
class Band:
    """Windows that share their first voxel along ``a`` and ``b``."""

    start: int  #: along b
    columns: tuple[int, ...]  #: first voxels along c, ascending


@dataclass(frozen=True, slots=True)
class Layer:
    """Windows that share their first voxel along ``a``."""

    start: int  #: along a
    bands: tuple[Band, ...]  #: by ascending start; each reaches or overlaps the next


@dataclass(frozen=True, slots=True)
class Tiling:
    """All windows of one scan.

    Parameters
    ----------
    extents
        ``(a, b, c)``, voxels; each at least ``window``.
    window
        Edge of a window, voxels.
    layers
        By ascending start.
    """

    extents: tuple[int, int, int]
    window: int
    layers: tuple[Layer, ...]

    @property
    def window_count(self) -> int:
        """How many windows there are."""
        return sum(len(band.columns) for layer in self.layers for band in layer.bands)

    @property
    def carried(self) -> int:
        """The largest overlap of a layer with the next one, voxels along ``a``."""
        return max(
            (max(this.start + self.window - after.start, 0) for this, after in self.pairs()),
            default=0,
        )

    def pairs(self) -> Iterator[tuple[Layer, Layer]]:
        """Each layer with the next one."""
        return itertools.pairwise(self.layers)


class Needed(Protocol):
    """Says which part of a scan has to be covered."""

    def extent(self, axis: int, within: tuple[Range, Range, Range]) -> Range | None:
        """Voxels along ``axis`` that matter inside ``within``, all by ``(a, b, c)``; None: none."""


def published_tiling(extents: tuple[int, int, int], spec: WindowSpec) -> Tiling:
    """Every voxel covered, windows where MONAI's inferer puts them."""
    a, b, c = (window_starts(extent, spec.window_voxels, spec.overlap) for extent in extents)
    bands = tuple(Band(start, c) for start in b)
    return Tiling(extents, spec.window_voxels, tuple(Layer(start, bands) for start in a))


def even_tiling(extents: tuple[int, int, int], spec: WindowSpec) -> Tiling:
    """Every voxel covered by as few windows as the overlap allows, evenly spread."""
    window = spec.window_voxels
    a, b, c = (even_starts((0, extent), window, spec.overlap, extent) for extent in extents)
    bands = tuple(Band(start, c) for start in b)
    return Tiling(extents, window, tuple(Layer(start, bands) for start in a))


def fitted_tiling(extents: tuple[int, int, int], spec: WindowSpec, needed: Needed) -> Tiling:
    """What ``needed`` says covered by as few windows as the overlap allows, evenly spread.

    Layers span the first axis, each of them what matters in it, and so does each band: the neck
    of a scan takes fewer windows than its shoulders.
    """
    window, overlap = spec.window_voxels, spec.overlap

    def starts(axis: int, *fixed: Range) -> tuple[int, ...]:
        within = (*fixed, *((0, extent) for extent in extents[len(fixed) :]))
        found = needed.extent(axis, (within[0], within[1], within[2]))
        return () if found is None else even_starts(found, window, overlap, extents[axis])

    layers = []
    for a in even_starts((0, extents[0]), window, overlap, extents[0]):
        in_layer = (a, a + window)
        bands = [(b, starts(2, in_layer, (b, b + window))) for b in starts(1, in_layer)]
        kept = tuple(Band(b, columns) for b, columns in bands if columns)
        if kept:
            layers.append(Layer(a, kept))
    return Tiling(extents, window, tuple(layers))


def even_starts(covered: Range, window: int, overlap: float, extent: int) -> tuple[int, ...]:
    """Where the fewest windows begin that cover a range and overlap by their share at least.

    Parameters
    ----------
    covered
        What is to be covered; not empty.
    window
        Edge of a window, voxels.
    overlap
        Share of the edge that neighbours have in common, at least.
    extent
        Of the axis, at least ``window``: windows stay inside.
    """
    first, length = covered[0], covered[1] - covered[0]
    if length <= window:
        return (min(max(first - (window - length) // 2, 0), extent - window),)
    steps = math.ceil((length - window) / _stride(window, overlap))
    return tuple(first + round(i * (length - window) / steps) for i in range(steps + 1))


def reach(length: int, spec: WindowSpec) -> int:
    """The longest range that takes no more windows than one of ``length`` voxels."""
    stride = _stride(spec.window_voxels, spec.overlap)
    steps = math.ceil(max(length - spec.window_voxels, 0) / stride)
    return spec.window_voxels + steps * stride


def _stride(window: int, overlap: float) -> int:
    """The longest way from a window to the next one."""
    return max(int(window * (1 - overlap)), 1)
