"""Augmentation does what its settings say, and the same for the same random numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.augmentation.augment import augment
from training.augmentation.settings import NO_AUGMENTATION, Augmentation
from training.patch import Patch

EVERYTHING = Augmentation(
    flip_probability=0.5,
    rotation_probability=0.5,
    rotation_degrees=15,
    scaling_probability=0.5,
    scaling=0.1,
    intensity_probability=0.5,
    gain=0.1,
    offset=0.05,
    gamma=0.2,
    noise_probability=0.5,
    noise=0.05,
    low_resolution_probability=0.5,
    low_resolution=3,
)


@pytest.fixture
def patch(rng) -> Patch:
    edge = EVERYTHING.reach(16)
    image = rng.uniform(-1, 1, (edge,) * 3).astype(np.float32)
    labels = rng.integers(0, 105, image.shape, dtype=np.uint8)
    return Patch(image, labels, np.eye(4)[:3])


def test_nothing_happens_by_default(patch, rng):
    assert augment(patch, NO_AUGMENTATION, rng) is patch


def test_the_same_random_numbers_give_the_same_window(patch):
    for seed in range(10):
        first, again = (
            augment(patch, EVERYTHING, np.random.default_rng(seed), 16) for _ in range(2)
        )
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.labels, again.labels)
        np.testing.assert_array_equal(first.frame, again.frame)


def test_windows_have_the_size_asked_for_and_the_types_of_a_patch(patch):
    before = patch.image.copy()
    different = set()
    for seed in range(30):
        window = augment(patch, EVERYTHING, np.random.default_rng(seed), 16)
        assert window.image.shape == window.labels.shape == (16, 16, 16)
        assert (window.image.dtype, window.labels.dtype) == (np.float32, np.uint8)
        assert window.image.flags.c_contiguous
        assert window.labels.flags.c_contiguous
        assert np.isfinite(window.image).all()
        different.add(window.image.tobytes())
    assert len(different) > 25
    np.testing.assert_array_equal(patch.image, before)


@pytest.mark.parametrize(
    ("setting", "changes_image", "changes_labels"),
    [
        ("flip_probability", True, True),
        ("rotation_probability", True, True),
        ("scaling_probability", True, True),
        ("intensity_probability", True, False),
        ("noise_probability", True, False),
        ("low_resolution_probability", True, False),
    ],
)
def test_each_change_alone_changes_what_it_should(patch, setting, changes_image, changes_labels):
    off = {name: 0.0 for name in Augmentation.__dataclass_fields__ if name.endswith("_probability")}
    alone = replace(EVERYTHING, **(off | {setting: 1.0}))

    changed = augment(patch, alone, np.random.default_rng(1))

    assert (changed.image != patch.image).any() == changes_image
    assert (changed.labels != patch.labels).any() == changes_labels


def test_switching_one_change_off_leaves_the_others_as_they_were(patch):
    for seed in range(8):
        noisy = augment(patch, EVERYTHING, np.random.default_rng(seed), 16)
        quiet = augment(
            patch, replace(EVERYTHING, noise_probability=0.0), np.random.default_rng(seed), 16
        )
        np.testing.assert_array_equal(noisy.labels, quiet.labels)
        assert np.abs(noisy.image - quiet.image).max() < 0.05 * 6


def test_changes_happen_as_often_as_their_probability_says(patch):
    settings = Augmentation(flip_probability=0.3)

    flipped = [
        augment(patch, settings, np.random.default_rng(seed)) is not patch for seed in range(400)
    ]

    assert 0.22 < np.mean(flipped) < 0.38


def test_a_larger_patch_is_cut_to_the_window_even_if_nothing_else_happens(patch, rng):
    window = augment(patch, NO_AUGMENTATION, rng, 16)

    margin = (patch.image.shape[0] - 16) // 2
    np.testing.assert_array_equal(
        window.image, patch.image[margin : margin + 16, margin : margin + 16, margin : margin + 16]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip_probability": 1.2},
        {"noise": -0.1},
        {"gain": 1.0},
        {"low_resolution": 0.5},
        {"rotation_degrees": 60},
        {"scaling": float("nan")},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_reach_is_the_window_where_nothing_turns():
    assert Augmentation(flip_probability=1, noise_probability=1, noise=0.1).reach(96) == 96
    assert Augmentation(rotation_probability=0.1, rotation_degrees=15).reach(96) > 96
