"""HU become the values that the published chain makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms.intensity.array import NormalizeIntensity, ScaleIntensity

from inference.intensity import (
    PUBLISHED_INTENSITY,
    ROBUST_INTENSITY,
    IntensitySpec,
    Scaling,
    normalise,
)


def published(hu: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(hu.copy())[None]
    scaled = ScaleIntensity(minv=-1.0, maxv=1.0)(NormalizeIntensity(nonzero=True)(image))
    return np.asarray(scaled[0])


@pytest.mark.parametrize("zeros", [False, True])
def test_per_volume_scaling_is_the_published_one(rng: np.random.Generator, zeros: bool) -> None:
    hu = rng.integers(-1024, 1500, (12, 30, 20)).astype(np.float32)
    hu[hu == 0] = 1
    if zeros:
        hu[rng.random(hu.shape) < 0.1] = 0  # land on the mean, as published

    values = hu.copy()
    normalise(values, PUBLISHED_INTENSITY)

    np.testing.assert_allclose(values, published(hu), atol=2e-6)


@pytest.mark.parametrize("value", [0.0, 37.0, -1000.0])
def test_a_constant_volume_is_the_same_constant(value: float) -> None:
    hu = np.full((3, 4, 5), value, dtype=np.float32)
    expected = published(hu)

    normalise(hu, PUBLISHED_INTENSITY)

    np.testing.assert_array_equal(hu, expected)


def test_padding_becomes_air_and_changes_no_other_voxel(rng: np.random.Generator) -> None:
    hu = rng.uniform(-1024, 1500, (12, 30, 20)).astype(np.float32)
    padded = hu.copy()
    padded[:, :, 15:] = np.nan
    alone = hu[:, :, :15].copy()

    normalise(padded, ROBUST_INTENSITY)
    normalise(alone, ROBUST_INTENSITY)

    assert (padded[:, :, 15:] == -1).all()
    np.testing.assert_array_equal(padded[:, :, :15], alone)


def test_a_volume_of_padding_alone_is_air() -> None:
    hu = np.full((3, 4, 5), np.nan, dtype=np.float32)

    normalise(hu, ROBUST_INTENSITY)

    assert (hu == -1).all()


def test_the_clamp_range_maps_every_volume_alike() -> None:
    spec = IntensitySpec((-200, 300), Scaling.CLAMP_RANGE)
    hu = np.array([[[-200.0, 50.0, 300.0, np.nan]]], dtype=np.float32)

    normalise(hu, spec)

    np.testing.assert_allclose(hu, [[[-1, 0, 1, -1]]], atol=1e-6)


@pytest.mark.parametrize(
    ("clamp_hu", "scaling"),
    [
        (None, Scaling.CLAMP_RANGE),
        ((10, 10), Scaling.PER_VOLUME),
        ((-32768, 100), Scaling.PER_VOLUME),  # would let padding in
        ((0, 40000), Scaling.PER_VOLUME),
    ],
)
def test_impossible_ranges_are_refused(clamp_hu: tuple[int, int] | None, scaling: Scaling) -> None:
    with pytest.raises(ValueError):
        IntensitySpec(clamp_hu, scaling)
