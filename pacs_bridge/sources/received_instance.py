"""One file that an archive gave: which instance it is, and whether it is there to its end.

An instance that breaks off within its pixels still parses, and only its decoding would fail,
hours later and for good. Here it is told while the archive can be asked again.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_dataset

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.attributes import Attributes, tag_of
from dicom_seg.read.header import FileHeader, PixelElement, scan_header
from dicom_seg.read.kind import CT_SOP_CLASSES
from dicom_seg.read.transfer_syntax import PixelEncoding, pixel_encoding
from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.receive.header import is_valid_uid

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_GROUP = 0x0002
_MOST_META_BYTES = 64 * 1024
_TAGS = tuple(
    tag_of(keyword)
    for keyword in (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
        "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    )
)  # fmt: skip
_ITEM = 0xE000FFFE  # (FFFE,E000) as it stands in little endian, group first
_ITEM_HEADER = struct.Struct("<II")
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
_TAIL_BYTES = 16
#: More than any image of a CT is made of; what has more is for the decoder to refuse.
_MOST_FRAGMENTS = 4096
_MOST_FRAGMENTS_A_FRAME = 64


class CutInstanceError(TransientError):
    """An instance that breaks off; asked for again, it may come whole."""


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedInstance:
    """What a Part 10 file says of itself."""

    header: FileHeader

    @classmethod
    def of(cls, path: Path) -> ReceivedInstance:
        """Read the header of a file.

        Raises
        ------
        CutInstanceError
            ``source-incomplete`` if it ends before its pixels begin, or cannot be read that far.
        PermanentError
            ``bad-answer`` if it is no DICOM file or names no instance; ``unsupported-syntax`` or
            ``too-large`` as the header is.
        OSError
            If the disk fails.
        """
        _check_meta(path)
        try:
            header = scan_header(path, _TAGS)
        except SeriesRefusedError as error:
            raise _unread(error) from None
        instance = cls(header)
        if not is_valid_uid(instance.sop_instance_uid):
            raise PermanentError(Reason.BAD_ANSWER, "an instance without a valid SOP Instance UID")
        return instance

    @property
    def sop_instance_uid(self) -> str:
        """Of the data set, as all of these."""
        return self._text("SOPInstanceUID")

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID."""
        return self._text("SeriesInstanceUID")

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID."""
        return self._text("StudyInstanceUID")

    def check_whole(self) -> None:
        """Look whether all pixels of a CT image are there; nothing is decoded.

        Raises
        ------
        CutInstanceError
            ``source-incomplete`` if the file ends before its pixels do.
        PermanentError
            ``corrupt-pixel-data`` if there are none, or fewer than Rows, Columns and frames need
            though they are as long as they say: that is how the archive has them.
        OSError
            If the disk fails.
        """
        if self._text("SOPClassUID") not in CT_SOP_CLASSES:
            return
        pixels = self.header.pixels
        if pixels is None:
            raise self._corrupt("has no pixel data")
        if pixels.length is None:
            self._check_fragments(pixels)
            return
        present_bytes = self.header.stamp.size_bytes - pixels.offset
        needed_bytes = self._needed_bytes() or pixels.length
        if min(present_bytes, pixels.length) >= needed_bytes:
            return
        if present_bytes < pixels.length:
            raise self._cut(f"{present_bytes} of {pixels.length} bytes of pixels")
        raise self._corrupt(f"has {pixels.length} of {needed_bytes} bytes of pixels")

    def _needed_bytes(self) -> int | None:
        """Of all frames; None where the header does not say it, or says that it is coloured."""
        image = Attributes(self.header.dataset)
        rows, columns = image.integer("Rows"), image.integer("Columns")
        bits = image.integer("BitsAllocated")
        is_grey = image.integer("SamplesPerPixel") in (None, 1)
        if not (rows and columns and bits and is_grey) or min(rows, columns, bits) < 0:
            return None
        return (rows * columns * self._frames() * bits + 7) // 8

    def _frames(self) -> int:
        return max(Attributes(self.header.dataset).integer("NumberOfFrames") or 1, 1)

    def _check_fragments(self, pixels: PixelElement) -> None:
        """Walk over the items of encapsulated pixels to their delimiter (PS3.5 A.4)."""
        frames = self._frames()
        size_bytes = self.header.stamp.size_bytes
        at, fragments = pixels.offset, -1  # the first item is the offset table
        with self.header.path.open("rb") as file:
            while fragments <= _MOST_FRAGMENTS + _MOST_FRAGMENTS_A_FRAME * frames:
                file.seek(at)
                head = file.read(_ITEM_HEADER.size)
                if len(head) < _ITEM_HEADER.size:
                    break
                tag, length = _ITEM_HEADER.unpack(head)
                if tag != _ITEM:
                    return  # the delimiter; what it may be else is refused by its decoding
                at += _ITEM_HEADER.size + length
                fragments += 1
                if at > size_bytes:
                    raise self._cut(f"fragment {fragments} breaks off")
            else:
                return
            file.seek(max(at - _TAIL_BYTES, pixels.offset))
            tail = file.read(_TAIL_BYTES)
        if at != size_bytes or fragments < frames or not self._is_ended(tail):
            raise self._cut(f"{max(fragments, 0)} fragments for {frames} frames, and no end")

    def _is_ended(self, tail: bytes) -> bool:
        """Whether the last fragment ends an image: some writers leave the delimiter out."""
        is_rle = pixel_encoding(self.header.transfer_syntax_uid) is PixelEncoding.RLE
        return is_rle or tail.rstrip(b"\0").endswith(_END_OF_IMAGE)

    def _text(self, keyword: str) -> str:
        return Attributes(self.header.dataset).text(keyword)

    def _cut(self, what: str) -> CutInstanceError:
        return CutInstanceError(
            Reason.SOURCE_INCOMPLETE, f"instance {self.sop_instance_uid} broke off: {what}"
        )

    def _corrupt(self, what: str) -> PermanentError:
        return PermanentError(Reason.CORRUPT_PIXEL_DATA, f"instance {self.sop_instance_uid} {what}")


def _check_meta(path: Path) -> None:
    """Refuse what has no file meta information with a transfer syntax (PS3.10 7.1)."""
    with path.open("rb") as file:
        head = file.read(_MOST_META_BYTES)
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + len(_PREFIX)] != _PREFIX:
        raise PermanentError(Reason.BAD_ANSWER, "an instance that is no DICOM file")
    try:
        meta = read_dataset(
            io.BytesIO(head[_PREAMBLE_BYTES + len(_PREFIX) :]),
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP,
        )
        syntax = str(meta["TransferSyntaxUID"].value)
    except Exception as error:  # the parser throws whatever hostile bytes lead it to
        kind = type(error).__name__
        raise PermanentError(Reason.BAD_ANSWER, f"an instance not to be read: {kind}") from None
    if not syntax:
        raise PermanentError(Reason.BAD_ANSWER, "an instance without a transfer syntax")


def _unread(error: SeriesRefusedError) -> BridgeError:
    """Why a header cannot be read, to whoever asked for the instance."""
    if error.reason is Reason.UNREADABLE_FILE:
        return CutInstanceError(
            Reason.SOURCE_INCOMPLETE, f"an instance broke off in its header: {error.detail}"
        )
    if error.reason is Reason.NO_DICOM:
        return PermanentError(Reason.BAD_ANSWER, "an instance that is no DICOM file")
    return PermanentError(error.reason, f"an instance: {error.detail}")
