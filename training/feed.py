"""Windows in the order of steps, drawn ahead by processes of their own where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from training.patch import Patch
from training.plan import Plan
from training.process_group import ALONE, Ranks

#: Window by number and edge; the same arguments give the same window.
Draw = Callable[[int, int], Patch]


@dataclass(frozen=True, slots=True)
class _Windows(Dataset[Patch]):
    draw: Draw
    plan: Plan

    def __getitem__(self, number: int) -> Patch:
        return self.draw(number, self.plan.window_at(number // self.plan.batch))


def feed(
    draw: Draw, plan: Plan, first_step: int, ranks: Ranks = ALONE, workers: int = 0
) -> Iterator[list[Patch]]:
    """The windows of this process, step by step to the end of the plan.

    Window ``n`` of all belongs to step ``n // batch``; processes take turns within a step.

    Parameters
    ----------
    draw
        Makes a window; pickled where ``workers`` is not 0.
    plan
        Batch and size.
    first_step
        Where to begin.
    ranks
        Which process of how many this is.
    workers
        Processes that draw ahead; 0 draws here.
    """
    shares = (
        list(range(step * plan.batch + ranks.rank, (step + 1) * plan.batch, ranks.size))
        for step in range(first_step, plan.steps)
    )
    loader = DataLoader(
        _Windows(draw, plan),
        batch_sampler=shares,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader
