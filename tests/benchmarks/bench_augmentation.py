"""Augmenting a window on one core, against MONAI's transforms of the same kind.

``python tests/benchmarks/bench_augmentation.py [--window W] [--runs R] [--json FILE]`` prints a
table: CPU milliseconds a window, the mean of the runs, each change alone at its full
probability and then all at those of an ordinary training. Runs of the two alternate.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)
from row import Row, Unit, add_json_option, write_rows

from training.augmentation.augment import augment
from training.augmentation.settings import Augmentation
from training.patch import Patch

KEYS = ("image", "labels")
#: Of flip, turn and scale, contrast, noise, low resolution.
ORDINARY = (0.5, 0.2, 0.3, 0.15, 0.15)
CHANGES = ("flip", "turn and scale", "contrast", "noise", "low resolution")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--runs", type=int, default=20)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (options.window,) * 3).astype(np.float32)
    labels = rng.integers(0, 105, image.shape, dtype=np.uint8)
    alone = [tuple(float(i == j) for j in range(5)) for i in range(5)]
    rows = []
    print(f"{'change':16} {'ours ms':>8} {'MONAI ms':>9} {'ratio':>6}")
    for name, probabilities in zip((*CHANGES, "all, ordinary"), (*alone, ORDINARY), strict=True):
        runners = (_ours(image, labels, probabilities), _monai(image, labels, probabilities))
        spent = [0.0, 0.0]
        for run in range(-2, options.runs):
            for index, runner in enumerate(runners):
                started = time.process_time()
                runner(run + 2)
                spent[index] += (time.process_time() - started) * (run >= 0)
        ours, monai = (1e3 * s / options.runs for s in spent)
        print(f"{name:16} {ours:8.1f} {monai:9.1f} {monai / ours:6.1f}")
        work = f"{name}, {options.window}^3"
        rows.append(Row("augmentation", work, Unit.CPU_MILLISECONDS, ours, "MONAI", monai))
    write_rows(options.json, rows)


def _ours(
    image: np.ndarray, labels: np.ndarray, probabilities: tuple[float, ...]
) -> Callable[[int], object]:
    flip, turn, contrast, noise, low = probabilities
    settings = Augmentation(
        flip_probability=flip,
        rotation_probability=turn,
        rotation_degrees=15,
        scaling_probability=turn,
        scaling=0.1,
        intensity_probability=contrast,
        gain=0.1,
        offset=0.05,
        noise_probability=noise,
        noise=0.05,
        low_resolution_probability=low,
        low_resolution=3,
    )
    patch = Patch(image, labels, None)
    return lambda seed: augment(patch, settings, np.random.default_rng(seed))


def _monai(
    image: np.ndarray, labels: np.ndarray, probabilities: tuple[float, ...]
) -> Callable[[int], object]:
    flip, turn, contrast, noise, low = probabilities
    chain = Compose(
        [
            RandAffined(
                KEYS,
                prob=turn,
                rotate_range=(math.radians(15),) * 3,
                scale_range=(0.1,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandSimulateLowResolutiond("image", prob=low, zoom_range=(1 / 3, 1.0)),
            RandScaleIntensityd("image", factors=0.1, prob=contrast),
            RandGaussianNoised("image", prob=noise, std=0.05),
            RandFlipd(KEYS, prob=flip, spatial_axis=0),
        ]
    )
    data = {"image": torch.from_numpy(image)[None], "labels": torch.from_numpy(labels)[None]}

    def run(seed: int) -> object:
        chain.set_random_state(seed)
        return chain(data)

    return run


if __name__ == "__main__":
    main()
