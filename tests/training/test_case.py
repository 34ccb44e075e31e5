"""A case on disk is what the network sees, with places of each structure."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.preprocessing import ROBUST_INTENSITY, to_network
from inference.volume import Volume
from training.case import STORED_SCALE, draw_spots, write_case

LPS_TO_RAS_TURNED = np.array([[0, 0, -2.0, 9], [0, -2.0, 0, 8], [2.0, 0, 0, 7], [0, 0, 0, 1]])


@pytest.fixture
def seen(rng):
    hu = rng.integers(-1000, 1000, (40, 9, 10), dtype=np.int16)
    return to_network(
        Volume(hu, Geometry.from_affine(LPS_TO_RAS_TURNED, hu.shape)), 2.0, ROBUST_INTENSITY
    )


def test_stored_values_are_the_networks_to_half_a_quantum(seen, rng, tmp_path):
    labels = rng.integers(0, 105, seen.array.shape, dtype=np.uint8)

    case = write_case(tmp_path / "case", seen, labels, rng)

    assert case.image().dtype == np.int16
    np.testing.assert_allclose(case.image() / STORED_SCALE, seen.array, atol=0.51 / STORED_SCALE)
    np.testing.assert_array_equal(case.labels(), labels)
    assert case.frame() is None


def test_image_and_labels_are_mapped_and_not_read(seen, rng, tmp_path):
    case = write_case(tmp_path / "case", seen, np.zeros(seen.array.shape, np.uint8), rng)

    for array in (case.image(), case.labels()):
        assert isinstance(array.base, np.memmap)
        assert array.flags.c_contiguous


def test_a_place_in_the_reference_body_is_kept(seen, rng, tmp_path):
    frame = rng.normal(size=(3, 4))

    case = write_case(tmp_path / "case", seen, np.zeros(seen.array.shape, np.uint8), rng, frame)

    np.testing.assert_array_equal(case.frame(), frame)


def test_a_case_takes_the_place_of_an_older_one_and_of_what_a_killed_process_left(
    seen, rng, tmp_path
):
    labels = np.zeros(seen.array.shape, np.uint8)
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "image.npy").write_bytes(b"cut off")

    write_case(tmp_path / "case", seen, labels + 7, rng)
    case = write_case(tmp_path / "case", seen, labels + 8, rng)

    assert (case.labels() == 8).all()
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_spots_lie_in_their_structure_and_none_is_forgotten(rng):
    labels = np.zeros((12, 13, 14), np.uint8)
    labels[3:9, 4:9, 2] = 17
    labels[11, 12, 13] = 104
    labels[0, 0, 0] = 1

    spots = draw_spots(labels, rng)

    assert set(spots[:, 0]) == {1, 17, 104}
    np.testing.assert_array_equal(labels[tuple(spots[:, 1:].T)], spots[:, 0])
    assert len(np.unique(spots[spots[:, 0] == 17], axis=0)) > 20


def test_spots_are_spread_as_an_even_draw_of_all_voxels_is(rng):
    labels = rng.integers(0, 4, (6, 7, 8), dtype=np.uint8)

    spots = draw_spots(labels, np.random.default_rng(5))

    again = np.random.default_rng(5)
    for structure_id in (1, 2, 3):
        own = np.flatnonzero(labels == structure_id)
        expected = np.column_stack(np.unravel_index(again.choice(own, 64), labels.shape))
        np.testing.assert_array_equal(spots[spots[:, 0] == structure_id][:, 1:], expected)


def test_a_case_without_structures_has_no_spots(rng):
    assert draw_spots(np.zeros((3, 4, 5), np.uint8), rng).shape == (0, 4)
