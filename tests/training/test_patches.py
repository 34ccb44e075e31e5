"""Windows: where they lie, and what goes with them."""

from __future__ import annotations

import numpy as np
import pytest

from training.augmentation.settings import Augmentation
from training.case import STORED_SCALE, Case
from training.patches import PatchSource, cut
from training.plan import Plan, Sampling

SHAPE = (20, 30, 25)
FRAME = np.array([[3.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 3, 100]])


@pytest.fixture
def case(tmp_path, rng) -> Case:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:4, 3:5, 3:5] = 1  # a small structure in a corner, and a large one
    labels[8:, 10:, 8:] = 2
    spots = [[2, *spot] for spot in rng.integers([8, 10, 8], SHAPE, (64, 3))]
    spots += [[1, *spot] for spot in rng.integers([2, 3, 3], [4, 5, 5], (64, 3))]
    np.save(tmp_path / "image.npy", rng.integers(-STORED_SCALE, STORED_SCALE, SHAPE, np.int16))
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "spots.npy", np.array(spots, dtype=np.int16))
    np.save(tmp_path / "frame.npy", FRAME)
    return Case(tmp_path)


def test_a_window_inside_is_that_part_of_the_case_and_knows_its_place(case):
    patch = cut(case, np.array([1, 2, 3]), 16)

    np.testing.assert_array_equal(patch.labels, case.labels()[1:17, 2:18, 3:19])
    np.testing.assert_allclose(patch.image * STORED_SCALE, case.image()[1:17, 2:18, 3:19], atol=0.1)
    np.testing.assert_allclose(patch.frame @ [4, 4, 4, 1], FRAME @ [5, 6, 7, 1])


def test_beyond_the_case_its_borders_go_on_without_structures(case):
    patch = cut(case, np.array([-4, 10, 9]), 24)

    np.testing.assert_array_equal(patch.labels[4:, :20, :16], case.labels()[:, 10:, 9:])
    assert not patch.labels[:4].any()
    np.testing.assert_array_equal(patch.image[0], patch.image[4])
    np.testing.assert_allclose(patch.frame @ [4, 0, 0, 1], FRAME @ [0, 10, 9, 1])


def test_structures_are_met_alike_whatever_their_size(case):
    balanced = PatchSource([case], 0, Plan(steps=1))
    uniform = PatchSource([case], 0, Plan(steps=1, sampling=Sampling.UNIFORM))

    met = [
        np.mean([(s.draw(n, 8).labels == 1).any() for n in range(60)]) for s in (balanced, uniform)
    ]

    assert met[0] > 0.4
    assert met[1] < 0.35


def test_a_case_without_structures_gives_windows_as_well(case):
    np.save(case.folder / "spots.npy", np.empty((0, 4), dtype=np.int16))

    assert PatchSource([case], 0, Plan(steps=1)).draw(0, 16).image.shape == (16, 16, 16)


def test_windows_without_jitter_are_the_case_itself(case):
    plan = Plan(steps=1, jitter=False, sampling=Sampling.UNIFORM)

    patch = PatchSource([case], 0, plan).draw(3, 16)

    corner = np.rint((patch.frame[:, 3] - FRAME[:, 3]) / 3).astype(int)
    np.testing.assert_array_equal(patch.image, cut(case, corner, 16).image)


def test_augmented_windows_have_the_size_asked_for_and_are_the_same_again(case):
    settings = Augmentation(
        rotation_probability=1, rotation_degrees=20, scaling_probability=1, scaling=0.2
    )
    source = PatchSource([case], 0, Plan(steps=1), settings)

    first, again, other = source.draw(1, 16), source.draw(1, 16), source.draw(2, 16)

    assert first.image.shape == first.labels.shape == (16, 16, 16)
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
