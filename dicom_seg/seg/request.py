"""What a Segmentation is asked to be, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from dicom_seg.codes import ANATOMICAL_STRUCTURE, CodedTerm
from dicom_seg.provenance import AlgorithmIdentity, SourceInstance
from inference.finding import Finding

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"


class SegKind(StrEnum):
    """The two kinds of Segmentation: a bit a voxel and structure, or an id a voxel."""

    BINARY = "binary"
    LABELMAP = "labelmap"

    @property
    def sop_class_uid(self) -> str:
        """Segmentation Storage or Label Map Segmentation Storage (PS3.4 B.5)."""
        return SEGMENTATION_STORAGE if self is SegKind.BINARY else LABEL_MAP_SEGMENTATION_STORAGE


class Encoding(StrEnum):
    """How the frames travel: those transfer syntaxes that readers of the kind know."""

    NATIVE = "native"  #: Explicit VR Little Endian; either kind
    DEFLATED = "deflated"  #: Deflated Explicit VR Little Endian; BINARY
    RLE = "rle"  #: RLE Lossless; LABELMAP

    @property
    def transfer_syntax_uid(self) -> str:
        """PS3.5 Annex A."""
        return {
            Encoding.NATIVE: str(ExplicitVRLittleEndian),
            Encoding.DEFLATED: str(DeflatedExplicitVRLittleEndian),
            Encoding.RLE: str(RLELossless),
        }[self]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The result of an earlier revision, which this one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class Equipment:
    """What made the object (PS3.3 C.7.5.1, C.7.5.2); all four are required there."""

    manufacturer: str = "PACS Bridge"
    model_name: str = "PACS Bridge"
    software_versions: tuple[str, ...] = field(default_factory=lambda: (version("pacs-bridge"),))
    device_serial_number: str = "unspecified"  #: names the installation


@dataclass(frozen=True, slots=True)
class SegRequest:
    """All that a Segmentation says beside the labels and their source.

    Raises
    ------
    ValueError
        If the encoding is none of its kind, or revision and predecessor do not fit.
    """

    kind: SegKind
    algorithm: AlgorithmIdentity
    created: datetime  #: date of content, series and instance; a naive one is local time
    encoding: Encoding | None = None  #: None: ``NATIVE`` for BINARY, ``RLE`` for LABELMAP
    findings: tuple[Finding, ...] = ()  #: of the labels; those of the series are in its plan
    truncated: frozenset[int] = frozenset()  #: structure ids that the scan cuts
    revision: int = 1  #: 1 and up; the same series with a late slice is another revision
    predecessor: Predecessor | None = None
    sources: tuple[SourceInstance, ...] = ()  #: digests as received; empty: taken from the files
    equipment: Equipment = field(default_factory=Equipment)
    series_number: int = 9000
    series_description: str | None = None  #: None: says that the result is investigational
    content_description: str | None = None  #: the same; a demonstration model ignores it
    category: CodedTerm = ANATOMICAL_STRUCTURE

    def __post_init__(self) -> None:
        other = Encoding.RLE if self.kind is SegKind.BINARY else Encoding.DEFLATED
        if self.encoding is other:
            raise ValueError(f"readers of {self.kind} Segmentations do not know {self.encoding}")
        if self.revision < 1 or (self.predecessor is not None and self.revision == 1):
            raise ValueError(f"revision {self.revision} with predecessor {self.predecessor}")

    @property
    def frame_encoding(self) -> Encoding:
        """The encoding asked for, or the default of the kind."""
        if self.encoding is not None:
            return self.encoding
        return Encoding.NATIVE if self.kind is SegKind.BINARY else Encoding.RLE


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
    sha256: str  #: of the file, hexadecimal
    size_bytes: int
