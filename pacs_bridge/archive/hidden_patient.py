"""The patient of a series as an archive told it, and as the plan keeps it: keyed hashes alone."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import KEY_NAME, IdentityHash
from pacs_bridge.sources.remote_archive import FoundPatient


@dataclass(frozen=True, slots=True)
class HiddenPatient:
    """Whose series it is; what an archive does not tell is empty."""

    patient_id: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""

    @classmethod
    def of(cls, found: FoundPatient, hide: IdentityHash) -> HiddenPatient:
        """The hashes of what an archive says."""
        told = (found.patient_id, found.issuer, found.name, found.birth_date)
        return cls(*map(hide.word, told))

    @classmethod
    def from_json(cls, text: str) -> HiddenPatient:
        """From what the plan kept; nobody is known where it kept nothing."""
        return cls(*json.loads(text)) if text else cls()

    def to_json(self) -> str:
        """As the plan keeps it."""
        return json.dumps(astuple(self))

    @property
    def is_told(self) -> bool:
        """Whether the archive says whose series it is."""
        return bool(self.patient_id)

    def differs(self, other: HiddenPatient) -> bool:
        """Whether this is another patient, by the rule for instances of one series.

        An ID that two hospitals gave to two people: the issuer tells, or name and date of birth.
        """
        if not (self.is_told and other.is_told):
            return False
        if (self.patient_id, self.issuer) != (other.patient_id, other.issuer):
            return True
        return self.name != other.name and self.birth_date != other.birth_date


def run_key(run_folder: Path) -> bytes:
    """The key of the hash that a plan was made with.

    Raises
    ------
    PermanentError
        ``source-missing`` if its key is gone.
    """
    try:
        return (run_folder / KEY_NAME).read_bytes()
    except OSError as error:
        raise PermanentError(
            Reason.SOURCE_MISSING, f"{KEY_NAME} of the plan: {error.strerror}"
        ) from error
