"""Streams a Segmentation to disk: attributes, functional groups, pixels (PS3.10)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID

from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import IMPLEMENTATION_CLASS_UID
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.seg import elements
from dicom_seg.seg.functional_groups import PER_FRAME_GROUPS
from inference.durable import durable_file
from inference.reasons import Reason

_PREAMBLE: Final = b"\0" * 128 + b"DICM"
PIXEL_DATA: Final = 0x7FE00010
_IMPLEMENTATION_VERSION: Final = "PACS_BRIDGE"
_DEFLATE_LEVEL: Final = 6


def file_meta(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = _IMPLEMENTATION_VERSION
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return _PREAMBLE + buffer.getvalue()


def attribute_bytes(dataset: Dataset, charset: str | list[str] | None = None) -> bytes:
    """The elements as Explicit VR Little Endian, those copied from the source untouched.

    ``charset`` is the Specific Character Set of the object, where ``dataset`` is an item of it.
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    charset = dataset.get("SpecificCharacterSet", charset)
    with quiet_pydicom():
        for tag in sorted(dataset.keys()):
            write_data_element(buffer, dataset.get_item(tag), charset)
    return buffer.getvalue()


def per_frame_chunks(items: list[bytes]) -> Iterator[bytes]:
    """Per-Frame Functional Groups Sequence.

    Raises
    ------
    SegmentationError
        ``seg-encode`` if it is longer than a length field can say.
    """
    length = _checked(sum(len(item) for item in items), "functional groups")
    yield elements.header(PER_FRAME_GROUPS, "SQ", length)
    yield from items


def native_chunks(length: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pixel Data of ``length`` bytes, padded to an even length (PS3.5 8.1.1).

    Raises
    ------
    SegmentationError
        ``seg-encode`` if it is longer than a length field can say.
    """
    padding = length % 2
    yield elements.header(PIXEL_DATA, "OB", _checked(length + padding, "pixel data"))
    yield from chunks
    yield b"\0" * padding


def encapsulated_chunks(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Pixel Data of compressed frames, one fragment each, with their offsets (PS3.5 A.4).

    Raises
    ------
    SegmentationError
        ``seg-encode`` if a frame begins further in than an offset can say.
    """
    sizes = [len(elements.item_header(0)) + len(frame) for frame in frames]
    offsets = [0, *accumulate(sizes)][: len(frames)]
    _checked(offsets[-1], "pixel data")
    yield elements.header(PIXEL_DATA, "OB", elements.UNDEFINED_LENGTH)
    yield elements.item_header(4 * len(frames)) + struct.pack(f"<{len(frames)}I", *offsets)
    for frame in frames:
        yield elements.item_header(len(frame))
        yield frame
    yield elements.sequence_delimiter()


def deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data set as one deflated stream of even length (PS3.5 A.5)."""
    compressor = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for chunk in chunks:
        packed = compressor.compress(chunk)
        length += len(packed)
        yield packed
    packed = compressor.flush()
    yield packed + b"\0" * ((length + len(packed)) % 2)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What was written."""

    sha256: str
    size_bytes: int


def write_whole(path: Path, chunks: Iterable[bytes]) -> StoredFile:
    """Write ``chunks`` so that ``path`` is either absent, or whole and on the disk.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    with durable_file(path) as draft, draft.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += file.write(chunk)
    return StoredFile(digest.hexdigest(), size_bytes)


def _checked(length: int, what: str) -> int:
    if length > elements.MAX_LENGTH:
        raise SegmentationError(
            Reason.SEG_ENCODE, f"{what}: {length} bytes are more than DICOM can say"
        )
    return length
