"""Writes a label map as a DICOM Segmentation (PS3.3 A.51, C.8.20).

``write_segmentation`` is the whole way on one page. The object without its frames is built
with pydicom and highdicom's checked types; what repeats for thousands of frames is written as
bytes. The same labels, plan and request give the same bytes.

A LABELMAP has segments 1..N, no item for the background and no Pixel Padding Value: viewers
colour by position in the Segment Sequence. PS3.3 C.8.20.2.3 would have the value 0 described,
too; the readers that we know take its absence for background.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import ResultIdentity, source_instances
from dicom_seg.read.examination import StackPlan
from dicom_seg.seg.attributes import build_attributes
from dicom_seg.seg.copied import text_of
from dicom_seg.seg.file import (
    attribute_bytes,
    deflated,
    encapsulated_chunks,
    file_meta,
    native_chunks,
    per_frame_chunks,
    write_whole,
)
from dicom_seg.seg.frames import FramePlan, plan_frames
from dicom_seg.seg.functional_groups import per_frame_items
from dicom_seg.seg.pixel_data import binary_length, binary_pixels, labelmap_pixels, rle_frames
from dicom_seg.seg.request import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    SEGMENTATION_STORAGE,
    EncodedSegmentation,
    Encoding,
    Equipment,
    Predecessor,
    SegKind,
    SegRequest,
)
from inference.file_stamp import FileStamp
from inference.label_map import LabelMap
from inference.reasons import Reason

__all__ = [
    "LABEL_MAP_SEGMENTATION_STORAGE",
    "SEGMENTATION_STORAGE",
    "EncodedSegmentation",
    "Encoding",
    "Equipment",
    "Predecessor",
    "SegKind",
    "SegRequest",
    "result_identity",
    "write_segmentation",
]


def write_segmentation(
    labels: LabelMap, plan: StackPlan, request: SegRequest, path: Path
) -> EncodedSegmentation:
    """Write ``labels`` as one Segmentation object at ``path``.

    Memory: a few frames, and for RLE the compressed frames. ``path`` appears only when whole.

    Raises
    ------
    SegmentationError
        ``missing-identity`` if the source lacks an identity to copy, ``empty-result`` if no
        structure is present, ``seg-encode`` if the labels are not those of this stack or the
        object would break a limit of DICOM, ``source-missing`` if a source file has gone or
        is no longer the one that was examined: its digest would be of something else.
    OSError
        If the file cannot be written.
    """
    if not labels.geometry.matches(plan.table.geometry()):
        raise SegmentationError(Reason.SEG_ENCODE, "the labels are not on the planes of the stack")
    _check_sources(plan)
    frames = plan_frames(labels, request.kind)
    dataset = build_attributes(plan, frames, request, result_identity(plan, request))
    body = chain(
        [attribute_bytes(dataset)],
        per_frame_chunks(per_frame_items(frames, plan.table)),
        _pixel_chunks(labels, frames, request),
    )
    encoding = request.frame_encoding
    meta = file_meta(dataset, encoding.transfer_syntax_uid)
    stored = write_whole(
        path, chain([meta], deflated(body) if encoding is Encoding.DEFLATED else body)
    )
    return EncodedSegmentation(
        path=path,
        kind=request.kind,
        sop_class_uid=request.kind.sop_class_uid,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=encoding.transfer_syntax_uid,
        segment_ids=frames.structure_ids,
        frame_count=len(frames.frames),
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
    )


def _check_sources(plan: StackPlan) -> None:
    for row in {row.path: row for row in plan.table.rows if row.stamp is not None}.values():
        name = f"the file of instance {row.sop_instance_uid}"
        try:
            stamp = FileStamp.of(row.path.stat())
        except OSError as error:
            detail = f"{name}: {error.strerror}"
            raise SegmentationError(Reason.SOURCE_MISSING, detail) from error
        if stamp != row.stamp:
            detail = f"{name} changed after it was examined"
            raise SegmentationError(Reason.SOURCE_MISSING, detail)


def result_identity(plan: StackPlan, request: SegRequest) -> ResultIdentity:
    """What names the object, and would name it again: known before it is written.

    Raises
    ------
    SegmentationError
        ``source-missing`` if a source file that the request has no digest of cannot be read.
    """
    files = {row.sop_instance_uid: row.path for row in plan.table.rows}
    known = tuple(source for source in request.sources if source.sop_instance_uid in files)
    for source in known:
        del files[source.sop_instance_uid]
    try:
        sources = known + source_instances(tuple(files.items()))
    except OSError as error:
        names = [uid for uid, path in files.items() if str(path) == error.filename]
        detail = f"the file of instance {', '.join(names)}: {error.strerror}"
        raise SegmentationError(Reason.SOURCE_MISSING, detail) from error
    return ResultIdentity(
        series_instance_uid=text_of(plan.header, "SeriesInstanceUID"),
        sources=sources,
        model_digest=request.algorithm.digest,
        parameters=request.algorithm.parameters,
        revision=request.revision,
        stack=plan.separated_by,
        kind=request.kind.value,
    )


def _pixel_chunks(labels: LabelMap, frames: FramePlan, request: SegRequest) -> Iterator[bytes]:
    _, rows, columns = labels.geometry.shape
    if request.kind is SegKind.BINARY:
        length = binary_length(frames, rows, columns)
        return native_chunks(length, binary_pixels(labels, frames))
    if request.frame_encoding is Encoding.RLE:
        return encapsulated_chunks(list(rle_frames(labels, frames)))
    length = len(frames.frames) * rows * columns
    return native_chunks(length, (pixels.tobytes() for pixels in labelmap_pixels(labels, frames)))
