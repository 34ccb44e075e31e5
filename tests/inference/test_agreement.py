"""Agreement with a truth: Dice by its formula, and sides that were confused."""

from __future__ import annotations

import numpy as np
import pytest

from inference.agreement import agreement
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME

SHAPE = (10, 12, 30)
#: +x is the patient's left.
GRID = Geometry.from_affine(
    [[0, 0, 4, 0], [0, 4, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]], SHAPE, frame_of_reference_uid="1.2"
)
LEFT = (slice(1, 9), slice(2, 10), slice(18, 28))
RIGHT = (slice(1, 9), slice(2, 10), slice(2, 12))
PART_OF_LEFT = (slice(1, 2), slice(2, 10), slice(18, 28))
NOWHERE = (slice(0, 0), slice(0, 0), slice(0, 0))


def labels(**boxes: tuple[slice, slice, slice]) -> LabelMap:
    array = np.zeros(SHAPE, np.uint8)
    for name, box in boxes.items():
        array[box] = STRUCTURE_BY_NAME[name].id
    return LabelMap(array, GRID)


TRUTH = labels(kidney_left=LEFT, kidney_right=RIGHT)
BOTH = {"kidney_left", "kidney_right"}


@pytest.mark.parametrize(
    ("found", "swapped"),
    [
        (TRUTH, set()),
        (labels(), set()),
        (labels(kidney_left=LEFT), set()),
        (labels(kidney_left=PART_OF_LEFT, kidney_right=RIGHT), set()),
        (labels(kidney_left=RIGHT, kidney_right=LEFT), BOTH),
        (labels(kidney_left=RIGHT), BOTH),
        (labels(kidney_right=LEFT), BOTH),
    ],
    ids=["right", "nothing", "one", "a part", "swapped", "left at the right", "right at the left"],
)
def test_a_side_is_swapped_when_it_agrees_better_with_its_twin(found, swapped):
    names = {structure.name: structure.id for structure in STRUCTURE_BY_NAME.values()}
    assert {each.structure_id for each in agreement(TRUTH, found) if each.is_swapped} == {
        names[name] for name in swapped
    }


def test_sides_in_the_wrong_order_are_swapped_even_where_they_overlap_nothing():
    empty = slice(0, 1), slice(0, 2)
    found = labels(kidney_left=(*empty, slice(0, 2)), kidney_right=(*empty, slice(20, 22)))
    assert all(each.is_swapped for each in agreement(TRUTH, found))


def test_a_twin_that_the_truth_does_not_show_does_not_make_a_swap():
    truth = labels(kidney_left=LEFT)
    found = labels(kidney_left=LEFT, kidney_right=(slice(0, 1), slice(0, 1), slice(29, 30)))
    (left,) = agreement(truth, found)
    assert (left.dice, left.is_swapped) == (1.0, False)


def test_dice_and_volumes_are_what_the_formula_says():
    (left, right) = agreement(TRUTH, labels(kidney_left=PART_OF_LEFT))
    by_id = {each.structure_id: each for each in (left, right)}
    left = by_id[STRUCTURE_BY_NAME["kidney_left"].id]
    assert left.dice == pytest.approx(2 * 80 / (640 + 80))
    assert (left.truth_ml, left.found_ml) == pytest.approx((51.2, 6.4))
    right = by_id[STRUCTURE_BY_NAME["kidney_right"].id]
    assert (right.dice, right.found_ml) == (0.0, 0.0)


def test_other_planes_cannot_be_compared():
    affine = GRID.affine.copy()
    affine[0, 3] += 4.0
    other = Geometry.from_affine(affine, SHAPE, frame_of_reference_uid="1.2")
    with pytest.raises(ValueError, match="other planes"):
        agreement(TRUTH, LabelMap(TRUTH.labels, other))
