"""One file of a series: whose it is, what it is, and the planes in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.attributes import Attributes, tag_of
from dicom_seg.read.examination import LeftOut, SeriesIdentity, SeriesRules
from dicom_seg.read.header import FileHeader, media_storage_sop_class, scan_header
from dicom_seg.read.kind import CT_SOP_CLASSES, is_companion, wrong_class, wrong_image
from dicom_seg.read.planes import SEPARATORS, Plane, planes_of
from inference.reasons import Reason

#: Attributes that are one for all instances of a series (PS3.3 C.7.1, C.7.2).
PERSON: Final = (
    "PatientName",
    "PatientBirthDate",
    "IssuerOfPatientID",
    "PatientSex",
    "StudyDate",
    "AccessionNumber",
)
#: What is read of a header; everything else is skipped over.
_TAGS: Final[Sequence[int]] = tuple(
    tag_of(keyword)
    for keyword in (
        "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality",
        "PatientID", "StudyInstanceUID", "SeriesInstanceUID", *PERSON, *SEPARATORS,
        "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
        "SamplesPerPixel", "PhotometricInterpretation",
        "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "BurnedInAnnotation", "LossyImageCompression",
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """What the header of one DICOM file says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    identity: SeriesIdentity
    person: tuple[str, ...]  #: values of `PERSON`
    missing: str  #: keyword of an identifying attribute of a CT that is empty or no UID; or empty
    companion: bool  #: an object about images, which belongs to a series of its own
    planes: tuple[Plane, ...]
    left_out: tuple[LeftOut, ...]  #: the whole file, or frames of it


def read_instance(path: Path, rules: SeriesRules) -> Instance | LeftOut:
    """Read the header of ``path``.

    Call it within `dicom_seg.read.header.quiet_pydicom`.

    Returns
    -------
    Instance or LeftOut
        The latter for a file whose header cannot be read, or that is not DICOM.
    """
    try:
        header = scan_header(path, _TAGS)
    except SeriesRefusedError as error:
        # A file that is none, such as a pipe, is never opened.
        known = error.reason is not Reason.NO_DICOM
        sop_class = media_storage_sop_class(path) if known else ""
        if sop_class and sop_class not in CT_SOP_CLASSES:
            return LeftOut(path, "", None, Reason.NOT_CT, f"SOP class {sop_class[:64]}")
        return LeftOut(path, "", None, error.reason, error.detail)
    image = Attributes(header.dataset)
    sop_class = image.uid("SOPClassUID")
    stored_as = header.media_storage_sop_class_uid
    sop_instance = image.uid("SOPInstanceUID")
    if not (sop_class or stored_as or sop_instance or image.uid("SeriesInstanceUID")):
        return LeftOut(path, "", None, Reason.NO_DICOM, "no DICOM instance")
    missing = _missing(image) if sop_class in ("", *CT_SOP_CLASSES) else ""
    if missing and header.pixels is None and stored_as in CT_SOP_CLASSES:
        detail = "the header is cut off"
        return LeftOut(path, sop_instance, None, Reason.UNREADABLE_FILE, detail)
    planes, left_out = _content(header, image, sop_class or stored_as, rules)
    return Instance(
        path=path,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        identity=SeriesIdentity(
            patient_id=image.text("PatientID"),
            study_instance_uid=image.uid("StudyInstanceUID"),
            series_instance_uid=image.uid("SeriesInstanceUID"),
        ),
        person=tuple(image.text(keyword) for keyword in PERSON),
        missing=missing,
        companion=is_companion(sop_class or stored_as),
        planes=planes,
        left_out=left_out,
    )


def _content(
    header: FileHeader, image: Attributes, sop_class: str, rules: SeriesRules
) -> tuple[tuple[Plane, ...], tuple[LeftOut, ...]]:
    """Planes of the instance and what of it is left out, and why."""
    uid = image.uid("SOPInstanceUID")
    wrong = wrong_class(sop_class, image.text("Modality")) or wrong_image(
        image, image.texts("ImageType")
    )
    if wrong is not None:
        return (), (LeftOut(header.path, uid, None, *wrong),)
    try:
        return planes_of(header, rules)
    except SeriesRefusedError as error:
        return (), (LeftOut(header.path, uid, None, error.reason, error.detail),)


def _missing(image: Attributes) -> str:
    """Keyword of the first identifying attribute that cannot be relied on; empty if none."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not image.uid(keyword):
            return keyword
    return "" if image.text("PatientID") else "PatientID"
