"""What a run takes, estimated before it starts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from inference.engine.memory_fit import MemoryMeter
from inference.engine.memory_need import MemoryNeed, PlannedRun
from inference.engine.plan import plan_windows
from inference.engine.region import Region
from inference.windows import Precision, WindowSpec

GRID, SOURCE = (80, 90, 100), (160, 256, 256)


def planned(spec: WindowSpec, on_card: bool = False) -> PlannedRun:
    plan = plan_windows(GRID, spec, 32)
    return PlannedRun(plan, 32, 105, GRID, SOURCE, on_card=on_card)


def test_what_is_kept_of_a_voxel_of_the_grid_counts() -> None:
    run = planned(WindowSpec(window_voxels=32))

    labels, standings = (
        dataclasses.replace(run, grid_voxel_bytes=each).memory_need() for each in (1, 4)
    )

    assert standings.host - labels.host == 3 * 80 * 90 * 100
    assert (standings.device, standings.source) == (labels.device, labels.source)


def test_a_card_leaves_labels_scan_slab_and_clean_up_in_main_memory() -> None:
    run = dataclasses.replace(planned(WindowSpec(window_voxels=32), on_card=True))
    labels, scan, slab = 80 * 90 * 100 + 160 * 256 * 256, 2 * 160 * 256 * 256, 32 * 100 * 90 * 4

    need = run.memory_need()
    cleaned = dataclasses.replace(run, is_cleaned=True).memory_need()

    assert need.main_bytes(on_card=True, is_read=True) <= labels + slab
    assert need.main_bytes(on_card=True, is_read=True) >= labels + 32 * 80 * 90 * 4
    assert need.main_bytes(on_card=True, is_read=False) == scan + need.main_bytes(
        on_card=True, is_read=True
    )
    assert cleaned.main_bytes(on_card=True, is_read=True) == 11 * 160 * 256 * 256
    assert need.main_bytes(on_card=False, is_read=True) > need.device


def test_a_card_also_holds_features_in_single_precision_and_a_block_of_logits() -> None:
    half = WindowSpec(window_voxels=32, precision=Precision.BF16)
    single = WindowSpec(window_voxels=32, precision=Precision.FP32)

    more = [
        planned(spec, on_card=True).memory_need().device - planned(spec).memory_need().device
        for spec in (half, single)
    ]

    logits = 105 * 4 * (2**18 - 8192)
    assert more == [logits + 32**3 * 32 * 4, logits]


@pytest.mark.parametrize(
    ("main", "card", "promised", "is_enough"),
    [
        (5, 100, 0, True),
        (4, 100, 0, False),
        (5, 99, 0, False),
        (6, 100, 1, True),
        (5, 100, 1, False),
    ],
)
def test_with_a_card_both_memories_have_to_do(
    main: int, card: int, promised: int, is_enough: bool
) -> None:
    need = MemoryNeed(device=100, host=2, source=2, beside_card=1)
    meter = MemoryMeter(lambda: main, lambda _device: card)

    found = meter.fit("cuda:0", [need], is_read=False, promised=promised)

    assert found.is_enough is is_enough
    assert (found.main, found.card) == (5, 100)
    assert [name for name, _ in found.facts][2:] == [
        "estimated_main_memory",
        "available_main_memory",
    ]


def test_a_long_scan_takes_little_more_than_a_short_one() -> None:
    spec = WindowSpec(precision=Precision.BF16, channels_last=True)

    def need(slices: int) -> int:
        grid, source = (slices, 287, 287), (slices, 512, 512)
        plan = plan_windows(grid, spec, 32, Region.everything(grid))
        return PlannedRun(plan, 32, 105, grid, source).memory_need().device

    assert need(1600) < 1.05 * need(397)
    assert need(397) < 1.3e9


def limbs(rng: np.random.Generator, shape: tuple[int, int, int]) -> Region:
    """A trunk that may be missing, legs and arms, each as long as it happens to be."""
    block = 4
    k, j, i = np.indices([-(-extent // block) for extent in shape]) * block
    top, bottom = shape[0] * rng.uniform(0.2, 0.5), shape[0] * rng.uniform(0.6, 0.9)
    middle_j, middle_i = shape[1] / 2 + rng.uniform(-9, 9), shape[2] / 2
    mask = np.zeros(k.shape, dtype=np.bool_)
    if rng.random() < 0.5:
        wide = np.hypot((j - middle_j) / rng.uniform(8, 16), (i - middle_i) / rng.uniform(10, 18))
        mask |= (wide < 1) & (k >= top) & (k < bottom)
    apart, radius = rng.uniform(6, 18), rng.uniform(4, 8)
    for side in (-1, 1):
        away = np.hypot(j - middle_j - rng.uniform(-13, 13), i - middle_i - side * apart)
        mask |= (away < radius) & (k < bottom) & (k > rng.uniform(0, 32))
        if rng.random() < 0.5:
            away = np.hypot(j - middle_j + rng.uniform(-13, 13), i - middle_i - side * 22)
            mask |= (away < 4) & (k > top)
    return Region(mask, block, shape)


def test_no_region_takes_more_than_was_estimated_for_the_whole_scan(
    rng: np.random.Generator,
) -> None:
    spec = WindowSpec(window_voxels=16, precision=Precision.BF16)
    shape = (170, 54, 54)
    estimated = plan_windows(shape, spec, 32, Region.everything(shape)).held_bytes(32)

    regions = [limbs(rng, shape) for _ in range(40)]

    assert max(plan_windows(shape, spec, 32, each).held_bytes(32) for each in regions) <= estimated
