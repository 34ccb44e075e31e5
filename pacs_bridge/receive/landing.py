"""Instances on their way in: bytes of the network into a file of our own making.

The data set is written as it came, behind a file header of ours: a preamble of zeros and the
file meta information (PS3.10 7.1). The name of the file is a counter.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_seg.provenance import IMPLEMENTATION_CLASS_UID

IMPLEMENTATION_VERSION_NAME = "PACS_BRIDGE"
#: Enough of a data set to hold all that the listener looks at, but for the oddest ones.
HEAD_BYTES = 256 * 1024
#: Where even the oddest one has said what it is: private sequences come before Number of Frames.
_MOST_HEAD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Landed:
    """An instance in the landing folder, durable."""

    path: Path
    digest: str  #: SHA-256 of the data set, hexadecimal
    data_offset_bytes: int
    size_bytes: int  #: of the file
    head: bytes  #: the beginning of the data set

    def more(self) -> bytes:
        """A longer beginning of the data set, or all of it.

        Raises
        ------
        OSError
            If the disk fails.
        """
        with self.path.open("rb") as file:
            file.seek(self.data_offset_bytes)
            return file.read(_MOST_HEAD_BYTES)


class LandingFile:
    """A data set being written.

    Parameters
    ----------
    path
        Where; nothing may lie there.
    meta
        Preamble and file meta information.
    """

    def __init__(self, path: Path, meta: bytes) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._offset_bytes = len(meta)
        self._size_bytes = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            self._write(memoryview(meta))
        except OSError:
            self.discard()
            raise

    @property
    def head(self) -> bytes:
        """The beginning of the data set, as far as it was written."""
        return bytes(self._head)

    def write(self, data: memoryview) -> None:
        """Append a fragment of the data set.

        Raises
        ------
        OSError
            If the disk takes no more.
        """
        self._hash.update(data)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._write(data)

    def settle(self) -> Landed:
        """Bring the whole file to the disk.

        Raises
        ------
        OSError
            If the disk fails.
        """
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        return Landed(
            path=self.path,
            digest=self._hash.hexdigest(),
            data_offset_bytes=self._offset_bytes,
            size_bytes=self._size_bytes,
            head=self.head,
        )

    def discard(self) -> None:
        """Leave nothing behind; where the disk does not allow it, the next start does it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
        with suppress(OSError):
            self.path.unlink()

    def _write(self, data: memoryview) -> None:
        self._size_bytes += len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]


class LandingFolder:
    """Where instances are written before anybody knows what they are.

    Parameters
    ----------
    folder
        On the file system of the spool; what lies in it from an earlier run is deleted, since
        nobody was ever told that it had arrived.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.iterdir():
            left_over.unlink()

    def open(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> LandingFile:
        """A new file for an instance.

        Raises
        ------
        OSError
            If the disk takes no more.
        """
        meta = file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        return LandingFile(self._folder / f"{next(self._numbers):012d}.part", meta)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 table 7.1-1).

    It names no sender: the same instance gives the same file whoever sends it.
    """
    elements = b"".join(
        (
            _long_element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", _even(sop_class_uid, b"\0")),
            _element(0x0003, b"UI", _even(sop_instance_uid, b"\0")),
            _element(0x0010, b"UI", _even(transfer_syntax_uid, b"\0")),
            _element(0x0012, b"UI", _even(IMPLEMENTATION_CLASS_UID, b"\0")),
            _element(0x0013, b"SH", _even(IMPLEMENTATION_VERSION_NAME, b" ")),
        )
    )
    length = _element(0x0000, b"UL", struct.pack("<I", len(elements)))
    return bytes(128) + b"DICM" + length + elements


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _long_element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sxxI", 0x0002, element, vr, len(value)) + value


def _even(text: str, padding: bytes) -> bytes:
    encoded = text.encode("ascii")
    return encoded if len(encoded) % 2 == 0 else encoded + padding
