"""Random windows of cached cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from training.augmentation.augment import augment
from training.augmentation.settings import NO_AUGMENTATION, Augmentation
from training.case import STORED_SCALE, Case
from training.patch import Patch
from training.plan import Plan, Sampling


class PatchSource:
    """Draws a window by its number: the same seed and number give the same window.

    Parameters
    ----------
    cases
        What to draw from.
    seed
        Start of the random stream.
    plan
        Where windows lie, and whether gain, offset and noise vary a little.
    augmentation
        What else may happen to a window.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        seed: int,
        plan: Plan,
        augmentation: Augmentation = NO_AUGMENTATION,
    ) -> None:
        self._cases = tuple(cases)
        self._seed = seed
        self._plan = plan
        self._augmentation = augmentation

    def draw(self, number: int, window: int) -> Patch:
        """The window of this number, ``window`` voxels along each edge.

        Balanced: a case, then one of its structures, then a place around one of its voxels.
        """
        rng = np.random.default_rng([self._seed, number])
        case = self._cases[rng.integers(len(self._cases))]
        corner = self._corner(case, window, rng)
        margin = 0
        if self._augmentation != NO_AUGMENTATION:
            margin = -(-(self._augmentation.reach(window) - window) // 2)
        patch = cut(case, corner - margin, window + 2 * margin)
        if self._plan.jitter:
            values = patch.image * np.float32(rng.uniform(0.95, 1.05))
            values += np.float32(rng.uniform(-0.015, 0.015))
            values += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(
                rng.uniform(0, 0.01)
            )
            patch = replace(patch, image=values)
        if self._augmentation == NO_AUGMENTATION:
            return patch
        return augment(patch, self._augmentation, rng, window)

    def _corner(self, case: Case, window: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Lowest voxel of the window, which lies inside the case or around all of it."""
        shape, spots = np.array(case.labels().shape), case.spots()
        room = np.maximum(shape - window, 0)
        if self._plan.sampling is Sampling.UNIFORM or not len(spots):
            corner = rng.integers(room + 1)
        else:
            structures = np.unique(spots[:, 0])
            chosen = spots[spots[:, 0] == rng.choice(structures)]
            spot = chosen[rng.integers(len(chosen)), 1:]
            reach = int(0.42 * window)
            corner = spot + rng.integers(-reach, reach + 1, 3) - window // 2
        return np.asarray(np.clip(corner, 0, room) - np.maximum(window - shape, 0) // 2)


def cut(case: Case, corner: npt.NDArray[np.int64], window: int) -> Patch:
    """``window`` voxels along each edge from ``corner``; beyond the case its borders go on."""
    image, labels, frame = case.image(), case.labels(), case.frame()
    slices, pads = [], []
    for low, extent in zip(corner.tolist(), image.shape, strict=True):
        start, stop = max(low, 0), min(low + window, extent)
        slices.append(slice(start, stop))
        pads.append((start - low, low + window - stop))
    where = tuple(slices)
    values = np.asarray(image[where], dtype=np.float32) * np.float32(1 / STORED_SCALE)
    if frame is not None:
        frame[:, 3] += frame[:, :3] @ corner
    return Patch(np.pad(values, pads, mode="edge"), np.pad(labels[where], pads), frame)
