"""The class list."""

from __future__ import annotations

from inference.structures import CLASS_COUNT, STRUCTURE_BY_NAME, STRUCTURES, structure


def test_ids_run_from_1_to_104_without_gaps() -> None:
    assert [one.id for one in STRUCTURES] == list(range(1, 105))
    assert CLASS_COUNT == 105


def test_landmarks_of_the_v1_order_hold() -> None:
    # Where v2 differs, a mix-up of the two orders shows here.
    assert structure(7).name == "aorta"
    assert structure(18).name == "vertebrae_L5"
    assert structure(50).name == "brain"
    assert structure(104).name == "urinary_bladder"


def test_twins_point_at_each_other_and_one_is_left() -> None:
    pairs = [one for one in STRUCTURES if one.twin]

    assert len(pairs) == 60
    for one in pairs:
        other = STRUCTURE_BY_NAME[one.twin or ""]
        assert other.twin == one.name
        assert one.is_left != other.is_left


def test_no_two_structures_share_a_colour() -> None:
    assert len({one.rgb for one in STRUCTURES}) == 104
