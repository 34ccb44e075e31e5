"""What each structure is called in SNOMED CT, and the colour that viewers paint it in.

Facts live in ``data/anatomy_codes.csv``, one row a structure of ``inference.structures``, in
the same order. Left and right share a type code and differ by the laterality modifier, which
travels as Segmented Property Type Modifier Code Sequence (PS3.3 C.8.20.2).
"""

from __future__ import annotations

import csv
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
    cielab: tuple[int, int, int]  #: Recommended Display CIELab Value, 16 bit (PS3.3 C.10.7.1.1)
    doubt: str  #: what is not certain about the codes; empty if nothing
    verified_by: str  #: where the code was checked


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
            doubt=row["note"],
            verified_by=row["verified_by"],
        )
        for row in csv.DictReader(table.splitlines())
    )


STRUCTURE_CODES: tuple[StructureCode, ...] = _load()


def code_of(structure_id: int) -> StructureCode:
    """How the structure with this id, 1..104, is coded."""
    return STRUCTURE_CODES[structure_id - 1]
