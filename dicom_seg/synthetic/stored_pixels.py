"""Hounsfield units to stored values, as a scanner would store them (PS3.3 C.7.6.3, C.11.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dicom_seg.synthetic.options import PixelFormat
from inference.volume import PADDING_HU

#: Stored values in the width that is allocated.
StoredArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int16]


def stored_plane(
    hu: npt.NDArray[np.int16], pixels: PixelFormat, rescale: tuple[float, float]
) -> StoredArray:
    """Stored values of one plane.

    Measured voxels are rounded to the nearest stored value, clipped to the format and kept
    clear of padding at its ends; ``PADDING_HU`` becomes padding, spread over its whole range.

    Parameters
    ----------
    hu
        ``(y, x)``, Hounsfield units.
    rescale
        Slope and intercept.

    Raises
    ------
    ValueError
        If a measured voxel would be stored as a padding value.
    """
    slope, intercept = rescale
    low, high = pixels.stored_range
    if pixels.padding is not None:
        if pixels.padding[0] == low:
            low = pixels.padding[1] + 1
        elif pixels.padding[1] == high:
            high = pixels.padding[0] - 1
    stored = np.clip(np.rint((hu.astype(np.float64) - intercept) / slope), low, high)
    if pixels.padding is not None:
        first, last = pixels.padding
        missing = hu == PADDING_HU
        if ((stored >= first) & (stored <= last) & ~missing).any():
            raise ValueError(f"measured voxels would be stored as padding {pixels.padding}")
        stored[missing] = first + np.arange(np.count_nonzero(missing)) % (last - first + 1)
    if pixels.bits_allocated == 8:
        return stored.astype(np.int8).view(np.uint8) if pixels.signed else stored.astype(np.uint8)
    if pixels.signed:
        return stored.astype(np.int16)
    return stored.astype(np.uint16)
