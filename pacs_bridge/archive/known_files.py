"""Files that a plan knows, and what it takes to read them: members of zip files are taken out.

Each zip file is opened once for all of its members that are wanted, and its directory is read
once, as long as the shelf remembers it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.archive.zip_shelf import ZipShelf
from pacs_bridge.errors import PermanentError, disk_reason


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of a series as the plan has it."""

    folder_id: int
    folder: bytes
    is_zip: bool
    name: bytes
    size_bytes: int
    modified_ns: int

    @property
    def key(self) -> tuple[int, bytes]:
        """What tells it from all others of a plan."""
        return self.folder_id, self.name

    @property
    def path(self) -> Path:
        """Of the file; of a zip file, where a member would be if it were a folder."""
        return Path(os.fsdecode(self.folder)) / os.fsdecode(self.name)


def readable(
    files: Sequence[KnownFile], scratch: Path, zips: ZipShelf, at_once: bool = False
) -> Iterator[tuple[KnownFile, Path | None]]:
    """Each file with where it can be read, in the order of folders.

    Parameters
    ----------
    files
        Any.
    scratch
        A folder for what is taken out.
    zips
        Opens the zip files.
    at_once
        What is taken out is there until the end; otherwise until the next one only.

    Yields
    ------
    tuple of KnownFile, Path or None
        None for a member that cannot be had.

    Raises
    ------
    OSError
        If ``scratch`` is full.
    """
    number = 0
    by_folder = sorted(files, key=lambda file: file.folder)
    for zip_file, group in groupby(by_folder, lambda each: each.folder if each.is_zip else b""):
        if not zip_file:
            yield from ((file, file.path) for file in group)
            continue
        with _opened(zip_file, zips) as members:
            for file in group:
                path = scratch / str(number)
                yield file, path if _is_taken_out(members, file, path) else None
                number += at_once


@contextmanager
def _opened(path: bytes, zips: ZipShelf) -> Iterator[ZipMembers | None]:
    """A zip file; None if it is gone or damaged."""
    with ExitStack() as opened:
        try:
            members = opened.enter_context(zips.opened(Path(os.fsdecode(path))))
        except (OSError, PermanentError):
            yield None
            return
        yield members


def _is_taken_out(members: ZipMembers | None, file: KnownFile, path: Path) -> bool:
    if members is None:
        return False
    try:
        members.extract(int(file.name), path)
    except PermanentError:
        return False
    except OSError as error:
        if disk_reason(error) is Reason.DISK_FULL:
            raise  # not the fault of the file
        return False
    return True
