"""Files inside a zip file, read without trust.

The name of a member is never a path here: what is taken out lies under a number. Links, names
that lead elsewhere and encrypted members are not taken out; sizes are believed no further than
the bytes that come.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from inference.file_stamp import FileStamp
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError

_MOST_MEMBERS: Final = 1_000_000
_MOST_MEMBER_BYTES: Final = 2 << 30
#: A header of zeros packs well; pictures of a body do not.
_MOST_RATIO: Final = 1000
_RATIO_MATTERS_BYTES: Final = 64 << 20
_ENCRYPTED: Final = 0x1
_STEP_BYTES: Final = 1 << 20
#: What the bytes of a damaged zip file make its readers raise.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OverflowError),
    *(NotImplementedError, ValueError, RuntimeError, LookupError, AttributeError),
)
_MOST_SAID_BYTES: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip file."""

    number: int  #: in the order of the central directory, from 0
    size_bytes: int  #: as the directory says
    checksum: int  #: CRC-32
    problem: str  #: why it is not taken out; empty if it may be


class _RestingFile:
    """A file that is open only while it is read, as ``zipfile`` wants it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._stamp: FileStamp | None = None

    @property
    def stamp(self) -> FileStamp:
        """Of the file that was opened first."""
        self._opened()
        assert self._stamp is not None
        return self._stamp

    def read(self, size_bytes: int = -1) -> bytes:
        return self._opened().read(size_bytes)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._opened().seek(offset, whence)

    def tell(self) -> int:
        return self._opened().tell()

    def seekable(self) -> bool:
        return True

    def rest(self) -> None:
        """Close it until it is read again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            file = self._path.open("rb")
            stamp = FileStamp.of(os.fstat(file.fileno()))
            if self._stamp not in (None, stamp):
                file.close()
                raise PermanentError(
                    Reason.SOURCE_MISSING, "a zip file has changed since its directory was read"
                )
            self._file, self._stamp = file, stamp
        return self._file


class ZipMembers:
    """The members of one zip file. A context manager; for one thread.

    Parameters
    ----------
    path
        Of the zip file.

    Raises
    ------
    PermanentError
        ``unreadable-file`` if it is none, or ``too-large`` if it has too many members.
    OSError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = _RestingFile(path)
        try:
            self.stamp = self._file.stamp  #: of the file whose directory was read
            self._zip = zipfile.ZipFile(cast("IO[bytes]", self._file))
        except _DAMAGE as error:
            self._file.rest()
            raise PermanentError(Reason.UNREADABLE_FILE, "a damaged zip file") from error
        except OSError:
            self._file.rest()
            raise
        self._members = self._zip.infolist()
        if len(self._members) > _MOST_MEMBERS:
            self.close()
            raise PermanentError(Reason.TOO_LARGE, f"a zip file of {len(self._members)} members")

    def __enter__(self) -> ZipMembers:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Of the directory: folders count."""
        return len(self._members)

    def rest(self) -> None:
        """Close the file until a member is wanted again; its directory stays known."""
        self._file.rest()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.rest()

    def checksum(self, number: int) -> int | None:
        """CRC-32 of a member, as the directory says; None if there is none of that number."""
        return self._members[number].CRC if 0 <= number < len(self._members) else None

    def __iter__(self) -> Iterator[ZipMember]:
        for number, member in enumerate(self._members):
            if not member.is_dir():
                yield ZipMember(
                    number, min(member.file_size, _MOST_SAID_BYTES), member.CRC, _problem(member)
                )

    def extract(self, number: int, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """Write a member to ``path``; ``check`` may raise between two pieces of it.

        Raises
        ------
        PermanentError
            ``unreadable-file`` if the member is damaged or not to be taken out, ``too-large``
            if it is more than it says, ``source-missing`` if there is none of that number.
        OSError
            If a file cannot be read or written.
        """
        if not 0 <= number < len(self._members):
            raise PermanentError(Reason.SOURCE_MISSING, "the zip file has other members now")
        member = self._members[number]
        if problem := _problem(member):
            raise PermanentError(Reason.UNREADABLE_FILE, problem)
        written = 0
        try:
            with self._zip.open(member) as source, path.open("wb") as target:
                while piece := source.read(_STEP_BYTES):
                    check()
                    written += len(piece)
                    if written > member.file_size:
                        raise PermanentError(Reason.TOO_LARGE, "a member is more than it says")
                    target.write(piece)
        except _DAMAGE as error:
            raise PermanentError(Reason.UNREADABLE_FILE, "a damaged member") from error
        except OSError as error:
            if error.errno is None:  # bz2 says so of damaged bytes
                raise PermanentError(Reason.UNREADABLE_FILE, "a damaged member") from error
            raise


def _problem(member: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link in a zip file"
    if member.flag_bits & _ENCRYPTED:
        return "an encrypted member of a zip file"
    if member.file_size > _MOST_MEMBER_BYTES:
        return f"a member of {member.file_size} bytes"
    packed = max(1, member.compress_size)
    if member.file_size > _RATIO_MATTERS_BYTES and member.file_size > _MOST_RATIO * packed:
        return f"a member that unpacks to {member.file_size // packed} times its size"
    return ""
