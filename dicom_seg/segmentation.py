"""Writes a label map as a DICOM Segmentation.

BINARY is the Segmentation Storage that every viewer knows; LABELMAP is Label Map
Segmentation Storage (PS3.3 A.51, C.8.20).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_seg.codes import ANATOMICAL_STRUCTURE, CodedTerm
from dicom_seg.provenance import AlgorithmIdentity, SourceInstance
from inference.finding import Finding
from inference.label_map import LabelMap

if TYPE_CHECKING:
    from dicom_seg.series import StackPlan


class SegKind(StrEnum):
    """The two Segmentation SOP classes."""

    BINARY = "binary"
    LABELMAP = "labelmap"


class Encoding(StrEnum):
    """How the frames travel; each kind has those that its readers know."""

    NATIVE = "native"  #: Explicit VR Little Endian, both kinds
    DEFLATED = "deflated"  #: Deflated Explicit VR Little Endian, BINARY
    RLE = "rle"  #: RLE Lossless, LABELMAP


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The result of an earlier revision, which this one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class SegRequest:
    """All that a Segmentation says beside the labels and their source."""

    kind: SegKind
    algorithm: AlgorithmIdentity
    created: datetime  #: content, series and creation date; an aware one is written with its offset
    encoding: Encoding | None = None  #: None: NATIVE for BINARY, RLE for LABELMAP
    findings: tuple[Finding, ...] = ()
    truncated: frozenset[int] = frozenset()  #: structure ids that touch the border of the scan
    revision: int = 1
    predecessor: Predecessor | None = None
    sources: tuple[SourceInstance, ...] = ()  #: digests as received; empty: computed from the files
    series_number: int = 9000
    series_description: str | None = None  #: None: says that the result is investigational
    content_description: str | None = None  #: the same
    category: CodedTerm = ANATOMICAL_STRUCTURE


@dataclass(frozen=True, slots=True)
class EncodedSegmentation:
    """A Segmentation on disk."""

    path: Path
    kind: SegKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    segment_ids: tuple[int, ...]  #: structure id of segment 1, 2, ...
    frame_count: int
    sha256: str  #: of the file
    size_bytes: int


def write_segmentation(
    labels: LabelMap, plan: StackPlan, request: SegRequest, path: Path
) -> EncodedSegmentation:
    """Write ``labels`` as one Segmentation object at ``path``.

    Raises
    ------
    SegmentationError
        ``missing-identity`` if the source lacks an identity to copy, ``empty-result`` if no
        structure is present, ``seg-encode`` if the object would break a limit of DICOM.
    """
    raise NotImplementedError
