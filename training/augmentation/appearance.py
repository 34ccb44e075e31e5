"""Other contrast, noise and slice thickness; labels stay as they are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

Image = npt.NDArray[np.float32]


def recontrast(image: Image, gain: float, offset: float, gamma: float) -> Image:
    """``gain * value + offset``; before that values, brought to 0..1, to the power of gamma."""
    if gamma != 1:
        image = np.power(np.clip(image * 0.5 + 0.5, 0, 1), np.float32(gamma)) * 2 - 1
    return np.asarray(image * np.float32(gain) + np.float32(offset), dtype=np.float32)


def add_noise(image: Image, deviation: float, seed: int) -> Image:
    """White Gaussian noise."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(image.shape, generator=random)
    return torch.add(torch.from_numpy(image), noise, alpha=deviation).numpy()


def thicken(image: Image, axis: int, thickness: float, phase: float) -> Image:
    """Averaged over slices and interpolated back, as thick slices are on a finer grid.

    Parameters
    ----------
    image
        ``(x, y, z)``.
    axis
        Across the slices.
    thickness
        Of a slice, voxels; above 1.
    phase
        Where the first one begins, 0..1 of its thickness before the image.
    """
    blur = torch.from_numpy(_thick_slices(image.shape[axis], thickness, phase))
    moved = torch.from_numpy(image)
    if axis == 2:
        return (moved @ blur.T).numpy()
    if axis == 1:
        return torch.matmul(blur, moved).numpy()
    return (blur @ moved.flatten(1)).reshape(image.shape).numpy()


def _thick_slices(extent: int, thickness: float, phase: float) -> Image:
    """``(extent, extent)``: from voxels to slices and back."""
    count = math.ceil(extent / thickness + phase)
    edges = (np.arange(count + 1) - phase) * thickness
    voxels = np.arange(extent)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    averages = np.clip(overlap, 0, None)
    averages = averages[averages.sum(axis=1) > 0]
    averages /= averages.sum(axis=1, keepdims=True)
    centres = averages @ (voxels + 0.5)
    back = np.stack([np.interp(voxels + 0.5, centres, row) for row in np.eye(len(centres))], axis=1)
    return np.asarray(back @ averages, dtype=np.float32)
