"""Group normalisation with a fast backward pass in channels-last layout on a CPU.

PyTorch's own backward of group normalisation takes a quarter to half of a training step of a
small 3-D network on a CPU in bfloat16 (measured: 757 of 2,901 ms a step with 16 filters, 709 of
1,454 ms with 8). This one is three passes over memory: the two sums over the voxels
run as matrix products, the gradient as two fused multiply-adds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_Grads = tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]


class _GroupNorm(torch.autograd.Function):
    """Forward as PyTorch's; backward by Wu and He, Group Normalization, arXiv:1803.08494."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        groups: int,
        eps: float,
    ) -> torch.Tensor:
        """``(batch, channels, ...)`` channels-last, any floating type."""
        batch, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        y, mean, rstd = torch.native_group_norm(
            x, weight.to(x.dtype), bias.to(x.dtype), batch, channels, voxels, groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> _Grads:
        """Gradients of input, weight and bias."""
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels = x.shape[:2]
        size = channels // ctx.groups
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        out = torch.empty_like(x, memory_format=torch.channels_last_3d)
        weight_grad = torch.zeros_like(weight, dtype=torch.float32)
        bias_grad = torch.zeros_like(weight, dtype=torch.float32)
        for item in range(batch):
            values, dy = (t[item].movedim(0, -1).reshape(-1, channels) for t in (x, grad))
            count = values.shape[0] * size
            centre, scale = (t[item].float().repeat_interleave(size) for t in (mean, rstd))
            ones = torch.ones(1, values.shape[0], dtype=dy.dtype)
            sum_dy = (ones @ dy).float()[0]
            sum_dy_x = torch.diagonal(dy.T @ values).float()
            centred = (sum_dy_x - centre * sum_dy) * scale
            weight_grad += centred
            bias_grad += sum_dy
            gain = weight.float()
            by_group = (gain * centred).view(ctx.groups, size).sum(1).repeat_interleave(size)
            plain = (gain * sum_dy).view(ctx.groups, size).sum(1).repeat_interleave(size)
            slope = -scale * scale * by_group / count
            offset = -scale * plain / count - centre * slope
            dx = torch.addcmul(offset.to(x.dtype), values, slope.to(x.dtype))
            target = out[item].movedim(0, -1).reshape(-1, channels)
            torch.addcmul(dx, dy, (gain * scale).to(x.dtype), out=target)
        return out, weight_grad.to(weight.dtype), bias_grad.to(weight.dtype), None, None


class FastGroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` with the same parameters, keys and forward result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, x, y, z)``."""
        result: torch.Tensor = _GroupNorm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.num_groups, self.eps
        )
        return result


def use_fast_group_norm(network: nn.Module) -> None:
    """Let every group normalisation in ``network`` use the fast backward; weights stay."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = FastGroupNorm
