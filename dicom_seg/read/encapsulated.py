"""Frames of encapsulated pixel data: which fragments belong to which frame (PS3.5 A.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from dicom_seg.read.slice_table import PixelSource

_ITEM: Final = 0xE000FFFE  # (FFFE,E000) as it stands in little endian, group first
_DELIMITER: Final = 0xE0DDFFFE
_HEADER: Final = struct.Struct("<II")
#: First bytes of a JPEG or JPEG-LS, a JPEG 2000 codestream, and a JP2 file.
_FIRST_BYTES: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
_MAX_FRAGMENTS_A_FRAME: Final = 64
_MAX_FRAGMENTS: Final = 4096


class EncapsulationError(ValueError):
    """Fragments that do not make the frames that the header promises."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One item of encapsulated pixel data."""

    offset: int  #: of its value, from the start of the file
    length: int  #: bytes


def frame_fragments(file: BinaryIO, source: PixelSource) -> list[tuple[Fragment, ...]]:
    """Fragments of each frame, in the order of frames.

    Raises
    ------
    EncapsulationError
        If items are cut off, or cannot be told apart into frames.
    """
    table, fragments = _items(file, source)
    if len(fragments) == source.frames:
        return [(fragment,) for fragment in fragments]
    if source.frames == 1 and fragments:
        return [tuple(fragments)]
    starts = _starts_by_table(table, fragments) or _starts_by_content(file, fragments)
    if len(starts) != source.frames:
        raise EncapsulationError(f"{len(fragments)} fragments for {source.frames} frames")
    ends = [*starts[1:], len(fragments)]
    return [tuple(fragments[start:end]) for start, end in zip(starts, ends, strict=True)]


def read_frame(file: BinaryIO, fragments: tuple[Fragment, ...], most_bytes: int) -> bytes:
    """The bytes of one frame.

    Raises
    ------
    EncapsulationError
        If the file ends before, or the frame is longer than ``most_bytes``.
    """
    if sum(fragment.length for fragment in fragments) > most_bytes:
        raise EncapsulationError(f"a compressed frame of more than {most_bytes} bytes")
    parts = []
    for fragment in fragments:
        file.seek(fragment.offset)
        part = file.read(fragment.length)
        if len(part) < fragment.length:
            raise EncapsulationError("a fragment is cut off")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _items(file: BinaryIO, source: PixelSource) -> tuple[bytes, list[Fragment]]:
    """Value of the Basic Offset Table, and the fragments behind it."""
    most = _MAX_FRAGMENTS + _MAX_FRAGMENTS_A_FRAME * source.frames
    items: list[Fragment] = []
    offset = source.offset
    while len(items) <= most:
        file.seek(offset)
        header = file.read(_HEADER.size)
        if not header and items:
            break  # complete but for its delimiter: the codec will tell
        if len(header) < _HEADER.size:
            raise EncapsulationError("the pixel data are cut off")
        tag, length = _HEADER.unpack(header)
        if tag == _DELIMITER:
            break
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise EncapsulationError("the pixel data hold something else than items")
        items.append(Fragment(offset + _HEADER.size, length))
        offset += _HEADER.size + length
    else:
        raise EncapsulationError(f"more than {most} fragments")
    if not items:
        raise EncapsulationError("no offset table")
    table, *fragments = items
    file.seek(table.offset)
    return file.read(min(table.length, 4 * source.frames)), fragments


def _starts_by_table(table: bytes, fragments: list[Fragment]) -> list[int]:
    """Index of the first fragment of each frame, by the Basic Offset Table; empty if it fails."""
    if not table or len(table) % 4 or not fragments:
        return []
    base = fragments[0].offset
    index_at = {fragment.offset - base: i for i, fragment in enumerate(fragments)}
    starts = [index_at.get(offset) for (offset,) in struct.iter_unpack("<I", table)]
    known = [start for start in starts if start is not None]
    in_order = len(known) == len(starts) and known[0] == 0 and known == sorted(set(known))
    return known if in_order else []


def _starts_by_content(file: BinaryIO, fragments: list[Fragment]) -> list[int]:
    """Index of each fragment that starts like a compressed image."""
    starts = []
    for i, fragment in enumerate(fragments):
        file.seek(fragment.offset)
        if file.read(12).startswith(_FIRST_BYTES):
            starts.append(i)
    return starts if starts[:1] == [0] else []
