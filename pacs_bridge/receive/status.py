"""The statuses that the listener answers with (PS3.4 B.2.3, PS3.7 C), and when."""

from __future__ import annotations

from enum import IntEnum

from pacs_bridge.ledger.arrival import Fate


class Status(IntEnum):
    """Status codes of C-STORE and C-ECHO responses."""

    SUCCESS = 0x0000  #: durable: we own it
    PROCESSING_FAILURE = 0x0110  #: a fault of ours: try again
    DUPLICATE_SOP_INSTANCE = 0x0111  #: the same UID with other bytes
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700  #: disk or ledger: try again later
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    MISSING_IDENTITY = 0xC001
    MIXED_IDENTITY = 0xC002


_BY_FATE = {
    Fate.KEPT: Status.SUCCESS,
    Fate.KNOWN: Status.SUCCESS,
    Fate.OWN_RESULT: Status.SUCCESS,
    Fate.CONFLICTING: Status.DUPLICATE_SOP_INSTANCE,
    Fate.MIXED_IDENTITY: Status.MIXED_IDENTITY,
    Fate.MISSING_IDENTITY: Status.MISSING_IDENTITY,
}


def status_of(fate: Fate) -> Status:
    """What is answered for an instance that met this fate."""
    return _BY_FATE[fate]
