"""One window becomes that of another patient, scanner or day."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from training.augmentation.appearance import add_noise, recontrast, thicken
from training.augmentation.mirror import mirror
from training.augmentation.settings import Augmentation
from training.augmentation.turn import Turn, crop, turn
from training.patch import Patch


def augment(
    patch: Patch, settings: Augmentation, rng: np.random.Generator, window: int | None = None
) -> Patch:
    """Change a window at random; the same random numbers give the same window.

    In this order: turn and scale, thick slices, contrast, noise, mirror. Each has random
    numbers of its own: switching one off leaves the others as they were.

    Parameters
    ----------
    patch
        ``(x, y, z)``. Draw it ``settings.reach(window)`` voxels wide so that a turned window
        holds real voxels only; where it is smaller, its borders are continued.
    settings
        What may happen.
    rng
        Decides.
    window
        Edge of the result, voxels; the middle of ``patch``. None: that of ``patch``, which
        is a cube then.

    Returns
    -------
    Patch
        ``patch`` itself where nothing happened to it.
    """
    turning, blurring, contrast, noise, flipping = rng.spawn(5)
    edge = patch.labels.shape[0] if window is None else window
    change = _turn(settings, turning)
    if change is not None:
        patch = turn(patch, change, edge)
    elif window is not None and patch.labels.shape != (window,) * 3:
        patch = crop(patch, window)
    image = patch.image
    if _happens(settings.low_resolution_probability, blurring) and settings.low_resolution > 1:
        thickness = blurring.uniform(1, settings.low_resolution)
        image = thicken(image, int(blurring.integers(3)), thickness, blurring.uniform())
    if _happens(settings.intensity_probability, contrast):
        gain = 1 + settings.gain * contrast.uniform(-1, 1)
        offset = settings.offset * contrast.uniform(-1, 1)
        gamma = (1 + settings.gamma) ** contrast.uniform(-1, 1)
        image = recontrast(image, gain, offset, gamma)
    if _happens(settings.noise_probability, noise):
        image = add_noise(image, settings.noise * noise.uniform(), int(noise.integers(2**62)))
    if image is not patch.image:
        patch = replace(patch, image=image)
    return mirror(patch) if _happens(settings.flip_probability, flipping) else patch


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return bool(rng.uniform() < probability)


def _turn(settings: Augmentation, rng: np.random.Generator) -> Turn | None:
    rotates = _happens(settings.rotation_probability, rng)
    scales = _happens(settings.scaling_probability, rng)
    axis = int(rng.integers(3))
    angle = math.radians(settings.rotation_degrees) * rng.uniform(-1, 1)
    factor = (1 + settings.scaling) ** rng.uniform(-1, 1)
    if not (rotates or scales):
        return None
    return Turn(axis, angle if rotates else 0.0, factor if scales else 1.0)
