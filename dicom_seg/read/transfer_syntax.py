"""The transfer syntaxes that are read, and how each stores pixels (PS3.5 8.2, Annex A)."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"


class PixelEncoding(Enum):
    """How the pixel data of a transfer syntax are laid out."""

    NATIVE_LITTLE_ENDIAN = auto()
    NATIVE_BIG_ENDIAN = auto()
    ENCAPSULATED_UNCOMPRESSED = auto()
    RLE = auto()
    JPEG = auto()  #: baseline, extended and lossless
    JPEG_LS = auto()
    JPEG_2000 = auto()  #: and High-Throughput JPEG 2000


_ENCODINGS: Final = {
    IMPLICIT_VR_LITTLE_ENDIAN: PixelEncoding.NATIVE_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN: PixelEncoding.NATIVE_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN: PixelEncoding.NATIVE_BIG_ENDIAN,
    "1.2.840.10008.1.2.1.98": PixelEncoding.ENCAPSULATED_UNCOMPRESSED,
    "1.2.840.10008.1.2.5": PixelEncoding.RLE,
    "1.2.840.10008.1.2.4.50": PixelEncoding.JPEG,
    "1.2.840.10008.1.2.4.51": PixelEncoding.JPEG,
    "1.2.840.10008.1.2.4.57": PixelEncoding.JPEG,
    "1.2.840.10008.1.2.4.70": PixelEncoding.JPEG,
    "1.2.840.10008.1.2.4.80": PixelEncoding.JPEG_LS,
    "1.2.840.10008.1.2.4.81": PixelEncoding.JPEG_LS,
    "1.2.840.10008.1.2.4.90": PixelEncoding.JPEG_2000,
    "1.2.840.10008.1.2.4.91": PixelEncoding.JPEG_2000,
    "1.2.840.10008.1.2.4.201": PixelEncoding.JPEG_2000,
    "1.2.840.10008.1.2.4.202": PixelEncoding.JPEG_2000,
    "1.2.840.10008.1.2.4.203": PixelEncoding.JPEG_2000,
}
#: Readable transfer syntaxes, in the order of the Standard's families.
READABLE: Final = tuple(_ENCODINGS)

_LOSSY: Final = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_LOSSY_OR_LOSSLESS: Final = frozenset(
    {"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"}
)


def pixel_encoding(transfer_syntax_uid: str) -> PixelEncoding | None:
    """How pixels are laid out; None for a syntax that is not read.

    Deflated syntaxes are not read: a megabyte of them can hold a gigabyte of zeros.
    """
    return _ENCODINGS.get(transfer_syntax_uid)


def is_lossy(transfer_syntax_uid: str, lossy_image_compression: str) -> bool:
    """True if the pixels lost information on their way.

    Parameters
    ----------
    lossy_image_compression
        Lossy Image Compression (0028,2110): "00", "01" or empty (PS3.3 C.7.6.1.1.5). Once
        "01" it stays so, whatever the present syntax. It also decides where the syntax allows
        both.
    """
    if lossy_image_compression == "01" or transfer_syntax_uid in _LOSSY:
        return True
    return transfer_syntax_uid in _LOSSY_OR_LOSSLESS and lossy_image_compression != "00"
