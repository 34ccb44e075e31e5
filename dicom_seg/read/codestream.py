"""What a compressed frame says of itself, read before a codec is let at it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_START_OF_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  "
_SIZ: Final = struct.Struct(">HHIIIIIIIIHB")
_END_OF_IMAGE: Final = b"\xff\xd9"
#: SOF0..SOF15 without DHT, JPG and DAC (ITU-T T.81 B.1.1.3), and SOF55 of JPEG-LS (T.87 C.2).
_JPEG_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN: Final = 0xDA


class CodestreamError(ValueError):
    """A compressed frame that is not what its transfer syntax says, or not all of it."""


@dataclass(frozen=True, slots=True)
class CodestreamHeader:
    """Size and sample format of a compressed frame."""

    rows: int
    columns: int
    components: int
    precision: int  #: bits a sample
    signed: bool  #: JPEG 2000 only


def jpeg_header(data: bytes) -> CodestreamHeader:
    """Frame header of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2, T.87 C.2.2).

    Raises
    ------
    CodestreamError
        If there is no frame header, or the end of the image is missing: decoders fill what is
        cut off with grey and do not say so.
    """
    if data[:2] != b"\xff\xd8":
        raise CodestreamError("no JPEG stream")
    if not data[-64:].rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise CodestreamError("the JPEG stream is cut off")
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker == _START_OF_SCAN:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAMES:
            if position + 10 > len(data):
                break
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            return CodestreamHeader(rows, columns, components, precision, signed=False)
        position += 2 + length
    raise CodestreamError("no frame header in the JPEG stream")


def jpeg2000_header(data: bytes) -> CodestreamHeader:
    """SIZ segment of a JPEG 2000 codestream, bare or in a JP2 file (ITU-T T.800 A.5.1).

    Raises
    ------
    CodestreamError
        If there is none, or it is cut off.
    """
    start = 0
    if data.startswith(_JP2_SIGNATURE):
        start = data.find(_START_OF_CODESTREAM, 0, 1 << 16)
    if start < 0 or not data.startswith(_START_OF_CODESTREAM, start):
        raise CodestreamError("no JPEG 2000 codestream")
    if len(data) < start + 4 + _SIZ.size:
        raise CodestreamError("the JPEG 2000 codestream is cut off")
    _, _, x_end, y_end, x_start, y_start, *_, components, sample = _SIZ.unpack_from(data, start + 4)
    return CodestreamHeader(
        rows=y_end - y_start,
        columns=x_end - x_start,
        components=components,
        precision=(sample & 0x7F) + 1,
        signed=bool(sample & 0x80),
    )
