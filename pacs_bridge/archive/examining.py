"""Triage of a series whose headers were read: what the engine would do with it."""

from __future__ import annotations

import hashlib
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
from pacs_bridge.archive.known_files import KnownFile, readable
from pacs_bridge.archive.zip_shelf import ZipShelf

#: Left behind by a plan and not given to the engine: the instance itself is there already.
REPEATED = (Reason.DUPLICATE_INSTANCE, Reason.CONFLICTING_INSTANCE)
#: What triage says, too, where it wanted to look into a file that is still in a zip file.
_OF_FILES = (Reason.UNREADABLE_FILE, Reason.CORRUPT_PIXEL_DATA, Reason.SOURCE_MISSING)


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
    patient_id: str  #: keyed hash
    instance_count: int  #: without those that come again
    plane_count: int
    size_bytes: int
    contents: str  #: digest over instances and the stamps of their files
    reason: Reason | None  #: why it is not to run
    detail: str
    findings: tuple[Reason, ...]
    left_out: tuple[tuple[tuple[int, bytes], Reason], ...]  #: keys of files


def triage(tasks: Sequence[TriageTask]) -> tuple[TriagedSeries, ...]:
    """Examine some series as the engine does, from their headers."""
    zips = ZipShelf()
    return tuple(_triaged(task, zips) for task in tasks)


def _triaged(task: TriageTask, zips: ZipShelf) -> TriagedSeries:
    found = sorted(
        ((file, instance) for part in task.parts for file, instance in _with_files(part)),
        key=lambda pair: (pair[0].folder, pair[0].name),
    )
    kept, repeated = _without_repeated(found, zips)
    keys = {file.key for file, _ in repeated}
    again = [instance for file, instance in found if file.key in keys]
    verdict = _verdict(kept, again, task.rules, zips)
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
        patient_id=kept[0][1].identity.patient_id if kept else "",
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
    found: Sequence[tuple[KnownFile, Instance]], zips: ZipShelf
) -> tuple[list[tuple[KnownFile, Instance]], list[tuple[KnownFile, Reason]]]:
    """The first file of every SOP Instance UID, and why the others are left out.

    Of two files of one size whose headers are the same the pixels are taken to be, too: to
    compare them would mean to read the archive. Files without that UID are left as they are.
    """
    first: dict[str, tuple[KnownFile, Instance]] = {}
    kept: list[tuple[KnownFile, Instance]] = []
    again: list[tuple[KnownFile, KnownFile, bool]] = []
    for file, instance in found:
        uid = instance.sop_instance_uid
        if uid and uid in first:
            first_file, first_instance = first[uid]
            # Identity, place, type and pixel format agree, or the headers cannot.
            again.append((first_file, file, _bare(first_instance) == _bare(instance)))
            continue
        if uid:
            first[uid] = (file, instance)
        kept.append((file, instance))
    same = _same_headers([(one, other) for one, other, may_be in again if may_be], zips)
    repeated = [
        (
            other,
            Reason.DUPLICATE_INSTANCE if other.key in same else Reason.CONFLICTING_INSTANCE,
        )
        for _, other, _ in again
    ]
    return kept, repeated


def _same_headers(
    pairs: Sequence[tuple[KnownFile, KnownFile]], zips: ZipShelf
) -> set[tuple[int, bytes]]:
    """Keys of the second files whose header, and size of what follows, are those of the first."""
    in_zips = [pair for pair in pairs if pair[0].is_zip and pair[1].is_zip]
    same = {
        other.key
        for one, other in in_zips
        if (one.size_bytes, one.modified_ns) == (other.size_bytes, other.modified_ns)
    }
    others = [pair for pair in pairs if not (pair[0].is_zip and pair[1].is_zip)]
    digests = _header_digests({file.key: file for pair in others for file in pair}, zips)
    for one, other in others:
        if digests[one.key] is not None and digests[one.key] == digests[other.key]:
            same.add(other.key)
    return same


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


def _header_digests(
    files: Mapping[tuple[int, bytes], KnownFile], zips: ZipShelf
) -> dict[tuple[int, bytes], tuple[str, int] | None]:
    """For each file what `_header_digest` says, None if it cannot be read; each is read once."""
    digests: dict[tuple[int, bytes], tuple[str, int] | None] = {}
    if not files:
        return digests
    with tempfile.TemporaryDirectory(prefix="pacs-bridge-plan-") as scratch:
        for file, path in readable(tuple(files.values()), Path(scratch), zips):
            digests[file.key] = None if path is None else _header_digest(path)
    return digests


def _header_digest(path: Path) -> tuple[str, int] | None:
    """SHA-256 of the data set up to its pixel data, and how many bytes follow."""
    try:
        header = scan_header(path, ())
        end = header.stamp.size_bytes if header.pixels is None else header.pixels.offset
        with path.open("rb") as file:
            file.seek(header.dataset_offset)
            digest = hashlib.sha256(file.read(end - header.dataset_offset)).hexdigest()
    except (OSError, SegmentationError):
        return None
    return digest, header.stamp.size_bytes - end


def _verdict(
    kept: Sequence[tuple[KnownFile, Instance]],
    again: Sequence[Instance],
    rules: SeriesRules,
    zips: ZipShelf,
) -> SeriesTriage:
    instances = [instance for _, instance in kept]
    verdict = triage_series(instances, rules, again)  # needs no pixels, as a rule
    if verdict.reason not in _OF_FILES or not any(file.is_zip for file, _ in kept):
        return verdict
    with tempfile.TemporaryDirectory(prefix="pacs-bridge-plan-") as scratch:
        files = readable([file for file, _ in kept], Path(scratch), zips, at_once=True)
        lying = {file.key: path for file, path in files if path is not None}
        if len(lying) < len(kept):
            return verdict  # it stays what it was: something of it cannot be read
        copies = [placed(instance, lying[file.key], file.is_zip) for file, instance in kept]
        back = {copy.path: instance.path for copy, (_, instance) in zip(copies, kept, strict=True)}
        verdict = triage_series(copies, rules, again)
    return replace(
        verdict,
        left_out=tuple(
            replace(each, path=back.get(each.path, each.path)) for each in verdict.left_out
        ),
    )
