"""Merging masks: the last has the voxels, and who lost them is counted."""

from __future__ import annotations

import numpy as np
import pytest

from training.prepare.label_merge import LabelMerge, NotBinaryError

TYPES = [np.uint8, np.int8, np.bool_, np.int16, np.uint32, np.int64, np.float32, np.float64, ">i2"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1003, 8 * 256, 5 * 8 * 256 + 77])
def test_labels_are_what_assigning_one_mask_after_the_other_gives(dtype, count, rng):
    merge, expected = LabelMerge(count), np.zeros(count, np.uint8)
    for structure_id in (3, 9, 104):
        mask = (rng.uniform(size=count) < 0.3).astype(dtype)
        lost = expected[mask != 0]

        taken = merge.add(structure_id, mask)

        assert taken == {int(i): int((lost == i).sum()) for i in np.unique(lost) if i}
        expected[mask != 0] = structure_id
        np.testing.assert_array_equal(merge.labels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
@pytest.mark.parametrize("place", [0, 20])
def test_a_mask_with_other_values_is_refused_and_changes_nothing(dtype, place):
    merge = LabelMerge(21)
    mask = np.ones(21, dtype)
    mask[place] = 2

    with pytest.raises(NotBinaryError, match="up to 2"):
        merge.add(5, mask)

    assert not merge.labels.any()


@pytest.mark.parametrize("value", [np.nan, 0.5, -1.0, 1.0000001])
def test_fractions_and_what_is_no_number_are_not_binary(value):
    with pytest.raises(NotBinaryError):
        LabelMerge(4).add(5, np.array([0, 1, value, 0]))


@pytest.mark.parametrize("place", [0, 2047, 2048, 2055, 9999])
def test_a_lone_voxel_is_found_wherever_it_lies(place):
    mask, merge = np.zeros(10_000, np.uint8), LabelMerge(10_000)
    mask[place] = 1

    merge.add(5, mask)

    assert np.flatnonzero(merge.labels).tolist() == [place]


def test_minus_one_in_a_byte_is_not_binary():
    with pytest.raises(NotBinaryError):
        LabelMerge(9).add(5, np.full(9, -1, np.int8))


def test_unaligned_voxels_are_merged_as_well():
    data = np.zeros(8 * 5 + 3, np.uint8)
    data[3:][[0, 17, 39]] = 1
    merge = LabelMerge(40)

    merge.add(7, np.frombuffer(data.data, np.uint8, 40, 3))

    assert np.flatnonzero(merge.labels).tolist() == [0, 17, 39]
