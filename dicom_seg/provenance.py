"""What a result was made of, and the UIDs that follow from it.

UIDs of results are derived, not random: ``2.25.`` and 128 bit of SHA-256 (PS3.5 B.2) over
the source, the model and its parameters. The same work gives the same UIDs, so that a
repeated delivery is harmless and a rerun is recognised.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from inference.identity import SegmenterIdentity

#: What a Segmentation says of its algorithm is what the segmenter says of itself.
AlgorithmIdentity = SegmenterIdentity

_PREAMBLE_BYTES: Final = 128
_MAGIC: Final = b"DICM"
_META_GROUP: Final = 0x0002
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})


def derived_uid(*parts: str) -> str:
    """``2.25.`` and the first 128 bit of SHA-256 over ``parts`` (PS3.5 B.2)."""
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


#: Names this software in every file that it writes (PS3.10 7.1).
IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation class", "pacs-bridge")


@dataclass(frozen=True, slots=True)
class SourceInstance:
    """One instance that went into a result."""

    sop_instance_uid: str
    digest: str  #: SHA-256 of its data set as received, hexadecimal


@dataclass(frozen=True, slots=True)
class ResultIdentity:
    """All that tells one result from another."""

    series_instance_uid: str  #: of the source
    sources: tuple[SourceInstance, ...]  #: in any order
    model_digest: str
    parameters: tuple[tuple[str, str], ...]  #: of the segmenter, in any order
    revision: int
    stack: str  #: what separates this stack from the others of its series
    kind: str

    def uid(self, role: str) -> str:
        """UID of what plays ``role`` in this result, such as "series" or "instance"."""
        facts = (
            self.series_instance_uid,
            sorted((source.sop_instance_uid, source.digest) for source in self.sources),
            self.model_digest,
            sorted(self.parameters),
            self.revision,
            self.stack,
            self.kind,
        )
        return derived_uid(role, json.dumps(facts))

    def tracking_uid(self, structure_name: str) -> str:
        """Names one structure of one stack: the same in every kind, model and revision."""
        return derived_uid("tracking", self.series_instance_uid, self.stack, structure_name)


def instance_digest(path: Path) -> str:
    """SHA-256 of a DICOM file's data set, without preamble and file meta information.

    The file meta information says who stored the file, not what is in it (PS3.10 7.1): an
    instance has one digest, however often it is stored.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_data_set_offset(file))
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_instances(paths: Sequence[tuple[str, Path]]) -> tuple[SourceInstance, ...]:
    """Digests of the files of these SOP Instance UIDs.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    return tuple(SourceInstance(uid, instance_digest(path)) for uid, path in paths)


def _data_set_offset(file: BinaryIO) -> int:
    """Where the file meta information ends; 0 where there is none."""
    file.seek(_PREAMBLE_BYTES)
    if file.read(len(_MAGIC)) != _MAGIC:
        return 0
    # Group 2 is Explicit VR Little Endian whatever follows; its group length is often wrong.
    while True:
        start = file.tell()
        head = file.read(8)
        if len(head) < 8 or struct.unpack_from("<H", head)[0] != _META_GROUP:
            return start
        if head[4:6] in _LONG_VRS:
            length = struct.unpack("<I", file.read(4).ljust(4, b"\0"))[0]
        else:
            length = struct.unpack_from("<H", head, 6)[0]
        file.seek(length, 1)
