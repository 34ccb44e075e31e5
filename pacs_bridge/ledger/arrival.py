"""An instance that arrives, and what can become of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from inference.reasons import Reason
from pacs_bridge.ledger.associations import AssociationRecord
from pacs_bridge.ledger.facts import SeriesFacts


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance that lies in the spool's landing folder, durable, and waits to be entered."""

    association: AssociationRecord
    landed_path: Path
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_key: str  #: keyed hash of the Patient ID
    digest: str  #: SHA-256 of the data set as received, hexadecimal
    data_offset_bytes: int  #: where the data set begins in the file
    size_bytes: int  #: of the file
    frame_count: int
    expected_instances: int | None  #: Number of Series Related Instances, if the sender says it
    facts: SeriesFacts
    is_identified: bool = True  #: False: an identifier is empty, nothing is made up for it


class Fate(StrEnum):
    """What becomes of an arrival."""

    KEPT = "kept"
    KNOWN = "known"  #: the same instance with the same bytes is here already
    CONFLICTING = "conflicting"  #: the same instance with other bytes: quarantine
    MIXED_IDENTITY = "mixed-identity"  #: its series is another patient's or study's: quarantine
    MISSING_IDENTITY = "missing-identity"  #: quarantine
    OWN_RESULT = "own-result"  #: made by us: never kept

    @property
    def reason(self) -> Reason | None:
        """The code that goes with it; None where there is nothing to say."""
        return _REASONS.get(self)

    @property
    def is_quarantine(self) -> bool:
        """Whether the file goes into quarantine."""
        return self in (Fate.CONFLICTING, Fate.MIXED_IDENTITY, Fate.MISSING_IDENTITY)


_REASONS = {
    Fate.KNOWN: Reason.DUPLICATE_INSTANCE,
    Fate.CONFLICTING: Reason.CONFLICTING_INSTANCE,
    Fate.MIXED_IDENTITY: Reason.MIXED_IDENTITY,
    Fate.MISSING_IDENTITY: Reason.MISSING_IDENTITY,
    Fate.OWN_RESULT: Reason.OWN_RESULT,
}


class Placer(Protocol):
    """Moves the files of arrivals, inside the transaction: what it holds is on the disk."""

    def place(self, arrival: Arrival, fate: Fate) -> str | None:
        """Move a file to where its fate sends it and give the path, relative to the data folder.

        None where nothing is kept: the file then stays where it landed, for its owner to delete.
        """
        ...

    def settle(self) -> None:
        """Make the moves durable; called once, before the transaction is committed."""
        ...
