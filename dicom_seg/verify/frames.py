"""What each stored frame says of itself: segment, place in mm, source."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dicom_seg.verify.explicit_vr import Span, items, walk
from dicom_seg.verify.stored import StoredSegmentation

_DERIVATION_IMAGE: Final = 0x00089124
_DERIVATION_CODE: Final = 0x00089215
_SOURCE_IMAGE: Final = 0x00082112
_CODE_VALUE: Final = 0x00080100
_REFERENCED_CLASS: Final = 0x00081150
_REFERENCED_INSTANCE: Final = 0x00081155
_REFERENCED_FRAME: Final = 0x00081160
_PURPOSE: Final = 0x0040A170
_FRAME_CONTENT: Final = 0x00209111
_INDEX_VALUES: Final = 0x00209157
_PLANE_POSITION: Final = 0x00209113
_IMAGE_POSITION: Final = 0x00200032
_SEGMENT_IDENTIFICATION: Final = 0x0062000A
_REFERENCED_SEGMENT: Final = 0x0062000B


@dataclass(frozen=True, slots=True)
class SourceReference:
    """The image that a frame says it was derived from."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    purpose: str  #: code value
    derivation: str  #: code value


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One item of Per-Frame Functional Groups Sequence."""

    number: int  #: 1-based
    segment: int | None  #: None where the pixels say it
    position_mm: tuple[float, ...]  #: Image Position (Patient), LPS
    index_values: tuple[int, ...]
    source: SourceReference


class FrameReader:
    """Reads the items of one object; what repeats from plane to plane is parsed once."""

    def __init__(self, stored: StoredSegmentation) -> None:
        self._stored = stored
        self._data = stored.data
        self._sources: dict[bytes, SourceReference] = {}
        self._positions: dict[bytes, tuple[float, ...]] = {}

    def frames(self) -> Iterator[StoredFrame]:
        """The frames, in order.

        Raises
        ------
        KeyError
            If a functional group is missing.
        ValueError
            If one is malformed.
        """
        for number, item in enumerate(self._stored.frame_items, start=1):
            groups = walk(self._data, item.start, item.stop)
            segment = None
            if _SEGMENT_IDENTIFICATION in groups:
                identification = self._only_item(groups[_SEGMENT_IDENTIFICATION])
                segment = struct.unpack("<H", self._bytes(identification[_REFERENCED_SEGMENT]))[0]
            content = self._only_item(groups[_FRAME_CONTENT])
            index_values = self._bytes(content[_INDEX_VALUES])
            yield StoredFrame(
                number=number,
                segment=segment,
                position_mm=self._position(groups[_PLANE_POSITION]),
                index_values=struct.unpack(f"<{len(index_values) // 4}I", index_values),
                source=self._source(groups[_DERIVATION_IMAGE]),
            )

    def _bytes(self, span: Span) -> bytes:
        return self._data[span.start : span.stop]

    def _text(self, span: Span) -> str:
        return self._bytes(span).decode("ascii").strip(" \0")

    def _only_item(self, sequence: Span) -> dict[int, Span]:
        (item,) = items(self._data, sequence)
        return walk(self._data, item.start, item.stop)

    def _code_value(self, sequence: Span) -> str:
        return self._text(self._only_item(sequence)[_CODE_VALUE])

    def _position(self, sequence: Span) -> tuple[float, ...]:
        key = self._bytes(sequence)
        if key not in self._positions:
            text = self._text(self._only_item(sequence)[_IMAGE_POSITION])
            self._positions[key] = tuple(float(value) for value in text.split("\\"))
        return self._positions[key]

    def _source(self, sequence: Span) -> SourceReference:
        key = self._bytes(sequence)
        if key not in self._sources:
            derivation = self._only_item(sequence)
            image = self._only_item(derivation[_SOURCE_IMAGE])
            frame = image.get(_REFERENCED_FRAME)
            self._sources[key] = SourceReference(
                sop_class_uid=self._text(image[_REFERENCED_CLASS]),
                sop_instance_uid=self._text(image[_REFERENCED_INSTANCE]),
                frame_number=None if frame is None else int(self._text(frame)),
                purpose=self._code_value(image[_PURPOSE]),
                derivation=self._code_value(derivation[_DERIVATION_CODE]),
            )
        return self._sources[key]
