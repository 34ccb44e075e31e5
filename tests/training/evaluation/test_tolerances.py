"""Tolerances by structure."""

from __future__ import annotations

import pytest

from inference.structures import STRUCTURE_BY_NAME
from training.errors import TrainingError
from training.evaluation.tolerances import PUBLISHED_TOLERANCE_MM, Tolerances, read_tolerances


def test_structures_have_the_published_tolerance_unless_the_file_says_otherwise(tmp_path):
    path = tmp_path / "tolerances.csv"
    path.write_text("structure,tolerance_mm\nbrain,1\naorta,1.5\n")

    tolerances = read_tolerances(path)

    assert tolerances.mm(STRUCTURE_BY_NAME["aorta"].id) == 1.5
    assert tolerances.mm(STRUCTURE_BY_NAME["liver"].id) == PUBLISHED_TOLERANCE_MM
    assert read_tolerances(path, 2.0).mm(5) == 2.0
    assert Tolerances().mm(5) == 3.0


def test_all_faulty_lines_are_named_at_once(tmp_path):
    path = tmp_path / "tolerances.csv"
    path.write_text("structure,tolerance_mm\nbrian,1\naorta,0\nliver,2\nliver,nan\nliver,3\n")

    with pytest.raises(TrainingError) as refusal:
        read_tolerances(path)

    for line in ("line 2", "line 3", "line 5", "line 6"):
        assert line in refusal.value.detail
    assert "line 4" not in refusal.value.detail
