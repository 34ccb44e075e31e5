"""Reading the headers of some files, in a process of its own, into what the plan keeps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dicom_seg.read.examination import LeftOut, SeriesRules
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.read.instance import Instance, read_instance
from inference.reasons import Reason
from pacs_bridge.archive.damaged import attributed
from pacs_bridge.archive.headers import pack, series_word
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.errors import PermanentError, disk_reason
from pacs_bridge.identity_hash import IdentityHash


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file of a folder, and what tells whether it is still the same."""

    name: bytes
    size_bytes: int
    modified_ns: int
    problem: str = ""  #: why it is not to be opened; empty if it may be


#: In the place of the time of a file that could not be read for a reason that may pass.
UNREAD_NS: Final = -(1 << 63)
_STEP_BYTES: Final = 1 << 20
_MOST_NS: Final = (1 << 63) - 1


def modified_ns(status: os.stat_result) -> int:
    """When a file was changed, as far as the plan can hold it, and never ``UNREAD_NS``."""
    return max(UNREAD_NS + 1, min(_MOST_NS, status.st_mtime_ns))


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Files of one folder, or members of one zip file, that are to be read."""

    folder_id: int
    path: bytes
    is_zip: bool
    files: tuple[FileStamp, ...]


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file whose header was read, or could not be."""

    folder_id: int
    stamp: FileStamp
    sop_instance_uid: str
    reason: Reason | None  #: of a file that is of no series


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Headers of one series."""

    series: str
    instances: bytes  #: packed
    files: tuple[ReadFile, ...]  #: one for each instance


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What a batch of files holds."""

    parts: tuple[ReadPart, ...]
    loose: tuple[ReadFile, ...]


@dataclass(frozen=True, slots=True)
class ReadingTask:
    """Files to read, and by which rules; goes to another process."""

    folders: tuple[FolderFiles, ...]
    rules: SeriesRules
    key: bytes  #: of ``IdentityHash``


def read_batch(task: ReadingTask) -> ReadBatch:
    """Read every file of a task; bad files are outcomes, nothing is raised for them.

    Raises
    ------
    OSError
        If the disk for what is taken out of zip files is full.
    """
    found: dict[str, list[tuple[Instance, ReadFile]]] = {}
    loose: list[ReadFile] = []
    with quiet_pydicom():
        for folder in task.folders:
            for stamp, entry in _entries(folder, task.rules):
                if isinstance(entry, LeftOut):
                    loose.append(ReadFile(folder.folder_id, stamp, "", entry.reason))
                    continue
                series = series_word(entry.identity, folder.folder_id)
                file = ReadFile(folder.folder_id, stamp, entry.sop_instance_uid, None)
                found.setdefault(series, []).append((entry, file))
    hide = IdentityHash(task.key)
    return ReadBatch(
        parts=tuple(
            ReadPart(
                series,
                pack([instance for instance, _ in pairs], hide),
                tuple(file for _, file in pairs),
            )
            for series, pairs in found.items()
        ),
        loose=tuple(loose),
    )


def _entries(
    folder: FolderFiles, rules: SeriesRules
) -> Iterator[tuple[FileStamp, Instance | LeftOut]]:
    if folder.is_zip:
        yield from _zip_entries(folder, rules)
        return
    place = Path(os.fsdecode(folder.path))
    for stamp in folder.files:
        if stamp.problem:
            yield stamp, _unreadable(stamp.problem)
        else:
            path = place / os.fsdecode(stamp.name)
            entry = _entry(path, rules)
            yield (stamp if _is_lasting(entry, path) else _unread(stamp)), entry


def _zip_entries(
    folder: FolderFiles, rules: SeriesRules
) -> Iterator[tuple[FileStamp, Instance | LeftOut]]:
    with tempfile.TemporaryDirectory(prefix="pacs-bridge-plan-") as scratch:
        try:
            members = ZipMembers(Path(os.fsdecode(folder.path)))
        except (PermanentError, OSError) as error:
            for stamp in folder.files:
                yield _unread(stamp), _unreadable(type(error).__name__)
            return
        with members:
            path = Path(scratch) / "member"
            for stamp in folder.files:
                try:
                    members.extract(int(stamp.name), path)
                except PermanentError as error:
                    yield stamp, LeftOut(path, "", None, error.reason, error.detail)
                except OSError as error:
                    if disk_reason(error) is Reason.DISK_FULL:
                        raise  # of the scratch folder: the member may be in order
                    yield _unread(stamp), _unreadable(error.strerror or type(error).__name__)
                else:
                    yield stamp, _entry(path, rules)


def _entry(path: Path, rules: SeriesRules) -> Instance | LeftOut:
    entry = read_instance(path, rules)
    if isinstance(entry, Instance) or entry.reason is Reason.NO_DICOM:
        return entry
    return attributed(entry)


def _is_lasting(entry: Instance | LeftOut, path: Path) -> bool:
    """Whether a file would be read the same again: not one that the system does not give."""
    reasons = [entry.reason] if isinstance(entry, LeftOut) else [e.reason for e in entry.left_out]
    if Reason.UNREADABLE_FILE not in reasons:
        return True
    try:
        with path.open("rb") as file:
            while file.read(_STEP_BYTES):
                pass
    except OSError:
        return False
    return True


def _unread(stamp: FileStamp) -> FileStamp:
    return replace(stamp, modified_ns=UNREAD_NS)


def _unreadable(detail: str) -> LeftOut:
    return LeftOut(Path(), "", None, Reason.UNREADABLE_FILE, detail)
