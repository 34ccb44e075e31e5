"""Whether a file is still the one that was read."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file that is written anew, or put in the place of another, differs in one of these."""

    size_bytes: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Of what ``os.stat`` or ``os.fstat`` says."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)
