"""Blending in feature space gives what MONAI's inferer gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers.inferer import SlidingWindowInferer

from inference.errors import ModelError
from inference.network import NetworkSpec, build_network
from inference.reasons import Reason
from inference.sliding_window import SplitNetwork, importance_map, segment_windows
from inference.windows import Precision, WindowSpec

SMALL = NetworkSpec(init_filters=8, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1))
CPU = torch.device("cpu")


def small_network() -> torch.nn.Module:
    torch.manual_seed(11)
    network = build_network(SMALL).eval()
    head = network.conv_final[2].conv  # type: ignore[index]
    head.weight.data -= head.weight.data.mean(dim=1, keepdim=True)  # no class wins everywhere
    return network


def monai_logits(array: np.ndarray, window: int, overlap: float) -> torch.Tensor:
    """The published inferer's output, ``(105, x, y, z)``."""
    inferer = SlidingWindowInferer(
        roi_size=[window] * 3,
        sw_batch_size=1,
        overlap=overlap,
        mode="gaussian",
        padding_mode="replicate",
    )
    inputs = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    with torch.inference_mode():
        logits: torch.Tensor = inferer(inputs, small_network())[0]
    return logits


def ours(array: np.ndarray, spec: WindowSpec) -> np.ndarray:
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)
    return segment_windows(network, array, spec)


@pytest.mark.parametrize("window", [16, 32, 96])
def test_weights_of_a_window_equal_monais(window: int) -> None:
    theirs = compute_importance_map((window,) * 3, mode="gaussian", sigma_scale=0.125)

    assert torch.equal(importance_map(window, CPU), theirs)


@pytest.mark.parametrize(
    ("shape", "order", "overlap"),
    [
        ((40, 50, 37), "C", 0.25),  # the longest axis in the middle
        ((33, 32, 70), "F", 0.25),  # the longest axis last, memory reversed
        ((45, 20, 33), "C", 0.5),  # one axis shorter than a window
        ((20, 24, 10), "C", 0.25),  # all axes shorter than a window, odd padding
        ((32, 32, 32), "C", 0.25),  # exactly one window
    ],
)
def test_labels_equal_the_arg_max_of_monais_blended_logits(
    rng: np.random.Generator, shape: tuple[int, int, int], order: str, overlap: float
) -> None:
    array = np.asarray(rng.uniform(-1, 1, shape), dtype=np.float32, order=order)  # type: ignore[call-overload]
    logits = monai_logits(array, 32, overlap)

    labels = ours(array, WindowSpec(window_voxels=32, overlap=overlap))

    assert len(np.unique(labels)) > 20
    first, second = logits.topk(2, dim=0).values.numpy()
    differ = labels != logits.argmax(dim=0).numpy()
    assert differ.mean() < 1e-3
    assert (first - second)[differ].max(initial=0) < 1e-5  # ties within rounding


@pytest.mark.parametrize(
    "spec",
    [
        WindowSpec(window_voxels=32, channels_last=True),
        WindowSpec(window_voxels=32, precision=Precision.BF16),
        WindowSpec(window_voxels=32, precision=Precision.BF16, channels_last=True),
    ],
)
def test_faster_arithmetic_changes_labels_only_where_logits_are_close(
    rng: np.random.Generator, spec: WindowSpec
) -> None:
    array = rng.uniform(-1, 1, (40, 32, 32)).astype(np.float32)
    logits = monai_logits(array, 32, 0.25)

    labels = ours(array, spec)

    chosen = logits.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    # bfloat16 has 8 bits of mantissa; the logits are of order 1
    allowed = 0.1 if spec.precision is Precision.BF16 else 1e-5
    assert float((logits.amax(dim=0) - chosen).max()) < allowed
    assert len(np.unique(labels)) > 20


def test_labels_keep_the_memory_layout_of_the_input(rng: np.random.Generator) -> None:
    planes = rng.uniform(-1, 1, (40, 20, 24)).astype(np.float32)

    labels = ours(planes.transpose(2, 1, 0), WindowSpec(window_voxels=16))

    assert labels.shape == (24, 20, 40)
    assert labels.transpose(2, 1, 0).flags.c_contiguous


def test_progress_never_falls_and_ends_at_one(rng: np.random.Generator) -> None:
    seen: list[float] = []
    spec = WindowSpec(window_voxels=16)
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)

    segment_windows(network, rng.random((40, 20, 20), dtype=np.float32), spec, seen.append)

    assert len(seen) == 3 * 2 * 2
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_values_that_are_not_finite_are_an_error_and_not_a_label() -> None:
    spec = WindowSpec(window_voxels=16)
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)
    array = np.zeros((16, 16, 16), dtype=np.float32)
    array[3, 4, 5] = np.nan

    with pytest.raises(ModelError) as error:
        segment_windows(network, array, spec)

    assert error.value.reason is Reason.MODEL_ERROR
