"""How good the averaged weights are on whole cases, by the clinic's own sliding window."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.sliding_window import SplitNetwork, segment_windows
from inference.structures import CLASS_COUNT
from inference.windows import WindowSpec
from training.case import STORED_SCALE, Case
from training.history import ValidationRow
from training.process_group import ALONE, Ranks

#: Structures with less of them in a case take no part in the stricter mean, ml.
SMALLEST_ML = 5.0
#: Told each case with what was found in it, ``(x, y, z)``.
Look = Callable[[Case, npt.NDArray[np.uint8]], None]


@dataclass(frozen=True, slots=True)
class Validation:
    """What whole cases are judged by."""

    cases: tuple[Case, ...]
    spacing_mm: float
    windows: WindowSpec

    def run(
        self, network: nn.Module, step: int, ranks: Ranks = ALONE, look: Look | None = None
    ) -> ValidationRow:
        """Dice on the network's grid; processes share the cases."""
        device = next(network.parameters()).device
        split = SplitNetwork.of_segresnet(copy.deepcopy(network)).to(device, self.windows)
        counts = torch.zeros((len(self.cases), 3, CLASS_COUNT), dtype=torch.float64)
        for index in range(ranks.rank, len(self.cases), ranks.size):
            case = self.cases[index]
            image = case.image().astype(np.float32) / np.float32(STORED_SCALE)
            found = segment_windows(split, image, self.windows)
            counts[index] = torch.from_numpy(overlaps(case.labels(), found))
            if look is not None:
                look(case, found)
        shared = counts.to(device)
        ranks.add_up(shared)
        return _summary(shared.cpu().numpy(), self.spacing_mm, step)


def overlaps(truth: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """``(3, 105)``: voxels of each class that are right, that are true, that were found."""
    sums = np.zeros((3, CLASS_COUNT))
    for true_plane, found_plane in zip(truth, found, strict=True):
        right = true_plane[true_plane == found_plane]
        for row, values in zip(sums, (right, true_plane, found_plane), strict=True):
            row += np.bincount(values.ravel(), minlength=CLASS_COUNT)
    return sums


def _summary(counts: npt.NDArray[np.float64], spacing_mm: float, step: int) -> ValidationRow:
    right, true, found = (counts[:, row, 1:] for row in range(3))
    present = true > 0
    dice = 2 * right[present] / (true + found)[present]
    large = true[present] * spacing_mm**3 / 1000 >= SMALLEST_ML
    strict = _mean(dice[large]) if large.any() else None
    return ValidationRow(step, _mean(dice), strict, int(large.sum()))


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
