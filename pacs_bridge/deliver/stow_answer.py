"""What a service says became of the one instance that it was sent (PS3.18 10.5.3).

Success is what the answer says of this instance by its UID. The status alone says nothing of
it, and an answer that cannot be read is no success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pacs_bridge.deliver.store_status import (
    DUPLICATE_SOP_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    Verdict,
    verdict,
)
from pacs_bridge.dicomweb import json_model as model


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What became of an instance."""

    verdict: Verdict
    status: int  #: as in DIMSE: 0, a warning reason or a failure reason


def outcome_of(answer: Any, sop_instance_uid: str) -> InstanceOutcome | None:
    """What the answer says of this instance; None if it says nothing of it.

    Parameters
    ----------
    answer
        Store Instances Response Module (table 10.5.3-1) in the DICOM JSON model, as decoded.
    sop_instance_uid
        Of the only instance that was sent: a failure that names none is its failure too.
    """
    module = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    for item in model.items(module, model.FAILED_SOP_SEQUENCE):
        if model.text(item, model.REFERENCED_SOP_INSTANCE_UID) in ("", sop_instance_uid):
            return _failure(item)
    for item in model.items(module, model.OTHER_FAILURES_SEQUENCE):
        return _failure(item)
    for item in model.items(module, model.REFERENCED_SOP_SEQUENCE):
        if model.text(item, model.REFERENCED_SOP_INSTANCE_UID) == sop_instance_uid:
            return _stored(item)
    return None


def has_instance(answer: Any, sop_instance_uid: str) -> bool:
    """Whether the answer to a search, as decoded, gives this instance."""
    return isinstance(answer, list) and any(
        model.text(row, model.SOP_INSTANCE_UID) == sop_instance_uid for row in answer
    )


def _stored(item: dict[str, Any]) -> InstanceOutcome:
    warning = model.whole_number(item, model.WARNING_REASON) or SUCCESS
    kind = Verdict.SENT if warning == SUCCESS else Verdict.SENT_WITH_WARNING
    return InstanceOutcome(kind, warning)


def _failure(item: dict[str, Any]) -> InstanceOutcome:
    reason = model.whole_number(item, model.FAILURE_REASON)
    if reason is None or not 0 < reason <= 0xFFFF:
        reason = PROCESSING_FAILURE
    # C122H, of the transfer syntax (PS3.18 table I.2-2), is a refusal of this form alone
    meaning = verdict(reason)
    if meaning is Verdict.SENT_WITH_WARNING and reason != DUPLICATE_SOP_INSTANCE:
        meaning = Verdict.REFUSED  # a warning in the list of failures: it was not stored
    return InstanceOutcome(meaning, reason)
