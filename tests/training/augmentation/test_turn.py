"""Turning keeps image, labels and place together, and equals a general resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from training.augmentation.settings import Augmentation
from training.augmentation.turn import Turn, crop, turn
from training.patch import Patch

FRAME = np.array([[-3.0, 0.1, 0, 40], [0.1, 3.0, 0.2, -50], [0, 0.2, 3.0, 900]])


def _body(edge: int, axis: int) -> Patch:
    """A patch whose values are its places along one axis of the body, in dm."""
    voxels = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1)
    place = voxels @ FRAME[axis, :3] + FRAME[axis, 3]
    ids = ((place - place.min()) // 20).astype(np.uint8)
    return Patch((place / 100).astype(np.float32), ids, FRAME.copy())


def _places(patch: Patch, axis: int) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*map(np.arange, patch.labels.shape), indexing="ij"), axis=-1)
    return voxels @ patch.frame[axis, :3] + patch.frame[axis, 3]


@pytest.mark.parametrize("turned_about", [0, 1, 2])
@pytest.mark.parametrize("factor", [1.0, 1 / 1.2, 1.2])
def test_values_labels_and_places_turn_together_within_reach(turned_about, factor):
    settings = Augmentation(
        rotation_probability=1, rotation_degrees=20, scaling_probability=1, scaling=0.2
    )
    for axis in range(3):
        body = _body(settings.reach(20), axis)

        patch = turn(body, Turn(turned_about, math.radians(20), factor), 20)

        places = _places(patch, axis)
        np.testing.assert_allclose(patch.image, places / 100, atol=1e-5)
        band = (places - (_places(body, axis)).min()) / 20
        clear = np.abs(band - np.rint(band)) > 0.2  # 4 mm from where labels change
        np.testing.assert_array_equal(patch.labels[clear], np.floor(band[clear]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_equals_a_general_resampling_borders_included(axis, rng):
    image = rng.standard_normal((24, 24, 24), dtype=np.float32)
    labels = rng.integers(0, 105, image.shape, dtype=np.uint8)
    change = Turn(axis, 0.4, 1.13)

    patch = turn(Patch(image, labels, None), change, 24)

    offset = 11.5 - change.matrix @ np.full(3, 11.5)
    general = ndimage.affine_transform(
        image.astype(np.float64), change.matrix, offset, order=1, mode="nearest"
    )
    np.testing.assert_allclose(patch.image, general, atol=1e-5)
    nearest = ndimage.affine_transform(labels, change.matrix, offset, order=0, mode="nearest")
    assert (patch.labels == nearest).mean() > 0.999  # ties


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_of_the_way_round_four_times_is_the_way_round(axis, rng):
    patch = Patch(rng.standard_normal((9, 9, 9), dtype=np.float32), np.zeros((9,) * 3, "u1"), FRAME)
    patch.labels[2, 3, 4] = 7
    turned = patch
    for _ in range(4):
        turned = turn(turned, Turn(axis, math.pi / 2, 1.0), 9)

    np.testing.assert_allclose(turned.image, patch.image, atol=1e-5)
    np.testing.assert_array_equal(turned.labels, patch.labels)
    np.testing.assert_allclose(turned.frame, FRAME, atol=1e-9)


def test_a_cropped_patch_keeps_its_place():
    body = _body(20, 1)

    patch = crop(body, 11)

    assert patch.image.shape == patch.labels.shape == (11, 11, 11)
    np.testing.assert_allclose(patch.image, _places(patch, 1) / 100, atol=1e-5)


def test_no_turn_in_a_larger_patch_is_its_middle():
    body = _body(21, 0)

    np.testing.assert_allclose(
        turn(body, Turn(1, 0.0, 1.0), 9).image, crop(body, 9).image, atol=1e-6
    )


def test_a_window_larger_than_its_patch_is_refused():
    with pytest.raises(ValueError, match="30 voxels"):
        crop(_body(20, 0), 30)
