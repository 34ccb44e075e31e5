"""Checks of the Segment Sequence: which structure each segment is, by its codes."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_seg.codes import STRUCTURE_CODES, StructureCode, code_of
from dicom_seg.errors import VerificationError
from dicom_seg.segmentation import SegRequest
from dicom_seg.verify.stored import StoredSegmentation


def stored_structures(
    stored: StoredSegmentation, present: tuple[int, ...], request: SegRequest
) -> dict[int, int]:
    """Structure id of each segment number, told by type code and laterality in the file.

    Raises
    ------
    VerificationError
        If segments are not numbered 1..N for the ids that are ``present``, in their order, or
        a segment's code, label, colour, algorithm or remark is not what it should be.
    """
    known = {_key_of(code): code.structure_id for code in STRUCTURE_CODES}
    sequence = stored.attributes.SegmentSequence
    structures = {}
    for position, segment in enumerate(sequence, start=1):
        number = int(segment.SegmentNumber)
        if number != position:
            raise VerificationError(f"segment {position} has number {number}")
        structure_id = known.get(_key(segment))
        if structure_id is None:
            raise VerificationError(f"segment {number}: no structure has its codes")
        _check_segment(segment, code_of(structure_id), request)
        structures[number] = structure_id
    if tuple(structures.values()) != present:
        raise VerificationError(
            f"segments are structures {tuple(structures.values())}, not {present}"
        )
    return structures


def _key_of(code: StructureCode) -> tuple[str, str]:
    return code.type.value, code.modifier.value if code.modifier else ""


def _key(segment: Dataset) -> tuple[str, str]:
    """Type and modifier codes of an item of the Segment Sequence."""
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence") or []
    return str(kind.CodeValue), "+".join(str(item.CodeValue) for item in modifiers)


def _check_segment(segment: Dataset, code: StructureCode, request: SegRequest) -> None:
    (category,) = segment.SegmentedPropertyCategoryCodeSequence
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    expected = {
        "SegmentLabel": (segment.SegmentLabel, code.name),
        "category": (category.CodeValue, request.category.value),
        "type scheme": (kind.CodingSchemeDesignator, code.type.scheme),
        "colour": (tuple(segment.RecommendedDisplayCIELabValue), code.cielab),
        "SegmentAlgorithmType": (segment.SegmentAlgorithmType, "AUTOMATIC"),
        "weights": (request.algorithm.digest in str(algorithm.AlgorithmParameters), True),
        "truncation": (
            "border of the scan" in str(segment.get("SegmentDescription", "")),
            code.structure_id in request.truncated,
        ),
    }
    for what, (found, meant) in expected.items():
        if found != meant:
            raise VerificationError(f"segment {segment.SegmentNumber}: {what} is {found}")
