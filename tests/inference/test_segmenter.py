"""The segmenter: a volume in, labels on the same planes out, and who made them."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from inference.engine.arithmetic import fast_windows
from inference.engine.plan import Carry
from inference.engine.split_network import SplitNetwork
from inference.errors import InferenceError
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.intensity import PUBLISHED_INTENSITY
from inference.label_map import LabelMap
from inference.manifest import ModelManifest
from inference.model_store import LoadedModel
from inference.network import NetworkSpec
from inference.network_grid import NetworkGrid
from inference.postprocessing import CleanUp, PostprocessingSpec
from inference.reasons import Reason
from inference.segmenter import (
    Progress,
    Segmenter,
    SegmenterOptions,
    SegResNetSegmenter,
    fitted_segmenter,
)
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import PADDING_HU, Volume
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


@pytest.mark.parametrize("clean_up", [CleanUp(), CleanUp(fill_holes=True)])
def test_padding_is_never_foreground(
    model: LoadedModel, tilted_volume: Volume, clean_up: CleanUp
) -> None:
    y, x = np.mgrid[:36, :40]
    padding = np.hypot(y - 18, x - 20) > 15
    padding[14:19, 14:19] = True
    tilted_volume.hu[:, padding] = PADDING_HU
    options = SegmenterOptions(
        windows=SMALL_WINDOWS, postprocessing=PostprocessingSpec(default=clean_up)
    )

    labels = SegResNetSegmenter(model, options).segment(tilted_volume).labels

    assert (labels[:, ~padding] > 0).mean() > 0.5
    assert not labels[:, padding].any()


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
        SegmenterOptions(body_only=True),
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


def test_half_precision_sums_and_chosen_structures_show_in_the_identity(
    model: LoadedModel,
) -> None:
    usual = dict(SegResNetSegmenter(model).identity.parameters)
    options = SegmenterOptions(carry=Carry.FP16, structures=("liver", "aorta"))

    other = dict(SegResNetSegmenter(model, options).identity.parameters)

    assert other == usual | {"sums": "fp16", "structures": "aorta liver"}


def test_smooth_borders_show_in_the_identity_only_where_they_are_asked_for(
    model: LoadedModel,
) -> None:
    usual = dict(SegResNetSegmenter(model).identity.parameters)

    smooth = SegResNetSegmenter(model, SegmenterOptions(smooth_borders=True))

    assert "borders" not in usual
    assert dict(smooth.identity.parameters) == usual | {"borders": "smooth"}


@pytest.mark.parametrize("body_only", [False, True])
def test_smooth_borders_change_labels_between_the_voxels_of_the_grid_only(
    model: LoadedModel, tilted_volume: Volume, body_only: bool
) -> None:
    on_the_grid = Geometry.from_affine(np.diag([3.0] * 3 + [1.0])[[2, 1, 0, 3]], (20, 36, 40))
    same = Volume(tilted_volume.hu, on_the_grid)
    plain = SegmenterOptions(windows=SMALL_WINDOWS, body_only=body_only)

    def both(volume: Volume) -> list[np.ndarray]:
        made = []
        for smooth in (False, True):
            options = dataclasses.replace(plain, smooth_borders=smooth)
            made.append(SegResNetSegmenter(model, options).segment(volume).labels)
        return made

    np.testing.assert_array_equal(*both(same))
    nearest, smooth = both(tilted_volume)
    assert 0.01 < (nearest != smooth).mean() < 0.6
    assert set(np.unique(smooth)) <= set(np.unique(nearest))


def test_smooth_borders_take_three_bytes_more_a_voxel_of_the_grid(model: LoadedModel) -> None:
    voxels = np.prod(NetworkGrid.covering(SCAN, 3.0).grid_shape)

    plain, smooth = (
        least_memory(model, SegmenterOptions(smooth_borders=smooth)) for smooth in (False, True)
    )

    assert smooth - plain == 3 * voxels


def test_air_around_the_body_is_background_and_not_computed(
    model: LoadedModel, rng: np.random.Generator
) -> None:
    hu = np.full((60, 120, 120), -1000, dtype=np.int16)
    hu[20:36, 18:34, 22:38] = rng.integers(-100, 300, (16, 16, 16))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(hu, Geometry.from_affine(affine, hu.shape))
    seen: list[float] = []
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True)

    labels = SegResNetSegmenter(model, options).segment(volume, seen.append).labels

    assert (labels[20:36, 18:34, 22:38] > 0).mean() > 0.9
    far = np.ones(labels.shape, dtype=bool)
    far[8:48, 6:46, 10:50] = False
    assert not labels[far].any()
    assert len(seen) < 3 * 3 * 3 + 5  # reports: one a window


def test_air_alone_is_background(model: LoadedModel) -> None:
    hu = np.full((20, 120, 120), -1000, dtype=np.int16)
    volume = Volume(hu, Geometry.from_affine(np.diag([3.0] * 3 + [1.0])[[2, 1, 0, 3]], hu.shape))
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True)

    assert SegResNetSegmenter(model, options).segment(volume).present() == ()


def test_what_is_thin_is_computed_where_nothing_is_thicker(
    model: LoadedModel, rng: np.random.Generator
) -> None:
    hu = np.full((40, 120, 120), -1000, dtype=np.int16)
    hu[:, 19:22, 18:21] = rng.integers(-100, 300, (40, 3, 3))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(hu, Geometry.from_affine(affine, hu.shape))
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True)

    labels = SegResNetSegmenter(model, options).segment(volume).labels

    assert (labels[:, 19:22, 18:21] > 0).mean() > 0.9


class Finder:
    """Knows where some structures are: a plane each, the first one in all others too."""

    identity = SegmenterIdentity("coarse", "1", "cd" * 32, True, "tests", (), "truth")

    def __init__(
        self, where: tuple[slice, slice, slice] | None, names: tuple[str, ...] = ("liver",)
    ) -> None:
        self._where, self._ids = where, [STRUCTURE_BY_NAME[name].id for name in names]

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        labels = np.zeros(volume.hu.shape, dtype=np.uint8)
        if self._where is not None:
            labels[self._where] = self._ids[0]
            for plane, structure in zip(labels[self._where], self._ids, strict=False):
                plane[...] = structure
        if progress is not None:
            progress(0.5)
            progress(1.0)
        return LabelMap(labels, volume.geometry)


@pytest.fixture
def long_volume(rng: np.random.Generator) -> Volume:
    hu = rng.integers(-100, 1000, (90, 24, 24)).astype(np.int16)
    return Volume(hu, Geometry.from_affine(np.diag([3.0] * 3 + [1.0])[[2, 1, 0, 3]], hu.shape))


LIVER = STRUCTURE_BY_NAME["liver"].id


@pytest.fixture
def one_organ() -> Volume:
    """A long trunk with a bright organ in its middle, planes 36 to 53."""
    hu = np.full((90, 24, 24), 40, dtype=np.int16)
    hu[36:54, 6:18, 6:18] = 1000
    return Volume(hu, Geometry.from_affine(np.diag([3.0] * 3 + [1.0])[[2, 1, 0, 3]], hu.shape))


def bright_liver(
    model: LoadedModel, finder: Finder | None, structures: tuple[str, ...] = ("liver",)
) -> SegResNetSegmenter:
    """What is brighter than the middle of the range is liver."""
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True, structures=structures)
    segmenter = SegResNetSegmenter(model, options, finder)
    weight, bias = torch.zeros(105, 1), torch.full((105,), -9.0)
    weight[LIVER], bias[LIVER], bias[0] = 1.0, 0.0, 0.0
    segmenter._network = SplitNetwork(torch.nn.Identity(), weight, bias)
    return segmenter


def test_a_coarse_pass_restricts_the_work_to_what_is_wanted(
    model: LoadedModel, one_organ: Volume
) -> None:
    seen: list[float] = []
    near = bright_liver(model, Finder((slice(40, 46), slice(8, 12), slice(8, 12))))

    labels = near.segment(one_organ, seen.append).labels

    np.testing.assert_array_equal(labels, LIVER * (one_organ.hu > 500))
    assert seen == sorted(seen)
    assert dict(near.identity.parameters)["found_by"] == "cd" * 32
    assert 50 < float(dict(near.identity.execution)["outside_region"].rstrip("%")) < 80


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(slice(84, 86), id="nothing of it is near"),
        pytest.param(slice(62, 64), id="a part of it is near"),
    ],
)
def test_an_organ_that_a_coarse_pass_found_in_the_wrong_place_is_not_cut(
    model: LoadedModel, one_organ: Volume, where: slice
) -> None:
    misled = bright_liver(model, Finder((where, slice(8, 12), slice(8, 12))))
    seen: list[float] = []

    labels = misled.segment(one_organ, seen.append).labels

    np.testing.assert_array_equal(labels, LIVER * (one_organ.hu > 500))
    assert seen == sorted(seen)
    assert dict(misled.identity.execution)["outside_region"] == "0.0%"


def test_a_hole_that_is_another_structure_is_not_filled_where_that_is_not_wanted(
    model: LoadedModel, one_organ: Volume
) -> None:
    hu = np.where(one_organ.hu == 1000, 700, 40).astype(np.int16)
    hu[42:48, 10:14, 10:14] = 1000  # a spleen within the liver
    volume = Volume(hu, one_organ.geometry)
    filling = PostprocessingSpec(CleanUp(fill_holes=True))
    spleen = STRUCTURE_BY_NAME["spleen"].id

    def labels(structures: tuple[str, ...]) -> np.ndarray:
        segmenter = bright_liver(model, None, structures)
        segmenter._options = dataclasses.replace(segmenter._options, postprocessing=filling)
        segmenter._network.weight[spleen], segmenter._network.bias[spleen] = 3.0, -1.0
        return segmenter.segment(volume).labels

    whole = labels(())
    assert (whole[42:48, 10:14, 10:14] == spleen).all()
    np.testing.assert_array_equal(labels(("liver",)), np.where(whole == LIVER, LIVER, 0))


def test_what_a_coarse_pass_does_not_find_is_looked_for_everywhere(
    model: LoadedModel, long_volume: Volume
) -> None:
    names = tuple(STRUCTURE_BY_NAME)[:40]
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True, structures=names)

    low = (slice(84, 88), slice(8, 12), slice(8, 12))
    blind, short_sighted = (
        SegResNetSegmenter(model, options, finder).segment(long_volume)
        for finder in (Finder(None), Finder(low, names[1:3]))
    )

    alone = SegResNetSegmenter(model, options).segment(long_volume)
    np.testing.assert_array_equal(blind.labels, alone.labels)
    np.testing.assert_array_equal(short_sighted.labels, alone.labels)
    assert blind.labels[:20].any()


def test_the_share_that_is_left_out_is_that_of_the_last_scan(model: LoadedModel) -> None:
    options = SegmenterOptions(windows=SMALL_WINDOWS, body_only=True)
    air, small = (
        Volume(
            np.full((16, side, side), -1000, dtype=np.int16),
            Geometry.from_affine(np.diag([3.0] * 3 + [1.0])[[2, 1, 0, 3]], (16, side, side)),
        )
        for side in (120, 16)
    )
    fitted = fitted_segmenter(SegResNetSegmenter(model, options), air.geometry, small.geometry)

    shares = []
    for volume in (air, small):
        fitted.segment(volume)
        shares.append(dict(fitted.identity.execution)["outside_region"])

    assert shares == ["100.0%", "0.0%"]
    assert "device" in dict(fitted.identity.execution)
    again = fitted_segmenter(fitted, air.geometry)
    assert "outside_region" not in dict(again.identity.execution)


def test_a_structure_that_does_not_exist_cannot_be_wanted() -> None:
    with pytest.raises(ValueError, match="heart_valve"):
        SegmenterOptions(structures=("liver", "heart_valve"))


SCAN = Geometry.from_affine(np.diag([1.5] * 3 + [1.0])[[2, 1, 0, 3]], (300, 200, 200))


def test_where_memory_is_plenty_nothing_changes(model: LoadedModel) -> None:
    segmenter = SegResNetSegmenter(model, memory=lambda: 10**11)

    fitted = fitted_segmenter(segmenter, SCAN)

    assert fitted.identity.parameters == segmenter.identity.parameters
    facts = dict(fitted.identity.execution)
    assert facts["available_memory"] == "100.00 GB"
    assert facts["sums"] == "fp32"
    assert facts["device"] == "cpu"


def test_sums_are_halved_before_a_scan_is_refused(model: LoadedModel) -> None:
    def memory(bytes_free: int) -> dict[str, str]:
        segmenter = SegResNetSegmenter(model, memory=lambda: bytes_free)
        return dict(fitted_segmenter(segmenter, SCAN).identity.parameters)

    enough = least_memory(model)
    assert memory(enough)["sums"] == "fp16"
    assert "sums" not in memory(10 * enough)
    with pytest.raises(InferenceError) as refused:
        memory(enough // 2)
    assert refused.value.reason is Reason.OOM_CPU
    assert "GB" in refused.value.detail


def least_memory(model: LoadedModel, options: SegmenterOptions | None = None) -> int:
    """Bytes that are just enough, by bisection."""
    low, high = 0, 10**11
    while high - low > 1:
        middle = (low + high) // 2
        try:
            SegResNetSegmenter(model, options, memory=lambda size=middle: size).fitted([SCAN])
            high = middle
        except InferenceError:
            low = middle
    return high


def test_a_scan_that_does_not_fit_is_refused_before_the_work(
    model: LoadedModel, long_volume: Volume
) -> None:
    seen: list[float] = []

    with pytest.raises(InferenceError) as refused:
        SegResNetSegmenter(model, memory=lambda: 10**6).segment(long_volume, seen.append)

    assert refused.value.reason is Reason.OOM_CPU
    assert seen == []


def test_the_way_is_that_of_the_scan_that_needs_most_whichever_has_most_voxels(
    model: LoadedModel,
) -> None:
    fine, wide = (
        Geometry.from_affine(np.diag([mm] * 3 + [1.0])[[2, 1, 0, 3]], shape)
        for mm, shape in ((0.5, (160, 160, 160)), (5.0, (80, 120, 120)))
    )
    needs = [
        SegResNetSegmenter(model).need(scan).main_bytes(on_card=False, is_read=False)
        for scan in (fine, wide)
    ]
    segmenter = SegResNetSegmenter(model, memory=lambda: needs[1] - 1)

    ways = [
        dict(fitted_segmenter(segmenter, *scans).identity.parameters).get("sums")
        for scans in ([fine], [wide], [fine, wide], [wide, fine])
    ]

    assert needs[0] < needs[1]
    assert ways == [None, "fp16", "fp16", "fp16"]


def test_memory_that_others_will_take_is_not_free(model: LoadedModel) -> None:
    just_enough = least_memory(model)

    assert SegResNetSegmenter(model, memory=lambda: just_enough + 7).fitted(
        [SCAN], promised_bytes=7
    )
    with pytest.raises(InferenceError):
        SegResNetSegmenter(model, memory=lambda: just_enough + 7).fitted([SCAN], promised_bytes=8)


def test_a_scan_that_was_read_is_not_counted_again(model: LoadedModel) -> None:
    just_enough = least_memory(model)
    scan_bytes = 2 * SCAN.shape[0] * SCAN.shape[1] * SCAN.shape[2]
    segmenter = SegResNetSegmenter(model, memory=lambda: just_enough - scan_bytes)

    assert fitted_segmenter(segmenter, SCAN, is_read=True)
    with pytest.raises(InferenceError):
        fitted_segmenter(segmenter, SCAN)


def beside_a_card(model: LoadedModel, main: int | None = None, card: int = 1) -> SegResNetSegmenter:
    """A segmenter as on a machine with a card, which has so many bytes free."""
    options = SegmenterOptions(
        windows=WindowSpec(window_voxels=48, overlap=0.5), structures=("liver",)
    )
    made = SegResNetSegmenter(
        model, options, SegResNetSegmenter(model), lambda: main, lambda _device: card
    )
    for each in (made, made._finder):
        each._options = dataclasses.replace(each._options, device="cuda:0")
    return made


def test_main_memory_has_to_do_beside_a_card_too(model: LoadedModel) -> None:
    needed = beside_a_card(model).main_memory_bytes(SCAN) + 2 * SCAN.shape[0] * 200 * 200

    fits = beside_a_card(model, needed, card=10**11).fitted([SCAN])
    with pytest.raises(InferenceError) as refused:
        beside_a_card(model, needed - 1, card=10**11).fitted([SCAN])

    assert fits._options.device == "cuda:0"
    assert needed < SegResNetSegmenter(model).main_memory_bytes(SCAN)
    assert refused.value.reason is Reason.OOM_CPU


def test_a_scan_beside_a_card_that_has_no_main_memory_is_refused_before_the_work(
    model: LoadedModel, long_volume: Volume
) -> None:
    with pytest.raises(InferenceError) as refused:
        beside_a_card(model, main=10**4).segment(long_volume)

    assert refused.value.reason is Reason.OOM_CPU


def test_a_full_card_makes_way_for_the_cpu_and_takes_nothing_of_what_was_asked_for(
    model: LoadedModel,
) -> None:
    asked = beside_a_card(model)

    fitted = asked.fitted([SCAN])

    assert fitted._options == dataclasses.replace(asked._options, device="cpu")
    assert fitted._finder._options.device == "cpu"
    assert dict(fitted.identity.execution)["asked_device"] == "cuda:0"


def test_a_card_that_is_gone_before_the_work_is_a_coded_error(model: LoadedModel) -> None:
    def gone(_device: str) -> int:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    segmenter = SegResNetSegmenter(model, memory=lambda: 10**12, card_memory=gone)
    segmenter._options = dataclasses.replace(segmenter._options, device="cuda:0")

    with pytest.raises(InferenceError) as error:
        segmenter.fitted([SCAN])

    assert (error.value.reason, error.value.detail) == (
        Reason.MODEL_ERROR,
        "CUDA error: unspecified launch failure",
    )


@pytest.fixture
def rounding_cards() -> Iterator[None]:
    """A process in which cards may round single precision to TF32 wherever torch can have it."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [each.allow_tf32 for each in switches]
    for each in switches:
        each.allow_tf32 = True
    yield
    for each, was in zip(switches, before, strict=True):
        each.allow_tf32 = was


@pytest.mark.usefixtures("rounding_cards")
@pytest.mark.parametrize("spec", [SMALL_WINDOWS, fast_windows("cpu", Precision.BF16)])
def test_what_is_computed_in_single_precision_is_not_rounded_on_a_card(
    model: LoadedModel, tilted_volume: Volume, spec: WindowSpec
) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    windows = dataclasses.replace(spec, window_voxels=16)
    segmenter = SegResNetSegmenter(model, SegmenterOptions(windows=windows))
    seen = set()
    segmenter._network.body.register_forward_pre_hook(
        lambda *_: seen.add((cudnn.allow_tf32, matmul.allow_tf32))
    )

    segmenter.segment(tilted_volume)

    assert seen == {(False, False)}
    assert {cudnn.conv.fp32_precision, matmul.fp32_precision} <= {"none", "ieee"}


@pytest.mark.parametrize("body_only", [False, True])
def test_what_no_machine_can_hold_is_estimated_as_all_else_is(
    model: LoadedModel, body_only: bool
) -> None:
    segmenter = SegResNetSegmenter(model, SegmenterOptions(body_only=body_only))
    needs, voxels = [], []
    for spacing_mm in (18.0, 20.0, 22.0):
        affine = np.diag([spacing_mm] * 3 + [1.0])[[2, 1, 0, 3]]
        scan = Geometry.from_affine(affine, (300, 512, 512))
        grid = NetworkGrid.covering(scan, 3.0).grid_shape
        voxels.append(math.prod(grid))
        needs.append(segmenter.need(scan).main_bytes(on_card=False, is_read=True))

    assert voxels[0] < 2e10 < voxels[1]
    # sums of windows and the slab grow with the planes
    assert min(need - count for need, count in zip(needs, voxels, strict=True)) > 1e9


def test_what_is_kept_for_the_next_window_is_given_back_before_a_scan_is_refused(
    model: LoadedModel,
) -> None:
    just_enough = least_memory(model)
    asked: list[int] = []

    def memory() -> int:
        asked.append(1)
        return just_enough if len(asked) > 1 else just_enough // 2

    assert SegResNetSegmenter(model, memory=memory).fitted([SCAN])


def test_clean_up_and_a_coarse_pass_count(model: LoadedModel) -> None:
    plain = SegResNetSegmenter(model).need(SCAN)
    cleaned = SegResNetSegmenter(
        model, SegmenterOptions(postprocessing=PostprocessingSpec(CleanUp(fill_holes=True)))
    ).need(SCAN)
    found = SegResNetSegmenter(
        model, SegmenterOptions(structures=("liver",)), SegResNetSegmenter(model)
    ).need(SCAN)

    voxels = SCAN.shape[0] * SCAN.shape[1] * SCAN.shape[2]
    assert cleaned.after - plain.after == 10 * voxels
    assert found.host > plain.host + voxels


def test_a_warm_segmenter_tells_of_its_last_scan_only(
    model: LoadedModel, one_organ: Volume
) -> None:
    warm = bright_liver(model, None, ())

    for _ in range(2):
        warm.segment(one_organ)

    assert dict(warm.identity.execution)["outside_region"] == "0.0%"


def test_a_segmenter_that_does_not_care_is_taken_as_it_is() -> None:
    finder = Finder(None)

    assert fitted_segmenter(finder, SCAN) is finder


def test_a_segmenter_is_fitted_without_being_asked_who_it_is() -> None:
    class Unloaded:
        @property
        def identity(self) -> SegmenterIdentity:
            raise AssertionError("this would load it")

        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            raise AssertionError("this would load it")

        def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
            return finder

        def main_memory_bytes(self, geometry: Geometry) -> int:
            return 0

    finder = Finder(None)

    assert fitted_segmenter(Unloaded(), SCAN) is finder


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
