"""A Segmentation as it lies on disk, opened without trust."""

from __future__ import annotations

import io
import mmap
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from dicom_seg.errors import VerificationError
from dicom_seg.verify.explicit_vr import Buffer, Span, items, walk

_META_START: Final = 132
_PER_FRAME_GROUPS: Final = 0x52009230
_PIXEL_DATA: Final = 0x7FE00010
_CHUNK_BYTES: Final = 1 << 20
#: What a file that is none, or lacks what it must have, makes of pydicom and of us.
_UNREADABLE: Final = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    InvalidDicomError,
    struct.error,
    zlib.error,
)
_SYNTAXES: Final = (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless)


@dataclass(frozen=True, slots=True)
class StoredSegmentation:
    """The data set in its parts; valid while the file is open."""

    meta: FileMetaDataset
    attributes: Dataset  #: all before the per-frame functional groups
    data: Buffer  #: the data set, not deflated
    frame_items: list[Span]  #: items of Per-Frame Functional Groups Sequence
    pixels: Span  #: value of Pixel Data


@contextmanager
def open_stored(path: Path) -> Iterator[StoredSegmentation]:
    """Open the file at ``path``; its pixels are mapped, not read.

    Raises
    ------
    VerificationError
        If it is not a DICOM file in a transfer syntax that we write, or is cut off.
    """
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        syntax = meta.TransferSyntaxUID
        if syntax not in _SYNTAXES:
            raise VerificationError(f"TransferSyntaxUID is {syntax}")
        with path.open("rb") as file, _inflated(file, syntax) as data_set:
            start = _data_set_start(data_set) if data_set is file else 0
            with mmap.mmap(data_set.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _parse(meta, data, start)
    except _UNREADABLE as error:  # its text may quote a value of the patient
        raise VerificationError(f"not readable: {type(error).__name__}") from error


def _data_set_start(file: BinaryIO) -> int:
    file.seek(_META_START)
    head = file.read(12)  # File Meta Information Group Length comes first (PS3.10 7.1)
    return _META_START + 12 + int(struct.unpack_from("<I", head, 8)[0])


@contextmanager
def _inflated(file: BinaryIO, syntax: str) -> Iterator[BinaryIO]:
    """The file itself, or what its deflated data set holds, in a file without a name."""
    if syntax != DeflatedExplicitVRLittleEndian:
        yield file
        return
    with tempfile.TemporaryFile() as plain:
        file.seek(_data_set_start(file))
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        while chunk := file.read(_CHUNK_BYTES):
            plain.write(inflate.decompress(chunk))
        plain.write(inflate.flush())
        plain.flush()
        if not inflate.eof:
            raise VerificationError("the deflated data set is cut off")
        yield plain


def _parse(meta: FileMetaDataset, data: mmap.mmap, start: int) -> StoredSegmentation:
    found = walk(data, start, len(data))
    frames, pixels = found[_PER_FRAME_GROUPS], found[_PIXEL_DATA]
    head = io.BytesIO(data[start : frames.begin])
    return StoredSegmentation(
        meta=meta,
        attributes=read_dataset(head, is_implicit_VR=False, is_little_endian=True),
        data=data,
        frame_items=items(data, frames),
        pixels=pixels,
    )
