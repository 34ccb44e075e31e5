"""Whether a file is still the one that was read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

#: Time of the last change, size and inode: a file that is written anew differs in one of them.
FileStamp: TypeAlias = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp:
    """The stamp of a file, behind links.

    Raises
    ------
    OSError
        If it cannot be looked at.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
