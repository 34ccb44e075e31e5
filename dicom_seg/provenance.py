"""Who made a result, of what, and the UIDs that follow from it.

A result is named by what it was made of: UIDs are ``2.25.`` and 128 bit of SHA-256
(PS3.5 B.2) over the source, the model and its parameters. The same work gives the same UIDs
and the same bytes, so that a repeated delivery is harmless and a rerun is recognised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AlgorithmIdentity:
    """What segmented: named in every segment (PS3.3 10.16)."""

    name: str
    version: str
    digest: str  #: SHA-256 of the weights, hexadecimal
    source: str = ""  #: who published it: licence or URL
    parameters: tuple[tuple[str, str], ...] = ()
    demonstration: bool = False  #: trained on synthetic patients: for demonstration only
    intended_use: str = ""


@dataclass(frozen=True, slots=True)
class SourceInstance:
    """One instance that went into a result."""

    sop_instance_uid: str
    digest: str  #: SHA-256 of its data set as received, hexadecimal


def instance_digest(path: Path) -> str:
    """SHA-256 of a DICOM file's data set, without preamble and file meta information.

    The file meta information names who stored the file, not what is in it (PS3.10 7.1): the
    same instance from two senders has one digest.
    """
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ResultIdentity:
    """All that makes one result differ from another."""

    series_instance_uid: str
    sources: tuple[SourceInstance, ...]
    algorithm: AlgorithmIdentity
    revision: int = 1
    stack: str = ""  #: what separates this stack from others of its series
    kind: str = ""

    def uid(self, role: str) -> str:
        """The UID of what plays ``role`` in this result: "series", "instance", a tracking UID."""
        facts = [
            self.series_instance_uid,
            sorted((source.sop_instance_uid, source.digest) for source in self.sources),
            self.algorithm.digest,
            sorted(self.algorithm.parameters),
            self.revision,
            self.stack,
            self.kind,
        ]
        return derived_uid(role, json.dumps(facts, ensure_ascii=True))


def derived_uid(*parts: str) -> str:
    """``2.25.`` and the first 128 bit of SHA-256 over ``parts`` (PS3.5 B.2)."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def source_instances(paths: Sequence[Path]) -> tuple[SourceInstance, ...]:
    """The instances of these files with their digests."""
    raise NotImplementedError
