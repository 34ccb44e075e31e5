"""The few attributes of an instance that the listener looks at; nothing else is decoded."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from pacs_bridge.ledger.facts import SeriesFacts

#: PS3.5 9.1: at most 64 characters, numbers between dots. Leading zeros are common in the field
#: and harmless, since no UID ever becomes part of a path.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_MAX_CHARACTERS = 64
_SERIES_INSTANCE_UID = Tag(0x0020, 0x000E)
_NUMBER_OF_FRAMES = Tag(0x0028, 0x0008)
#: Frames of an instance or instances of a series beyond any scanner's.
_MOST_OF_ANYTHING = 1_000_000
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_T = TypeVar("_T")
_TAGS: list[BaseTag | int] = [
    Tag(tag)
    for tag in (
        0x00080005,  # Specific Character Set
        0x00080008,  # Image Type
        0x00080016,  # SOP Class UID
        0x00080018,  # SOP Instance UID
        0x00080060,  # Modality
        0x00080070,  # Manufacturer
        0x00081030,  # Study Description
        0x0008103E,  # Series Description
        0x00100020,  # Patient ID
        0x00180015,  # Body Part Examined
        0x00180050,  # Slice Thickness
        0x00181030,  # Protocol Name
        0x00181210,  # Convolution Kernel
        0x0020000D,  # Study Instance UID
        0x0020000E,  # Series Instance UID
        0x00201209,  # Number of Series Related Instances
        0x00280008,  # Number of Frames
    )
]


class HeaderError(Exception):
    """The data set cannot be understood; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """What the listener knows of an instance. Empty where the data set says nothing.

    Of what may be missing the same holds where nobody can tell what it says, such as a Slice
    Thickness of ``1,25``: no instance is refused for it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    frame_count: int
    expected_instances: int | None
    facts: SeriesFacts


def is_valid_uid(text: str) -> bool:
    """Whether ``text`` can be a UID."""
    return len(text) <= _UID_MAX_CHARACTERS and _UID.fullmatch(text) is not None


def read_header(
    head: bytes,
    transfer_syntax_uid: str,
    calling_ae_title: str,
    more: Callable[[], bytes] | None = None,
) -> InstanceHeader:
    """The attributes of an instance.

    Parameters
    ----------
    head
        The beginning of its data set.
    transfer_syntax_uid
        How the data set is encoded.
    calling_ae_title
        Who sent it.
    more
        Gives a longer beginning, for the odd one whose head is not enough; None where there is
        none: a data set that ends before Number of Frames is then taken for cut.

    Raises
    ------
    HeaderError
        If the data set cannot be parsed up to Number of Frames, whatever its bytes are; if a
        UID, Patient ID or Number of Frames is there and cannot be understood; or if it says
        nothing of a patient, study or series.
    """
    file = io.BytesIO(head)
    try:
        found = _parse(file, transfer_syntax_uid)
        is_cut = file.tell() >= len(head)  # a value that is cut is given as if it were whole
    except HeaderError:
        if more is None:
            raise
        is_cut = True
    if is_cut:
        if more is None:
            raise HeaderError("it is cut")
        found = _parse(io.BytesIO(more()), transfer_syntax_uid)
    header = _understood(lambda: _header(found, calling_ae_title))
    if not (header.study_instance_uid or header.series_instance_uid or header.patient_id):
        raise HeaderError("no identifier in it")
    return header


def series_uid_of(head: bytes, transfer_syntax_uid: str) -> str:
    """The series that the beginning of a data set names, whatever else stands in it.

    Empty if it cannot be told: it is not there, is no UID, or may be cut.
    """
    file = io.BytesIO(head)
    try:
        ds = _parse(file, transfer_syntax_uid, _SERIES_INSTANCE_UID)
        series = _understood(lambda: _text(ds, "SeriesInstanceUID"))
    except HeaderError:
        return ""
    is_cut = file.tell() >= len(head)
    return "" if is_cut or not is_valid_uid(series) else series


def _parse(file: BinaryIO, transfer_syntax_uid: str, last: BaseTag = _NUMBER_OF_FRAMES) -> Dataset:
    return _understood(
        lambda: read_dataset(
            file,
            is_implicit_VR=transfer_syntax_uid == _IMPLICIT,
            is_little_endian=transfer_syntax_uid != _BIG_ENDIAN,
            stop_when=lambda tag, _vr, _length: tag > last,
            specific_tags=_TAGS,
        )
    )


def _understood(parse: Callable[[], _T]) -> _T:
    """Whatever a parser throws at hostile bytes is one thing here: not to be understood."""
    try:
        return parse()
    except Exception as error:
        raise HeaderError(f"not to be parsed: {type(error).__name__}") from error


def _otherwise(nothing: _T, parse: Callable[[], _T]) -> _T:
    """What may be missing, or ``nothing`` where it cannot be understood."""
    try:
        return parse()
    except Exception:  # as in ``_understood``
        return nothing


def _header(ds: Dataset, calling_ae_title: str) -> InstanceHeader:
    return InstanceHeader(
        sop_class_uid=_text(ds, "SOPClassUID"),
        sop_instance_uid=_text(ds, "SOPInstanceUID"),
        study_instance_uid=_text(ds, "StudyInstanceUID"),
        series_instance_uid=_text(ds, "SeriesInstanceUID"),
        patient_id=_text(ds, "PatientID"),
        frame_count=max(_count(ds, "NumberOfFrames") or 1, 1),
        expected_instances=_otherwise(None, lambda: _count(ds, "NumberOfSeriesRelatedInstances")),
        facts=_facts(ds, calling_ae_title),
    )


def _facts(ds: Dataset, calling_ae_title: str) -> SeriesFacts:
    def text(keyword: str) -> str:
        return _otherwise("", lambda: _text(ds, keyword))

    def texts(keyword: str) -> tuple[str, ...]:
        return _otherwise((), lambda: _texts(ds, keyword))

    return SeriesFacts(
        calling_ae_title=calling_ae_title,
        modality=text("Modality"),
        image_type=texts("ImageType"),
        body_part=text("BodyPartExamined"),
        series_description=text("SeriesDescription"),
        study_description=text("StudyDescription"),
        protocol_name=text("ProtocolName"),
        kernel="\\".join(texts("ConvolutionKernel")),
        manufacturer=text("Manufacturer"),
        slice_thickness_mm=_otherwise(None, lambda: _decimal(ds, "SliceThickness")),
    )


def _texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    value = ds.get(keyword)
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return tuple(str(one).strip(" \0") for one in values)


def _text(ds: Dataset, keyword: str) -> str:
    values = _texts(ds, keyword)
    return values[0] if values else ""


def _count(ds: Dataset, keyword: str) -> int | None:
    """A number of things; the ledger adds them up, so an absurd one must not get there."""
    text = _text(ds, keyword)
    if not text:
        return None
    if abs(value := int(text)) > _MOST_OF_ANYTHING:
        raise HeaderError(f"{keyword} is {value}")
    return value


def _decimal(ds: Dataset, keyword: str) -> float | None:
    text = _text(ds, keyword)
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None
