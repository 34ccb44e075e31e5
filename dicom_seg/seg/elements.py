"""Data elements as Explicit VR Little Endian bytes (PS3.5 7.1.2).

A Segmentation repeats the same functional groups for thousands of frames; a general encoder
spends seconds on what is one template.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_seg.codes import CodedTerm

#: Value representations whose length field has 32 bit (PS3.5 Table 7.1-1).
_LONG_VRS: Final = frozenset({"OB", "OV", "OW", "SQ", "UT"})
#: Value representations that are padded with NUL, not with a space (PS3.5 6.2).
_NUL_PADDED: Final = frozenset({"UI", "OB"})
#: Lengths of 32 bit: the highest value means "undefined" (PS3.5 7.1.2).
MAX_LENGTH: Final = 0xFFFFFFFE
UNDEFINED_LENGTH: Final = 0xFFFFFFFF

_ITEM: Final = 0xFFFEE000
_SEQUENCE_DELIMITER: Final = 0xFFFEE0DD
_CODE_VALUE: Final = 0x00080100
_CODING_SCHEME: Final = 0x00080102
_CODE_MEANING: Final = 0x00080104


def _tag(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def header(tag: int, vr: str, length: int) -> bytes:
    """Tag, value representation and length of an element whose value follows."""
    if vr in _LONG_VRS:
        return _tag(tag) + vr.encode() + b"\0\0" + struct.pack("<I", length)
    return _tag(tag) + vr.encode() + struct.pack("<H", length)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element, its value padded to an even length (PS3.5 7.1.1)."""
    if len(value) % 2:
        value += b"\0" if vr in _NUL_PADDED else b" "
    return header(tag, vr, len(value)) + value


def item_header(length: int) -> bytes:
    """Header of an item of defined length (PS3.5 7.5.1)."""
    return _tag(_ITEM) + struct.pack("<I", length)


def sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of defined length; each of ``items`` is the elements of one item."""
    value = b"".join(item_header(len(item)) + item for item in items)
    return header(tag, "SQ", len(value)) + value


def raw_sequence(tag: int, items: Iterable[bytes]) -> RawDataElement:
    """A sequence of such items for a pydicom data set, which writes it as it is."""
    value = b"".join(item_header(len(item)) + item for item in items)
    return RawDataElement(Tag(tag), "SQ", len(value), value, 0, False, True)


def sequence_delimiter() -> bytes:
    """What ends a value of undefined length (PS3.5 7.5.2)."""
    return _tag(_SEQUENCE_DELIMITER) + struct.pack("<I", 0)


def code(tag: int, term: CodedTerm) -> bytes:
    """A code sequence with one item (PS3.3 Table 8.8-1)."""
    return sequence(
        tag,
        element(_CODE_VALUE, "SH", term.value.encode("ascii"))
        + element(_CODING_SCHEME, "SH", term.scheme.encode("ascii"))
        + element(_CODE_MEANING, "LO", term.meaning.encode("ascii")),
    )
