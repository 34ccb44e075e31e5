"""Triage of a series whose headers were read: what the engine would do with it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_seg.errors import SegmentationError
from dicom_seg.read.examination import SeriesRules, SeriesTriage
from dicom_seg.read.header import scan_header
from dicom_seg.read.instance import Instance
from dicom_seg.read.series import triage_series
from inference.reasons import Reason
from pacs_bridge.archive.headers import placed, unpack
from pacs_bridge.archive.zip_members import ZipMembers
from pacs_bridge.errors import PermanentError

#: Left behind by a plan and not given to the engine: the instance itself is there already.
REPEATED = (Reason.DUPLICATE_INSTANCE, Reason.CONFLICTING_INSTANCE)
#: What triage says, too, where it wanted to look into a file that is still in a zip file.
_OF_FILES = (Reason.UNREADABLE_FILE, Reason.CORRUPT_PIXEL_DATA, Reason.SOURCE_MISSING)


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


@dataclass(frozen=True, slots=True)
class KnownPart:
    """Headers of a series that were read together."""

    instances: bytes  #: packed
    files: Mapping[int, KnownFile]  #: by place among them; without those that are gone


@dataclass(frozen=True, slots=True)
class TriageTask:
    """A series to examine, and by which rules; goes to another process."""

    series: str
    parts: tuple[KnownPart, ...]
    rules: SeriesRules
    beside: Reason | None = None  #: why a file is of no series that can only be of this one


@dataclass(frozen=True, slots=True)
class TriagedSeries:
    """What the plan says of a series."""

    series: str
    study_instance_uid: str
    instance_count: int  #: without those that come again
    plane_count: int
    size_bytes: int
    contents: str  #: digest over instances and the stamps of their files
    reason: Reason | None  #: why it is not to run
    detail: str
    findings: tuple[Reason, ...]
    left_out: tuple[tuple[tuple[int, bytes], Reason], ...]  #: keys of files


def triage(task: TriageTask) -> TriagedSeries:
    """Examine a series as the engine does, from its headers."""
    found = sorted(
        ((file, instance) for part in task.parts for file, instance in _with_files(part)),
        key=lambda pair: (pair[0].folder, pair[0].name),
    )
    kept, repeated = _without_repeated(found)
    verdict = _verdict(kept, task.rules)
    by_path = {file.path: file for file, _ in kept}
    left_out = [
        (by_path[each.path].key, each.reason)
        for each in verdict.left_out
        if each.frame_number is None and each.path in by_path
    ]
    findings = dict.fromkeys(
        [*(each.reason for each in verdict.findings), *(reason for _, reason in repeated)]
    )
    reason, detail = verdict.reason, verdict.detail
    if reason is None and task.beside is not None:
        reason, detail = task.beside, "of a file beside the others, which says no series"
    return TriagedSeries(
        series=task.series,
        study_instance_uid=kept[0][1].identity.study_instance_uid if kept else "",
        instance_count=len(kept),
        plane_count=verdict.plane_count,
        size_bytes=sum(file.size_bytes for file, _ in kept),
        contents=_contents(kept),
        reason=reason,
        detail=detail,
        findings=tuple(findings),
        left_out=(*((file.key, reason) for file, reason in repeated), *left_out),
    )


def _with_files(part: KnownPart) -> list[tuple[KnownFile, Instance]]:
    paths = {place: file.path for place, file in part.files.items()}
    found = unpack(part.instances, paths)
    return [(part.files[place], instance) for place, instance in found.items()]


def _contents(kept: Sequence[tuple[KnownFile, Instance]]) -> str:
    """Changes whenever the bytes of the series may have changed; not when files are moved."""
    facts = sorted(
        f"{instance.sop_instance_uid} {file.size_bytes} {file.modified_ns}"
        for file, instance in kept
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _without_repeated(
    found: Sequence[tuple[KnownFile, Instance]],
) -> tuple[list[tuple[KnownFile, Instance]], list[tuple[KnownFile, Reason]]]:
    """The first file of every SOP Instance UID, and why the others are left out.

    Of two files of one size whose headers are the same the pixels are taken to be, too: to
    compare them would mean to read the archive. Files without that UID are left as they are.
    """
    first: dict[str, tuple[KnownFile, Instance]] = {}
    kept: list[tuple[KnownFile, Instance]] = []
    repeated: list[tuple[KnownFile, Reason]] = []
    for file, instance in found:
        uid = instance.sop_instance_uid
        if uid and uid in first:
            same = _same_header(*first[uid], file, instance)
            reason = Reason.DUPLICATE_INSTANCE if same else Reason.CONFLICTING_INSTANCE
            repeated.append((file, reason))
            continue
        if uid:
            first[uid] = (file, instance)
        kept.append((file, instance))
    return kept, repeated


def _same_header(
    one_file: KnownFile, one: Instance, other_file: KnownFile, other: Instance
) -> bool:
    # Identity, place, type and pixel format agree, or the headers cannot.
    if _bare(one) != _bare(other):
        return False
    if one_file.is_zip and other_file.is_zip:
        same = (one_file.size_bytes, one_file.modified_ns)
        return same == (other_file.size_bytes, other_file.modified_ns)
    try:
        with tempfile.TemporaryDirectory(prefix="pacs-bridge-plan-") as scratch:
            digests = [
                _header_digest(taken_out(file, Path(scratch) / str(number)))
                for number, file in enumerate((one_file, other_file))
            ]
    except (OSError, SegmentationError, PermanentError):
        return False
    return digests[0] == digests[1]


def _bare(instance: Instance) -> tuple[object, ...]:
    planes = tuple(
        (
            replace(plane.row, path=Path(), stamp=None, pixels=replace(plane.row.pixels, offset=0)),
            plane.traits,
            plane.frame_of_reference_uid,
        )
        for plane in instance.planes
    )
    return instance.identity, instance.person, instance.sop_class_uid, planes


def _header_digest(path: Path) -> tuple[str, int]:
    """SHA-256 of the data set up to its pixel data, and how many bytes follow."""
    header = scan_header(path, ())
    end = header.stamp.size_bytes if header.pixels is None else header.pixels.offset
    with path.open("rb") as file:
        file.seek(header.dataset_offset)
        digest = hashlib.sha256(file.read(end - header.dataset_offset)).hexdigest()
    return digest, header.stamp.size_bytes - end


def _verdict(kept: Sequence[tuple[KnownFile, Instance]], rules: SeriesRules) -> SeriesTriage:
    instances = [instance for _, instance in kept]
    verdict = triage_series(instances, rules)  # needs no pixels, as a rule
    if verdict.reason not in _OF_FILES or not any(file.is_zip for file, _ in kept):
        return verdict
    with tempfile.TemporaryDirectory(prefix="pacs-bridge-plan-") as scratch:
        copies = []
        back: dict[Path, Path] = {}
        for number, (file, instance) in enumerate(kept):
            path = taken_out(file, Path(scratch) / str(number))
            back[path] = instance.path
            copies.append(placed(instance, path))
        verdict = triage_series(copies, rules)
    return replace(
        verdict,
        left_out=tuple(
            replace(each, path=back.get(each.path, each.path)) for each in verdict.left_out
        ),
    )


def taken_out(file: KnownFile, path: Path) -> Path:
    """A file on disk: itself, or the member of a zip file at ``path``.

    Raises
    ------
    PermanentError
        If it is damaged.
    OSError
        If it cannot be read, or ``path`` not be written.
    """
    if not file.is_zip:
        return file.path
    with ZipMembers(Path(os.fsdecode(file.folder))) as members:
        members.extract(int(file.name), path)
    return path
