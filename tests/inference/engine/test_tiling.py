"""Windows cover what they have to, once more than needed at most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.engine.plan import Carry, plan_windows
from inference.engine.region import NeededIn, Region
from inference.engine.tiling import Tiling, even_starts, fitted_tiling, published_tiling
from inference.windows import Precision, WindowSpec, window_starts

SPEC = WindowSpec(window_voxels=16)


def covered(tiling: Tiling) -> np.ndarray:
    found = np.zeros(tiling.extents, dtype=bool)
    edge = tiling.window
    for layer in tiling.layers:
        for band in layer.bands:
            for column in band.columns:
                a, b, c = layer.start, band.start, column
                assert min(a, b, c) >= 0
                assert (np.array([a, b, c]) + edge <= tiling.extents).all()
                found[a : a + edge, b : b + edge, c : c + edge] = True
    return found


@given(
    first=st.integers(0, 300),
    length=st.integers(1, 500),
    beyond=st.integers(0, 100),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
)
def test_even_windows_cover_a_range_with_their_overlap_and_are_as_few_as_possible(
    first: int, length: int, beyond: int, overlap: float
) -> None:
    extent = max(first + length + beyond, 96)

    starts = even_starts((first, first + length), 96, overlap, extent)

    assert starts[0] >= 0
    assert starts[-1] + 96 <= extent
    assert starts[0] <= first
    assert starts[-1] + 96 >= first + length
    assert max(np.diff(starts), default=0) <= 96 * (1 - overlap)
    assert len(starts) == len(window_starts(max(length, 96), 96, overlap))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 60)] * 3),
    block=st.integers(1, 5),
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    seed=st.integers(0, 1000),
)
def test_every_voxel_that_matters_is_in_a_window(
    shape: tuple[int, int, int], block: int, order: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random([-(-n // block) for n in shape]) < 0.02
    region = Region(mask, block, shape)
    if region.is_empty:
        return

    plan = plan_windows(shape, SPEC, 8, region)
    extents = [max(plan.part[axis].stop - plan.part[axis].start, 16) for axis in order]
    tiling = fitted_tiling(
        (extents[0], extents[1], extents[2]), SPEC, NeededIn(region, plan.part, order)
    )

    matters = np.kron(mask, np.ones([block] * 3, bool))[tuple(slice(n) for n in shape)]
    outside = matters.copy()
    outside[plan.part] = False
    assert not outside.any()
    inside = matters[plan.part].transpose(order)
    reached = covered(tiling)[tuple(slice(n) for n in inside.shape)]
    assert reached[inside].all()


def test_without_a_region_windows_are_the_published_ones() -> None:
    tiling = published_tiling((40, 33, 16), SPEC)

    assert [layer.start for layer in tiling.layers] == [0, 12, 24]
    assert [band.start for band in tiling.layers[0].bands] == [0, 12, 17]
    assert tiling.window_count == 9
    assert tiling.carried == 4
    assert covered(tiling).all()


def test_a_narrow_part_of_the_body_takes_fewer_windows() -> None:
    mask = np.zeros((20, 12, 12), dtype=bool)
    mask[:10, 1:11, 1:11] = True  # shoulders
    mask[10:, 5:7, 5:7] = True  # neck
    region = Region(mask, 4, (80, 48, 48))

    plan = plan_windows((80, 48, 48), SPEC, 8, region)

    everything = plan_windows((80, 48, 48), SPEC, 8, Region.everything((80, 48, 48)))
    assert plan.tiling.window_count < 0.75 * everything.tiling.window_count


def test_the_axes_are_chosen_for_the_least_memory() -> None:
    published = [plan_windows(shape, SPEC, 8) for shape in ((16, 16, 160), (160, 16, 16))]

    assert [plan.tiling.extents[2] for plan in published] == [16, 16]
    assert len({plan.blending_bytes(8) for plan in published}) == 1


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(10, 60)] * 3),
    block=st.integers(1, 3),
    box=st.tuples(*[st.tuples(st.floats(0, 1), st.floats(0, 1))] * 3),
    precision=st.sampled_from(Precision),
)
@example(
    shape=(20, 28, 28), block=1, box=((0, 0.85), (0, 0.61), (0, 0.61)), precision=Precision.FP32
)
def test_no_part_of_a_scan_takes_more_than_all_of_it(
    shape: tuple[int, int, int],
    block: int,
    box: tuple[tuple[float, float], ...],
    precision: Precision,
) -> None:
    spec = WindowSpec(window_voxels=16, precision=precision)
    mask = np.zeros([-(-n // block) for n in shape], dtype=bool)
    sides = [
        slice(int(start * (n - 1)), int(start * (n - 1)) + max(1, round(share * n)))
        for (start, share), n in zip(box, mask.shape, strict=True)
    ]
    mask[tuple(sides)] = True
    region = Region(mask, block, shape)

    plan = plan_windows(shape, spec, 8, region)

    everything = plan_windows(shape, spec, 8, Region.everything(shape))
    assert plan.held_bytes(8) <= everything.held_bytes(8)
    assert plan.tiling.window_count <= everything.tiling.window_count
    matters = np.kron(mask, np.ones([block] * 3, bool))[tuple(slice(n) for n in shape)]
    inside = matters[plan.part].transpose(plan.order)
    assert inside.sum() == matters.sum()
    assert covered(plan.tiling)[tuple(slice(n) for n in inside.shape)][inside].all()


def test_a_small_body_takes_what_was_estimated_and_no_window_more() -> None:
    shape, mask = (120, 168, 168), np.zeros((30, 42, 42), dtype=bool)
    mask[2:27, 8:33, 8:33] = True
    estimated = plan_windows(shape, WindowSpec(), 32, Region.everything(shape))

    plan = plan_windows(shape, WindowSpec(), 32, Region(mask, 4, shape))

    assert estimated.held_bytes(32) == 217_589_760
    assert plan.held_bytes(32) <= estimated.held_bytes(32)
    assert plan.tiling.window_count == 8


def test_half_precision_sums_go_with_half_precision_networks() -> None:
    half = plan_windows((40, 40, 40), WindowSpec(window_voxels=16, precision=Precision.BF16), 8)

    assert plan_windows((40, 40, 40), SPEC, 8).carry is Carry.FP32
    assert half.carry is Carry.FP16
    assert half.blending_bytes(8) < plan_windows((40, 40, 40), SPEC, 8).blending_bytes(8)


@pytest.mark.parametrize("length", [1, 95, 96])
def test_what_fits_into_one_window_takes_one_and_lies_in_its_middle(length: int) -> None:
    (start,) = even_starts((150, 150 + length), 96, 0.25, 400)

    assert abs((start + 48) - (150 + length / 2)) <= 1
