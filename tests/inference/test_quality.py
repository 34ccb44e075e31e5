"""Findings that a label map gives of itself."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.quality import check_labels, touches_border, truncated_structures
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume

LEFT, RIGHT = STRUCTURE_BY_NAME["kidney_left"].id, STRUCTURE_BY_NAME["kidney_right"].id
SHAPE = (10, 20, 20)


def head_first() -> Geometry:
    return Geometry.from_affine([[0, 0, 2, -20], [0, 2, 0, -20], [3, 0, 0, 0], [0, 0, 0, 1]], SHAPE)


def columns_to_the_right() -> Geometry:
    return Geometry.from_affine([[0, 0, -2, 18], [0, 2, 0, -20], [3, 0, 0, 0], [0, 0, 0, 1]], SHAPE)


def kidneys(geometry: Geometry, left_x_mm: float, right_x_mm: float) -> LabelMap:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for structure_id, x_mm in ((LEFT, left_x_mm), (RIGHT, right_x_mm)):
        z, y, x = np.rint(geometry.index_of([x_mm, 0.0, 15.0])).astype(int)
        labels[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3] = structure_id
    return LabelMap(labels, geometry)


@pytest.mark.parametrize("geometry", [head_first(), columns_to_the_right()])
def test_sides_are_judged_in_patient_mm_and_not_by_columns(geometry: Geometry) -> None:
    assert check_labels(kidneys(geometry, left_x_mm=10, right_x_mm=-10), ()) == ()

    (finding,) = check_labels(kidneys(geometry, left_x_mm=-10, right_x_mm=10), ())

    assert finding.reason is Reason.LATERALITY_ORDER
    assert "kidney_left at x -10.0 mm, kidney_right at x 10.0 mm" in finding.detail


def test_one_of_a_pair_is_no_order() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[5, 5, 5] = LEFT

    assert check_labels(LabelMap(labels, head_first()), ()) == ()


@pytest.mark.parametrize(
    "where", [(0, 5, 5), (9, 5, 5), (5, 0, 5), (5, 19, 5), (5, 5, 0), (5, 5, 19)]
)
def test_a_structure_at_any_border_is_named(where: tuple[int, int, int]) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:-1, 1:-1, 1:-1] = 5
    labels[where] = 1

    label_map = LabelMap(labels, head_first())
    (finding,) = check_labels(label_map, touches_border(label_map))

    assert touches_border(label_map) == (1,)
    assert finding.reason is Reason.TRUNCATED_STRUCTURE
    assert finding.detail == "spleen"


def test_an_empty_label_map_has_no_findings_of_its_own() -> None:
    assert check_labels(LabelMap(np.zeros(SHAPE, dtype=np.uint8), head_first()), ()) == ()


def test_what_the_border_cuts_and_what_the_field_cuts_is_truncated() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[0, 10, 10], labels[5, 10, 2], labels[5, 10, 10] = 1, 2, 3
    hu = np.zeros(SHAPE, dtype=np.int16)
    hu[:, :, :2] = -2048

    volume = Volume(hu, head_first())

    assert truncated_structures(LabelMap(labels, volume.geometry), volume) == {1, 2}
