"""What a coarse pass says of a result, and what it takes to find out."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from inference.engine.coarse_pass import CoarsePass
from inference.engine.region import Region
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME

SHAPE = (40, 160, 160)
LIVER = STRUCTURE_BY_NAME["liver"].id


@pytest.fixture
def coarse() -> CoarsePass:
    few = np.zeros((2, 2, 2), dtype=np.uint8)
    return CoarsePass(["liver"], LabelMap(few, Geometry.from_affine(np.eye(4), few.shape)))


@pytest.fixture
def near() -> Region:
    mask = np.zeros((10, 40, 40), dtype=np.bool_)
    mask[:, 5:35, 5:35] = True
    return Region(mask, 4, SHAPE)


@pytest.mark.parametrize(
    ("where", "was_right"),
    [(slice(60, 100), True), (slice(100, 140), False), (slice(0, 0), False)],
)
def test_it_was_right_where_the_structure_lies_well_within_the_region(
    coarse: CoarsePass, near: Region, where: slice, was_right: bool
) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[:, where, where] = LIVER

    assert coarse.was_right(labels, near, Region(np.ones_like(near.mask), 4, SHAPE)) is was_right


def test_to_find_out_takes_no_memory_a_voxel(coarse: CoarsePass, near: Region) -> None:
    labels = np.full(SHAPE, LIVER, dtype=np.uint8)
    tracemalloc.start()
    try:
        coarse.was_right(labels, near, Region(np.ones_like(near.mask), 4, SHAPE))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < labels.size
