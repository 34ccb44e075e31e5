"""UIDs and dates of synthetic series: derived, so that the same options give the same bytes."""

from __future__ import annotations

import hashlib

from pydicom.uid import UID

#: Implementation Class UID of files written here.
IMPLEMENTATION_CLASS_UID = UID("2.25.307745132837498193840174293847561029384")
IMPLEMENTATION_VERSION_NAME = "PACSBRIDGE_SYN"


def synthetic_uid(*names: object) -> UID:
    """A UID below 2.25 from the SHA-256 of ``names`` (PS3.5 B.2)."""
    digest = hashlib.sha256("\x1f".join(["synthetic", *map(str, names)]).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
