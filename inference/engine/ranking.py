"""Standings of voxels from their logits, on the device that has them; see ``standings``."""

from __future__ import annotations

import torch

from inference.standings import (
    FIRST,
    LEAD,
    LEAD_CODES,
    LEAD_OVER_THIRD,
    MAX_LEAD_CODE,
    SECOND,
)


def near_borders(labels: torch.Tensor) -> torch.Tensor:
    """Which voxels of a block have a neighbour of another class, or may have one outside it.

    Parameters
    ----------
    labels
        ``(a, b, c)`` uint8. All 26 neighbours count; the block's faces are near.
    """
    near = torch.ones_like(labels, dtype=torch.bool)
    if min(labels.shape) < 3:
        return near
    lowest = highest = labels
    for axis in range(3):
        extent = labels.shape[axis] - 2
        low, high = (
            [each.narrow(axis, at, extent) for at in range(3)] for each in (lowest, highest)
        )
        lowest = torch.minimum(torch.minimum(low[0], low[1]), low[2])
        highest = torch.maximum(torch.maximum(high[0], high[1]), high[2])
    near[1:-1, 1:-1, 1:-1] = lowest != highest
    return near


def rank(logits: torch.Tensor, weights: torch.Tensor, out: torch.Tensor) -> None:
    """Fill ``out`` with the standings of voxels.

    Parameters
    ----------
    logits
        ``(voxels, classes)``, times the weights, at least three classes; spent.
    weights
        ``(voxels,)``, positive; what logits were multiplied with.
    out
        ``(voxels, 4)`` uint8.
    """
    # three passes take half the time of topk
    first = logits.argmax(dim=1, keepdim=True)
    highest = logits.gather(1, first)
    logits.scatter_(1, first, -torch.inf)
    second = logits.argmax(dim=1, keepdim=True)
    behind = logits.gather(1, second)
    logits.scatter_(1, second, -torch.inf)
    third = logits.amax(dim=1, keepdim=True)
    leads = torch.cat([highest - behind, highest - third], dim=1) / weights[:, None]
    codes = leads.clamp_(min=0).sqrt_().mul_(LEAD_CODES).round_().clamp_(max=MAX_LEAD_CODE)
    out[:, FIRST], out[:, SECOND] = first[:, 0], second[:, 0]
    out[:, LEAD], out[:, LEAD_OVER_THIRD] = codes[:, 0], codes[:, 1]
