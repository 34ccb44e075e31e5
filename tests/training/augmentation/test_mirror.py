"""A mirrored window is a mirrored patient: sides keep their names, places their meaning."""

from __future__ import annotations

import numpy as np
import pytest

from inference.intensity import IntensitySpec, Scaling
from inference.nifti import read_label_nifti
from inference.preprocessing import NetworkGrid, labels_to_network
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.augmentation.mirror import mirror, mirrored_ids
from training.case import STORED_SCALE, CaseRecipe
from training.patch import Patch
from training.synthetic_cases import make_cases

PAIRS = [
    (left.id, STRUCTURE_BY_NAME[left.twin].id) for left in STRUCTURES if left.is_left and left.twin
]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Patch:
    """A whole synthetic patient, who knows his place in the reference body."""
    recipe = CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE))
    (case,) = make_cases(range(3, 4), recipe, tmp_path_factory.mktemp("cases"))
    image = case.image().astype(np.float32) / STORED_SCALE
    return Patch(image, np.array(case.labels()), case.frame())


@pytest.fixture
def real(shared_data, rng) -> Patch:
    """The labels of a real scan on the network's grid."""
    truth = read_label_nifti(shared_data / "totalseg_v1_dataset" / "s0001_labels_v1_full.nii.gz")
    labels = labels_to_network(truth, NetworkGrid.covering(truth.geometry, 3.0))
    image = rng.standard_normal(labels.shape, dtype=np.float32)
    return Patch(image, np.ascontiguousarray(labels), None)


def _wrong_sides(labels: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    """Pairs in view, and those whose left one lies right of its twin.

    The network's x axis runs towards the patient's right.
    """
    x = np.arange(labels.shape[0])
    profiles = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in labels])
    seen = [(left, right) for left, right in PAIRS if profiles[:, [left, right]].any(0).all()]
    middles = {i: x @ profiles[:, i] / profiles[:, i].sum() for pair in seen for i in pair}
    return len(seen), [(le, ri) for le, ri in seen if middles[le] >= middles[ri]]


def _assert_same(first: Patch, second: Patch) -> None:
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    if first.frame is not None:
        np.testing.assert_allclose(first.frame, second.frame, atol=1e-9)


def test_mirroring_twice_is_the_identity(synthetic):
    _assert_same(mirror(mirror(synthetic)), synthetic)
    assert (mirror(synthetic).labels != synthetic.labels).any()


@pytest.mark.shared
def test_mirroring_a_real_scan_twice_is_the_identity(real):
    _assert_same(mirror(mirror(real)), real)
    assert (mirror(real).labels != real.labels).any()


def test_no_left_structure_lies_right_of_its_twin_in_the_mirror(synthetic):
    count, wrong = _wrong_sides(mirror(synthetic).labels)

    assert count >= 25
    assert wrong == []


@pytest.mark.shared
def test_no_left_structure_of_a_real_scan_lies_right_of_its_twin_in_the_mirror(real):
    assert _wrong_sides(real.labels)[1] == []

    count, wrong = _wrong_sides(mirror(real).labels)

    assert count >= 15
    assert wrong == []
    untold = Patch(real.image, np.ascontiguousarray(real.labels[::-1]), None)
    assert len(_wrong_sides(untold.labels)[1]) == count  # a flip of the array alone swaps all


def test_midline_structures_keep_their_names(synthetic):
    midline = [0, *(s.id for s in STRUCTURES if s.twin is None)]

    mirrored = mirror(synthetic).labels[::-1]

    assert len(midline) > 40
    for structure_id in midline:
        np.testing.assert_array_equal(mirrored == structure_id, synthetic.labels == structure_id)


def test_every_sided_structure_becomes_its_twin_and_ids_beyond_the_list_stay():
    table = mirrored_ids()

    assert all((table[left], table[right]) == (right, left) for left, right in PAIRS)
    np.testing.assert_array_equal(table[105:], np.arange(105, 256))
    assert sum(table != np.arange(256)) == 2 * len(PAIRS)


def test_every_voxel_knows_the_mirrored_place_in_the_body(synthetic):
    mirrored = mirror(synthetic)

    for x, y, z in ((0, 0, 0), (5, 3, 8), (11, 2, 30)):
        there = synthetic.labels.shape[0] - 1 - x
        place = synthetic.frame @ [there, y, z, 1]
        np.testing.assert_allclose(mirrored.frame @ [x, y, z, 1], place * [-1, 1, 1])


def test_left_structures_are_found_on_the_left_of_the_reference_body(synthetic):
    for patch in (synthetic, mirror(synthetic)):
        places = {
            i: (patch.frame @ np.append(np.argwhere(patch.labels == i).mean(axis=0), 1))[0]
            for i in np.unique(patch.labels)
        }
        seen = [(left, right) for left, right in PAIRS if {left, right} <= places.keys()]
        assert len(seen) >= 25
        assert all(places[left] > places[right] for left, right in seen)  # LPS: +x is left
