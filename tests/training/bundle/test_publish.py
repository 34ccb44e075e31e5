"""Weights that training writes where the published ones lie."""

from __future__ import annotations

import hashlib

import pytest
import torch

from inference.manifest import ModelManifest
from inference.model_import import PublishedWeights, published_manifest
from inference.network import build_network
from inference.preprocessing import IntensitySpec, Scaling
from inference.windows import Precision
from training.augmentation.settings import NO_AUGMENTATION
from training.bundle.trainer import publish
from training.case import CaseRecipe
from training.checkpoint import save_checkpoint
from training.plan import Plan
from training.record import RunRecord
from training.state import TrainingState
from training.trainer import TrainingResult


@pytest.fixture
def result(tmp_path, small_weights, small_network) -> TrainingResult:
    """Of a training that did nothing."""
    plan = Plan(steps=1)
    state = TrainingState.start(build_network(small_network), plan)
    state.average.load_state_dict(small_weights(1))
    recipe = CaseRecipe(4.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE))
    record = RunRecord(
        recipe, small_network, plan, NO_AUGMENTATION, 1, Precision.FP32, ("a",), ("b",)
    )
    save_checkpoint(state, record, tmp_path / "checkpoint.pt")
    return TrainingResult(tmp_path / "checkpoint.pt", None, (), None)


def test_weights_lie_beside_the_manifest_of_their_file(result, tmp_path, small_weights):
    path = tmp_path / "models" / "model.pt"
    publish(result, path, "one case")

    weights = torch.load(path, weights_only=True)
    for name, tensor in small_weights(1).items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-3, rtol=1e-3)
    manifest = ModelManifest.from_json((tmp_path / "models" / "model.json").read_bytes(), "")
    assert manifest.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.spacing_mm == 4.0
    assert dict(manifest.training)["data"] == "one case"
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.pt"]


def test_published_weights_are_kept_under_another_name(
    result, tmp_path, small_weights, monkeypatch
):
    path = tmp_path / "model.pt"
    torch.save(small_weights(2), path)
    before = path.read_bytes()
    md5 = hashlib.md5(before).hexdigest()
    known = (PublishedWeights("model.pt", md5, "wholebody-1.5mm", 1.5),)
    monkeypatch.setattr("inference.model_import.PUBLISHED_WEIGHTS", known)

    publish(result, path, "one case")
    publish(result, path, "one case")

    assert (tmp_path / "model.published.pt").read_bytes() == before
    assert published_manifest(path) is None
