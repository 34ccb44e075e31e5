"""Blending in feature space gives what MONAI's inferer gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers.inferer import SlidingWindowInferer
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from inference.engine.plan import Carry, plan_windows
from inference.engine.region import Region
from inference.errors import ModelError
from inference.network import NetworkSpec, build_network
from inference.reasons import Reason
from inference.sliding_window import (
    SplitNetwork,
    importance_map,
    segment_scan,
    segment_windows,
)
from inference.standings import FIRST, LEAD, LEAD_OVER_THIRD, SECOND, lead_codes, ranked
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


class InMemory:
    """A ``(k, j, i)`` array as the network's ``(z, y, x)``."""

    network_axes = (2, 1, 0)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = array.shape
        self.filled = np.zeros(array.shape, dtype=int)

    def fill(self, box: tuple[slice, slice, slice], out: np.ndarray) -> None:
        self.filled[box] += 1
        out[...] = self.array[box]


@pytest.mark.parametrize("carry", Carry)
@pytest.mark.parametrize(
    "shape",
    [(70, 40, 44), (30, 61, 52), (33, 20, 75), (20, 70, 18)],  # the last two: less than a window
)
def test_windows_over_a_region_blend_as_if_all_were_kept(
    rng: np.random.Generator, shape: tuple[int, int, int], carry: Carry
) -> None:
    spec = WindowSpec(window_voxels=32)
    mask = np.zeros([-(-n // 4) for n in shape], dtype=bool)
    mask[2:5, 1:4, 2:4] = True
    mask[-3:, 3:, 1:-1] = True
    array = rng.uniform(-1, 1, shape).astype(np.float32)
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)
    plan = plan_windows(shape, spec, network.features, Region(mask, 4, shape), carry)
    labels = np.full(shape, 200, dtype=np.uint8)

    segment_scan(network, InMemory(array), plan, labels)

    logits = kept_whole(network, array, plan)
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    tie = 1e-5 if carry is Carry.FP32 else 5e-3
    differ = labels != logits.argmax(dim=-1).numpy()
    assert differ.mean() < (1e-3 if carry is Carry.FP32 else 2e-2)
    assert (first - second).numpy()[differ].max(initial=0) < tie
    assert (labels == 0).mean() > 0.02
    assert len(np.unique(labels)) > 20


@pytest.mark.parametrize("shape", [(70, 40, 44), (33, 20, 75)])
def test_standings_are_those_of_the_blended_logits_wherever_labels_differ(
    rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    spec = WindowSpec(window_voxels=32)
    mask = np.zeros([-(-n // 4) for n in shape], dtype=bool)
    mask[2:6, 1:4, 2:6] = True
    array = gaussian_filter(rng.uniform(-1, 1, shape), 4).astype(np.float32) * 8
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)
    plan = plan_windows(shape, spec, network.features, Region(mask, 4, shape))
    labels, found = (np.full((*shape, *more), 9, dtype=np.uint8) for more in ((), (4,)))

    segment_scan(network, InMemory(array), plan, labels)
    segment_scan(network, InMemory(array), plan, found)

    np.testing.assert_array_equal(found[..., FIRST], labels)
    there = ranked(found)
    assert 0.05 < there.mean() < 0.95
    border = maximum_filter(labels, 3) != minimum_filter(labels, 3)
    logits = kept_whole(network, array, plan)
    reached = (logits != 0).sum(dim=-1).numpy() > 1
    assert (there == reached)[border].all()
    assert not there[~reached].any()
    top = logits.topk(3, dim=-1).values.numpy()[there]
    second = logits.numpy()[there][np.arange(there.sum()), found[there][:, SECOND]]
    assert np.abs(second - top[:, 1]).max() < 1e-4
    for which, place in ((LEAD, 1), (LEAD_OVER_THIRD, 2)):
        wanted = lead_codes(top[:, 0] - top[:, place]).astype(int)
        # a rounding of the logits is more than a step where classes are tied
        assert np.abs(found[there][:, which].astype(int) - wanted).max() <= 1


def kept_whole(network: SplitNetwork, array: np.ndarray, plan) -> torch.Tensor:
    """``(k, j, i, class)`` logits, every window blended in a volume of all features."""
    inside = array[plan.part].transpose(plan.order)
    edge, extents = plan.tiling.window, plan.tiling.extents
    pads = [
        ((e - n) // 2, e - n - (e - n) // 2) for n, e in zip(inside.shape, extents, strict=True)
    ]
    padded = np.pad(inside, pads, mode="edge")
    sums = torch.zeros((*extents, network.features))
    weights = torch.zeros(extents)
    to_xyz = [plan.order.index(axis) for axis in (2, 1, 0)]
    for layer in plan.tiling.layers:
        for band in layer.bands:
            for c in band.columns:
                here = tuple(slice(at, at + edge) for at in (layer.start, band.start, c))
                window = torch.from_numpy(padded[here].transpose(to_xyz).copy())[None, None]
                with torch.inference_mode():
                    features = network.body(window)[0]
                importance = importance_map(edge, CPU)
                moved = features.permute([3 - axis for axis in plan.order] + [0])
                sums[here] += moved * importance[..., None]
                weights[here] += importance
    mean = sums / weights[..., None].clamp(min=1e-9)
    logits = mean @ network.weight.T + network.bias
    logits[weights == 0] = 0
    logits[weights == 0, 0] = 1
    cut = tuple(slice(b, b + n) for (b, _), n in zip(pads, inside.shape, strict=True))
    whole = torch.zeros((*array.shape, logits.shape[-1]))
    whole[..., 0] = 1
    whole[plan.part] = logits[cut].permute([*np.argsort(plan.order), 3])
    return whole


def test_each_voxel_of_the_scan_is_asked_for_once(rng: np.random.Generator) -> None:
    spec = WindowSpec(window_voxels=16)
    source = InMemory(rng.uniform(-1, 1, (50, 24, 20)).astype(np.float32))
    network = SplitNetwork.of_segresnet(small_network()).to(CPU, spec)

    segment_scan(
        network,
        source,
        plan_windows(source.shape, spec, network.features),
        np.empty(source.shape, dtype=np.uint8),
    )

    assert (source.filled == 1).all()


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
