"""Dice and cross-entropy over 105 classes without 105-channel copies of the target.

The sums that both losses are made of run over chunks of voxels. Of more than one chunk,
nothing with 105 channels outlives its chunk: the backward pass asks the last layer again
(T. Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

#: Voxels whose 105 answers are held at once: 55 MB in single precision.
CHUNK_VOXELS = 131072
#: Added to numerator and denominator of Dice: where absent classes do not count, and where
#: they do (MONAI's default).
_SMOOTH, _SMOOTH_ABSENT = 1.0, 1e-5

_Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def dice_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    balance: float = 0.0,
    absent_classes: bool = False,
) -> torch.Tensor:
    """Mean of soft Dice loss over classes, plus cross-entropy.

    Parameters
    ----------
    logits
        ``(voxels, classes)``, float32.
    target
        ``(voxels,)`` int64.
    balance
        Cross-entropy of a voxel counts by the size of its class to the power of minus this:
        0 all voxels alike, 1 all classes alike.
    absent_classes
        Dice counts classes that the target does not show as well, as MONAI's ``DiceCELoss``.
    """

    def answer(chunk: torch.Tensor) -> torch.Tensor:
        return chunk

    return _loss(answer, logits, target, balance, absent_classes)


def head_loss(
    head: nn.Conv3d,
    features: torch.Tensor,
    target: torch.Tensor,
    balance: float,
    absent_classes: bool,
) -> torch.Tensor:
    """``dice_cross_entropy`` of what a 1 x 1 x 1 convolution answers to features.

    Parameters
    ----------
    head
        Features to classes.
    features
        ``(voxels, channels)``; their type is that of the arithmetic of ``head``.
    target, balance, absent_classes
        As ``dice_cross_entropy``.
    """

    def answer(chunk: torch.Tensor) -> torch.Tensor:
        assert head.bias is not None
        weight = head.weight.flatten(1).to(chunk.dtype)
        return functional.linear(chunk, weight, head.bias.to(chunk.dtype)).float()

    return _loss(answer, features, target, balance, absent_classes)


def _loss(
    answer: Callable[[torch.Tensor], torch.Tensor],
    features: torch.Tensor,
    target: torch.Tensor,
    balance: float,
    absent_classes: bool,
) -> torch.Tensor:
    classes = answer(features[:1]).shape[1]
    counts = torch.bincount(target, minlength=classes).float()
    weights = counts.clamp(min=1) ** -balance
    weights = weights / (weights * counts).sum()

    def sums(chunk: torch.Tensor, truth: torch.Tensor) -> _Sums:
        log_probs = functional.log_softmax(answer(chunk), dim=1)
        own = log_probs.gather(1, truth[:, None])[:, 0]
        overlap = torch.zeros_like(counts).index_add(0, truth, own.exp())
        return -(own * weights[truth]).sum(), overlap, log_probs.exp().sum(0)

    if len(target) <= CHUNK_VOXELS:
        cross_entropy, overlap, predicted = sums(features, target)
    else:
        parts = [
            checkpoint(sums, chunk, truth, use_reentrant=False)
            for chunk, truth in zip(
                torch.split(features, CHUNK_VOXELS), torch.split(target, CHUNK_VOXELS), strict=True
            )
        ]
        cross_entropy, overlap, predicted = (
            torch.stack(column).sum(0) for column in zip(*parts, strict=True)
        )
    smooth = _SMOOTH_ABSENT if absent_classes else _SMOOTH
    dice = (2 * overlap + smooth) / (predicted + counts + smooth)
    counted = dice if absent_classes else dice[counts > 0]
    return cross_entropy + (1 - counted).mean()
