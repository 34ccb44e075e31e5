"""Group normalisation and ReLU in one step, for channels-last windows on a CPU.

torch adds up a channels-last volume in single precision in one go: over a window of 96 voxels
the normalised values are off by up to 2e-3 (1e-6 in the usual layout), which is more than all
other rounding of the network in fp32. Here blocks that fit into the cache are added up, and
their sums in double precision. Where the input is not needed any more it is overwritten, so
that no fresh memory is touched.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.segresnet_block import ResBlock

#: Numbers of a block: 1 MB in single precision.
_BLOCK = 1 << 18


class NormReLU(torch.nn.Module):
    """``relu(group_norm(x))`` for inference.

    Parameters
    ----------
    norm
        Gives groups, weights and epsilon.
    overwrite
        Put the result where the input was.
    """

    def __init__(self, norm: torch.nn.GroupNorm, *, overwrite: bool) -> None:
        super().__init__()
        self.norm = norm
        self._overwrite = overwrite

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(1, channels, x, y, z)``, channels last in memory; any other falls back to torch."""
        if x.shape[0] != 1 or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return torch.relu_(self.norm(x))
        out = x if self._overwrite else torch.empty_like(x)
        voxels, normed = (each.permute(0, 2, 3, 4, 1).flatten(0, 3) for each in (x, out))
        scale, shift = self._line(voxels)
        rows = max(_BLOCK // voxels.shape[1], 1)
        for block, target in zip(torch.split(voxels, rows), torch.split(normed, rows), strict=True):
            target.copy_(torch.addcmul(shift, block.float(), scale).relu_())
        return out

    def _line(self, voxels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and addend of each channel, float32, for ``(voxels, channels)``."""
        count, channels = voxels.shape
        members = channels // self.norm.num_groups
        pivot = voxels[0].float().view(-1, members).mean(dim=1)  # squares of differences are small
        pivots = pivot.repeat_interleave(members)
        sums = torch.zeros((2, channels), dtype=torch.float64)
        for block in torch.split(voxels, max(_BLOCK // channels, 1)):
            values = block - pivots  # float32 whatever the block
            sums[0] += values.sum(dim=0)
            sums[1] += values.square_().sum(dim=0)
        shifted, squares = sums.view(2, self.norm.num_groups, -1).mean(dim=-1) / count
        mean = pivot.double() + shifted
        variance = (squares - shifted * shifted).clamp_(min=0)
        factor = (variance + self.norm.eps).rsqrt()
        scale = factor.repeat_interleave(members) * self.norm.weight.double()
        shift = self.norm.bias.double() - mean.repeat_interleave(members) * scale
        return scale.float(), shift.float()


def fuse_norms(network: torch.nn.Module) -> None:
    """Let a SegResNet normalise in this way; the network is changed, and only fit for inference.

    Parameters
    ----------
    network
        Whose last layer need not be there any more.
    """
    for module in network.modules():
        if isinstance(module, ResBlock) and isinstance(module.norm1, torch.nn.GroupNorm):
            module.norm1 = NormReLU(module.norm1, overwrite=False)  # its input is added later
            module.norm2 = NormReLU(module.norm2, overwrite=True)
            module.act = torch.nn.Identity()
    final = network.conv_final
    if isinstance(final, torch.nn.Sequential) and isinstance(final[0], torch.nn.GroupNorm):
        final[0] = NormReLU(final[0], overwrite=True)
        final[1] = torch.nn.Identity()
