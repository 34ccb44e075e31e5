"""The training loop: one window a step, weights averaged, learning rate by progress."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.group_norm import use_fast_group_norm
from training.muon import muon_step
from training.patches import Patch, PatchSource
from training.supervision import FeatureTap, Level, LevelHeads, level_loss


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    learning_rate: float = 1e-3
    early_balance: float = 0.5  #: between classes in the cross-entropy, at the start
    late_balance: float = 0.15  #: the same at the end
    coarse_weight: float = 0.5  #: of each coarse level, against the finest
    turn: float = 0.02  #: spectral norm of a step of a convolution at the full rate
    head_gain: float = 10.0  #: learning rate of the last layer: few features, many classes
    warm_up_steps: int = 40
    weight_decay: float = 1e-4
    average: float = 0.997  #: share of the running average of weights kept a step
    batch: int = 1
    window: int = 96  #: edge of the cube that the network sees, voxels
    early_window: int = 96  #: the same for the first part of the run: smaller is faster
    early_share: float = 0.0  #: how much of the run that is
    stride: int = 2  #: the loss looks at every n-th voxel along each axis, from a random start
    checkpoint_s: float = 180.0


@dataclass(slots=True)
class TrainingState:
    """Everything that a resumed run needs."""

    network: nn.Module
    average: nn.Module
    heads: LevelHeads  #: of use in training only
    optimizer: torch.optim.Optimizer  #: of all but the convolutions of the network
    momenta: list[torch.Tensor]  #: of the convolutions
    step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def start(cls, network: nn.Module, plan: Plan) -> TrainingState:
        """A fresh run of ``network``, which is changed in place."""
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        use_fast_group_norm(network)
        tap = FeatureTap(network)
        head = set(tap.head.parameters())
        body = [p for p in network.parameters() if p not in head and p.ndim == 1]
        heads = LevelHeads(tap.channels)
        optimizer = torch.optim.AdamW(
            [
                {"params": body, "gain": 1.0},
                {"params": list(heads.parameters()), "gain": 1.0},
                {"params": list(head), "gain": plan.head_gain},
            ],
            lr=plan.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=plan.weight_decay,
        )
        average = copy.deepcopy(network).requires_grad_(False)
        momenta = [torch.zeros_like(weight) for weight in _convolutions(network)]
        return cls(network, average, heads, optimizer, momenta)

    def save(self, path: Path) -> None:
        """Write a checkpoint; it appears whole or not at all."""
        draft = path.with_suffix(".draft")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "momenta": self.momenta,
                "step": self.step,
                "elapsed_s": self.elapsed_s,
            },
            draft,
        )
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.heads.load_state_dict(saved["heads"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.momenta = saved["momenta"]
        self.step, self.elapsed_s = saved["step"], saved["elapsed_s"]


def learning_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, then a cosine to nothing at the planned end."""
    progress = _progress(plan, step)
    warm = min(1.0, (step + 1) / plan.warm_up_steps)
    return plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def _progress(plan: Plan, step: int) -> float:
    return min(1.0, step / plan.steps)


def train(
    state: TrainingState,
    source: PatchSource,
    plan: Plan,
    checkpoint: Path | None = None,
    log: Callable[[str], None] = print,
) -> list[float]:
    """Train to the end of the plan.

    Parameters
    ----------
    state
        Changed in place; fresh or loaded.
    source
        Draws the windows.
    plan
        Length and rates.
    checkpoint
        Where to write the state every ``plan.checkpoint_s`` and at the end.
    log
        Takes one JSON line every 20 steps.

    Returns
    -------
    list
        The loss of each step of this call.

    Raises
    ------
    FloatingPointError
        If the loss is no longer a number.
    """
    losses: list[float] = []
    before_s, started = state.elapsed_s, time.monotonic()
    saved_s = state.elapsed_s
    state.network.train()
    while state.step < plan.steps:
        rate = learning_rate(plan, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["gain"]
        first = state.step * plan.batch
        early = _progress(plan, state.step) < plan.early_share
        window = plan.early_window if early else plan.window
        patches = [source.draw(first + i, window) for i in range(plan.batch)]
        loss, astray_mm = _step(state, patches, plan)
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss is {loss} at step {state.step}")
        losses.append(loss)
        state.step += 1
        state.elapsed_s = before_s + time.monotonic() - started
        if state.step % 20 == 0:
            recent = sum(losses[-20:]) / len(losses[-20:])
            line = {"step": state.step, "loss": round(recent, 4), "astray_mm": round(astray_mm, 1)}
            log(json.dumps(line | {"elapsed_s": round(state.elapsed_s, 1)}))
        if checkpoint and state.elapsed_s - saved_s > plan.checkpoint_s:
            state.save(checkpoint)
            saved_s = state.elapsed_s
    if checkpoint:
        state.save(checkpoint)
    return losses


def _convolutions(network: nn.Module) -> list[torch.Tensor]:
    head = set(FeatureTap(network).head.parameters())
    return [p for p in network.parameters() if p.ndim == 5 and p not in head]


def _step(state: TrainingState, patches: list[Patch], plan: Plan) -> tuple[float, float]:
    """Loss, and mean error of the place along an axis in mm, of one update."""
    progress = _progress(plan, state.step)
    balance = plan.early_balance + (plan.late_balance - plan.early_balance) * progress
    images = torch.stack([torch.from_numpy(p.image)[None] for p in patches])
    random = torch.Generator().manual_seed(state.step)
    x, y, z = torch.randint(plan.stride, (3,), generator=random).tolist()
    tap = FeatureTap(state.network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        *coarse, finest = tap.run(images)
        level = Level(
            finest[:, :, x :: plan.stride, y :: plan.stride, z :: plan.stride],
            (x, y, z),
            plan.stride,
        )
        asked = [(tap.head(level.features), state.heads.places[-1](level.features), level)]
        for number, features in enumerate(coarse):
            level = Level(features, (0, 0, 0), 2 ** (len(coarse) - number))
            structures = state.heads.structures[number](features)
            asked.append((structures, state.heads.places[number](features), level))
    answers = [level_loss(*question, patches, balance) for question in asked]
    loss = answers[0].loss + plan.coarse_weight * sum(a.loss for a in answers[1:])
    state.network.zero_grad(set_to_none=True)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    nn.utils.clip_grad_norm_(state.heads.parameters(), 1.0)
    state.optimizer.step()
    turn = plan.turn * state.optimizer.param_groups[0]["lr"] / plan.learning_rate
    for weight, momentum in zip(_convolutions(state.network), state.momenta, strict=True):
        muon_step(weight, momentum, turn)
    keep = min(plan.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, new in zip(
            state.average.state_dict().values(), state.network.state_dict().values(), strict=True
        ):
            mean.lerp_(new, 1 - keep)
    return float(answers[0].loss.detach()), answers[1].astray_mm
