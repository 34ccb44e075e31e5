"""Random windows of cached cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.case import STORED_SCALE, Case
from training.plan import Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One window, ``(x, y, z)``."""

    image: npt.NDArray[np.float32]  #: -1..1
    labels: npt.NDArray[np.uint8]  #: 0..104
    frame: npt.NDArray[np.float64] | None  #: (3, 4), voxel (x, y, z, 1) to mm of a reference body


class PatchSource:
    """Draws a window by its number: the same seed and number give the same window.

    Parameters
    ----------
    cases
        What to draw from.
    seed
        Start of the random stream.
    sampling
        Where windows lie.
    jitter
        Whether gain, offset and noise vary a little.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        seed: int,
        sampling: Sampling = Sampling.BALANCED,
        jitter: bool = True,
    ) -> None:
        self._cases = tuple(cases)
        self._seed = seed
        self._sampling = sampling
        self._jitter = jitter

    def draw(self, number: int, window: int) -> Patch:
        """The window of this number, ``window`` voxels along each edge.

        Balanced: a case, then one of its structures, then a place around one of its voxels.
        """
        rng = np.random.default_rng([self._seed, number])
        case = self._cases[rng.integers(len(self._cases))]
        image, labels = case.image(), case.labels()
        corner = self._corner(case, image.shape, window, rng)
        slices, pads = [], []
        for low, extent in zip(corner, image.shape, strict=True):
            start = int(np.clip(low, 0, max(extent - window, 0)))
            missing = max(window - extent, 0)
            slices.append(slice(start, start + window))
            pads.append((missing // 2, missing - missing // 2))
        where = tuple(slices)
        values = np.asarray(image[where], dtype=np.float32) * np.float32(1 / STORED_SCALE)
        values = np.pad(values, pads, mode="edge")
        if self._jitter:
            values = values * np.float32(rng.uniform(0.95, 1.05))
            values += np.float32(rng.uniform(-0.015, 0.015))
            values += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(
                rng.uniform(0, 0.01)
            )
        frame = case.frame()
        if frame is not None:
            first = [s.start - before for s, (before, _) in zip(slices, pads, strict=True)]
            frame[:, 3] += frame[:, :3] @ np.asarray(first)
        return Patch(values, np.pad(labels[where], pads), frame)

    def _corner(
        self, case: Case, shape: tuple[int, ...], window: int, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Lowest voxel of the window; it may lie outside the case."""
        spots = case.spots()
        if self._sampling is Sampling.UNIFORM or not len(spots):
            return np.array([rng.integers(max(extent - window, 0) + 1) for extent in shape])
        structures = np.unique(spots[:, 0])
        chosen = spots[spots[:, 0] == rng.choice(structures)]
        spot = chosen[rng.integers(len(chosen)), 1:]
        reach = int(0.42 * window)
        return np.asarray(spot + rng.integers(-reach, reach + 1, 3) - window // 2)
