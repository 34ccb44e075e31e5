"""The network in two parts, so that windows can be blended between them.

The last layer of a SegResNet is a 1x1x1 convolution: the weighted mean of its outputs is the
convolution of the weighted mean of its inputs. So windows are blended in its 32 input
channels, and the 105 logits of a voxel exist only while its class is chosen.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from inference.engine.group_norm import fuse_norms
from inference.windows import Precision, WindowSpec

#: Width of the Gaussian weight over a window, in windows, and its floor: MONAI's defaults.
_SIGMA_WINDOWS = 0.125
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SplitNetwork:
    """A network in two parts: window to features, features to logits.

    Parameters
    ----------
    body
        ``(1, 1, x, y, z)`` to ``(1, features, x, y, z)``, everything up to the last layer.
    weight, bias
        ``(classes, features)`` and ``(classes,)`` of the last layer, float32.
    """

    body: torch.nn.Module
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of_segresnet(cls, network: torch.nn.Module) -> SplitNetwork:
        """Split a SegResNet before its 1x1x1 convolution; ``network`` itself is changed."""
        final = network.conv_final
        assert isinstance(final, torch.nn.Sequential)
        state = final[2].state_dict()
        final[2] = torch.nn.Identity()
        weight, bias = state["conv.weight"], state["conv.bias"]
        return cls(network.eval(), weight.flatten(1).float(), bias.float())

    def to(self, device: torch.device, spec: WindowSpec) -> SplitNetwork:
        """The same network where and in the precision that it runs; ``self`` is spent."""
        dtype = torch_dtype(spec.precision)
        layout = torch.channels_last_3d if spec.channels_last else torch.contiguous_format
        norms = [each for each in self.body.modules() if isinstance(each, torch.nn.GroupNorm)]
        exact = [copy.deepcopy(each.state_dict()) for each in norms]
        body = self.body.to(device=device, dtype=dtype)
        body = body.to(memory_format=layout)  # type: ignore[call-overload]
        if spec.precision is Precision.BF16:
            body.convInit = _SplitEntry(body.convInit)
        if spec.channels_last and device.type == "cpu":
            # rounding them changes as many labels as rounding all convolutions does
            for norm, state in zip(norms, exact, strict=True):
                norm.float().load_state_dict(state)
            fuse_norms(body)
        return SplitNetwork(body, self.weight.to(device), self.bias.to(device))

    @property
    def features(self) -> int:
        """Channels between the two parts."""
        return int(self.weight.shape[1])

    @property
    def classes(self) -> int:
        """Channels of the second part."""
        return int(self.weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.weight.device

    def head(self) -> torch.Tensor:
        """``(features + 1, classes)``: sums of weighted features and of weights to logits.

        Logits come out times the sum of weights, which does not change which is the largest.
        """
        return torch.cat([self.weight, self.bias[:, None]], dim=1).t().contiguous()


class _SplitEntry(torch.nn.Module):
    """The first convolution on a window in two bfloat16 parts: what rounds to it, and the rest.

    A window's values span 4096 HU: bfloat16 alone would round soft tissue to steps of 4 HU and
    more; the two parts together are good to 0.03 HU.
    """

    def __init__(self, convolution: torch.nn.Module) -> None:
        super().__init__()
        (weight,) = convolution.parameters()  # (channels, 1, 3, 3, 3), no bias
        twice = torch.cat([weight, weight], dim=1)
        self.weight = torch.nn.Parameter(twice.to(memory_format=torch.channels_last_3d))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        rounded = window.to(self.weight.dtype)
        rest = (window - rounded).to(self.weight.dtype)
        parts = torch.cat([rounded, rest], dim=1)
        parts = parts.contiguous(memory_format=torch.channels_last_3d)
        return torch.nn.functional.conv3d(parts, self.weight, padding=1)


def torch_dtype(precision: Precision) -> torch.dtype:
    """The element type of the network."""
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32


def importance_map(window: int, device: torch.device) -> torch.Tensor:
    """``(window, window, window)`` Gaussian weights of a window's voxels, float32."""
    half = (window - 1) / 2.0
    distance = torch.arange(-half, half + 1, dtype=torch.float32, device=device)
    line = torch.exp(distance**2 / (-2 * (_SIGMA_WINDOWS * window) ** 2))
    weights = line[:, None, None] * line[None, :, None] * line[None, None, :]
    return weights.clamp_(min=max(float(weights.min()), _LEAST_WEIGHT))
