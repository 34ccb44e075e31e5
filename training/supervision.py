"""What the network is asked at each of its resolutions while it trains.

A class among 105 is mostly a matter of place in the body, which the coarse levels see and the
few features of the finest do not. So every level of the way up answers for its own voxels:
which structure, and where in the body. The answers of the coarse levels are of use in
training only (deep supervision: C.-Y. Lee et al., arXiv:1409.5185).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from inference.structures import CLASS_COUNT
from training.loss import dice_cross_entropy
from training.patches import Patch

#: Places in the body are learned in this unit, mm.
_PLACE_SCALE_MM = 150.0
#: Network values up to this are air, where no place is asked for.
_AIR = -0.95


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Features of one resolution."""

    features: torch.Tensor  #: (batch, channels, x, y, z)
    start: tuple[int, int, int]  #: voxel of the window that the first feature stands for
    stride: int  #: voxels of the window from one feature to the next


@dataclass(frozen=True, slots=True, eq=False)
class LevelLoss:
    """Loss of one level and the mean error of its places along an axis."""

    loss: torch.Tensor
    astray_mm: float


class LevelHeads(nn.Module):
    """One answer a level: structures and place.

    Parameters
    ----------
    channels
        Features of each coarse level, coarsest first; the finest comes last and only gets a
        head for places, as the network has its own for structures.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *coarse, finest = channels
        self.structures = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, n), nn.ReLU(), nn.Conv3d(n, CLASS_COUNT, 1))
            for n in coarse
        )
        self.places = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, n), nn.ReLU(), nn.Conv3d(n, 3, 1)) for n in coarse
        )
        self.places.append(nn.Conv3d(finest, 3, 1))


def level_loss(
    logits: torch.Tensor,
    places: torch.Tensor,
    level: Level,
    patches: Sequence[Patch],
    balance: float,
) -> LevelLoss:
    """Structures by Dice and cross-entropy, places by their distance along the axes.

    Parameters
    ----------
    logits
        ``(batch, 105, x, y, z)``.
    places
        ``(batch, 3, x, y, z)``, in units of 150 mm.
    level
        Where the answers' voxels lie in the windows.
    patches
        The windows.
    balance
        Of the cross-entropy between classes.
    """
    thin = tuple(slice(s, None, level.stride) for s in level.start)
    labels = torch.from_numpy(np.concatenate([p.labels[thin].reshape(-1) for p in patches]))
    images = torch.from_numpy(np.concatenate([p.image[thin].reshape(-1) for p in patches]))
    truth = torch.from_numpy(np.concatenate([_places(p, level) for p in patches]))
    structures = dice_cross_entropy(_flat(logits), labels.long(), balance)
    seen = images > _AIR
    if not bool(seen.any()):
        return LevelLoss(structures, 0.0)
    astray = (_flat(places)[seen] - truth[seen]).abs().mean()
    return LevelLoss(structures + astray, float(astray.detach()) * _PLACE_SCALE_MM)


def _flat(answers: torch.Tensor) -> torch.Tensor:
    """``(voxels, channels)``, float32."""
    return answers.float().movedim(1, -1).reshape(-1, answers.shape[1])


def _places(patch: Patch, level: Level) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    steps = [
        np.arange(s, n, level.stride) for s, n in zip(level.start, patch.labels.shape, strict=True)
    ]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = (grid @ patch.frame[:, :3].T + patch.frame[:, 3]) / _PLACE_SCALE_MM
    return places.astype(np.float32)


class FeatureTap:
    """Runs a SegResNet and keeps what each level of its way up says.

    The network's last convolution, 16 features to 105 classes, is left out: it is asked only
    where the loss looks.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @property
    def head(self) -> nn.Conv3d:
        """The last 1 x 1 x 1 convolution."""
        return self._network.get_submodule("conv_final")[-1]  # type: ignore[index,no-any-return]

    @property
    def channels(self) -> tuple[int, ...]:
        """Features a level, coarsest first."""
        finest = self.head.in_channels
        depth = len(self._network.get_submodule("down_layers"))  # type: ignore[arg-type]
        return tuple(finest * 2**level for level in reversed(range(depth)))

    def run(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features of every level, coarsest first, those of the finest ready for the head."""
        caught: list[torch.Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            caught.append(output)

        def skip(_module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            caught.append(inputs[0])
            return (inputs[0][:, :, :1, :1, :1],)

        coarsest = self._network.get_submodule("down_layers")[-1]  # type: ignore[index]
        ups = list(self._network.get_submodule("up_layers"))[:-1]  # type: ignore[call-overload]
        handles = [layer.register_forward_hook(keep) for layer in (coarsest, *ups)]
        handles.append(self.head.register_forward_pre_hook(skip))
        try:
            self._network(images)
        finally:
            for handle in handles:
                handle.remove()
        return caught
