"""Checks of what the object says as a whole: kind, patient, study, intended use."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from dicom_seg.errors import VerificationError
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.header import decoded
from dicom_seg.segmentation import SegKind, SegRequest
from dicom_seg.verify.stored import StoredSegmentation
from inference.label_map import LabelMap

#: Whose object it is; compared as decoded, each under its own Specific Character Set.
_IDENTITY_KEYWORDS: Final = (
    "PatientID",
    "PatientName",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
#: Without these an object belongs to nobody.
_REQUIRED_KEYWORDS: Final = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
)


def check_image(stored: StoredSegmentation, labels: LabelMap, request: SegRequest) -> None:
    """Kind, matrix and number of frames.

    Raises
    ------
    VerificationError
        Naming the attribute.
    """
    _, rows, columns = labels.geometry.shape
    bits = 1 if request.kind is SegKind.BINARY else 8
    expected = {
        "SOPClassUID": request.kind.sop_class_uid,
        "SegmentationType": request.kind.name,
        "Modality": "SEG",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "NumberOfFrames": len(stored.frame_items),
    }
    attributes = stored.attributes
    for keyword, value in expected.items():
        found = attributes.get(keyword)
        if found != value:
            raise VerificationError(f"{keyword} is {found}, not {value}")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if stored.meta.get(f"MediaStorage{keyword}") != attributes.get(keyword):
            raise VerificationError(f"MediaStorage{keyword} is not {keyword}")
    if stored.meta.TransferSyntaxUID != request.frame_encoding.transfer_syntax_uid:
        raise VerificationError(f"TransferSyntaxUID is {stored.meta.TransferSyntaxUID}")


def check_identity(stored: StoredSegmentation, plan: StackPlan) -> None:
    """Patient, study, frame of reference, and the series and instances referred to.

    Raises
    ------
    VerificationError
        Naming the attribute, not its value.
    """
    attributes = stored.attributes
    for keyword in _REQUIRED_KEYWORDS:
        if not _text(attributes, keyword):
            raise VerificationError(f"{keyword} is empty")
    for keyword in _IDENTITY_KEYWORDS:
        if _text(attributes, keyword) != _text(plan.header, keyword):
            raise VerificationError(f"{keyword} is not that of the source")
    frame_of_reference = _text(attributes, "FrameOfReferenceUID")
    if frame_of_reference != (plan.table.frame_of_reference_uid or frame_of_reference):
        raise VerificationError("FrameOfReferenceUID is not that of the source")
    source = attributes.ReferencedSeriesSequence[0]
    if source.SeriesInstanceUID != plan.header.SeriesInstanceUID:
        raise VerificationError("ReferencedSeriesSequence does not begin with the source series")
    referenced = {
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in source.ReferencedInstanceSequence
    }
    if referenced != {(row.sop_class_uid, row.sop_instance_uid) for row in plan.table.rows}:
        raise VerificationError("ReferencedInstanceSequence is not the instances of the stack")
    own = {attributes.SOPInstanceUID, attributes.SeriesInstanceUID}
    if own & {plan.header.SeriesInstanceUID, *(uid for _, uid in referenced)}:
        raise VerificationError("the object has a UID of its source")


def check_claims(stored: StoredSegmentation, request: SegRequest) -> None:
    """Findings that every reader must see, and which result this one replaces.

    Raises
    ------
    VerificationError
        Naming the attribute.
    """
    attributes = stored.attributes
    if request.algorithm.demonstration and "demonstration" not in (
        _text(attributes, "ContentDescription").lower()
    ):
        raise VerificationError("ContentDescription does not say that it is for demonstration")
    replaced = [
        str(item.ReferencedSOPInstanceUID) for item in attributes.get("ReferencedImageSequence", [])
    ]
    before = [] if request.predecessor is None else [request.predecessor.sop_instance_uid]
    if replaced != before:
        raise VerificationError("ReferencedImageSequence does not name the predecessor")


def _text(dataset: Dataset, keyword: str) -> str:
    value = decoded(dataset, keyword)
    return "" if value is None else str(value).strip(" \0")
