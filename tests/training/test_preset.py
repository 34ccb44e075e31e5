"""Presets: every shipped one loads, and each fault is named with its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from inference.reasons import Reason
from training import embedded
from training.dataset import ScanPair
from training.errors import TrainingError
from training.plan import published_plan
from training.preset import Split, load_preset

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("train_*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_preset_loads(path):
    assert load_preset(path).plan.steps > 0


def test_there_is_a_preset_for_each_resolution_and_the_embedded_model():
    spacing = {path.name: load_preset(path).case.spacing_mm for path in SHIPPED}

    assert spacing["train_1.5mm.toml"] == 1.5
    assert spacing["train_3.0mm.toml"] == 3.0
    assert "train_embedded.toml" in spacing


def test_the_embedded_preset_is_the_recipe_of_the_embedded_model():
    preset = load_preset(CONFIGS / "train_embedded.toml")
    run = embedded.EmbeddedRun(seed=1, folder=Path())

    assert preset.plan == run.plan
    assert preset.network == run.network
    assert preset.case == run.recipe
    assert preset.seed == run.seed


def test_the_published_preset_is_the_published_plan():
    plan = load_preset(CONFIGS / "train_published.toml").plan

    kept = {"checkpoint_steps": 500, "validation_steps": 2400}
    assert plan == dataclasses.replace(published_plan(plan.steps), **kept)


def test_overrides_are_values_or_bare_words():
    preset = load_preset(
        CONFIGS / "train_3.0mm.toml",
        ["plan.steps=7", "plan.optimizer=adamw", "network.blocks_down=[1, 1, 1, 1]", "seed = 3"],
    )

    assert preset.plan.steps == 7
    assert preset.plan.optimizer == "adamw"
    assert preset.network.blocks_down == (1, 1, 1, 1)
    assert preset.seed == 3


def test_all_faults_are_named_at_once_with_their_keys():
    overrides = ["plan.stpes=7", "precision=fp64", "case.intensity.clamp=[0, 1]", "plan.batch=0"]

    with pytest.raises(TrainingError) as caught:
        load_preset(CONFIGS / "train_3.0mm.toml", overrides)

    assert caught.value.reason is Reason.TRAINING_PRESET
    for words in (
        "plan.stpes: no such key",
        "case.intensity.clamp: no such key",
        "precision: ",
        "batch must be 1 or more: 0",
    ):
        assert words in caught.value.detail


@pytest.mark.parametrize("text", ["plan.steps", "=3", "seed.deep=1"])
def test_an_override_that_is_none_is_refused(text):
    with pytest.raises(TrainingError):
        load_preset(CONFIGS / "train_3.0mm.toml", [text])


def test_the_last_cases_judge_and_are_not_trained_on():
    pairs = [ScanPair(f"s{n}", Path(), Path()) for n in range(5)]

    trained, judged = Split(validation_cases=2).of(pairs)

    assert [pair.name for pair in trained] == ["s0", "s1", "s2"]
    assert [pair.name for pair in judged] == ["s3", "s4"]
    assert Split(validation_cases=0).of(pairs) == (tuple(pairs), ())
    with pytest.raises(TrainingError):
        Split(validation_cases=5).of(pairs)


def test_no_case_judges_where_none_is_asked_for():
    pairs = [ScanPair(name, Path(name), Path(name)) for name in "abc"]

    training, validation = Split(0, validate_on_training=True).of(pairs)

    assert len(training) == 3
    assert validation == ()
