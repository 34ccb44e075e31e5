"""Walking folder trees: what lies in each folder, one folder at a time.

Nothing that is met ends the walk: a folder that cannot be looked into, a link that leads
nowhere or in a circle, a pipe, a name that is no text.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacs_bridge.archive.reading import FileStamp, modified_ns
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.errors import PermanentError

_ZIP_SUFFIX: Final = b".zip"
_LEADS_NOWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
#: Size of a file that the system does not describe: not that of an empty one.
_UNKNOWN_BYTES: Final = -1
#: Of a medium: it names the files beside it, which are met anyway (PS3.10 8.6).
_DICOMDIR: Final = b"DICOMDIR"


@dataclass(slots=True)
class WalkedFolder:
    """A folder, or a zip file, with what is in it; its files can be had once."""

    path: bytes
    is_zip: bool
    files: Iterator[FileStamp]
    size_bytes: int = 0  #: of a zip file
    modified_ns: int = 0
    problem: str = ""  #: why it could not be looked into, once ``files`` are through
    is_part: bool = False  #: only some of its files were asked for


class Walk:
    """A walk through one tree.

    Parameters
    ----------
    root
        A folder, a zip file, or one file.
    leave_out
        A folder that is not part of the archive, such as that of the results.
    """

    def __init__(self, root: Path, leave_out: tuple[Path, ...] = ()) -> None:
        self._root = os.fsencode(root)
        self._real_root = os.path.realpath(self._root)
        self._leave_out = {os.fsencode(path.resolve()) for path in leave_out}
        #: Folders behind links that were followed: a link may lead back.
        self._followed: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[WalkedFolder]:
        if os.path.isfile(self._root):  # noqa: PTH113 - a name may be no text
            with suppress(FileNotFoundError):  # since
                yield from self._single(self._root)
                return
        waiting = [self._root]
        while waiting:
            path = waiting.pop()
            if os.path.realpath(path) in self._leave_out:
                continue
            below: list[bytes] = []
            zips: list[tuple[bytes, os.stat_result]] = []
            folder = WalkedFolder(path, False, iter(()))
            folder.files = self._files(folder, below, zips)
            yield folder
            for zip_path, status in zips:
                yield _zip_folder(zip_path, status)
            waiting += sorted(below, reverse=True)

    def _single(self, path: bytes) -> Iterator[WalkedFolder]:
        status = os.stat(path)  # noqa: PTH116
        if path.lower().endswith(_ZIP_SUFFIX):
            yield _zip_folder(path, status)
            return
        place, name = os.path.split(path)
        stamp = FileStamp(name, status.st_size, modified_ns(status))
        yield WalkedFolder(place, False, iter([stamp]), is_part=True)

    def _files(
        self,
        folder: WalkedFolder,
        below: list[bytes],
        zips: list[tuple[bytes, os.stat_result]],
    ) -> Iterator[FileStamp]:
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if (stamp := self._file(entry, below, zips)) is not None:
                        yield stamp
        except OSError as error:
            folder.problem = error.strerror or type(error).__name__

    def _file(
        self,
        entry: os.DirEntry[bytes],
        below: list[bytes],
        zips: list[tuple[bytes, os.stat_result]],
    ) -> FileStamp | None:
        """A file of a folder; None for what is none, or is looked into later."""
        try:
            status = entry.stat()
        except OSError as error:
            if _may_be_folder(entry, error):  # what is known below it is to stay known
                below.append(entry.path)
                return None
            link = entry.is_symlink()
            problem = "a broken link" if link else error.strerror or type(error).__name__
            return FileStamp(entry.name, _UNKNOWN_BYTES, 0, problem)
        if stat.S_ISDIR(status.st_mode):
            if not entry.is_symlink() or self._leads_elsewhere(entry.path, status):
                below.append(entry.path)
            return None
        if stat.S_ISREG(status.st_mode) and entry.name.lower().endswith(_ZIP_SUFFIX):
            zips.append((entry.path, status))
            return None
        if entry.name == _DICOMDIR:
            return None
        return FileStamp(entry.name, status.st_size, modified_ns(status))

    def _leads_elsewhere(self, link: bytes, status: os.stat_result) -> bool:
        """Whether a link shows a folder that this walk does not meet by itself."""
        key = (status.st_dev, status.st_ino)
        real = os.path.realpath(link)
        inside = real == self._real_root or real.startswith(self._real_root.rstrip(b"/") + b"/")
        above = self._real_root.startswith(real.rstrip(b"/") + b"/")
        if inside or above or key in self._followed:
            return False
        self._followed.add(key)
        return True


def _may_be_folder(entry: os.DirEntry[bytes], error: OSError) -> bool:
    """Whether an entry that the system does not describe may be a folder whose disk is away."""
    if entry.is_symlink():
        return error.errno not in _LEADS_NOWHERE
    try:
        return entry.is_dir(follow_symlinks=False)  # as the folder above has noted it
    except OSError:
        return False


def _zip_folder(path: bytes, status: os.stat_result) -> WalkedFolder:
    folder = WalkedFolder(path, True, iter(()), status.st_size, modified_ns(status))
    folder.files = _members(folder)
    return folder


def _members(folder: WalkedFolder) -> Iterator[FileStamp]:
    try:
        with ZipMembers(Path(os.fsdecode(folder.path))) as members:
            for member in members:
                name = str(member.number).encode()
                yield FileStamp(name, member.size_bytes, member.checksum, member.problem)
    except OSError as error:
        folder.problem = error.strerror or type(error).__name__
    except PermanentError as error:
        folder.problem = error.detail
