"""Reading the header of a file that may hold anything.

Whatever the bytes, either a header or one of a closed set of reasons comes out. Nothing is
inflated, no pixel is read, and a file name is never built from a tag, nor told in an error: it
may be the name of a patient.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import VR
from pydicom.values import converters

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.attributes import Attributes
from dicom_seg.read.transfer_syntax import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    pixel_encoding,
)
from inference.file_stamp import FileStamp
from inference.reasons import Reason

_PREAMBLE_BYTES: Final = 128
_MAGIC: Final = b"DICM"
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
#: Float, Double Float and integer Pixel Data.
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
#: A header that does not fit one step is read again with the next, and then given up.
_READ_STEPS_BYTES: Final = (1 << 16, 1 << 20, 1 << 24)
#: Items of sequences in one header: pydicom makes a data set of about 1.5 KB of each.
_MAX_ITEMS: Final = 200_000
_ITEM_TAGS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_MAX_DEPTH: Final = 32
_ELEMENT_HEADER_BYTES: Final = 8
_DICOM_SUFFIXES: Final = frozenset({".dcm", ".dicom", ".ima"})


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The Pixel Data element of a file."""

    offset: int  #: of the first byte of its value, from the start of the file
    length: int | None  #: bytes; None if undefined, that is encapsulated


@dataclass(frozen=True, slots=True, eq=False)
class FileHeader:
    """What stands before the pixel data of one file."""

    path: Path
    stamp: FileStamp
    transfer_syntax_uid: str
    media_storage_sop_class_uid: str  #: of the file meta information; empty if unknown
    dataset_offset: int  #: where the data set starts, behind preamble and file meta
    dataset: Dataset  #: with ``file_meta``
    pixels: PixelElement | None


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let pydicom read odd values without warning: its warnings quote them."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path) -> Dataset:
    """Everything before the pixel data, every value of it readable.

    Elements whose value cannot be converted are left out, so that a use of the header cannot
    fail later for an attribute that nobody needs. What is left stays as it is stored, but for
    sequences: read values through `decoded` where the stored bytes are needed again.

    Raises
    ------
    SeriesRefusedError
        With `no-dicom`, `unreadable-file`, `unsupported-syntax` or `too-large`; nothing else
        comes out, whatever the bytes.
    """
    with quiet_pydicom():
        dataset = scan_header(path).dataset
        try:
            _drop_unreadable(dataset, depth=0)
            _drop_unreadable(dataset.file_meta, depth=0)
        except Exception as error:
            raise _unreadable(type(error).__name__) from None
    return dataset


def decoded(dataset: Dataset, keyword: str) -> object:
    """The value of an attribute, None where there is none; its element stays as it is stored.

    pydicom puts what it decoded in the place of the stored bytes: letters that the character
    set does not know are lost by looking at them.
    """
    stored = dataset.get_item(keyword)
    value: object = dataset.get(keyword)
    if isinstance(stored, RawDataElement):
        dataset[stored.tag] = stored
    return value


def scan_header(path: Path, tags: Sequence[int] | None = None) -> FileHeader:
    """Read the header of ``path``, or of it only ``tags``; values are converted on access.

    Parameters
    ----------
    tags
        Top-level tags that are wanted; None for all.

    Raises
    ------
    SeriesRefusedError
        As for `read_header`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SeriesRefusedError(Reason.NO_DICOM, "not a regular file")
        with path.open("rb") as file:
            stamp = FileStamp.of(os.fstat(file.fileno()))
            for step in _READ_STEPS_BYTES:
                file.seek(0)
                content = file.read(step)
                whole = len(content) >= stamp.size_bytes
                header = _parse(path, content, stamp, tags)
                if header is not None:
                    return header
                if whole:
                    raise _unreadable("the header is cut off")
    except SeriesRefusedError:
        raise
    except OSError as error:
        raise _unreadable(error.strerror or type(error).__name__) from None
    raise SeriesRefusedError(
        Reason.TOO_LARGE, f"a header of more than {_READ_STEPS_BYTES[-1]} bytes"
    )


def media_storage_sop_class(path: Path) -> str:
    """Media Storage SOP Class UID of a file whose data set cannot be read; empty if unknown.

    It tells a damaged slice from an object that would not be read anyway (PS3.10 7.1).
    """
    try:
        with quiet_pydicom(), path.open("rb") as file:
            content = file.read(_READ_STEPS_BYTES[0])
            if content[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != _MAGIC:
                return ""
            return Attributes(_file_meta(BytesIO(content))).uid("MediaStorageSOPClassUID")
    except Exception:
        return ""


def _unreadable(detail: str) -> SeriesRefusedError:
    return SeriesRefusedError(Reason.UNREADABLE_FILE, detail)


def _parse(
    path: Path, content: bytes, stamp: FileStamp, tags: Sequence[int] | None
) -> FileHeader | None:
    """Header in ``content``, the first bytes of the file; None if it goes on behind them."""
    file_bytes = stamp.size_bytes
    start = _dataset_start(path, content)
    if len(content) > 8 * _MAX_ITEMS and (
        sum(content.count(tag) for tag in _ITEM_TAGS) > _MAX_ITEMS
    ):
        raise SeriesRefusedError(Reason.TOO_LARGE, "too many sequence items")
    end = _End(len(content))
    try:
        stream = BytesIO(content)
        meta = _file_meta(stream, start)
        dataset_offset = stream.tell()
        known = Attributes(meta)
        syntax = known.text("TransferSyntaxUID") or _guess_syntax(content[dataset_offset:])
        if pixel_encoding(syntax) is None:
            raise SeriesRefusedError(Reason.UNSUPPORTED_SYNTAX, f"transfer syntax {syntax[:64]!r}")
        dataset = read_dataset(
            stream,
            is_implicit_VR=syntax == IMPLICIT_VR_LITTLE_ENDIAN,
            is_little_endian=syntax != EXPLICIT_VR_BIG_ENDIAN,
            stop_when=end.watch(stream),
            specific_tags=list(tags) if tags is not None else None,
        )
        dataset.file_meta = FileMetaDataset(meta)
    except SeriesRefusedError:
        raise
    except Exception as error:
        # Their messages quote values: the name of the error is all that may leave.
        if len(content) < file_bytes:
            return None
        raise _unreadable(type(error).__name__) from None
    if end.pixels is None and (end.cut_off or len(content) < file_bytes):
        return None
    if not len(dataset) and not len(meta):
        raise _unreadable("no data element")
    return FileHeader(
        path=path,
        stamp=stamp,
        transfer_syntax_uid=syntax,
        media_storage_sop_class_uid=known.uid("MediaStorageSOPClassUID"),
        dataset_offset=dataset_offset,
        dataset=dataset,
        pixels=end.pixels,
    )


class _End:
    """Watches where reading ends: at the pixel data, or behind the last byte."""

    def __init__(self, content_bytes: int) -> None:
        self.pixels: PixelElement | None = None
        self._content_bytes = content_bytes
        self._value_end = 0

    @property
    def cut_off(self) -> bool:
        """True if the last element ends behind the content, or half a header is left of one."""
        return self._value_end > self._content_bytes or (
            0 < self._content_bytes - self._value_end < _ELEMENT_HEADER_BYTES
        )

    def watch(self, stream: BytesIO) -> Callable[[int, str | None, int], bool]:
        """Stop condition of pydicom's reader; ``stream`` stands at the value of the element."""

        def at_pixel_data(tag: int, _vr: str | None, length: int) -> bool:
            if tag in _PIXEL_TAGS:
                # pydicom asks once with length 0 to find out the VR encoding, standing
                # behind 6 bytes of the first element: that answer is overwritten by the next.
                defined = None if length == _UNDEFINED_LENGTH else length
                self.pixels = PixelElement(stream.tell(), defined)
                return True
            self._value_end = 0 if length == _UNDEFINED_LENGTH else stream.tell() + length
            return False

        return at_pixel_data


def _file_meta(stream: BytesIO, start: int = _PREAMBLE_BYTES + 4) -> Dataset:
    """Group 2, explicit VR little endian; ``stream`` is left behind it (PS3.10 7.1)."""
    stream.seek(start)
    return read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_behind_file_meta
    )


def _behind_file_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _dataset_start(path: Path, content: bytes) -> int:
    """Offset of the file meta information, or of the data set where there is none.

    The preamble is never looked at: it may be a program (PS3.10 7.1).
    """
    if content[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == _MAGIC:
        return _PREAMBLE_BYTES + 4
    if len(content) >= 8:
        group, element = struct.unpack_from("<HH", content)
        swapped_group, swapped_element = struct.unpack_from(">HH", content)
        if group in (2, 8) and element <= 0x40:
            return 0
        if swapped_group == 8 and swapped_element <= 0x40:
            return 0
    if path.suffix.lower() in _DICOM_SUFFIXES:
        raise _unreadable("named like DICOM, but it is not")
    raise SeriesRefusedError(Reason.NO_DICOM, "not DICOM")


def _guess_syntax(first: bytes) -> str:
    """Transfer syntax of a data set without file meta, from its first element (PS3.10 7.1)."""
    if len(first) >= 8 and first[4:6].decode("latin-1") in converters:
        little = struct.unpack_from("<H", first)[0]
        return EXPLICIT_VR_BIG_ENDIAN if little >= 0x0400 else EXPLICIT_VR_LITTLE_ENDIAN
    return IMPLICIT_VR_LITTLE_ENDIAN


def _drop_unreadable(dataset: Dataset, depth: int) -> None:
    for tag in list(dataset.keys()):
        try:
            stored = dataset.get_item(tag)
            element = dataset[tag]
            if element.VR == VR.SQ:
                if depth >= _MAX_DEPTH:
                    del dataset[tag]
                    continue
                for item in element.value:
                    _drop_unreadable(item, depth + 1)
            elif depth == 0 and isinstance(stored, RawDataElement):
                dataset[tag] = stored
        except Exception:
            del dataset[tag]
