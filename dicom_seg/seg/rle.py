"""RLE Lossless frames of one byte a pixel (PS3.5 Annex G)."""

from __future__ import annotations

import struct
from typing import Final

import imagecodecs
import numpy as np
import numpy.typing as npt

#: Number of segments, their offsets from the start of the header (PS3.5 G.5).
_HEADER: Final = struct.Struct("<16I")


def encode_frame(pixels: npt.NDArray[np.uint8], above: int = 0, below: int = 0) -> bytes:
    """``(y, x)`` pixels as one RLE frame of even length; rows are encoded one by one (G.3.1).

    ``above`` and ``below`` say how many rows of zeros belong before and after ``pixels``.
    """
    zeros = np.zeros((1, pixels.shape[1]), dtype=np.uint8)
    empty = bytes(imagecodecs.packbits_encode(zeros))
    rows = bytes(imagecodecs.packbits_encode(np.ascontiguousarray(pixels))) if pixels.size else b""
    segment = empty * above + rows + empty * below
    padding = b"\0" * (len(segment) % 2)
    return _HEADER.pack(1, _HEADER.size, *[0] * 14) + segment + padding
