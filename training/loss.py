"""Dice and cross-entropy over 105 classes without 105-channel copies of the target."""

from __future__ import annotations

import torch
from torch.nn import functional

_SMOOTH = 1.0


def dice_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, balance: float = 0.0
) -> torch.Tensor:
    """Mean of soft Dice loss over the classes in the patch, plus cross-entropy.

    Parameters
    ----------
    logits
        ``(voxels, classes)``, float32.
    target
        ``(voxels,)`` int64.
    balance
        Cross-entropy of a voxel counts by the size of its class to the power of minus this:
        0 all voxels alike, 1 all classes alike.
    """
    log_probs = functional.log_softmax(logits, dim=1)
    own = log_probs.gather(1, target[:, None])[:, 0]
    classes = logits.shape[1]
    counts = torch.bincount(target, minlength=classes).to(logits.dtype)
    weights = counts.clamp(min=1) ** -balance
    weights = (weights / (weights * counts).sum())[target]
    cross_entropy = -(own * weights).sum()
    overlap = torch.zeros(classes).index_add(0, target, own.exp())
    predicted = log_probs.exp().sum(0)
    dice = (2 * overlap + _SMOOTH) / (predicted + counts + _SMOOTH)
    present = counts > 0
    return cross_entropy + (1 - dice[present]).mean()
