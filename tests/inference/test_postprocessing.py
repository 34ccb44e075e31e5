"""Clean-up changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.postprocessing import (
    NO_POSTPROCESSING,
    CleanUp,
    PostprocessingSpec,
    postprocess,
)
from inference.structures import STRUCTURE_BY_NAME

LIVER, SPLEEN = STRUCTURE_BY_NAME["liver"].id, STRUCTURE_BY_NAME["spleen"].id


def label_map(labels: np.ndarray, positions_mm: np.ndarray | None = None) -> LabelMap:
    """1 mm pixels; planes 1 mm apart unless told."""
    z_mm = np.arange(labels.shape[0], dtype=float) if positions_mm is None else positions_mm
    origins = np.stack([np.zeros_like(z_mm), np.zeros_like(z_mm), z_mm], axis=1)
    geometry = Geometry(labels.shape, origins, np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))
    return LabelMap(labels.astype(np.uint8), geometry)


def scene() -> np.ndarray:
    """A liver with a hole and a fragment, a spleen inside a hole, and a spleen speck."""
    labels = np.zeros((20, 30, 30), dtype=np.uint8)
    labels[2:12, 2:20, 2:20] = LIVER
    labels[5, 6:8, 6:8] = 0  # enclosed
    labels[7, 10, 10] = SPLEEN  # enclosed, another structure's
    labels[15:17, 25:28, 25:28] = LIVER
    labels[18, 1, 1] = SPLEEN
    return labels


def test_nothing_is_changed_unless_switched_on() -> None:
    source = label_map(scene())

    assert postprocess(source, NO_POSTPROCESSING) is source


def test_the_largest_part_stays() -> None:
    spec = PostprocessingSpec(by_structure=(("liver", CleanUp(largest_component=True)),))

    cleaned = postprocess(label_map(scene()), spec).labels

    expected = scene()
    expected[15:17, 25:28, 25:28] = 0
    np.testing.assert_array_equal(cleaned, expected)


def test_parts_that_meet_at_a_corner_are_one() -> None:
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[1, 1, 1] = labels[2, 2, 2] = LIVER

    spec = PostprocessingSpec(CleanUp(largest_component=True))

    assert (postprocess(label_map(labels), spec).labels == LIVER).sum() == 2


def test_size_is_volume_and_not_voxels() -> None:
    labels = np.zeros((6, 20, 20), dtype=np.uint8)
    labels[0:2, 2:6, 2:6] = LIVER  # 32 voxels of planes 1 mm apart
    labels[4, 10:15, 10:14] = LIVER  # 20 voxels of a plane that stands for 10 mm
    spec = PostprocessingSpec(CleanUp(largest_component=True))

    kept = postprocess(label_map(labels, np.array([0, 1, 2, 3, 13, 23.0])), spec).labels

    assert (kept[4] == LIVER).sum() == 20
    assert kept.sum() == 20 * LIVER


def test_holes_become_the_structure_but_never_take_from_another() -> None:
    spec = PostprocessingSpec(by_structure=(("liver", CleanUp(fill_holes=True)),))

    cleaned = postprocess(label_map(scene()), spec).labels

    expected = scene()
    expected[5, 6:8, 6:8] = LIVER
    np.testing.assert_array_equal(cleaned, expected)


def test_an_open_bay_is_no_hole() -> None:
    labels = scene()
    labels[5, 6:8, 6:30] = 0
    spec = PostprocessingSpec(CleanUp(fill_holes=True))

    np.testing.assert_array_equal(postprocess(label_map(labels), spec).labels, labels)


def test_small_structures_are_removed_whole() -> None:
    spec = PostprocessingSpec(CleanUp(minimum_ml=0.5))

    cleaned = postprocess(label_map(scene()), spec).labels

    expected = scene()
    expected[expected == SPLEEN] = 0
    np.testing.assert_array_equal(cleaned, expected)


def test_the_minimum_is_judged_after_fragments_are_gone() -> None:
    labels = np.zeros((20, 30, 30), dtype=np.uint8)
    labels[1:9, 1:9, 1:9] = LIVER
    labels[11:19, 11:19, 11:18] = LIVER
    volume_ml = 8**3 / 1000

    def kept(minimum_ml: float) -> int:
        rule = CleanUp(largest_component=True, minimum_ml=minimum_ml)
        return int((postprocess(label_map(labels), PostprocessingSpec(rule)).labels > 0).sum())

    assert kept(volume_ml * 0.99) == 512
    assert kept(volume_ml * 1.01) == 0


def test_a_named_structure_has_its_own_rule_in_place_of_the_default() -> None:
    spec = PostprocessingSpec(CleanUp(minimum_ml=100), (("liver", CleanUp()),))

    cleaned = postprocess(label_map(scene()), spec).labels

    assert set(np.unique(cleaned)) == {0, LIVER}


def test_rules_read_as_text_that_tells_them_apart() -> None:
    spec = PostprocessingSpec(
        CleanUp(largest_component=True), (("liver", CleanUp(minimum_ml=2, fill_holes=True)),)
    )

    assert str(spec) == "largest-component; liver: minimum 2 mL+fill-holes"
    assert str(NO_POSTPROCESSING) == "none"


@pytest.mark.parametrize("names", [("heart",), ("liver", "liver")])
def test_unknown_and_repeated_structures_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=names[0]):
        PostprocessingSpec(by_structure=tuple((name, CleanUp()) for name in names))


def test_a_negative_volume_is_refused() -> None:
    with pytest.raises(ValueError):
        CleanUp(minimum_ml=-1)
