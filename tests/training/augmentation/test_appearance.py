"""Contrast, noise and thick slices."""

from __future__ import annotations

import numpy as np
import pytest

from training.augmentation.appearance import add_noise, recontrast, thicken


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_hold_the_mean_of_their_voxels(axis):
    line = np.array([0, 4, 0, 0, 8, 0, 0, 0], dtype=np.float32)
    image = np.moveaxis(np.broadcast_to(line, (3, 5, 8)), 2, axis)

    thick = np.moveaxis(thicken(np.ascontiguousarray(image), axis, 2.0, 0.0), axis, 2)

    # means 2, 0, 4, 0 lie between two voxels; a voxel lies at a quarter of the way
    expected = [2, 1.5, 0.5, 1, 3, 3, 1, 0]
    np.testing.assert_allclose(thick, np.broadcast_to(expected, (3, 5, 8)), atol=1e-6)


@pytest.mark.parametrize("thickness", [1.01, 1.7, 2.5, 4.0])
@pytest.mark.parametrize("phase", [0.0, 0.4, 0.99])
def test_what_is_even_stays_even_and_detail_goes(thickness, phase, rng):
    even = np.full((6, 7, 16), 0.3, dtype=np.float32)
    noise = rng.standard_normal(even.shape, dtype=np.float32)

    np.testing.assert_allclose(thicken(even, 2, thickness, phase), even, atol=1e-6)
    assert thicken(noise, 2, thickness, phase).std() < noise.std()


def test_contrast_is_a_straight_line_without_gamma(rng):
    image = rng.uniform(-1, 1, (4, 5, 6)).astype(np.float32)

    np.testing.assert_allclose(recontrast(image, 1.1, -0.05, 1.0), image * 1.1 - 0.05, atol=1e-6)


def test_gamma_keeps_the_ends_and_moves_the_middle():
    image = np.array([[[-1.0, 0.0, 1.0]]], dtype=np.float32)

    np.testing.assert_allclose(recontrast(image, 1, 0, 2.0), [[[-1, -0.5, 1]]], atol=1e-6)


def test_gamma_of_values_beyond_the_range_is_a_number():
    image = np.array([[[-1.2, 1.3]]], dtype=np.float32)

    np.testing.assert_allclose(recontrast(image, 1, 0, 0.7), [[[-1, 1]]], atol=1e-6)


def test_noise_has_the_deviation_asked_for():
    noisy = add_noise(np.zeros((32, 32, 32), np.float32), 0.05, seed=3)

    assert noisy.std() == pytest.approx(0.05, rel=0.02)
    assert abs(noisy.mean()) < 0.001
