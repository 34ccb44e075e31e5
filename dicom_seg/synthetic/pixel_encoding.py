"""Stored values to Pixel Data in every transfer syntax that CT series come in (PS3.5 8, A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_seg.synthetic.options import PixelFormat
from dicom_seg.synthetic.stored_pixels import StoredArray


class PixelSyntax(StrEnum):
    """Transfer syntaxes that can be written, by UID."""

    IMPLICIT_LITTLE = ImplicitVRLittleEndian
    EXPLICIT_LITTLE = ExplicitVRLittleEndian
    EXPLICIT_BIG = ExplicitVRBigEndian
    RLE = RLELossless
    JPEG_BASELINE = JPEGBaseline8Bit
    JPEG_EXTENDED = JPEGExtended12Bit
    JPEG_LOSSLESS = JPEGLossless
    JPEG_LOSSLESS_SV1 = JPEGLosslessSV1
    JPEG_LS = JPEGLSLossless
    JPEG_LS_NEAR = JPEGLSNearLossless
    JPEG_2000_LOSSLESS = JPEG2000Lossless
    JPEG_2000 = JPEG2000
    HTJ2K_LOSSLESS = HTJ2KLossless
    HTJ2K_LOSSLESS_RPCL = HTJ2KLosslessRPCL
    HTJ2K = HTJ2K

    @property
    def is_native(self) -> bool:
        """True if pixels are not compressed."""
        return self in _NATIVE

    @property
    def lossy_method(self) -> str | None:
        """Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1); None if lossless."""
        return _LOSSY_METHODS.get(self)


_NATIVE = frozenset(
    {PixelSyntax.IMPLICIT_LITTLE, PixelSyntax.EXPLICIT_LITTLE, PixelSyntax.EXPLICIT_BIG}
)
_LOSSY_METHODS = {
    PixelSyntax.JPEG_BASELINE: "ISO_10918_1",
    PixelSyntax.JPEG_EXTENDED: "ISO_10918_1",
    PixelSyntax.JPEG_LS_NEAR: "ISO_14495_1",
    PixelSyntax.JPEG_2000: "ISO_15444_1",
    PixelSyntax.HTJ2K: "ISO_15444_15",
}


def pixel_data(
    frames: Sequence[StoredArray], pixels: PixelFormat, syntax: PixelSyntax, loss: float | None
) -> bytes:
    """The value of Pixel Data, native or encapsulated.

    Parameters
    ----------
    frames
        ``(y, x)`` stored values each.
    loss
        See ``SeriesOptions.loss_level``; None for the default of the syntax.

    Raises
    ------
    ValueError
        If the syntax cannot hold the pixel format.
    """
    if syntax.is_native:
        big = syntax is PixelSyntax.EXPLICIT_BIG
        joined = b"".join(
            f.astype(f.dtype.newbyteorder(">" if big else "<")).tobytes() for f in frames
        )
        return joined + b"\0" * (len(joined) % 2)
    return bytes(encapsulate([encode_frame(f, pixels, syntax, loss) for f in frames]))


def encode_frame(
    frame: StoredArray, pixels: PixelFormat, syntax: PixelSyntax, loss: float | None
) -> bytes:
    """One compressed frame; parameters as for ``pixel_data``."""
    bits = pixels.bits_stored
    codes = _codes(frame, bits)
    if syntax is PixelSyntax.RLE:
        return _rle(frame)
    if syntax in (PixelSyntax.JPEG_BASELINE, PixelSyntax.JPEG_EXTENDED):
        limit = 8 if syntax is PixelSyntax.JPEG_BASELINE else 12
        if bits != limit or pixels.signed:
            raise ValueError(f"{syntax.name} holds {limit} unsigned bits, not {bits}")
        return bytes(imagecodecs.jpeg8_encode(codes, level=int(loss or 95), bitspersample=bits))
    if syntax in (PixelSyntax.JPEG_LOSSLESS, PixelSyntax.JPEG_LOSSLESS_SV1):
        predictor = 1 if syntax is PixelSyntax.JPEG_LOSSLESS_SV1 else 4
        return bytes(
            imagecodecs.jpeg8_encode(codes, lossless=True, predictor=predictor, bitspersample=bits)
        )
    if syntax is PixelSyntax.JPEG_LS:  # of 16 bit precision always: signs extend to it
        return bytes(imagecodecs.jpegls_encode(_codes(frame, pixels.bits_allocated)))
    if syntax is PixelSyntax.JPEG_LS_NEAR:
        if pixels.signed:
            raise ValueError("near-lossless JPEG-LS would wrap signed values around")
        return bytes(imagecodecs.jpegls_encode(codes, level=int(loss or 2)))
    if syntax in (PixelSyntax.JPEG_2000, PixelSyntax.JPEG_2000_LOSSLESS):
        reversible = syntax is PixelSyntax.JPEG_2000_LOSSLESS
        return bytes(
            imagecodecs.jpeg2k_encode(
                frame,
                level=0 if reversible else int(loss or 6 * bits),
                codecformat="j2k",
                reversible=reversible,
                bitspersample=bits,
            )
        )
    if syntax is PixelSyntax.HTJ2K:
        return bytes(imagecodecs.htj2k_encode(frame, level=loss or 1e-5, reversible=False))
    markers = syntax is PixelSyntax.HTJ2K_LOSSLESS_RPCL  # which wants tile-part lengths
    return bytes(imagecodecs.htj2k_encode(frame, reversible=True, tlm=markers))


def _codes(frame: StoredArray, bits: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Stored values as the unsigned bit pattern of ``bits`` bits (PS3.5 8.2.1)."""
    if frame.dtype.itemsize == 1:
        return frame.view(np.uint8)
    return frame.view(np.uint16) & np.uint16((1 << bits) - 1)


def _rle(frame: StoredArray) -> bytes:
    """One segment a byte, most significant first; every row a run of its own (PS3.5 G)."""
    rows = frame.astype(frame.dtype.newbyteorder(">")).view(np.uint8)
    width = frame.dtype.itemsize
    segments: list[bytes] = []
    for byte in range(width):
        packed = bytes(imagecodecs.packbits_encode(np.ascontiguousarray(rows[:, byte::width])))
        segments.append(packed + b"\0" * (len(packed) % 2))
    starts = np.zeros(16, dtype="<u4")
    starts[0] = width
    starts[1 : width + 1] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return starts.tobytes() + b"".join(segments)
