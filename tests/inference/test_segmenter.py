"""The segmenter: a volume in, labels on the same planes out, and who made them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from inference.errors import InferenceError
from inference.geometry import Geometry
from inference.intensity import PUBLISHED_INTENSITY
from inference.manifest import ModelManifest
from inference.model_store import LoadedModel
from inference.network import NetworkSpec
from inference.postprocessing import CleanUp, PostprocessingSpec
from inference.reasons import Reason
from inference.segmenter import Segmenter, SegmenterOptions, SegResNetSegmenter
from inference.volume import Volume
from inference.windows import Precision, WindowSpec

SMALL_WINDOWS = WindowSpec(window_voxels=16)


@pytest.fixture
def model(
    small_manifest: ModelManifest,
    seeded_weights: Callable[[NetworkSpec], dict[str, torch.Tensor]],
) -> LoadedModel:
    return LoadedModel(
        dataclasses.replace(small_manifest, weights_sha256="ab" * 32),
        seeded_weights(small_manifest.network),
    )


@pytest.fixture
def tilted_volume(rng: np.random.Generator) -> Volume:
    affine = np.array([[0, 0, 1.5, 0], [0.8, 1.5, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    shape = (20, 36, 40)
    hu = rng.integers(-1000, 1000, shape).astype(np.int16)
    return Volume(hu, Geometry.from_affine(affine, shape, "1.2.3"))


def test_labels_lie_on_the_planes_of_the_source(model: LoadedModel, tilted_volume: Volume) -> None:
    segmenter: Segmenter = SegResNetSegmenter(model, SegmenterOptions(windows=SMALL_WINDOWS))

    labels = segmenter.segment(tilted_volume)

    assert labels.geometry is tilted_volume.geometry
    assert len(labels.present()) > 10
    np.testing.assert_array_equal(segmenter.segment(tilted_volume).labels, labels.labels)


def test_progress_runs_from_the_start_to_one(model: LoadedModel, tilted_volume: Volume) -> None:
    seen: list[float] = []

    SegResNetSegmenter(model, SegmenterOptions(windows=SMALL_WINDOWS)).segment(
        tilted_volume, seen.append
    )

    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == 1.0


def test_clean_up_is_applied_where_it_is_switched_on(
    model: LoadedModel, tilted_volume: Volume
) -> None:
    everything = PostprocessingSpec(CleanUp(minimum_ml=1e5))
    options = SegmenterOptions(windows=SMALL_WINDOWS, postprocessing=everything)

    assert SegResNetSegmenter(model, options).segment(tilted_volume).present() == ()


def test_identity_names_model_digest_and_what_it_is_for(model: LoadedModel) -> None:
    identity = SegResNetSegmenter(model).identity

    assert (identity.name, identity.version) == ("small", "1")
    assert identity.digest == "ab" * 32
    assert identity.demonstration
    assert identity.intended_use == "Tests"
    assert identity.source == "random numbers of a test; Apache-2.0"


@pytest.mark.parametrize(
    "options",
    [
        SegmenterOptions(windows=WindowSpec(window_voxels=64)),
        SegmenterOptions(windows=WindowSpec(overlap=0.5)),
        SegmenterOptions(windows=WindowSpec(precision=Precision.BF16)),
        SegmenterOptions(windows=WindowSpec(channels_last=True)),
        SegmenterOptions(intensity=PUBLISHED_INTENSITY),
        SegmenterOptions(postprocessing=PostprocessingSpec(CleanUp(fill_holes=True))),
    ],
)
def test_every_setting_that_changes_the_result_shows_in_the_identity(
    model: LoadedModel, options: SegmenterOptions
) -> None:
    usual, other = SegResNetSegmenter(model).identity, SegResNetSegmenter(model, options).identity

    changed = {a[0] for a, b in zip(usual.parameters, other.parameters, strict=True) if a != b}
    assert len(changed) == 1
    assert list(usual.parameters) == sorted(usual.parameters)


def test_a_network_that_fails_numerically_is_an_error_and_not_a_result(
    model: LoadedModel, tilted_volume: Volume
) -> None:
    weights = dict(model.state_dict)
    weights["convInit.conv.weight"] = torch.full_like(weights["convInit.conv.weight"], torch.inf)
    segmenter = SegResNetSegmenter(
        LoadedModel(model.manifest, weights), SegmenterOptions(windows=SMALL_WINDOWS)
    )

    with pytest.raises(InferenceError) as error:
        segmenter.segment(tilted_volume)

    assert error.value.reason is Reason.MODEL_ERROR


def test_a_grid_beyond_main_memory_is_oom_cpu(model: LoadedModel) -> None:
    metres = Geometry.from_affine(np.diag([6e5, 6e5, 6e5, 1.0]), (2, 2, 2))

    with pytest.raises(InferenceError) as error:
        SegResNetSegmenter(model).segment(Volume(np.zeros((2, 2, 2), dtype=np.int16), metres))

    assert error.value.reason is Reason.OOM_CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(model: LoadedModel) -> None:
    with pytest.raises(InferenceError, match="cuda:0"):
        SegResNetSegmenter(model, SegmenterOptions(device="cuda:0"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_labels_of_the_cpu(model: LoadedModel, tilted_volume: Volume) -> None:
    on_cpu, on_gpu = (
        SegResNetSegmenter(model, SegmenterOptions(device=device, windows=SMALL_WINDOWS))
        .segment(tilted_volume)
        .labels
        for device in ("cpu", "cuda")
    )

    assert (on_cpu != on_gpu).mean() < 1e-3


def test_the_seam_is_imported_without_torch() -> None:
    code = "import sys, inference.segmenter; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
