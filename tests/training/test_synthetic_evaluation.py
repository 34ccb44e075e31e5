"""Scores against the synthetic truth: perfect, absent, and swapped."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.manifest import ModelManifest
from inference.structures import STRUCTURE_BY_NAME
from training.embedded import INTENDED_USE, NETWORK, RECIPE
from training.model_card import model_card
from training.synthetic_evaluation import (
    dice_by_structure,
    mean_dice,
    score_labels,
    swap_count,
    write_scores,
)

LEFT = STRUCTURE_BY_NAME["kidney_left"].id
RIGHT = STRUCTURE_BY_NAME["kidney_right"].id
LIVER = STRUCTURE_BY_NAME["liver"].id


@pytest.fixture
def truth() -> LabelMap:
    labels = np.zeros((4, 20, 30), dtype=np.uint8)
    labels[1:3, 5:15, 20:28] = LEFT  # +x is the patient's left
    labels[1:3, 5:15, 2:10] = RIGHT
    labels[0, :10] = LIVER
    geometry = Geometry.from_affine(
        [[0, 0, 5, 0], [0, 5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]], (4, 20, 30)
    )
    return LabelMap(labels, geometry)


def test_the_truth_itself_scores_one_everywhere(truth):
    scores = score_labels(7, truth, truth)

    assert {s.structure_id for s in scores} == {LEFT, RIGHT, LIVER}
    assert mean_dice(scores) == 1
    assert swap_count(scores) == 0


def test_half_a_structure_scores_two_thirds_and_a_missing_one_nothing(truth):
    found = truth.labels.copy()
    found[0] = 0
    found[2][found[2] == LEFT] = 0

    by_id = {s.structure_id: s for s in score_labels(7, truth, LabelMap(found, truth.geometry))}

    assert by_id[LEFT].dice == pytest.approx(2 / 3)
    assert by_id[LIVER].dice == 0
    assert by_id[LIVER].found_ml == 0
    assert by_id[RIGHT].dice == 1


def test_twins_called_by_each_others_name_count_as_swapped(truth):
    found = truth.labels.copy()
    found[truth.labels == LEFT] = RIGHT
    found[truth.labels == RIGHT] = LEFT

    scores = score_labels(7, truth, LabelMap(found, truth.geometry))

    assert swap_count(scores) == 2


def test_the_table_and_the_card_hold_what_was_measured(truth, tmp_path):
    scores = score_labels(7, truth, truth)
    write_scores(scores, tmp_path / "scores.csv")
    manifest = ModelManifest(
        name="synthetic-3mm",
        version="1",
        spacing_mm=3.0,
        intensity=RECIPE.intensity,
        network=NETWORK,
        source="here",
        licence="Apache-2.0",
        intended_use=INTENDED_USE,
        demonstration=True,
    )

    card = model_card(manifest, scores, "the command")

    assert (tmp_path / "scores.csv").read_text().count("\n") == 4
    assert dice_by_structure(scores)["kidney_left"] == (1.0, 1.0, 1)
    assert "not for patients" in card
    assert "| kidney_left | 1.000 | 1.000 | 1 |" in card
