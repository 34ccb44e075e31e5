"""Walks data elements of Explicit VR Little Endian, without decoding what nobody asks for.

A Segmentation has tens of thousands of small elements in its per-frame functional groups; a
general parser makes an object of each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap
from typing import Final

#: What is walked: a whole file mapped into memory, or a part of one.
Buffer = bytes | mmap

_LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"})
_LONG_TEXT_VRS: Final = frozenset({b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITER: Final = 0xFFFEE00D
_SEQUENCE_DELIMITER: Final = 0xFFFEE0DD


class MalformedError(ValueError):
    """The bytes are not Explicit VR Little Endian."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value is: ``start`` up to, not including, ``stop``."""

    start: int
    stop: int
    begin: int  #: of the element itself: its tag
    encapsulated: bool = False  #: of undefined length


def walk(buffer: Buffer, start: int, stop: int) -> dict[int, Span]:
    """Elements of a data set or item by tag; ends early at an item delimiter.

    Raises
    ------
    MalformedError
        If an element leaves the range.
    """
    found = {}
    position = start
    while position < stop:
        group, number = struct.unpack_from("<HH", buffer, position)
        tag = group << 16 | number
        if tag == _ITEM_DELIMITER:
            break
        span = _value(buffer, position, stop)
        found[tag] = span
        position = span.stop + (8 if span.encapsulated else 0)
    return found


def items(buffer: Buffer, sequence: Span) -> list[Span]:
    """The items of a sequence, or the fragments of encapsulated pixel data.

    Raises
    ------
    MalformedError
        If something else than items is there.
    """
    found = []
    position = sequence.start
    while position < sequence.stop:
        group, number, length = struct.unpack_from("<HHI", buffer, position)
        if group << 16 | number != _ITEM:
            raise MalformedError(f"no item at byte {position}")
        start = position + 8
        if length == _UNDEFINED:
            stop = _end_of_item(buffer, start, sequence.stop)
            found.append(Span(start, stop, position, encapsulated=True))
            position = stop + 8
        else:
            found.append(Span(start, start + length, position))
            position = start + length
    if position != sequence.stop:
        raise MalformedError(f"an item ends beyond its sequence at byte {position}")
    return found


def _value(buffer: Buffer, position: int, limit: int) -> Span:
    vr = bytes(buffer[position + 4 : position + 6])
    if vr in _LONG_VRS or vr in _LONG_TEXT_VRS:
        start = position + 12
        length = struct.unpack_from("<I", buffer, position + 8)[0]
    else:
        start = position + 8
        length = struct.unpack_from("<H", buffer, position + 6)[0]
    if length == _UNDEFINED:
        return Span(start, _end_of_sequence(buffer, start, limit), position, encapsulated=True)
    if start + length > limit:
        raise MalformedError(f"an element ends beyond its data set at byte {position}")
    return Span(start, start + length, position)


def _end_of_sequence(buffer: Buffer, position: int, limit: int) -> int:
    """Where the delimiter of a sequence of undefined length begins."""
    while position + 8 <= limit:
        group, number, length = struct.unpack_from("<HHI", buffer, position)
        tag = group << 16 | number
        if tag == _SEQUENCE_DELIMITER:
            return position
        if tag != _ITEM:
            break
        position += 8
        position = (
            _end_of_item(buffer, position, limit) + 8 if length == _UNDEFINED else position + length
        )
    raise MalformedError(f"a sequence does not end: byte {position}")


def _end_of_item(buffer: Buffer, position: int, limit: int) -> int:
    """Where the delimiter of an item of undefined length begins."""
    while position + 8 <= limit:
        group, number = struct.unpack_from("<HH", buffer, position)
        if group << 16 | number == _ITEM_DELIMITER:
            return position
        span = _value(buffer, position, limit)
        position = span.stop + (8 if span.encapsulated else 0)
    raise MalformedError(f"an item does not end: byte {position}")
