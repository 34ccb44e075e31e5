"""Models come out of the store as they went in, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.errors import ModelError
from inference.manifest import ModelManifest
from inference.model_store import ModelStore, embedded_store, locate
from inference.network import NetworkSpec
from inference.reasons import Reason

Weights = dict[str, torch.Tensor]


@pytest.fixture
def weights(
    seeded_weights: Callable[[NetworkSpec], Weights], small_manifest: ModelManifest
) -> Weights:
    return seeded_weights(small_manifest.network)


@pytest.fixture
def store(tmp_path: Path, small_manifest: ModelManifest, weights: Weights) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.add(small_manifest, weights)
    return store


def reason_of(call: Callable[[], object]) -> tuple[Reason, str]:
    with pytest.raises(ModelError) as error:
        call()
    return error.value.reason, error.value.detail


def test_what_was_added_is_loaded(store: ModelStore, weights: Weights) -> None:
    model = store.load("small")

    assert store.names() == ("small",)
    assert model.manifest == store.verify("small") == store.manifest("small")
    assert model.state_dict.keys() == weights.keys()
    assert all(torch.equal(model.state_dict[key], weights[key]) for key in weights)
    data = (store.root / "small" / "weights.safetensors").read_bytes()
    assert model.manifest.weights_sha256 == hashlib.sha256(data).hexdigest()


def test_the_same_weights_have_the_same_digest(
    store: ModelStore, tmp_path: Path, small_manifest: ModelManifest, weights: Weights
) -> None:
    shuffled = dict(reversed(weights.items()))

    again = ModelStore(tmp_path / "other").add(small_manifest, shuffled)

    assert again == store.manifest("small")
    assert store.add(small_manifest, weights) == again  # a repetition changes nothing


def test_a_name_is_not_taken_over_unless_asked(
    store: ModelStore, small_manifest: ModelManifest, weights: Weights
) -> None:
    other = dict(weights, **{"conv_final.2.conv.bias": torch.ones(105)})

    assert reason_of(lambda: store.add(small_manifest, other))[0] is Reason.MODEL_MANIFEST
    replaced = store.add(small_manifest, other, replace=True)

    assert store.verify("small") == replaced
    assert [path.name for path in store.root.iterdir()] == ["small"]
    assert len(list((store.root / "small").iterdir())) == 2
    again = store.add(small_manifest, weights, replace=True)
    assert store.verify("small") == again != replaced
    assert store.add(small_manifest, weights, replace=True) == again
    assert store.verify("small") == again


def _killed_at(step: int, root: Path, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that dies before its ``step``-th access to files in ``root``.

    True if it died; False if the work was done before.
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event.partition(".")[0] in {"open", "os", "tempfile", "shutil"} and any(
                str(root) in str(argument) for argument in arguments
            ):
                seen += 1
                if seen == step:
                    os._exit(9)

        torch.set_num_threads(1)  # threads of the parent are not here
        sys.addaudithook(watch)
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_a_process_that_dies_while_it_replaces_a_model_leaves_the_old_one_or_the_new_one(
    store: ModelStore, small_manifest: ModelManifest, weights: Weights
) -> None:
    other = dict(weights, **{"conv_final.2.conv.bias": torch.ones(105)})
    old = store.verify("small")
    left = []
    step = 1
    while _killed_at(step, store.root, lambda: store.add(small_manifest, other, replace=True)):
        left.append(store.verify("small"))
        if left[-1] != old:
            store.add(small_manifest, weights, replace=True)
            assert store.verify("small") == old
        step += 1
    new = store.verify("small")
    assert new != old
    assert set(left) == {old, new}  # it was killed before the change and after it


def test_a_process_that_dies_while_it_adds_a_model_leaves_it_whole_or_not_at_all(
    tmp_path: Path, small_manifest: ModelManifest, weights: Weights
) -> None:
    store = ModelStore(tmp_path / "fresh")
    step = 1
    while _killed_at(step, store.root, lambda: store.add(small_manifest, weights)):
        assert all(store.verify(name) for name in store.names())
        step += 1
    assert step > 3
    assert store.verify("small")


def test_half_precision_weights_are_loaded_as_single(
    tmp_path: Path, small_manifest: ModelManifest, weights: Weights
) -> None:
    store = ModelStore(tmp_path / "half")
    store.add(small_manifest, {key: tensor.half() for key, tensor in weights.items()})

    loaded = store.load("small").state_dict

    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_one_changed_byte_is_noticed(store: ModelStore) -> None:
    path = store.root / "small" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)

    reason, detail = reason_of(lambda: store.load("small"))

    assert reason is Reason.MODEL_CHECKSUM
    assert str(path) in detail


def test_missing_weights_are_noticed(store: ModelStore) -> None:
    (store.root / "small" / "weights.safetensors").unlink()

    assert reason_of(lambda: store.verify("small"))[0] is Reason.MODEL_CHECKSUM


def _replace_weights(store: ModelStore, data: bytes) -> None:
    """Other bytes with a digest that is right, as somebody who edits both files would."""
    folder = store.root / "small"
    (folder / "weights.safetensors").write_bytes(data)
    manifest = dataclasses.replace(
        store.manifest("small"), weights_sha256=hashlib.sha256(data).hexdigest()
    )
    (folder / "manifest.json").write_text(manifest.to_json())


def test_bytes_that_are_no_tensors_are_refused(store: ModelStore) -> None:
    _replace_weights(store, b"\x80\x04K\x01.")

    assert reason_of(lambda: store.load("small"))[0] is Reason.MODEL_NOT_STATE_DICT


@pytest.mark.parametrize(
    ("key", "tensor", "reason"),
    [
        ("convInit.conv.weight", torch.zeros(8, 1, 5, 5, 5), Reason.MODEL_NOT_STATE_DICT),
        ("conv_final.2.conv.weight", torch.zeros(118, 8, 1, 1, 1), Reason.MODEL_CLASS_COUNT),
        ("conv_final.2.conv.bias", torch.full((105,), torch.inf), Reason.MODEL_NOT_STATE_DICT),
        ("unknown.weight", torch.zeros(1), Reason.MODEL_NOT_STATE_DICT),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_both_directions(
    store: ModelStore,
    tmp_path: Path,
    weights: Weights,
    key: str,
    tensor: torch.Tensor,
    reason: Reason,
) -> None:
    odd = dict(weights, **{key: tensor})
    save_file(odd, tmp_path / "odd.safetensors")
    manifest = dataclasses.replace(store.manifest("small"), name="odd")
    _replace_weights(store, (tmp_path / "odd.safetensors").read_bytes())

    assert reason_of(lambda: store.load("small"))[0] is reason
    assert reason_of(lambda: store.add(manifest, odd))[0] is reason
    assert store.names() == ("small",)


def test_missing_weights_of_a_layer_are_named(
    tmp_path: Path, small_manifest: ModelManifest, weights: Weights
) -> None:
    del weights["convInit.conv.weight"]

    reason, detail = reason_of(lambda: ModelStore(tmp_path).add(small_manifest, weights))

    assert reason is Reason.MODEL_NOT_STATE_DICT
    assert "convInit.conv.weight is missing" in detail


def test_a_manifest_in_the_wrong_folder_is_refused(store: ModelStore) -> None:
    (store.root / "small").rename(store.root / "other")

    assert reason_of(lambda: store.manifest("other"))[0] is Reason.MODEL_MANIFEST


@pytest.mark.parametrize("name", ["missing", "../models/small", "", "."])
def test_an_unknown_name_is_refused_and_the_known_ones_listed(store: ModelStore, name: str) -> None:
    reason, detail = reason_of(lambda: store.load(name))

    assert reason is Reason.UNKNOWN_MODEL
    assert "small" in detail


def test_an_empty_store_has_no_models(tmp_path: Path) -> None:
    assert ModelStore(tmp_path / "nowhere").names() == ()


def test_the_first_store_with_the_name_is_found(store: ModelStore, tmp_path: Path) -> None:
    empty = ModelStore(tmp_path / "empty")

    assert locate("small", [empty, store]) is store
    reason, detail = reason_of(lambda: locate("large", [empty, store]))
    assert reason is Reason.UNKNOWN_MODEL
    assert "small" in detail


def test_the_models_that_the_package_carries_are_whole_and_say_what_they_are() -> None:
    store = embedded_store()

    for name in store.names():
        assert store.verify(name).demonstration
