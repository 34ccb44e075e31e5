"""The codes of the 104 structures."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from dicom_seg.codes import (
    ANATOMICAL_STRUCTURE,
    BODY_STRUCTURE,
    STRUCTURE_CODES,
    CodedTerm,
    code_of,
    code_table,
)
from inference.structures import STRUCTURES

ROOT = Path(__file__).resolve().parents[2]
RIGHT, LEFT = CodedTerm("24028007", "Right"), CodedTerm("7771000", "Left")

# Dihedral group D5, by the definition of Verhoeff (1969): multiplication and the permutation.
_ROTATE = [[(a + b) % 5 for b in range(5)] + [(a + b) % 5 + 5 for b in range(5)] for a in range(5)]
_MIRROR = [[(a - b) % 5 + 5 for b in range(5)] + [(a - b) % 5 for b in range(5)] for a in range(5)]
_PRODUCT = _ROTATE + _MIRROR
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def has_verhoeff_check_digit(number: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = _PERMUTATION[value]
        check = _PRODUCT[check][value]
    return check == 0


def all_terms() -> list[CodedTerm]:
    terms = [ANATOMICAL_STRUCTURE, BODY_STRUCTURE]
    for code in STRUCTURE_CODES:
        terms += [t for t in (code.type, code.modifier, code.region, code.region_modifier) if t]
    return terms


def test_codes_stand_in_the_order_of_the_class_list() -> None:
    assert [(c.structure_id, c.name) for c in STRUCTURE_CODES] == [
        (s.id, s.name) for s in STRUCTURES
    ]
    assert code_of(104).name == "urinary_bladder"


def test_type_and_side_tell_all_structures_apart() -> None:
    keys = {(code.type.value, code.modifier and code.modifier.value) for code in STRUCTURE_CODES}

    assert len(keys) == 104


def test_a_known_wrong_digit_fails_the_check_that_all_codes_pass() -> None:
    assert has_verhoeff_check_digit("2363")  # the example of the literature
    assert not has_verhoeff_check_digit("78961008")
    assert not has_verhoeff_check_digit("79861009")  # neighbours swapped
    wrong = [term.value for term in all_terms() if not has_verhoeff_check_digit(term.value)]
    assert wrong == []


def test_one_code_has_one_meaning_that_fits_into_its_attribute() -> None:
    meanings: dict[str, set[str]] = {}
    for term in all_terms():
        assert term.meaning.isascii()
        assert 0 < len(term.meaning) <= 64
        assert len(term.value) <= 16
        meanings.setdefault(term.value, set()).add(term.meaning)

    assert {value: found for value, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s.is_left], ids=lambda s: s.name)
def test_left_and_right_share_a_type_and_differ_in_side(structure) -> None:
    left = code_of(structure.id)
    right = next(code for code in STRUCTURE_CODES if code.name == structure.twin)

    if left.modifier is None:  # heart chambers: the type itself says the side
        assert "left" in left.type.meaning.lower()
        assert "right" in right.type.meaning.lower()
    else:
        assert (left.modifier, right.modifier) == (LEFT, RIGHT)
        assert left.type == right.type


def test_every_side_in_a_name_is_in_its_code() -> None:
    for code in STRUCTURE_CODES:
        for word, term in (("left", LEFT), ("right", RIGHT)):
            if word in code.name.split("_"):
                assert code.modifier == term or word in code.type.meaning.lower(), code.name


def test_codes_that_are_said_to_be_in_the_standard_are_there() -> None:
    known = {code.value for code in codes.SCT.concepts.values()}
    claimed = [code.type.value for code in STRUCTURE_CODES if "PS3.16" in code.verified_by]

    assert len(claimed) > 50
    assert set(claimed) <= known
    assert {RIGHT.value, LEFT.value, ANATOMICAL_STRUCTURE.value} <= known


def rgb_of(cielab: tuple[int, int, int]) -> tuple[int, ...]:
    """sRGB of an encoded PCS value (PS3.3 C.10.7.1.1), white D65, as DCMTK and dcmjs do it."""
    lightness, a, b = (
        cielab[0] / 65535 * 100,
        cielab[1] / 65535 * 255 - 128,
        cielab[2] / 65535 * 255 - 128,
    )
    y = (lightness + 16) / 116
    x, y, z = (
        white * (t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29))
        for white, t in ((0.95047, y + a / 500), (1.0, y), (1.08883, y - b / 200))
    )
    linear = (
        3.2404542 * x - 1.5371385 * y - 0.4985314 * z,
        -0.9692660 * x + 1.8760108 * y + 0.0415560 * z,
        0.0556434 * x - 0.2040259 * y + 1.0572252 * z,
    )
    gamma = (v * 12.92 if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear)
    return tuple(round(min(max(v, 0), 1) * 255) for v in gamma)


def test_a_viewer_paints_a_structure_in_the_colour_of_our_pictures() -> None:
    assert [rgb_of(code.cielab) for code in STRUCTURE_CODES] == [s.rgb for s in STRUCTURES]


@pytest.mark.parametrize(
    ("prefix", "doubt"), [("autochthon_", "Unverified"), ("hip_", "region"), ("iliac_", "common")]
)
def test_doubtful_codes_say_so(prefix: str, doubt: str) -> None:
    doubtful = [code for code in STRUCTURE_CODES if code.name.startswith(prefix)]

    assert doubtful
    assert all(doubt in code.note for code in doubtful)


def test_every_code_was_found_somewhere_or_says_that_it_was_not() -> None:
    assert all(code.verified_by or "Unverified" in code.note for code in STRUCTURE_CODES)


def test_the_documented_table_is_the_one_in_use() -> None:
    assert (ROOT / "docs" / "anatomy_codes.md").read_text(encoding="utf-8") == code_table()
