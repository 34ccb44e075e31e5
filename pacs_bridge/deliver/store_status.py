"""What a C-STORE status means for a delivery (PS3.4 B.2.3, PS3.7 annex C)."""

from __future__ import annotations

from enum import Enum, auto

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
PROCESSING_FAILURE = 0x0110
RESOURCE_LIMITATION = 0x0213
SOP_CLASS_NOT_SUPPORTED = 0x0122


class Verdict(Enum):
    """What to do after an answer."""

    SENT = auto()
    SENT_WITH_WARNING = auto()
    TRY_LATER = auto()
    TRY_OTHER_KIND = auto()
    REFUSED = auto()


def verdict(status: int) -> Verdict:
    """What to do after ``status``.

    A warning of coercion or of discarded elements means that the peer has the object (B000,
    B006, B007 and the rest of Bxxx). A duplicate means that it had it already: results have
    derived UIDs, so the same UID is the same result. Out of resources (A7xx) and failures of
    the peer's own (0110, 0213) pass; everything else would be answered the same again.
    """
    if status == SUCCESS:
        return Verdict.SENT
    if status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116, DUPLICATE_SOP_INSTANCE):
        return Verdict.SENT_WITH_WARNING
    if status >> 8 == 0xA7 or status in (PROCESSING_FAILURE, RESOURCE_LIMITATION):
        return Verdict.TRY_LATER
    if status == SOP_CLASS_NOT_SUPPORTED:
        return Verdict.TRY_OTHER_KIND
    return Verdict.REFUSED
