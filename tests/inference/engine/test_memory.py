"""What memory there is, and what a run takes."""

from __future__ import annotations

from pathlib import Path

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
