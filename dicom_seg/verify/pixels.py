"""Decodes the frames of a stored Segmentation."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.uid import RLELossless

from dicom_seg.errors import VerificationError
from dicom_seg.verify.explicit_vr import items
from dicom_seg.verify.stored import StoredSegmentation


class FramePixels:
    """Pixels by frame number, of an object whose attributes say how they are stored.

    Raises
    ------
    VerificationError
        If Pixel Data are not as long as the attributes say.
    """

    def __init__(self, stored: StoredSegmentation) -> None:
        attributes = stored.attributes
        self._data = stored.data
        self._shape = (int(attributes.Rows), int(attributes.Columns))
        self._bits = int(attributes.BitsAllocated)
        self._start = stored.pixels.start
        self._fragments = []
        frames = len(stored.frame_items)
        if stored.meta.TransferSyntaxUID == RLELossless:
            self._fragments = items(stored.data, stored.pixels)[1:]
            if len(self._fragments) != frames:
                raise VerificationError(f"{len(self._fragments)} fragments for {frames} frames")
            return
        expected = (frames * self._shape[0] * self._shape[1] * self._bits + 7) // 8
        length = stored.pixels.stop - stored.pixels.start
        if length != expected + expected % 2:
            raise VerificationError(f"Pixel Data has {length} bytes, not {expected}")

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """``(y, x)`` values of a frame, 1-based: 0 or 1, or segment numbers."""
        pixels = self._shape[0] * self._shape[1]
        if self._fragments:
            fragment = self._fragments[number - 1]
            encoded = self._data[fragment.start : fragment.stop]
            decoded = imagecodecs.dicomrle_decode(encoded, dtype=np.uint8)
            return np.frombuffer(decoded, dtype=np.uint8).reshape(self._shape)
        first_bit = (number - 1) * pixels * self._bits
        first, shift = divmod(first_bit, 8)
        last = (first_bit + pixels * self._bits + 7) // 8
        stored = np.frombuffer(self._data[self._start + first : self._start + last], np.uint8)
        if self._bits == 8:
            return stored.reshape(self._shape)
        bits = np.unpackbits(stored, bitorder="little")
        return bits[shift : shift + pixels].reshape(self._shape)
