"""Turning and scaling a window about its centre.

A turn about one axis moves all voxels of a line along it alike. So lines are what is
gathered, four weighted ones for each, in a small part of the time that a general resampling
takes (``tests/benchmarks/bench_augmentation.py``).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from training.patch import Patch

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn about one axis and a change of size."""

    axis: int  #: 0, 1, 2: x, y, z
    angle: float  #: radians
    factor: float  #: above 1: everything becomes larger

    @property
    def matrix(self) -> FloatArray:
        """3 x 3, from offsets in the new window to offsets in the old one."""
        b, c = (axis for axis in range(3) if axis != self.axis)
        matrix = np.eye(3)
        matrix[b, b] = matrix[c, c] = math.cos(self.angle)
        matrix[b, c], matrix[c, b] = -math.sin(self.angle), math.sin(self.angle)
        return matrix / self.factor


def crop(patch: Patch, window: int) -> Patch:
    """The middle of a patch, ``window`` voxels along each edge."""
    starts = [(extent - window) // 2 for extent in patch.labels.shape]
    if min(starts) < 0:
        raise ValueError(f"a window of {window} voxels from a patch of {patch.labels.shape}")
    where = tuple(slice(start, start + window) for start in starts)
    frame = patch.frame
    if frame is not None:
        frame = np.column_stack([frame[:, :3], frame[:, 3] + frame[:, :3] @ np.asarray(starts)])
    return replace(
        patch,
        image=np.ascontiguousarray(patch.image[where]),
        labels=np.ascontiguousarray(patch.labels[where]),
        frame=frame,
    )


def turn(patch: Patch, change: Turn, window: int) -> Patch:
    """Turned and scaled about the middle; image linear, labels nearest, borders continued.

    Parameters
    ----------
    patch
        At least ``window`` voxels along each axis.
    change
        What to do.
    window
        Edge of the result, voxels.
    """
    shape = patch.labels.shape
    middle = np.array([(extent - window) // 2 + (window - 1) / 2 for extent in shape])
    matrix = change.matrix
    offset = middle - matrix @ np.full(3, (window - 1) / 2)
    frame = patch.frame
    if frame is not None:
        frame = np.column_stack([frame[:, :3] @ matrix, frame[:, 3] + frame[:, :3] @ offset])
    lines = _Lines(change, shape, offset, window)
    return replace(
        patch, image=lines.linear(patch.image), labels=lines.nearest(patch.labels), frame=frame
    )


class _Lines:
    """Where the lines of the result along one axis lie in the source."""

    def __init__(self, change: Turn, shape: tuple[int, ...], offset: FloatArray, window: int):
        axis, matrix = change.axis, change.matrix
        b, c = (other for other in range(3) if other != axis)
        steps = np.arange(window, dtype=np.float64)
        first, second = np.meshgrid(steps, steps, indexing="ij")
        self._axis, self._window, self._extent = axis, window, shape[axis]
        self._b = _Positions(matrix[b, b] * first + matrix[b, c] * second + offset[b], shape[b])
        self._c = _Positions(matrix[c, b] * first + matrix[c, c] * second + offset[c], shape[c])
        self._along = _Positions(matrix[axis, axis] * steps + offset[axis], shape[axis])

    def linear(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``(x, y, z)`` values between voxels."""
        corners = itertools.product(self._b.neighbours(), self._c.neighbours())
        width = self._c.extent
        taps = [(b * width + c, b_share * c_share) for (b, b_share), (c, c_share) in corners]
        found = functional.embedding_bag(
            torch.from_numpy(np.stack([index.ravel() for index, _ in taps], axis=-1)),
            torch.from_numpy(self._as_lines(image)),
            per_sample_weights=torch.from_numpy(
                np.stack([share.ravel() for _, share in taps], axis=-1).astype(np.float32)
            ),
            mode="sum",
        )
        return self._as_volume(self._along.stretch(found).numpy())

    def nearest(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """``(x, y, z)`` values of the nearest voxels."""
        index = self._b.nearest() * self._c.extent + self._c.nearest()
        return self._as_volume(self._as_lines(labels)[index.ravel()][:, self._along.nearest()])

    def _as_lines(self, volume: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        moved = np.ascontiguousarray(np.moveaxis(volume, self._axis, -1))
        return moved.reshape(-1, self._extent)

    def _as_volume(self, lines: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        cube = lines.reshape((self._window,) * 3)
        return np.ascontiguousarray(np.moveaxis(cube, -1, self._axis))


class _Positions:
    """Places along one axis of the source; what lies beyond its ends is moved there."""

    def __init__(self, at: FloatArray, extent: int) -> None:
        self.extent = extent
        self._at = np.clip(at, 0, extent - 1)

    def nearest(self) -> IndexArray:
        """The voxel at each place."""
        return np.rint(self._at).astype(np.intp)

    def neighbours(self) -> tuple[tuple[IndexArray, FloatArray], ...]:
        """Voxel and weight before each place, and after it."""
        before = np.minimum(self._at.astype(np.intp), max(self.extent - 2, 0))
        share = self._at - before
        return (before, 1 - share), (np.minimum(before + 1, self.extent - 1), share)

    def stretch(self, lines: torch.Tensor) -> torch.Tensor:
        """``(lines, extent)`` at these places: ``(lines, places)``."""
        first = int(self._at[0])
        if np.array_equal(self._at, np.arange(first, first + self._at.size)):
            return lines[:, first : first + self._at.size]
        weights = np.zeros((self.extent, self._at.size), dtype=np.float32)
        for index, share in self.neighbours():
            weights[index, np.arange(self._at.size)] += share
        return lines @ torch.from_numpy(weights)
