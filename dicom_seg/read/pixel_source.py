"""What an instance says of its pixels, checked before any of them is read (PS3.3 C.7.6.3)."""

from __future__ import annotations

from typing import Final

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.attributes import Attributes
from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.header import FileHeader
from dicom_seg.read.slice_table import PixelSource
from dicom_seg.read.transfer_syntax import PixelEncoding, pixel_encoding
from inference.reasons import Reason

_NATIVE: Final = (PixelEncoding.NATIVE_LITTLE_ENDIAN, PixelEncoding.NATIVE_BIG_ENDIAN)
_WORD_BITS: Final = 16


def matrix_of(image: Attributes, rules: SeriesRules, instance: str) -> tuple[int, int]:
    """Rows and columns.

    Raises
    ------
    SeriesRefusedError
        `missing-geometry` if one is missing or not an unsigned short, `too-large` beyond the
        limit of ``rules``.
    """
    extents = []
    for keyword in ("Rows", "Columns"):
        extent = image.integer(keyword, vr="US")
        if extent is None or extent < 1:
            raise SeriesRefusedError(
                Reason.MISSING_GEOMETRY, f"{keyword} is missing or impossible in {instance}"
            )
        if extent > rules.max_matrix:
            raise SeriesRefusedError(
                Reason.TOO_LARGE, f"{keyword} {extent} exceeds {rules.max_matrix} in {instance}"
            )
        extents.append(extent)
    return extents[0], extents[1]


def pixel_source(
    header: FileHeader, image: Attributes, frames: int, rules: SeriesRules, instance: str
) -> PixelSource:
    """Where the pixels of an instance lie and how they are stored.

    Raises
    ------
    SeriesRefusedError
        `corrupt-pixel-data` if there are none, too few, or their format is not that of a CT;
        `too-large` beyond the limits of ``rules``.
    """
    if header.pixels is None:
        raise SeriesRefusedError(Reason.CORRUPT_PIXEL_DATA, f"no pixel data in {instance}")
    rows, columns = matrix_of(image, rules, instance)
    if rows * columns * frames > rules.max_voxels:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"{frames} frames of {rows} x {columns} exceed {rules.max_voxels} voxels in {instance}",
        )
    bits = {
        keyword: image.integer(keyword, vr="US")
        for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    }
    allocated, stored, high_bit = bits["BitsAllocated"], bits["BitsStored"], bits["HighBit"]
    representation = bits["PixelRepresentation"]
    if high_bit is None and stored is not None:
        high_bit = stored - 1
    samples = image.integer("SamplesPerPixel")
    if (
        allocated not in (8, _WORD_BITS)
        or stored is None
        or high_bit is None
        or not 1 <= stored <= high_bit + 1 <= allocated
        or representation not in (0, 1)
        or samples not in (None, 1)
    ):
        raise SeriesRefusedError(
            Reason.CORRUPT_PIXEL_DATA, f"pixel format {bits}, {samples} samples in {instance}"
        )
    source = PixelSource(
        offset=header.pixels.offset,
        length=header.pixels.length,
        frames=frames,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=representation == 1,
    )
    _check_length(header, source, rows * columns, instance)
    return source


def _check_length(header: FileHeader, source: PixelSource, pixels: int, instance: str) -> None:
    """Refuse pixel data that are shorter than they say, or than their frames need."""
    native = pixel_encoding(header.transfer_syntax_uid) in _NATIVE
    if native != (source.length is not None):
        raise SeriesRefusedError(
            Reason.CORRUPT_PIXEL_DATA,
            f"the length of Pixel Data contradicts its transfer syntax in {instance}",
        )
    if source.length is None:
        return
    needed = pixels * source.frames * source.bits_allocated // 8
    present = min(source.length, header.stamp.size_bytes - source.offset)
    if present < needed:
        raise SeriesRefusedError(
            Reason.CORRUPT_PIXEL_DATA, f"{present} of {needed} bytes of pixels in {instance}"
        )
