"""A tiny training as a program of its own, for tests that kill it or run it several times.

``python tiny_training.py CASES OUT``; CASES holds the cases of two synthetic patients.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import torch

from inference.network import NetworkSpec
from inference.preprocessing import IntensitySpec, Scaling
from inference.windows import Precision
from training.augmentation.settings import Augmentation
from training.case import Case, CaseRecipe
from training.plan import Plan
from training.trainer import TrainingRun, run_training

RUN = TrainingRun(
    cases=(),
    validation=(),
    recipe=CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE)),
    network=NetworkSpec(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1), dropout_prob=0.2),
    plan=Plan(
        steps=12, batch=2, window=16, early_window=16, checkpoint_steps=2, validation_steps=5
    ),
    augmentation=Augmentation(flip_probability=0.5, noise_probability=0.5, noise=0.05),
    folder=Path(),
    seed=5,
    precision=Precision.FP32,
    device="cpu",
    resume=True,
)


def main(cases: Path, out: Path) -> None:
    torch.set_num_threads(1)
    found = tuple(Case(folder) for folder in sorted(cases.glob("case_*")))
    device = os.environ.get("TINY_DEVICE", "cpu")
    run = dataclasses.replace(RUN, cases=found, validation=found, folder=out, device=device)
    run_training(run, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
