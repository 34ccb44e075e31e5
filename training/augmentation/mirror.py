"""The patient in a mirror: left structures become right ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.patch import Patch


def mirrored_ids() -> npt.NDArray[np.uint8]:
    """``(256,)``: the structure that each id is in a mirror; midline structures stay."""
    table = np.arange(256, dtype=np.uint8)
    for structure in STRUCTURES:
        if structure.twin is not None:
            table[structure.id] = STRUCTURE_BY_NAME[structure.twin].id
    return table


def mirror(patch: Patch) -> Patch:
    """The window as a scan of the mirrored patient shows it.

    The network's x axis is the one nearest to left-right, so it is the one that turns round.
    Places in the reference body are those of the mirrored patient: what lay 50 mm to its left
    lies 50 mm to its right. Twice is the identity, to the last bit.
    """
    frame = patch.frame
    if frame is not None:
        last = patch.labels.shape[0] - 1
        origin = frame[:, 3] + last * frame[:, 0]
        turned = np.column_stack([-frame[:, 0], frame[:, 1], frame[:, 2], origin])
        frame = np.array([[-1.0], [1.0], [1.0]]) * turned  # x of the body runs right to left
    return replace(
        patch,
        image=np.ascontiguousarray(patch.image[::-1]),
        labels=np.take(mirrored_ids(), patch.labels[::-1]),
        frame=frame,
    )
