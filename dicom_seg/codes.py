"""What each structure is called in SNOMED CT, and the colour that viewers paint it in.

Facts live in ``data/anatomy_codes.csv``, one row a structure of ``inference.structures``, in
the same order. Left and right share a type code and differ by the laterality modifier, which
travels as Segmented Property Type Modifier Code Sequence (PS3.3 C.8.20.2).
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from importlib.resources import files

SNOMED_CT = "SCT"


@dataclass(frozen=True, slots=True)
class CodedTerm:
    """A code of SNOMED CT, as DICOM writes it (PS3.3 Section 8)."""

    value: str  #: Code Value
    meaning: str  #: Code Meaning
    scheme: str = SNOMED_CT  #: Coding Scheme Designator


#: Segmented property category of every segment (PS3.16 CID 7150).
ANATOMICAL_STRUCTURE = CodedTerm("91723000", "Anatomical Structure")
#: The category that 3D Slicer, dcmqi and the Imaging Data Commons write instead.
BODY_STRUCTURE = CodedTerm("123037004", "Anatomical Structure")


@dataclass(frozen=True, slots=True)
class StructureCode:
    """How one structure of the class list is coded."""

    structure_id: int  #: 1..104
    name: str  #: name in ``inference.structures``
    type: CodedTerm  #: segmented property type
    modifier: CodedTerm | None  #: laterality; None where there is one, or the type says it
    region: CodedTerm | None  #: anatomic region, where the type alone does not say it
    region_modifier: CodedTerm | None
    #: Recommended Display CIELab Value, 16 bit (PS3.3 C.10.7.1.1): ``Structure.rgb`` with white
    #: D65, as DCMTK, dcmqi and dcmjs turn it back
    cielab: tuple[int, int, int]
    note: str  #: what a reader of the code has to know, doubts among it
    verified_by: str  #: where the code was checked; empty if it was found nowhere


def _term(value: str, meaning: str) -> CodedTerm | None:
    return CodedTerm(value, meaning) if value else None


def _load() -> tuple[StructureCode, ...]:
    table = (files("dicom_seg") / "data" / "anatomy_codes.csv").read_text(encoding="utf-8")
    return tuple(
        StructureCode(
            structure_id=int(row["id"]),
            name=row["name"],
            type=CodedTerm(row["type_code"], row["type_meaning"]),
            modifier=_term(row["modifier_code"], row["modifier_meaning"]),
            region=_term(row["region_code"], row["region_meaning"]),
            region_modifier=_term(row["region_modifier_code"], row["region_modifier_meaning"]),
            cielab=(int(row["cielab_L"]), int(row["cielab_a"]), int(row["cielab_b"])),
            note=row["note"],
            verified_by=row["verified_by"],
        )
        for row in csv.DictReader(table.splitlines())
    )


STRUCTURE_CODES: tuple[StructureCode, ...] = _load()


def code_of(structure_id: int) -> StructureCode:
    """How the structure with this id, 1..104, is coded."""
    return STRUCTURE_CODES[structure_id - 1]


_PAGE_HEAD = """\
# Codes of the 104 structures
Written by `python -m dicom_seg.codes`; the facts are in `dicom_seg/data/anatomy_codes.csv`.

Every segment has the category (91723000, SCT, "Anatomical Structure"); a site may choose
(123037004, SCT, "Anatomical Structure"), which 3D Slicer and the Imaging Data Commons use. Type
and side tell the 104 structures apart: the side is a Segmented Property Type Modifier Code
(24028007 "Right", 7771000 "Left"). All codes are SNOMED CT.

"""


def code_table() -> str:
    """All codes as a Markdown page; ``docs/anatomy_codes.md`` is this text."""
    lines = ["| id | structure | type | meaning | side | checked in | note |", "| --- " * 7 + "|"]
    lines += [
        f"| {code.structure_id} | {code.name} | {code.type.value} | {code.type.meaning} "
        f"| {code.modifier.meaning if code.modifier else ''} "
        f"| {code.verified_by.replace(' | ', ', ') or 'nothing'} | {code.note} |"
        for code in STRUCTURE_CODES
    ]
    return _PAGE_HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(code_table())
