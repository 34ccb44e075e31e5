"""Structures are asked for by name or by group."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME
from inference.wanted_labels import (
    keep_labels,
    named_structures,
    structure_groups,
    wanted_labels,
)


def test_groups_hold_structures_of_the_list_each_once() -> None:
    groups = structure_groups()

    assert len(groups) > 5
    for name, members in groups.items():
        assert name not in STRUCTURE_BY_NAME
        assert len(set(members)) == len(members)
        assert set(members) <= set(STRUCTURE_BY_NAME)
    assert len(groups["vertebrae"]) == 24
    assert len(groups["ribs"]) == 24
    assert len(groups["lungs"]) == 5


def test_a_group_and_a_member_of_it_name_each_structure_once_in_the_order_of_ids() -> None:
    assert named_structures(["liver", "kidneys", "kidney_left"]) == (
        "kidney_right",
        "kidney_left",
        "liver",
    )


def test_an_unknown_name_is_said_with_the_groups_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'heart_valve'.*vertebrae"):
        named_structures(["liver", "heart_valve"])


def test_only_what_is_wanted_stays() -> None:
    labels = np.arange(105, dtype=np.uint8).reshape(1, 105, 1)
    label_map = LabelMap(labels, Geometry.from_affine(np.eye(4)[[2, 1, 0, 3]], labels.shape))

    keep_labels(label_map, wanted_labels([]))
    assert len(label_map.present()) == 104
    keep_labels(label_map, wanted_labels(["liver", "spleen"]))
    assert label_map.present() == (1, 5)
