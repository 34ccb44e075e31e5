"""Group normalisation and ReLU in one step, for channels-last windows on a CPU.

torch adds up a channels-last volume in single precision in one go: over a window of 96 voxels
the normalised values are off by up to 2e-3 (1e-6 in the usual layout), which is more than all
other rounding of the network in fp32. Here blocks are added up, and what they give is put
together in double precision (Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm
for computing sample variances*, 1979). Mean and variance of a block, and its line ``a x + b``,
come from torch's batch normalisation, which reads bfloat16 and computes in single precision
without making a copy. Where the input is not needed any more it is overwritten, so that no
fresh memory is touched.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.segresnet_block import ResBlock

#: Numbers that are added up in single precision: variances of noise are good to 1e-6.
_SUMMED = 1 << 17
#: Numbers that are normalised before they are cut off at 0: they stay in the cache.
_NORMED = 1 << 20


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
        none, one = torch.zeros_like(scale), torch.ones_like(scale)
        rows = max(_NORMED // voxels.shape[1], 1)
        for block, target in zip(torch.split(voxels, rows), torch.split(normed, rows), strict=True):
            line = torch.batch_norm(
                _as_image(block), scale, shift, none, one, False, 0.0, 0.0, False
            )
            torch.clamp_min(line.permute(0, 2, 3, 1).view(block.shape), 0.0, out=target)
        return out

    def _line(self, voxels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and addend of each channel, float32, for ``(voxels, channels)``."""
        channels = voxels.shape[1]
        blocks = torch.split(voxels, max(_SUMMED // channels, 1))
        single = torch.zeros(channels)  # says: give single precision
        found = [
            torch.batch_norm_update_stats(_as_image(block), single, single.clone(), 0.0)
            for block in blocks
        ]
        shares = torch.tensor([len(block) for block in blocks]).double() / len(voxels)
        groups = (len(blocks), self.norm.num_groups, -1)
        means, variances = (
            torch.stack(each).double().view(groups) for each in zip(*found, strict=True)
        )
        shares = shares[:, None, None] / means.shape[2]
        mean = (means * shares).sum(dim=(0, 2))
        spread = (means - mean[:, None]).square()
        factor = (((variances + spread) * shares).sum(dim=(0, 2)) + self.norm.eps).rsqrt()
        members = means.shape[2]
        scale = factor.repeat_interleave(members) * self.norm.weight.double()
        shift = self.norm.bias.double() - mean.repeat_interleave(members) * scale
        return scale.float(), shift.float()


def _as_image(block: torch.Tensor) -> torch.Tensor:
    """``(voxels, channels)`` as ``(1, channels, voxels, 1)``, channels last: a view."""
    return block.view(1, -1, 1, block.shape[1]).permute(0, 3, 1, 2)


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
