"""What needs a CUDA device."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.preprocessing import IntensitySpec, Scaling
from inference.windows import Precision
from training.case import Case, CaseRecipe
from training.history import History
from training.synthetic_cases import make_cases
from training.trainer import TrainingRun, run_training

PROGRAM = Path(__file__).with_name("tiny_training.py")
COARSE = CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE))


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> tuple[Case, ...]:
    return tuple(make_cases(range(2), COARSE, tmp_path_factory.mktemp("cases")))


@pytest.fixture
def tiny(cases, monkeypatch) -> TrainingRun:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from tiny_training import RUN

    network = dataclasses.replace(RUN.network, dropout_prob=0.0)  # each device draws its own
    return dataclasses.replace(RUN, cases=cases, validation=cases[:1], network=network)


@pytest.mark.gpu
def test_a_run_on_the_gpu_follows_the_one_on_the_cpu(tiny, tmp_path):
    cpu = run_training(dataclasses.replace(tiny, folder=tmp_path / "cpu"), _quiet)
    gpu = run_training(dataclasses.replace(tiny, folder=tmp_path / "gpu", device="cuda"), _quiet)

    np.testing.assert_allclose(gpu.losses, cpu.losses, rtol=2e-2)


@pytest.mark.gpu
def test_bfloat16_on_the_gpu_learns(tiny, tmp_path):
    plan = dataclasses.replace(tiny.plan, steps=60, learning_rate=5e-3, warm_up_steps=3)
    run = dataclasses.replace(
        tiny, plan=plan, folder=tmp_path, device="cuda", precision=Precision.BF16
    )

    losses = run_training(run, _quiet).losses

    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


@pytest.mark.gpu
def test_processes_on_several_gpus_give_the_result_of_one(cases, tmp_path):
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU: nccl takes no two processes on it")
    folder = cases[0].folder.parent
    environment = {**os.environ, "TINY_DEVICE": "cuda"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for count in ("1", "2"):
        out = tmp_path / count
        subprocess.run([*torchrun, count, PROGRAM, folder, out], check=True, env=environment)

    np.testing.assert_allclose(
        History(tmp_path / "2").losses(), History(tmp_path / "1").losses(), rtol=1e-2
    )


def _quiet(_line: str) -> None:
    pass
