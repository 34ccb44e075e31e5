"""Random windows of cached cases, balanced over the structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.synthetic_cases import Case


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One window, ``(x, y, z)``."""

    image: npt.NDArray[np.float32]  #: -1..1
    labels: npt.NDArray[np.uint8]  #: 0..104
    frame: npt.NDArray[np.float64]  #: (3, 4), voxel (x, y, z, 1) to mm of the reference body

    def thinned(self, every: int) -> Patch:
        """Every n-th voxel along each axis: the same place on a coarser grid."""
        if every == 1:
            return self
        thin = (slice(None, None, every),) * 3
        frame = self.frame * np.array([every, every, every, 1.0])
        return Patch(np.ascontiguousarray(self.image[thin]), self.labels[thin], frame)


class PatchSource:
    """Draws a window by its step: the same seed and step give the same window.

    Parameters
    ----------
    cases
        What to draw from.
    seed
        Start of the random stream.
    """

    def __init__(self, cases: Sequence[Case], seed: int) -> None:
        self._cases = tuple(cases)
        self._seed = seed

    def draw(self, step: int, window: int) -> Patch:
        """The window of this step: a case, then a structure, then a place around it.

        ``window`` is the edge of the cube, voxels.
        """
        rng = np.random.default_rng([self._seed, step])
        case = self._cases[rng.integers(len(self._cases))]
        spots = case.spots()
        structures = np.unique(spots[:, 0])
        chosen = spots[spots[:, 0] == rng.choice(structures)]
        spot = chosen[rng.integers(len(chosen)), 1:]
        reach = int(0.42 * window)
        corner = spot + rng.integers(-reach, reach + 1, 3) - window // 2
        image, labels = case.image(), case.labels()
        slices, pads = [], []
        for low, extent in zip(corner, image.shape, strict=True):
            start = int(np.clip(low, 0, max(extent - window, 0)))
            missing = max(window - extent, 0)
            slices.append(slice(start, start + window))
            pads.append((missing // 2, missing - missing // 2))
        where = tuple(slices)
        values = np.asarray(image[where], dtype=np.float32) * np.float32(1 / 32767)
        values = np.pad(values, pads, mode="edge")
        values = values * np.float32(rng.uniform(0.95, 1.05))
        values += np.float32(rng.uniform(-0.015, 0.015))
        values += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(
            rng.uniform(0, 0.01)
        )
        frame = case.frame()
        first = [s.start - before for s, (before, _) in zip(slices, pads, strict=True)]
        frame[:, 3] += frame[:, :3] @ np.asarray(first)
        return Patch(values, np.pad(labels[where], pads), frame)
