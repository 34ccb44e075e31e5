"""How long, how fast and on what a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Optimizer(StrEnum):
    """What moves the weights."""

    MUON = "muon"  #: orthogonal steps for convolutions, AdamW for the rest
    ADAMW = "adamw"  #: as published


class Schedule(StrEnum):
    """How the learning rate goes after the warm-up."""

    COSINE = "cosine"  #: to nothing at the end
    CONSTANT = "constant"  #: as published


class Sampling(StrEnum):
    """Where windows are drawn."""

    BALANCED = "balanced"  #: around a voxel of a structure, all structures alike
    UNIFORM = "uniform"  #: anywhere, as published


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what a step does, but the data and the network.

    Nothing here follows the clock: the same plan gives the same run on a slower machine.
    """

    steps: int
    learning_rate: float = 1e-3
    early_balance: float = 0.5  #: between classes in the cross-entropy, at the start
    late_balance: float = 0.15  #: the same at the end
    coarse_weight: float = 0.5  #: of each coarse level, against the finest; 0: none is asked
    turn: float = 0.02  #: spectral norm of a step of a convolution at the full rate
    head_gain: float = 10.0  #: learning rate of the last layer: few features, many classes
    warm_up_steps: int = 40
    weight_decay: float = 1e-4
    average: float = 0.997  #: share of the running average of weights kept a step; 0: none
    batch: int = 1  #: windows a step, of all processes together
    window: int = 96  #: edge of the cube that the network sees, voxels
    early_window: int = 96  #: the same for the first part of the run: smaller is faster
    early_share: float = 0.0  #: how much of the run that is
    stride: int = 2  #: the loss looks at every n-th voxel along each axis, from a random start
    optimizer: Optimizer = Optimizer.MUON
    schedule: Schedule = Schedule.COSINE
    sampling: Sampling = Sampling.BALANCED
    jitter: bool = True  #: a little gain, offset and noise on every window
    absent_classes: bool = False  #: Dice counts classes that a window does not show
    largest_gradient: float = 1.0  #: norm that gradients are clipped to
    checkpoint_steps: int = 100
    validation_steps: int = 500

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "window", "early_window", "stride", "checkpoint_steps")
        for field in (*counts, "validation_steps", "warm_up_steps"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be 1 or more: {getattr(self, field)}")
        for field in ("early_balance", "late_balance", "average", "early_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be in 0 to 1: {getattr(self, field)}")
        for field in ("learning_rate", "turn", "head_gain", "largest_gradient"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be above 0: {getattr(self, field)}")
        for field in ("window", "early_window"):
            if getattr(self, field) % 8:
                raise ValueError(f"{field} must be a multiple of 8: {getattr(self, field)}")

    def progress(self, step: int) -> float:
        """Share of the run that is done before ``step``, 0 to 1."""
        return min(1.0, step / self.steps)

    def window_at(self, step: int) -> int:
        """Edge of the windows of ``step``, voxels."""
        return self.early_window if self.progress(step) < self.early_share else self.window

    def balance_at(self, step: int) -> float:
        """Between classes in the cross-entropy of ``step``."""
        return self.early_balance + (self.late_balance - self.early_balance) * self.progress(step)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine to nothing at the planned end, or no change."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate * warm
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.progress(step)))


def published_plan(steps: int, batch: int = 4, window: int = 96) -> Plan:
    """The recipe of the published bundle; ``batch`` of all processes together."""
    return Plan(
        steps=steps,
        batch=batch,
        window=window,
        early_window=window,
        learning_rate=1e-4,
        weight_decay=1e-5,
        early_balance=0.0,
        late_balance=0.0,
        coarse_weight=0.0,
        head_gain=1.0,
        warm_up_steps=1,
        average=0.0,
        stride=1,
        optimizer=Optimizer.ADAMW,
        schedule=Schedule.CONSTANT,
        sampling=Sampling.UNIFORM,
        jitter=False,
        absent_classes=True,
        largest_gradient=1e9,
    )
