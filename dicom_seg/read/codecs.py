"""Compressed frames to words, with codecs that release the interpreter lock."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt

from dicom_seg.read.codestream import CodestreamHeader, jpeg2000_header, jpeg_header
from dicom_seg.read.transfer_syntax import PixelEncoding

#: Number of segments and their offsets from the start of the frame (PS3.5 G.5).
_RLE_HEADER: Final = struct.Struct("<16I")
#: Encoders pad segments; more than this behind the last pixel is not padding.
_RLE_SLACK_BYTES: Final = 128


class CodecError(ValueError):
    """A frame that cannot be decoded to the matrix that the header promises."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """Samples of one frame as their codec gives them."""

    samples: npt.NDArray[np.integer[Any]]  #: ``(y, x)``, 8 or 16 bit
    precision: int  #: bits that hold a sample


def decode_frame(
    data: bytes, encoding: PixelEncoding, shape: tuple[int, int], bits_allocated: int
) -> DecodedFrame:
    """Decode one frame of ``shape`` (rows, columns).

    Raises
    ------
    CodecError
        If the frame is not of this shape, or the codec refuses it. Other errors of a codec
        come as they are: the caller names the instance.
    CodestreamError
        If the stream is no stream, or cut off.
    """
    if encoding is PixelEncoding.ENCAPSULATED_UNCOMPRESSED:
        return DecodedFrame(_uncompressed(data, shape, bits_allocated), bits_allocated)
    if encoding is PixelEncoding.RLE:
        return DecodedFrame(_run_length(data, shape, bits_allocated), bits_allocated)
    read_header, decode = _CODECS[encoding]
    header = read_header(data)
    if (header.rows, header.columns, header.components) != (*shape, 1):
        raise CodecError(
            f"a codestream of {header.rows} x {header.columns} x {header.components}"
            f" for a matrix of {shape[0]} x {shape[1]}"
        )
    if not 2 <= header.precision <= 16:
        raise CodecError(f"a codestream of {header.precision} bits")
    samples: npt.NDArray[Any] = np.asarray(decode(data))
    if samples.shape != shape or samples.dtype.kind not in "iu" or samples.dtype.itemsize > 2:
        raise CodecError(f"decoded to {samples.shape} {samples.dtype}")
    return DecodedFrame(samples, header.precision)


def _jpeg2000(data: bytes) -> object:
    return imagecodecs.jpeg2k_decode(data, numthreads=1)


_CODECS: Final[
    dict[PixelEncoding, tuple[Callable[[bytes], CodestreamHeader], Callable[[bytes], object]]]
] = {
    PixelEncoding.JPEG: (jpeg_header, imagecodecs.jpeg8_decode),
    PixelEncoding.JPEG_LS: (jpeg_header, imagecodecs.jpegls_decode),
    PixelEncoding.JPEG_2000: (jpeg2000_header, _jpeg2000),
}


def _uncompressed(data: bytes, shape: tuple[int, int], bits: int) -> npt.NDArray[np.integer[Any]]:
    """PS3.5 A.4.11."""
    dtype: np.dtype[Any] = np.dtype("<u2") if bits == 16 else np.dtype(np.uint8)
    count = shape[0] * shape[1]
    if len(data) < count * dtype.itemsize:
        raise CodecError(f"{len(data)} of {count * dtype.itemsize} bytes")
    return np.frombuffer(data, dtype, count).reshape(shape)


def _run_length(data: bytes, shape: tuple[int, int], bits: int) -> npt.NDArray[np.integer[Any]]:
    """PS3.5 Annex G: one segment a byte of the pixel, the most significant first."""
    count = bits // 8
    if len(data) < _RLE_HEADER.size:
        raise CodecError("the RLE header is cut off")
    segments, *offsets = _RLE_HEADER.unpack_from(data)
    if segments != count:
        raise CodecError(f"{segments} RLE segments for {count} bytes a pixel")
    pixels = shape[0] * shape[1]
    words = np.empty((pixels, count), np.uint8)
    scratch = memoryview(bytearray(pixels + _RLE_SLACK_BYTES))
    ends = [*offsets[1:count], len(data)]
    for i, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        if not _RLE_HEADER.size <= start <= end <= len(data):
            raise CodecError("RLE segments out of order")
        decoded = imagecodecs.packbits_decode(data[start:end], out=scratch)
        if len(decoded) < pixels:
            raise CodecError(f"an RLE segment of {len(decoded)} of {pixels} pixels")
        words[:, count - 1 - i] = np.frombuffer(decoded, np.uint8, pixels)
    return words.view("<u2" if count == 2 else np.uint8).reshape(shape)
