"""What a result shares with its source, and whether the source keeps the rules of DICOM there.

The attributes are in ``data/copied_attributes.csv``. A value that breaks its value
representation (PS3.5 6.2) would make the result invalid, too: it is left out where it is
optional, and kept where it says whose the object is, since an object that cannot be found by
the identity of its source is lost.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import validate_value

from inference.finding import Finding
from inference.reasons import Reason

#: Optional, and kept whatever they hold: without them a name or an ID means something else.
_KEPT: Final = frozenset({"SpecificCharacterSet", "IssuerOfPatientID"})
#: Value representations with rules; numbers in binary have none to break.
_OF_LETTERS: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI"}
)


@dataclass(frozen=True, slots=True)
class CopiedAttribute:
    """One row of the table."""

    keyword: str
    type: str  #: 1: refused if empty; 2: empty if absent; 3: left out if absent
    tag: BaseTag

    @property
    def is_kept(self) -> bool:
        """Whether it is copied even where its value breaks the rules."""
        return self.type != "3" or self.keyword in _KEPT


@cache
def copied_attributes() -> tuple[CopiedAttribute, ...]:
    """The attributes that a result copies from its source."""
    table = (files("dicom_seg") / "data" / "copied_attributes.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(table.splitlines()):
        tag = tag_for_keyword(row["keyword"])
        if tag is None:
            raise LookupError(row["keyword"])
        rows.append(CopiedAttribute(row["keyword"], row["type"], Tag(tag)))
    return tuple(rows)


def value_findings(source: Dataset) -> tuple[Finding, ...]:
    """A finding that names the attributes whose values break the rules, if there are any.

    Call it within `dicom_seg.read.header.quiet_pydicom`. Values are not told.
    """
    broken = [each for each in copied_attributes() if not keeps_rules(source, each.tag)]
    if not broken:
        return ()
    kept = [each.keyword for each in broken if each.is_kept]
    left_out = [each.keyword for each in broken if not each.is_kept]
    parts = [
        f"{what}: {', '.join(names)}"
        for what, names in (("kept", kept), ("left out", left_out))
        if names
    ]
    return (Finding(Reason.INVALID_VALUE, "; ".join(parts)),)


def keeps_rules(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether a value, and all below it, is of its representation and multiplicity.

    True where there is none. Stored bytes stay as they are.
    """
    if tag not in dataset or tag.is_private:
        return True
    stored = dataset.get_item(tag)
    try:
        element = dataset[tag]
        vr, value = element.VR, element.value
    except Exception:  # pydicom raises what it likes for a bad value
        return False
    finally:
        if isinstance(stored, RawDataElement) and stored.VR != "SQ":
            dataset[tag] = stored
    if vr == "SQ":
        return all(keeps_rules(item, inner) for item in value or () for inner in list(item.keys()))
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    if len(values) > 1 and _is_single(tag):
        return False
    return vr not in _OF_LETTERS or all(_is_valid(vr, one) for one in values if one is not None)


def _is_valid(vr: str, value: object) -> bool:
    try:
        validate_value(vr, str(value), RAISE)
    except ValueError:
        return False
    return True


def _is_single(tag: BaseTag) -> bool:
    try:
        return dictionary_VM(tag) == "1"
    except KeyError:  # not in the dictionary of this pydicom
        return False
