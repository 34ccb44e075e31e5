"""The network: MONAI's SegResNet as published for the 104 structures.

Facts of the published model are in the manifest that comes with it; this module only builds
the layers that its weights fit (A. Myronenko, 3D MRI brain tumor segmentation using
autoencoder regularization, arXiv:1810.11654; the decoder without the autoencoder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.structures import CLASS_COUNT

if TYPE_CHECKING:
    import torch

#: Edge of the cubic window that the network sees, voxels. Its group normalisation makes the
#: result depend on the window: published weights keep the published size.
WINDOW_VOXELS = 96


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Width and depth of a SegResNet with one input and 105 output channels."""

    init_filters: int = 32  #: channels at full resolution; a multiple of 8 (group norm)
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)  #: residual blocks a level, full size first
    blocks_up: tuple[int, ...] = (1, 1, 1)  #: residual blocks a level on the way up
    dropout_prob: float = 0.2  #: after the first convolution, in training only

    def __post_init__(self) -> None:
        if self.init_filters < 8 or self.init_filters % 8:
            raise ValueError(f"init_filters must be a multiple of 8: {self.init_filters}")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(f"{self.blocks_up} levels up for {self.blocks_down} down")
        if min(self.blocks_down + self.blocks_up, default=0) < 1:
            raise ValueError(f"empty level in {self.blocks_down} down, {self.blocks_up} up")
        if not 0 <= self.dropout_prob < 1:
            raise ValueError(f"dropout_prob must be in [0, 1): {self.dropout_prob}")


PUBLISHED_NETWORK = NetworkSpec()


def build_network(spec: NetworkSpec = PUBLISHED_NETWORK) -> torch.nn.Module:
    """A SegResNet with random weights, in training mode.

    Input ``(batch, 1, x, y, z)``, output ``(batch, 105, x, y, z)`` logits; extents divisible
    by ``2 ** (len(blocks_down) - 1)``.
    """
    from monai.networks.nets.segresnet import SegResNet  # slow to import

    return SegResNet(  # type: ignore[no-any-return]
        spatial_dims=3,
        in_channels=1,
        out_channels=CLASS_COUNT,
        init_filters=spec.init_filters,
        blocks_down=spec.blocks_down,
        blocks_up=spec.blocks_up,
        dropout_prob=spec.dropout_prob,
    )
