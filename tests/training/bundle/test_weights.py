"""Weights of a bundle: where they are looked for, what decides about them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet

from inference.errors import ModelError
from inference.intensity import PUBLISHED_INTENSITY, ROBUST_INTENSITY
from inference.manifest import ModelManifest
from inference.model_import import PublishedWeights
from inference.model_store import ModelStore, embedded_store
from inference.network import PUBLISHED_NETWORK, NetworkSpec, build_network
from inference.reasons import Reason
from training.bundle.preprocessing import ToNetwork
from training.bundle.weights import WeightsLoader, manifest_path, spec_of


def _loader(folder: Path, name: str, network: NetworkSpec, **preprocessing: object):
    transform = ToNetwork(**({"pixdim": (3.0, 3.0, 3.0)} | preprocessing))
    return WeightsLoader(str(folder), name, build_network(network), transform)


def _manifest(network: NetworkSpec, **changes: object) -> ModelManifest:
    return dataclasses.replace(
        ModelManifest(
            name="mine",
            version="1",
            spacing_mm=6.0,
            intensity=PUBLISHED_INTENSITY,
            network=network,
            source="a test",
            licence="Apache-2.0",
            intended_use="tests",
            demonstration=True,
        ),
        **changes,
    )


def test_a_file_without_a_manifest_is_what_the_config_says(tmp_path, small_weights, small_network):
    torch.save(small_weights(1), tmp_path / "model.pt")
    loader = _loader(tmp_path, "model.pt", small_network)

    model = loader.load()

    digest = hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert model.manifest.weights_sha256 == digest
    assert model.manifest.spacing_mm == 3.0
    assert model.manifest.intensity == ROBUST_INTENSITY
    assert model.manifest.network == small_network
    for name, tensor in loader.network.state_dict().items():  # tools find them in the network
        torch.testing.assert_close(tensor, small_weights(1)[name])


def test_a_manifest_beside_the_file_decides_as_long_as_it_is_of_that_file(
    tmp_path, small_weights, small_network, caplog
):
    path = tmp_path / "model.pt"
    torch.save(small_weights(1), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = _manifest(small_network, weights_sha256=digest)
    manifest_path(path).write_text(manifest.to_json())

    loader = _loader(tmp_path, "model.pt", PUBLISHED_NETWORK)
    assert loader.load().manifest == manifest
    assert "pixdim is 6.0, not 3.0" in caplog.text

    torch.save(small_weights(2), path)
    model = _loader(tmp_path, "model.pt", small_network).load()
    assert model.manifest.spacing_mm == 3.0
    assert "is of other weights" in caplog.text


def test_published_weights_are_known_by_their_digest(
    tmp_path, small_weights, small_network, monkeypatch
):
    path = tmp_path / "renamed.pt"
    torch.save(small_weights(1), path)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    known = (PublishedWeights("model_lowres.pt", md5, "wholebody-3mm", 3.0),)
    monkeypatch.setattr("inference.model_import.PUBLISHED_WEIGHTS", known)

    loader = _loader(tmp_path, "renamed.pt", small_network, pixdim=(1.5, 1.5, 1.5))
    with pytest.raises(ModelError) as caught:  # the published network is not the small one
        loader.load()
    assert caught.value.reason is Reason.MODEL_NOT_STATE_DICT


def test_a_stored_model_is_found_by_name_in_the_folder_then_in_the_package(
    tmp_path, small_weights, small_network
):
    stored = ModelStore(tmp_path).add(_manifest(small_network), small_weights(1))
    assert _loader(tmp_path, "mine", small_network).load().manifest == stored
    (embedded,) = embedded_store().names()
    model = _loader(tmp_path, embedded, small_network).load()
    assert model.manifest == embedded_store().manifest(embedded)


def test_the_published_file_name_also_finds_what_was_imported_from_it(
    tmp_path, small_weights, small_network
):
    manifest = _manifest(small_network, name="wholebody-1.5mm")
    stored = ModelStore(tmp_path).add(manifest, small_weights(1))
    assert _loader(tmp_path, "model.pt", small_network).load().manifest == stored


def test_missing_weights_are_named_with_where_they_were_looked_for(tmp_path, small_network):
    with pytest.raises(ModelError) as caught:
        _loader(tmp_path, "model.pt", small_network).load()
    assert caught.value.reason is Reason.UNKNOWN_MODEL
    assert f"neither a file model.pt in {tmp_path}" in caught.value.detail


def test_a_file_with_code_in_it_is_refused(tmp_path, small_network):
    torch.save({"x": Path("y")}, tmp_path / "model.pt")
    with pytest.raises(ModelError) as caught:
        _loader(tmp_path, "model.pt", small_network).load()
    assert caught.value.reason is Reason.MODEL_NOT_STATE_DICT


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 2},
        {"out_channels": 118},
        {"norm": ("batch", {})},
        {"upsample_mode": "deconv"},
        {"act": "leakyrelu"},
        {"dropout_prob": None},
        {"spatial_dims": 2},
    ],
)
def test_a_network_that_the_clinic_would_not_run_is_refused(changes):
    arguments = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 105,
        "init_filters": 8,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "dropout_prob": 0.1,
    }
    spec = NetworkSpec(init_filters=8, blocks_down=(1, 1), blocks_up=(1,), dropout_prob=0.1)
    assert spec_of(SegResNet(**arguments)) == spec
    with pytest.raises(ModelError, match="network_def"):
        spec_of(SegResNet(**(arguments | changes)))
