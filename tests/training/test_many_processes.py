"""Runs that are killed, and runs on several processes, are the run that was neither."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.preprocessing import IntensitySpec, Scaling
from training.case import CaseRecipe
from training.history import History
from training.synthetic_cases import make_cases

PROGRAM = Path(__file__).with_name("tiny_training.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    make_cases(range(2), CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE)), folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(cases, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([sys.executable, PROGRAM, cases, out], check=True, env=ENVIRONMENT)
    return out


def _average(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoint.pt", weights_only=True)["average"]


def test_a_run_killed_at_random_steps_and_resumed_has_the_same_curve_and_weights(
    cases, undisturbed, tmp_path
):
    moments = random.Random(20261122)
    losses = tmp_path / "losses.csv"
    for _ in range(2):
        with subprocess.Popen([sys.executable, PROGRAM, cases, tmp_path], env=ENVIRONMENT) as run:
            before = len(losses.read_bytes()) if losses.exists() else 0
            wanted = before + moments.randint(1, 90)  # bytes: not only between rows of it
            while run.poll() is None and (not losses.exists() or len(losses.read_bytes()) < wanted):
                time.sleep(0.005)
            run.send_signal(signal.SIGKILL)
        assert run.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, PROGRAM, cases, tmp_path], check=True, env=ENVIRONMENT)

    assert losses.read_text() == (undisturbed / "losses.csv").read_text()
    assert History(tmp_path).validations() == History(undisturbed).validations()
    for key, value in _average(undisturbed).items():
        assert torch.equal(_average(tmp_path)[key], value), key


def test_two_processes_give_the_result_of_one(cases, undisturbed, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, PROGRAM, cases, tmp_path], check=True, env=ENVIRONMENT)

    one, two = History(undisturbed), History(tmp_path)
    np.testing.assert_allclose(two.losses(), one.losses(), rtol=1e-4)
    for first, second in zip(one.validations(), two.validations(), strict=True):
        assert second.structures_5ml == first.structures_5ml  # none of a process is lost
        assert first.mean_dice > 0
        assert second.mean_dice == pytest.approx(first.mean_dice, abs=3e-5)
    expected = _average(undisturbed)
    for key, value in _average(tmp_path).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=key)
