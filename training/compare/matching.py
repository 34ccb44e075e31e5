"""Which of the 104 structures a segment of some tool is: by code and side, or by name.

Codes are in ``data/segment_codes.csv``: those that this project writes, and those that other
tools are known to write for the same structure. SRT codes count as their SNOMED CT successors.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from pydicom.sr.coding import Code

from inference.structures import STRUCTURE_BY_NAME, STRUCTURES

_SNOMED_CT = "SCT"


def structure_by_code(kind: Code, side: Code | None) -> int | None:
    """The id of a segmented property type with its laterality modifier (PS3.3 C.8.20.2).

    A code whose structure has a twin says nothing without its side: None.
    """
    return _codes().get((_snomed(kind), "" if side is None else _snomed(side)))


def structure_by_name(name: str) -> int | None:
    """The id of a TotalSegmentator name; case, order of words and separators do not matter.

    A name of v2 whose structure is a part of one of v1 is that one: the S1 vertebra is sacrum.
    """
    return _names().get(_words(name))


def _snomed(code: Code) -> str:
    """The value in SNOMED CT; a code of another scheme with its scheme."""
    if code.scheme_designator == _SNOMED_CT:
        return code.value
    for value in _successors():
        # pydicom compares codes across the two schemes
        if code == Code(value, _SNOMED_CT, ""):
            return value
    return f"{code.scheme_designator}:{code.value}"


@cache
def _codes() -> Mapping[tuple[str, str], int]:
    rows = csv.DictReader(_table("segment_codes.csv"))
    return MappingProxyType(
        {
            (row["type_code"], row["modifier_code"]): STRUCTURE_BY_NAME[row["structure"]].id
            for row in rows
        }
    )


@cache
def _successors() -> tuple[str, ...]:
    return tuple(sorted({value for key in _codes() for value in key if value}))


@cache
def _names() -> Mapping[frozenset[str], int]:
    newer = csv.DictReader(_table("totalsegmentator_v2_values.csv"))
    found = {_words(row["name"]): row["structure"] for row in newer if row["structure"]}
    found |= {_words(structure.name): structure.name for structure in STRUCTURES}
    return MappingProxyType({words: STRUCTURE_BY_NAME[name].id for words, name in found.items()})


def _words(name: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[^0-9a-z]+", name.casefold()) if word)


def _table(name: str) -> list[str]:
    return (files("training") / "data" / name).read_text(encoding="utf-8").splitlines()
