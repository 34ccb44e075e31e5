"""The part of a scan that one layer of windows sees, moved along as layers advance."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from inference.engine.network_scan import Box
from inference.engine.tiling import Order


class WindowSource(Protocol):
    """A scan from which boxes can be had."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(k, j, i)``, voxels."""

    @property
    def network_axes(self) -> tuple[int, int, int]:
        """Which of the network's ``(x, y, z)`` the axes ``k``, ``j`` and ``i`` are."""

    def fill(self, box: Box, out: npt.NDArray[np.float32]) -> None:
        """Put the voxels of ``box`` into ``out``, both ``(k, j, i)``, values -1..1."""


class Slab:
    """Voxels of one layer, axes ``(a, b, c)``.

    Parameters
    ----------
    source
        Gives the voxels.
    part
        The box of the source that is covered by windows, ``(k, j, i)``.
    order
        Which axes of the source ``a``, ``b`` and ``c`` are.
    window
        Edge of a window; where the part is thinner, its border is continued on both sides.
    device
        Where windows are wanted.
    """

    def __init__(
        self, source: WindowSource, part: Box, order: Order, window: int, device: torch.device
    ) -> None:
        self._source, self._part, self._order = source, part, order
        self._extents = tuple(part[axis].stop - part[axis].start for axis in order)
        self.padding = tuple(max(window - extent, 0) // 2 for extent in self._extents)
        padded = [max(window, extent) for extent in self._extents]
        self._voxels = torch.zeros((window, *padded[1:]), dtype=torch.float32)
        self._device = device
        self._there = self._voxels if device.type == "cpu" else self._voxels.to(device)
        self._held: tuple[int, int] = (0, 0)  # planes along a
        # (a, b, c) of a window in the network's order
        axes = [source.network_axes[axis] for axis in order]
        self._to_network = [axes.index(axis) for axis in range(3)]

    def advance(self, start: int) -> None:
        """Hold the layer at ``start``; layers come by ascending start."""
        depth = self._voxels.shape[0]
        first, last = self._held
        kept = max(last - start, 0) if first <= start else 0
        for plane in range(kept):  # one by one: source and target overlap
            self._voxels[plane] = self._voxels[plane + start - first]
        self._fill(start + kept, self._voxels[kept:].numpy())
        self._held = (start, start + depth)
        if self._device.type != "cpu":
            self._there.copy_(self._voxels)

    def window(self, b: int, c: int, out: torch.Tensor) -> None:
        """Copy the window at ``(b, c)`` into ``out``, ``(x, y, z)`` of the network."""
        edge = self._voxels.shape[0]
        out.copy_(self._there[:, b : b + edge, c : c + edge].permute(self._to_network))

    def _fill(self, first: int, planes: npt.NDArray[np.float32]) -> None:
        """Fill planes from ``first`` on, padding included."""
        if not len(planes):
            return
        before, extents = self.padding, self._extents
        inside = tuple(slice(p, p + n) for p, n in zip(before[1:], extents[1:], strict=True))
        low = max(first, before[0])
        high = min(first + len(planes), before[0] + extents[0])
        target = planes[low - first : high - first, inside[0], inside[1]]
        box = list(self._part)
        start = self._part[self._order[0]].start - before[0]
        box[self._order[0]] = slice(start + low, start + high)
        back = np.argsort(self._order)
        self._source.fill((box[0], box[1], box[2]), target.transpose(back))
        for axis, (pad, extent) in enumerate(zip(before, extents, strict=True)):
            moved = np.moveaxis(planes, axis, 0)
            begin, end = (low - first, high - first) if axis == 0 else (pad, pad + extent)
            moved[:begin] = moved[begin]
            moved[end:] = moved[end - 1]
