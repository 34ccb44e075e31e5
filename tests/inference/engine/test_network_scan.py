"""Boxes of a scan are what the whole scan would be there."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from inference.engine.network_scan import NetworkScan
from inference.geometry import Geometry
from inference.intensity import (
    PUBLISHED_INTENSITY,
    ROBUST_INTENSITY,
    IntensitySpec,
    Scaling,
)
from inference.network_grid import NetworkGrid
from inference.preprocessing import to_network
from inference.volume import PADDING_HU, Volume

FIXED = IntensitySpec(clamp_hu=(-200, 300), scaling=Scaling.CLAMP_RANGE)


def volume(rng: np.random.Generator, tilted: bool, uneven: bool) -> Volume:
    z = np.cumsum([2, 1, 3, 2] * 6) if uneven else np.arange(24) * 2.0
    origins = np.stack([0 * z, 0.3 * z if tilted else 0 * z, z], axis=1)
    geometry = Geometry((24, 40, 44), origins, np.array([0, 1.3, 0]), np.array([0.9, 0, 0]))
    hu = rng.integers(-1000, 1500, geometry.shape).astype(np.int16)
    hu[:, :3] = PADDING_HU
    return Volume(hu, geometry)


@pytest.mark.parametrize("intensity", [PUBLISHED_INTENSITY, ROBUST_INTENSITY, FIXED])
@pytest.mark.parametrize(("tilted", "uneven"), [(False, False), (True, False), (True, True)])
def test_any_box_equals_that_part_of_the_whole(
    rng: np.random.Generator, intensity: IntensitySpec, tilted: bool, uneven: bool
) -> None:
    scan = volume(rng, tilted, uneven)
    grid = NetworkGrid.covering(scan.geometry, 1.5)
    whole = grid.grid_view(to_network(scan, 1.5, intensity).array)

    seen = NetworkScan.of(scan, grid, intensity)

    assert seen.shape == whole.shape
    for _ in range(5):
        ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in whole.shape]
        box = tuple(slice(int(a), int(b)) for a, b in ends)
        out = np.empty([s.stop - s.start for s in box], dtype=np.float32)
        seen.fill(box, out)  # type: ignore[arg-type]
        np.testing.assert_array_equal(out, whole[box])


def test_a_sheared_plane_is_cut_where_it_lies(rng: np.random.Generator) -> None:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    affine[0, 1] = 0.2  # rows lean
    hu = rng.integers(-1000, 1500, (10, 30, 30)).astype(np.int16)
    scan = Volume(hu, Geometry.from_affine(affine, hu.shape))
    grid = NetworkGrid.covering(scan.geometry, 1.5)
    whole = grid.grid_view(to_network(scan, 1.5, ROBUST_INTENSITY).array)
    out = np.empty((5, 9, 8), dtype=np.float32)

    NetworkScan.of(scan, grid, ROBUST_INTENSITY).fill(
        (slice(3, 8), slice(7, 16), slice(5, 13)), out
    )

    np.testing.assert_allclose(out, whole[3:8, 7:16, 5:13], atol=1e-6)


def test_the_coarse_picture_is_the_mean_of_blocks() -> None:
    geometry = Geometry.from_affine(np.diag([1.5, 1.5, 1.5, 1.0])[[2, 1, 0, 3]], (9, 10, 12))
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    hu[0:4, 4:8, 8:12] = 200
    hu[8, 8, 0] = 3000
    scan = Volume(hu, geometry)
    grid = NetworkGrid.covering(geometry, 1.5)

    coarse = NetworkScan.of(scan, grid, ROBUST_INTENSITY)

    turned = grid.turned_view(hu).astype(float)
    assert coarse.block == 4
    for index in np.ndindex(coarse.coarse_hu.shape):
        block = turned[tuple(slice(4 * i, 4 * i + 4) for i in index)]
        assert coarse.coarse_hu[index] == pytest.approx(block.mean(), abs=0.01)


def test_no_volume_of_floats_is_made(rng: np.random.Generator) -> None:
    shape = (60, 200, 200)
    geometry = Geometry.from_affine(np.diag([2.5, 0.8, 0.8, 1.0])[[2, 1, 0, 3]], shape)
    scan = Volume(rng.integers(-1000, 1000, shape).astype(np.int16), geometry)
    grid = NetworkGrid.covering(geometry, 1.5)

    tracemalloc.start()
    try:
        NetworkScan.of(scan, grid, ROBUST_INTENSITY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 24 * 200 * 200 * 8
