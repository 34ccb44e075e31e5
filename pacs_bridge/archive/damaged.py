"""Files whose header the engine refuses: which series they are of, as far as they say.

A file in a transfer syntax that is not read, or one that ends too early, still belongs to a
series, which is then refused for it instead of being segmented without it.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicom_seg.read.attributes import Attributes, tag_of
from dicom_seg.read.examination import LeftOut, SeriesIdentity
from dicom_seg.read.instance import PERSON, Instance
from dicom_seg.read.kind import is_companion
from dicom_seg.read.transfer_syntax import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_HEAD_BYTES: Final = 1 << 16
_DATA_SET_AT: Final = 132
_DEFLATED: Final = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95")
_SERIES_INSTANCE_UID: Final = 0x0020000E
_TAGS: Final[list[BaseTag | int]] = [
    tag_of(keyword)
    for keyword in (
        *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "PatientID"),
        *("StudyInstanceUID", "SeriesInstanceUID", *PERSON),
    )
]


def attributed(left_out: LeftOut) -> Instance | LeftOut:
    """The instance that a refused file is, with its reason; the same again if it does not say.

    Call it within `dicom_seg.read.header.quiet_pydicom`.
    """
    try:
        image = _identifiers(left_out.path)
    except Exception:  # whatever the bytes do to the parser, the file was refused before
        return left_out
    series = image.uid("SeriesInstanceUID")
    if not series:
        return left_out
    sop_class, sop_instance = image.uid("SOPClassUID"), image.uid("SOPInstanceUID")
    companion = is_companion(sop_class)
    return Instance(
        path=left_out.path,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        identity=SeriesIdentity(image.text("PatientID"), image.uid("StudyInstanceUID"), series),
        person=tuple(image.text(keyword) for keyword in PERSON),
        missing="",
        companion=companion,
        planes=(),
        left_out=(LeftOut(left_out.path, sop_instance, None, left_out.reason, left_out.detail),),
    )


def _identifiers(path: Path) -> Attributes:
    with path.open("rb") as file:
        content = file.read(_HEAD_BYTES)
    stream = BytesIO(content)
    if content[128:_DATA_SET_AT] != b"DICM":
        return _elements(stream, "")
    stream.seek(_DATA_SET_AT)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    syntax = Attributes(meta).uid("TransferSyntaxUID")
    if syntax in _DEFLATED:
        rest = content[stream.tell() :]
        stream = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest, _HEAD_BYTES))
    return _elements(stream, syntax)


def _elements(stream: BytesIO, syntax: str) -> Attributes:
    dataset: Dataset = read_dataset(
        stream,
        is_implicit_VR=syntax == IMPLICIT_VR_LITTLE_ENDIAN,
        is_little_endian=syntax != EXPLICIT_VR_BIG_ENDIAN,
        stop_when=lambda tag, _vr, _length: tag > _SERIES_INSTANCE_UID,
        specific_tags=_TAGS,
    )
    return Attributes(dataset)
