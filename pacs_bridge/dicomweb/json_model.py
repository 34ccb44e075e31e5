"""Attributes of the DICOM JSON model (PS3.18 annex F), whatever a service has made of it."""

from __future__ import annotations

from typing import Any

SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
STUDY_DATE = "00080020"
MODALITY = "00080060"
SOP_CLASSES_IN_STUDY = "00080062"
MANUFACTURER = "00080070"
STUDY_DESCRIPTION = "00081030"
SERIES_DESCRIPTION = "0008103E"
REFERENCED_SOP_INSTANCE_UID = "00081155"
WARNING_REASON = "00081196"
FAILURE_REASON = "00081197"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_SEQUENCE = "00081199"
MOST_OF_ANYTHING = 2**31 - 1
OTHER_FAILURES_SEQUENCE = "0008119A"
PATIENT_NAME = "00100010"
PATIENT_ID = "00100020"
ISSUER_OF_PATIENT_ID = "00100021"
PATIENT_BIRTH_DATE = "00100030"
BODY_PART = "00180015"
PROTOCOL_NAME = "00181030"
STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
NUMBER_OF_SERIES_RELATED_INSTANCES = "00201209"


def values(item: Any, tag: str) -> tuple[Any, ...]:
    """The values of an attribute, those that are null left out; none if it is not there."""
    attribute = item.get(tag) if isinstance(item, dict) else None
    found = attribute.get("Value") if isinstance(attribute, dict) else None
    if not isinstance(found, list):
        return ()
    return tuple(each for each in found if each is not None)


def texts(item: Any, tag: str) -> tuple[str, ...]:
    """The values that are text or numbers, as text without padding."""
    return tuple(
        sound(str(each)) for each in values(item, tag) if isinstance(each, str | int | float)
    )


def sound(text: str) -> str:
    """Text without padding, and without what cannot be written down (lone surrogates, NUL)."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip(" ")


def text(item: Any, tag: str) -> str:
    """The first value as text; empty without one."""
    return next(iter(texts(item, tag)), "")


def person_name(item: Any, tag: str) -> str:
    """The first value of a PN as text, its groups as PS3.5 6.2.1 writes them; empty without one."""
    name = next(iter(values(item, tag)), None)
    if not isinstance(name, dict):
        return text(item, tag)
    groups = [name.get(each) for each in ("Alphabetic", "Ideographic", "Phonetic")]
    told = [sound(each) if isinstance(each, str) else "" for each in groups]
    return "=".join(told).rstrip("=")


def whole_number(item: Any, tag: str) -> int | None:
    """The first value as a whole number, as a number or as text (IS); None without one that can be.

    What is counted here is never negative, and an IS has 32 bits (PS3.5 table 6.2-1).
    """
    found = text(item, tag)
    try:
        number = int(found)
    except ValueError:
        return None
    return number if 0 <= number <= MOST_OF_ANYTHING else None


def items(item: Any, tag: str) -> tuple[dict[str, Any], ...]:
    """The items of a sequence."""
    return tuple(each for each in values(item, tag) if isinstance(each, dict))
