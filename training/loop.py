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

import numpy as np
import torch
from torch import nn

from training.group_norm import use_fast_group_norm
from training.loss import dice_cross_entropy
from training.patches import Patch, PatchSource

#: Places in the body are learned in this unit, mm.
_PLACE_SCALE_MM = 150.0
#: Network values up to this are air, where no place is asked for.
_AIR = -0.95


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train.

    The run ends after ``steps`` or, where given, when ``seconds`` have passed; the learning
    rate follows whichever is nearer its end.
    """

    steps: int
    seconds: float = math.inf
    learning_rate: float = 3e-3
    place_weight: float = 1.0  #: of the error in the place, against Dice and cross-entropy
    head_gain: float = 7.0  #: learning rate of the last layer: few features, many classes
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
    place: nn.Module  #: from features to the place in the body; of use in training only
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def start(cls, network: nn.Module, plan: Plan) -> TrainingState:
        """A fresh run of ``network``, which is changed in place."""
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        use_fast_group_norm(network)
        head = set(_head(network).parameters())
        body = [p for p in network.parameters() if p not in head]
        place = nn.Linear(_head(network).in_channels, 3)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(
            [
                {"params": body, "gain": 1.0},
                {"params": [*head, *place.parameters()], "gain": plan.head_gain},
            ],
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
        )
        average = copy.deepcopy(network).requires_grad_(False)
        return cls(network, average, place, optimizer)

    def save(self, path: Path) -> None:
        """Write a checkpoint; it appears whole or not at all."""
        draft = path.with_suffix(".draft")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "place": self.place.state_dict(),
                "optimizer": self.optimizer.state_dict(),
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
        self.place.load_state_dict(saved["place"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.elapsed_s = saved["step"], saved["elapsed_s"]


def learning_rate(plan: Plan, step: int, elapsed_s: float) -> float:
    """Linear warm-up, then a cosine to nothing at the planned end."""
    progress = _progress(plan, step, elapsed_s)
    warm = min(1.0, (step + 1) / plan.warm_up_steps)
    return plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def _progress(plan: Plan, step: int, elapsed_s: float) -> float:
    return min(1.0, max(step / plan.steps, elapsed_s / plan.seconds))


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
    while state.step < plan.steps and state.elapsed_s < plan.seconds:
        rate = learning_rate(plan, state.step, state.elapsed_s)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["gain"]
        first = state.step * plan.batch
        early = _progress(plan, state.step, state.elapsed_s) < plan.early_share
        window = plan.early_window if early else plan.window
        patches = [source.draw(first + i, window) for i in range(plan.batch)]
        loss = _step(state, patches, plan)
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss is {loss} at step {state.step}")
        losses.append(loss)
        state.step += 1
        state.elapsed_s = before_s + time.monotonic() - started
        if state.step % 20 == 0:
            recent = sum(losses[-20:]) / len(losses[-20:])
            line = {"step": state.step, "loss": round(recent, 4), "rate": round(rate, 6)}
            log(json.dumps(line | {"elapsed_s": round(state.elapsed_s, 1)}))
        if checkpoint and state.elapsed_s - saved_s > plan.checkpoint_s:
            state.save(checkpoint)
            saved_s = state.elapsed_s
    if checkpoint:
        state.save(checkpoint)
    return losses


def _step(state: TrainingState, patches: list[Patch], plan: Plan) -> float:
    images = torch.stack([torch.from_numpy(p.image)[None] for p in patches])
    labels = torch.stack([torch.from_numpy(p.labels) for p in patches])
    offsets = torch.Generator().manual_seed(state.step)
    start = torch.randint(plan.stride, (3,), generator=offsets).tolist()
    thin = tuple(slice(s, None, plan.stride) for s in start)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = _features(state.network, images)[(slice(None), slice(None), *thin)]
        logits = _head(state.network)(features)
    flat = logits.float().movedim(1, -1).reshape(-1, logits.shape[1])
    target = labels[(slice(None), *thin)].reshape(-1).long()
    seen = images[(slice(None), 0, *thin)].reshape(-1) > _AIR
    voices = features.float().movedim(1, -1).reshape(-1, features.shape[1])[seen]
    places = torch.cat([_places(p, start, plan.stride) for p in patches])[seen]
    astray = (state.place(voices) - places).abs().mean()
    loss = dice_cross_entropy(flat, target) + plan.place_weight * astray
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    nn.utils.clip_grad_norm_(state.place.parameters(), 1.0)
    state.optimizer.step()
    keep = min(plan.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, new in zip(
            state.average.state_dict().values(), state.network.state_dict().values(), strict=True
        ):
            mean.lerp_(new, 1 - keep)
    return float(loss.detach())


def _places(patch: Patch, start: list[int], stride: int) -> torch.Tensor:
    """``(voxels, 3)``, where the thinned voxels of a window lie in the body."""
    steps = [np.arange(s, n, stride) for s, n in zip(start, patch.labels.shape, strict=True)]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = (grid @ patch.frame[:, :3].T + patch.frame[:, 3]) / _PLACE_SCALE_MM
    return torch.from_numpy(places.astype(np.float32))


def _head(network: nn.Module) -> nn.Module:
    """The last 1 x 1 x 1 convolution, which turns features into classes."""
    final = network.get_submodule("conv_final")
    return final[-1]  # type: ignore[index,no-any-return]


def _features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the last convolution gets: it is applied where the loss looks, not everywhere."""
    caught: list[torch.Tensor] = []

    def skip(_module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        caught.append(inputs[0])
        return (inputs[0][:, :, :1, :1, :1],)

    handle = _head(network).register_forward_pre_hook(skip)
    try:
        network(images)
    finally:
        handle.remove()
    return caught[0]
