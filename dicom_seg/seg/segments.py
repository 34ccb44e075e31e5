"""The Segment Sequence: what each segment is, who found it, what to know about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentDescription
from highdicom.sr import CodedConcept

from dicom_seg.codes import CodedTerm, code_of
from dicom_seg.provenance import AlgorithmIdentity, ResultIdentity
from dicom_seg.seg import elements
from dicom_seg.seg.copied import fitted
from dicom_seg.seg.file import attribute_bytes
from dicom_seg.seg.request import SegRequest

#: Algorithm family (PS3.16 CID 7162).
ARTIFICIAL_INTELLIGENCE: Final = CodedTerm("123110", "Artificial Intelligence", "DCM")
#: Segment Description of a structure whose volume is not its whole volume.
TRUNCATED_TEXT: Final = "Touches the border of the scan: its volume here is not its whole volume"
DEMONSTRATION_TEXT: Final = "For demonstration only: model trained on synthetic data"
_ALGORITHM_SEQUENCE: Final = 0x00620007
_LO_CHARACTERS: Final = 64
_LT_CHARACTERS: Final = 10240


def segment_items(
    structure_ids: Sequence[int],
    request: SegRequest,
    identity: ResultIdentity,
    charset: str | list[str] | None,
) -> Iterator[bytes]:
    """Elements of the items 1, 2, ... for these structures (PS3.3 C.8.20.2, C.8.20.4)."""
    algorithm = algorithm_identification(request.algorithm, charset)
    items = [attribute_bytes(item, charset) for item in algorithm]
    encoded = elements.raw_sequence(_ALGORITHM_SEQUENCE, items)  # once, not a hundred times
    for number, structure_id in enumerate(structure_ids, start=1):
        segment = _segment(number, structure_id, request, identity, algorithm)
        segment[_ALGORITHM_SEQUENCE] = encoded
        yield attribute_bytes(segment, charset)


def _segment(
    number: int,
    structure_id: int,
    request: SegRequest,
    identity: ResultIdentity,
    algorithm: AlgorithmIdentificationSequence,
) -> SegmentDescription:
    code = code_of(structure_id)
    segment = SegmentDescription(
        segment_number=number,
        segment_label=code.name,
        segmented_property_category=_concept(request.category),
        segmented_property_type=_concept(code.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_id=code.name,
        tracking_uid=identity.tracking_uid(code.name),
        anatomic_regions=None if code.region is None else [_concept(code.region)],
    )
    segment.RecommendedDisplayCIELabValue = list(code.cielab)
    if code.modifier is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            _concept(code.modifier)
        ]
    if code.region_modifier is not None:
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [
            _concept(code.region_modifier)
        ]
    remarks = [TRUNCATED_TEXT] if structure_id in request.truncated else []
    if request.algorithm.demonstration:
        remarks.append(DEMONSTRATION_TEXT)
    if remarks:
        segment.SegmentDescription = ". ".join(remarks)
    return segment


def algorithm_identification(
    algorithm: AlgorithmIdentity, charset: object
) -> AlgorithmIdentificationSequence:
    """Who segmented, with which weights and parameters (PS3.3 10.16)."""
    sequence = AlgorithmIdentificationSequence(
        name=fitted(algorithm.name, charset, _LO_CHARACTERS),
        family=_concept(ARTIFICIAL_INTELLIGENCE),
        version=fitted(algorithm.version, charset, _LO_CHARACTERS),
        source=fitted(algorithm.source, charset, _LO_CHARACTERS) or None,
    )
    facts = [("weights_sha256", algorithm.digest), *sorted(algorithm.parameters)]
    text = ",".join(f"{key}={value}" for key, value in facts)
    sequence[0].AlgorithmParameters = fitted(text, charset, _LT_CHARACTERS)
    return sequence


def _concept(term: CodedTerm) -> CodedConcept:
    return CodedConcept(term.value, term.scheme, term.meaning)
