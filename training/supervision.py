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
import numpy.typing as npt
import torch
from torch import nn

from inference.structures import CLASS_COUNT
from training.loss import head_loss
from training.patch import Patch
from training.plan import Plan

#: Places in the body are learned in this unit, mm.
_PLACE_SCALE_MM = 150.0
#: Network values up to this are air, where no place is asked for.
_AIR = -0.95


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Features of one resolution."""

    features: torch.Tensor  #: (1, channels, x, y, z)
    start: tuple[int, int, int]  #: voxel of the window that the first feature stands for
    stride: int  #: voxels of the window from one feature to the next


@dataclass(frozen=True, slots=True, eq=False)
class LevelLoss:
    """Loss of one level and the mean error of its places along an axis."""

    loss: torch.Tensor
    astray_mm: float | None  #: None where no place was asked for


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
    heads: tuple[nn.Module, nn.Module], level: Level, patch: Patch, plan: Plan, step: int
) -> LevelLoss:
    """Structures by Dice and cross-entropy, places by their distance along the axes.

    Parameters
    ----------
    heads
        What answers for structures and for places of the level: up to a 1 x 1 x 1
        convolution to 105 and to 3 channels, the latter in units of 150 mm.
    level
        Features, and where they lie in the window.
    patch
        The window; one that does not know its place in the body is not asked for it.
    plan, step
        What the loss depends on.
    """
    structures, places = heads
    thin = tuple(slice(s, None, level.stride) for s in level.start)
    device = level.features.device
    labels = torch.from_numpy(patch.labels[thin].reshape(-1)).to(device)
    loss = _structure_loss(structures, level.features, labels.long(), plan, step)
    if patch.frame is None or not plan.coarse_weight:
        return LevelLoss(loss, None)
    seen = torch.from_numpy(patch.image[thin].reshape(-1)).to(device) > _AIR
    if not bool(seen.any()):
        return LevelLoss(loss, None)
    truth = torch.from_numpy(_places(patch.frame, patch.labels.shape, level)).to(device)
    with _autocast(level.features):
        found = _flat(places(level.features)).float()
    astray = (found[seen] - truth[seen]).abs().mean()
    return LevelLoss(loss + astray, float(astray.detach()) * _PLACE_SCALE_MM)


def _structure_loss(
    structures: nn.Module, features: torch.Tensor, labels: torch.Tensor, plan: Plan, step: int
) -> torch.Tensor:
    head = structures
    if isinstance(structures, nn.Sequential):
        head = structures[-1]
        with _autocast(features):
            features = structures[:-1](features).to(features.dtype)
    assert isinstance(head, nn.Conv3d)
    return head_loss(head, _flat(features), labels, plan.balance_at(step), plan.absent_classes)


def _autocast(features: torch.Tensor) -> torch.autocast:
    """The arithmetic that made the features."""
    low = features.dtype is torch.bfloat16
    return torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=low)


def _flat(answers: torch.Tensor) -> torch.Tensor:
    """``(voxels, channels)`` of the only item."""
    return answers[0].movedim(0, -1).reshape(-1, answers.shape[1])


def _places(
    frame: npt.NDArray[np.float64], shape: tuple[int, ...], level: Level
) -> npt.NDArray[np.float32]:
    steps = [np.arange(s, n, level.stride) for s, n in zip(level.start, shape, strict=True)]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = (grid @ frame[:, :3].T + frame[:, 3]) / _PLACE_SCALE_MM
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
        return self._network.get_submodule("conv_final")[-1].conv  # type: ignore[index,no-any-return]

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
