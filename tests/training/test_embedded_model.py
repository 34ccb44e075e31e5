"""The committed embedded model: whole, honest about itself, and good at synthetic patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.model_store import LoadedModel, embedded_store
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from inference.windows import Precision, WindowSpec
from training.embedded import MODEL_NAME, NETWORK, RECIPE, TRAINING_SEEDS, EmbeddedRun
from training.synthetic_evaluation import HELD_OUT_SEEDS, mean_dice, score_labels, swap_count


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return embedded_store().load(MODEL_NAME)


def test_it_says_what_it_is_and_how_it_was_made(model):
    manifest = model.manifest

    assert manifest.demonstration
    assert "not for patients" in manifest.intended_use
    assert manifest.spacing_mm == RECIPE.spacing_mm
    assert manifest.intensity == RECIPE.intensity
    assert manifest.network == NETWORK
    made = dict(manifest.training)
    run = EmbeddedRun(seed=int(made["seed"]), folder=Path())
    assert made["command"] == run.command
    assert made["steps"] == f"{run.steps} of {run.steps}"
    assert made["data"] == f"synthetic patients {run.cases.start} to {run.cases.stop - 1}"


def test_no_patient_that_it_is_judged_on_was_trained_on():
    assert not set(HELD_OUT_SEEDS) & set(TRAINING_SEEDS)


def test_it_finds_the_structures_of_a_held_out_patient_on_their_own_side(model):
    seed = HELD_OUT_SEEDS[1]
    patient = SyntheticPatient.from_seed(seed)
    volume, truth = patient.sample(default_geometry(patient, (3, 3, 3), FieldOfView.ABDOMEN))
    windows = WindowSpec(precision=Precision.BF16, channels_last=True)
    segmenter = SegResNetSegmenter(model, SegmenterOptions(windows=windows))

    scores = score_labels(seed, truth, segmenter.segment(volume))

    assert mean_dice(scores) > 0.8
    assert swap_count(scores) == 0
