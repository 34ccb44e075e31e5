"""One step: loss of the windows, gradients of all processes, new weights, their average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from inference.reasons import Reason
from inference.windows import Precision
from training.errors import TrainingError
from training.muon import muon_step
from training.patch import Patch
from training.plan import Plan
from training.process_group import ALONE, Ranks
from training.state import TrainingState, muon_weights
from training.supervision import FeatureTap, Level, level_loss


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step tells of itself."""

    loss: float  #: of the finest level, mean over the windows of all processes
    astray_mm: float | None  #: mean error of the place along an axis, of one window here
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a step is computed; the plan says what."""

    precision: Precision = Precision.BF16
    ranks: Ranks = ALONE
    seed: int = 0  #: of dropout


def update(
    state: TrainingState, patches: Sequence[Patch], plan: Plan, how: Arithmetic
) -> StepResult:
    """Take the step ``state.step``; the caller counts it.

    Windows go through the network one after the other, so that memory is that of one window
    whatever the batch, and dropout is that of the window whatever the process.

    Parameters
    ----------
    state
        Changed in place.
    patches
        The windows of this process, of the batch's ``rank::size``.
    plan, how
        What is computed and how.

    Raises
    ------
    TrainingError
        ``training-diverged`` if loss or gradients are no numbers; the weights are still
        those before the step.
    """
    rate = plan.learning_rate_at(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["gain"]
    parameters = [*state.network.parameters(), *state.heads.parameters()]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    total, astray_mm = torch.zeros((), device=state.device), None
    for index, patch in enumerate(patches):
        number = state.step * plan.batch + how.ranks.rank + index * how.ranks.size
        with _own_dropout(state, (how.seed << 32) + number):
            loss, finest, astray_mm = _window_loss(state, patch, plan, how.precision)
        (loss / plan.batch).backward()  # type: ignore[no-untyped-call]
        total += finest.detach() / plan.batch
    _add_up([total, *(p.grad for p in parameters if p.grad is not None)], how.ranks)
    norms = [
        float(nn.utils.clip_grad_norm_(part.parameters(), plan.largest_gradient))
        for part in (state.network, state.heads)
    ]
    if not math.isfinite(float(total) + sum(norms)):
        raise TrainingError(
            Reason.TRAINING_DIVERGED, f"step {state.step}: loss {float(total)}, gradients {norms}"
        )
    state.optimizer.step()
    turn = plan.turn * rate / plan.learning_rate
    for weight, momentum in zip(muon_weights(state.network, plan), state.momenta, strict=True):
        muon_step(weight, momentum, turn)
    _average(state, plan)
    return StepResult(float(total), astray_mm, rate)


def _window_loss(
    state: TrainingState, patch: Patch, plan: Plan, precision: Precision
) -> tuple[torch.Tensor, torch.Tensor, float | None]:
    """Loss of all levels, that of the finest, and how far the coarsest is astray."""
    image = torch.from_numpy(patch.image)[None, None].to(state.device)
    random = torch.Generator().manual_seed(state.step)
    x, y, z = torch.randint(plan.stride, (3,), generator=random).tolist()
    tap, heads = FeatureTap(state.network), state.heads
    low = precision is Precision.BF16
    with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=low):
        *coarse, finest = tap.run(image)
    seen = finest[:, :, x :: plan.stride, y :: plan.stride, z :: plan.stride]
    level = Level(seen, (x, y, z), plan.stride)
    first = level_loss((tap.head, heads.places[-1]), level, patch, plan, state.step)
    loss, astray_mm = first.loss, None
    if plan.coarse_weight:
        levels = [
            Level(features, (0, 0, 0), 2 ** (len(coarse) - number))
            for number, features in enumerate(coarse)
        ]
        asked = zip(heads.structures, heads.places, levels, strict=False)
        answers = [level_loss((s, p), at, patch, plan, state.step) for s, p, at in asked]
        loss = loss + plan.coarse_weight * sum(answer.loss for answer in answers)
        astray_mm = answers[0].astray_mm
    return loss, first.loss, astray_mm


def _add_up(tensors: Iterable[torch.Tensor], ranks: Ranks) -> None:
    """Sum each over all processes, in one message."""
    if ranks.size == 1:
        return
    parts = list(tensors)
    flat = torch.cat([part.reshape(-1) for part in parts])
    ranks.add_up(flat)
    for part, values in zip(parts, torch.split(flat, [p.numel() for p in parts]), strict=True):
        part.copy_(values.view(part.shape))


@contextmanager
def _own_dropout(state: TrainingState, seed: int) -> Iterator[None]:
    """Random numbers that depend on the window alone; the caller's are left as they were."""
    devices = [state.device] if state.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _average(state: TrainingState, plan: Plan) -> None:
    keep = min(plan.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, new in zip(
            state.average.state_dict().values(), state.network.state_dict().values(), strict=True
        ):
            mean.lerp_(new, 1 - keep)
