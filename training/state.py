"""Everything that moves while a network is trained."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from training.group_norm import use_fast_group_norm
from training.history import ValidationRow
from training.plan import Optimizer, Plan
from training.supervision import FeatureTap, LevelHeads


@dataclass(slots=True)
class TrainingState:
    """Everything that a resumed run needs."""

    network: nn.Module
    average: nn.Module
    heads: LevelHeads  #: of use in training only
    optimizer: torch.optim.Optimizer  #: of all that ``momenta`` do not move
    momenta: list[torch.Tensor]  #: of the convolutions, where Muon moves them
    step: int = 0
    best: ValidationRow | None = None  #: of all validations so far
    judged: ValidationRow | None = None  #: the last validation

    @classmethod
    def start(
        cls, network: nn.Module, plan: Plan, device: torch.device | None = None
    ) -> TrainingState:
        """A fresh run of ``network``, which is changed in place."""
        device = device or torch.device("cpu")
        network.to(device=device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if device.type == "cpu":
            use_fast_group_norm(network)
        tap = FeatureTap(network)
        heads = LevelHeads(tap.channels).to(device)
        optimizer = _optimizer(network, heads, plan)
        average = copy.deepcopy(network).requires_grad_(False)
        momenta = [torch.zeros_like(weight) for weight in muon_weights(network, plan)]
        return cls(network, average, heads, optimizer, momenta)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def arrays(self) -> dict[str, object]:
        """What a checkpoint holds: tensors and numbers only."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "momenta": self.momenta,
            "step": self.step,
            "best": self.best and dataclasses.astuple(self.best),
            "judged": self.judged and dataclasses.astuple(self.judged),
        }


def muon_weights(network: nn.Module, plan: Plan) -> list[nn.Parameter]:
    """The convolutions that Muon moves: all but the last, or none."""
    if plan.optimizer is not Optimizer.MUON:
        return []
    head = set(FeatureTap(network).head.parameters())
    return [p for p in network.parameters() if p.ndim == 5 and p not in head]


def _optimizer(network: nn.Module, heads: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    head = set(FeatureTap(network).head.parameters())
    moved = set(muon_weights(network, plan))
    body = [p for p in network.parameters() if p not in head and p not in moved]
    return torch.optim.AdamW(
        [
            {"params": body, "gain": 1.0},
            {"params": list(heads.parameters()), "gain": 1.0},
            {"params": list(head), "gain": plan.head_gain},
        ],
        lr=plan.learning_rate,
        betas=(0.9, 0.99) if plan.optimizer is Optimizer.MUON else (0.9, 0.999),
        weight_decay=plan.weight_decay,
    )
