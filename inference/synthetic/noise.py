"""What the scanner adds to the body: blur and noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.geometry import Geometry
from inference.volume import AIR_HU

#: Highest HU of 12 stored bits at the usual intercept.
CEILING_HU = 3071
#: Full width at half maximum of the reconstruction, mm.
_BLUR_MM = 1.6
#: Voxel volume at which the noise is as the traits say, mm3.
_REFERENCE_MM3 = 1.5**3


def scan(
    hu: npt.NDArray[np.int16], geometry: Geometry, noise_hu: float, rng: np.random.Generator
) -> None:
    """Blur each plane of ``hu``, ``(z, y, x)``, and add noise, in place.

    Noise grows as voxels shrink, up to twice ``noise_hu``, and is as smooth within the plane
    as the blur makes it.
    """
    spacing = geometry.spacing_mm
    gain = np.clip(np.sqrt(_REFERENCE_MM3 / np.prod(spacing)), 0.4, 2.0)
    weights = [_kernel(step) for step in spacing[1:]]
    keep = np.prod([np.sqrt((kernel**2).sum()) for kernel in weights])
    sigma = np.float32(noise_hu * gain / keep)
    shape = hu.shape[1:]
    for plane in hu:
        image = rng.standard_normal(shape, dtype=np.float32) * sigma
        image += plane
        for axis, kernel in enumerate(weights):
            image = _smooth(image, kernel, axis)
        np.rint(np.clip(image, AIR_HU, CEILING_HU), out=image)
        plane[...] = image.astype(np.int16)


def _kernel(step_mm: float) -> npt.NDArray[np.float32]:
    """Gaussian taps; one tap where voxels are wider than the blur."""
    sigma = _BLUR_MM / 2.355 / step_mm
    reach = int(np.ceil(2 * sigma)) if sigma > 0.3 else 0
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


def _smooth(
    image: npt.NDArray[np.float32], kernel: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.float32]:
    """Convolve along one axis, the edge pixel continued outward."""
    reach = kernel.size // 2
    if not reach:
        return image
    pad = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
    padded = np.pad(image, pad, mode="edge")
    total = np.zeros_like(image)
    for tap, weight in enumerate(kernel):
        window = slice(tap, tap + image.shape[axis])
        total += weight * (padded[window] if axis == 0 else padded[:, window])
    return total
