"""What memory there is, and what a run takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.engine.memory import available_bytes, memory_need
from inference.engine.plan import plan_windows
from inference.engine.region import Region
from inference.windows import Precision, WindowSpec

GIB = 2**30


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 25165824 kB\nMemAvailable: 8388608 kB\n")
    return tmp_path


def group(folder: Path, limit: str) -> Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{3 * GIB}\n")
    (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    return folder


def test_a_machine_has_what_its_kernel_says(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, tmp_path / "none") == 8 * GIB
    assert available_bytes(proc, group(tmp_path / "unlimited", "max")) == 8 * GIB


def test_a_container_has_what_is_left_of_its_limit(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, group(tmp_path / "limited", str(4 * GIB))) == 2 * GIB


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None


def test_what_is_kept_of_a_voxel_of_the_grid_counts() -> None:
    grid, source = (80, 90, 100), (160, 256, 256)
    plan = plan_windows(grid, WindowSpec(window_voxels=32), 32)

    labels, standings = (memory_need(plan, 32, grid, source, each) for each in (1, 4))

    assert standings.host - labels.host == 3 * 80 * 90 * 100
    assert (standings.device, standings.source) == (labels.device, labels.source)


def test_a_long_scan_takes_little_more_than_a_short_one() -> None:
    spec = WindowSpec(precision=Precision.BF16, channels_last=True)

    def need(slices: int) -> int:
        grid, source = (slices, 287, 287), (slices, 512, 512)
        plan = plan_windows(grid, spec, 32, Region.everything(grid))
        return memory_need(plan, 32, grid, source).device

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
