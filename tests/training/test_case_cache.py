"""Cached cases equal what the clinic feeds to the network, and are made once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from torch.nn.modules.module import register_module_forward_pre_hook

from inference.errors import InferenceError
from inference.intensity import PUBLISHED_INTENSITY, ROBUST_INTENSITY, IntensitySpec, Scaling
from inference.manifest import ModelManifest
from inference.model_store import LoadedModel
from inference.network import NetworkSpec, build_network
from inference.network_grid import NetworkGrid
from inference.nifti import read_label_nifti, read_nifti
from inference.reasons import Reason
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.windows import WindowSpec
from training.case import STORED_SCALE, CaseRecipe
from training.case_cache import cache_pairs
from training.dataset import ScanPair

RECIPE = CaseRecipe(3.0, ROBUST_INTENSITY)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0, -12], [0, 0, 4.0, 5], [0, 0, 0, 1]])


def _write_pair(folder: Path, name: str, seed: int = 0) -> ScanPair:
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1100, 1500, (14, 15, 10), dtype=np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    labels[2:9, 3:9, 2:8] = 5
    labels[9:12, 3:9, 2:8] = 104
    pair = ScanPair(name, folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz")
    for path, array in ((pair.image, hu), (pair.labels, labels)):
        image = nib.Nifti1Image(array, AFFINE)
        image.set_sform(AFFINE, 1)
        nib.save(image, path)
    return pair


@pytest.fixture
def pairs(tmp_path) -> list[ScanPair]:
    (tmp_path / "data").mkdir()
    return [_write_pair(tmp_path / "data", f"s{number}", number) for number in range(3)]


def _silent(_line: str) -> None:
    pass


def _fed_to_the_network(pair: ScanPair, recipe: CaseRecipe) -> np.ndarray:
    """What the clinic's segmenter hands to its network for this file: one window holds it."""
    spec = NetworkSpec(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    manifest = ModelManifest(
        name="small",
        version="1",
        spacing_mm=recipe.spacing_mm,
        intensity=recipe.intensity,
        network=spec,
        source="random numbers of a test",
        licence="Apache-2.0",
        intended_use="Tests",
        demonstration=True,
        training=(("seed", "3"),),
    )
    model = LoadedModel(manifest, build_network(spec).state_dict())
    options = SegmenterOptions(windows=WindowSpec(window_voxels=32))
    caught = []

    def keep(_module, inputs):
        caught.append(inputs[0].numpy().copy())

    volume = read_nifti(pair.image)
    handle = register_module_forward_pre_hook(keep)
    try:
        SegResNetSegmenter(model, options).segment(volume)
    finally:
        handle.remove()
    window = caught[0][0, 0]
    shape = NetworkGrid.covering(volume.geometry, recipe.spacing_mm).shape
    assert window.shape == (32, 32, 32)
    return window[tuple(slice((32 - n) // 2, (32 - n) // 2 + n) for n in shape)]


@pytest.mark.parametrize(
    "intensity",
    [ROBUST_INTENSITY, PUBLISHED_INTENSITY, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE)],
)
def test_a_cached_case_is_what_the_clinic_feeds_to_its_network(pairs, tmp_path, intensity):
    recipe = CaseRecipe(3.0, intensity)

    (case,) = cache_pairs(pairs[:1], recipe, tmp_path / "cache", log=_silent)

    fed = _fed_to_the_network(pairs[0], recipe)
    np.testing.assert_allclose(case.image() / STORED_SCALE, fed, atol=0.51 / STORED_SCALE)


@pytest.mark.shared
def test_a_real_case_is_cached_as_the_clinic_sees_it(shared_data, tmp_path):
    folder = shared_data / "totalseg_v1_dataset"
    pair = ScanPair("s0001", folder / "s0001" / "ct.nii.gz", folder / "s0001_labels_v1_full.nii.gz")
    recipe = CaseRecipe(12.0, ROBUST_INTENSITY)

    (case,) = cache_pairs([pair], recipe, tmp_path, log=_silent)

    fed = _fed_to_the_network(pair, recipe)
    np.testing.assert_allclose(case.image() / STORED_SCALE, fed, atol=0.51 / STORED_SCALE)
    assert len(np.unique(case.labels())) > 40


def test_labels_lie_on_the_voxels_of_the_image(pairs, tmp_path):
    (case,) = cache_pairs(pairs[:1], CaseRecipe(2.0, ROBUST_INTENSITY), tmp_path, log=_silent)

    volume = read_nifti(pairs[0].image)
    grid = NetworkGrid.covering(volume.geometry, 2.0)
    structure_id, *voxel = case.spots()[0]
    truth = read_label_nifti(pairs[0].labels)
    place = np.rint(truth.geometry.index_of(grid.lps_mm(voxel))).astype(int)
    assert truth.labels[tuple(place)] == structure_id


def test_cases_are_kept_and_come_in_the_order_of_their_scans(pairs, tmp_path):
    lines: list[str] = []
    first = cache_pairs(pairs, RECIPE, tmp_path / "cache", log=lines.append)
    made = {case.folder: (case.folder / "image.npy").stat().st_mtime_ns for case in first}
    assert len(lines) == 3

    again = cache_pairs(pairs[::-1], RECIPE, tmp_path / "cache", log=lines.append)

    assert [case.folder for case in again] == [case.folder for case in first[::-1]]
    assert {c.folder: (c.folder / "image.npy").stat().st_mtime_ns for c in again} == made
    assert len(lines) == 3


def test_a_changed_scan_or_recipe_makes_the_case_anew(pairs, tmp_path):
    (old,) = cache_pairs(pairs[:1], RECIPE, tmp_path / "cache", log=_silent)
    before = np.array(old.image())
    _write_pair(pairs[0].image.parent, "s0", seed=77)

    (new,) = cache_pairs(pairs[:1], RECIPE, tmp_path / "cache", log=_silent)
    (coarse,) = cache_pairs(
        pairs[:1], CaseRecipe(4.0, ROBUST_INTENSITY), tmp_path / "cache", log=_silent
    )

    assert (new.image() != before).any()
    assert coarse.image().shape != new.image().shape
    assert new.folder.is_dir()


def test_a_case_that_a_killed_process_left_half_is_made_again(pairs, tmp_path):
    (case,) = cache_pairs(pairs[:1], RECIPE, tmp_path / "cache", log=_silent)
    whole = np.array(case.image())
    (case.folder / "source.json").unlink()
    (case.folder / "image.npy").write_bytes(b"cut off")
    left = case.folder.with_name(".making-s9-1")
    left.mkdir()

    (again,) = cache_pairs(pairs[:1], RECIPE, tmp_path / "cache", log=_silent)

    np.testing.assert_array_equal(again.image(), whole)
    assert not left.exists()


def test_a_bad_case_does_not_stop_the_rest_and_is_named(pairs, tmp_path):
    pairs[0].image.write_bytes(b"no NIfTI")
    lines: list[str] = []

    with pytest.raises(InferenceError, match=r"s0\.nii\.gz") as caught:
        cache_pairs(pairs, RECIPE, tmp_path / "cache", log=lines.append)

    assert caught.value.reason is Reason.UNREADABLE_FILE
    assert len(lines) == 3
    assert cache_pairs(pairs[1:], RECIPE, tmp_path / "cache", log=lines.append)
    assert len(lines) == 3


def test_labels_of_another_grid_and_missing_labels_are_refused(pairs, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 3
    image = nib.Nifti1Image(np.zeros((14, 15, 10), np.uint8), moved)
    image.set_sform(moved, 1)
    nib.save(image, pairs[0].labels)

    for pair, reason in (
        (pairs[0], Reason.OTHER_GRID),
        (ScanPair("s1", pairs[1].image, None), Reason.MISSING_LABELS),
    ):
        with pytest.raises(InferenceError) as caught:
            cache_pairs([pair], RECIPE, tmp_path / "cache", log=_silent)
        assert caught.value.reason is reason


def test_labels_whose_own_table_is_another_one_are_refused(pairs, tmp_path):
    image = nib.load(pairs[0].labels)
    table = '<Label Key="5">spleen</Label>'  # in v1 it is 1
    named = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    named.header.extensions.append(nib.nifti1.Nifti1Extension(0, table.encode()))
    nib.save(named, pairs[0].labels)

    with pytest.raises(InferenceError) as caught:
        cache_pairs([pairs[0]], RECIPE, tmp_path / "cache", log=_silent)
    assert caught.value.reason is Reason.UNKNOWN_LABEL


def _call_and_count(pairs: list[ScanPair], folder: Path, made: Any) -> None:
    lines: list[str] = []
    cases = cache_pairs(pairs, RECIPE, folder, log=lines.append)
    made.put((len(lines), [case.image().shape for case in cases]))


def test_of_two_processes_one_makes_the_cases_and_the_other_waits(pairs, tmp_path):
    context = multiprocessing.get_context("fork")
    made = context.Queue()
    processes = [
        context.Process(target=_call_and_count, args=(pairs, tmp_path / "cache", made))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    counts = [made.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()

    assert sorted(count for count, _ in counts) == [0, 3]
    assert counts[0][1] == counts[1][1]


def test_several_workers_make_what_one_makes(pairs, tmp_path):
    one = cache_pairs(pairs, RECIPE, tmp_path / "one", workers=1, log=_silent)
    two = cache_pairs(pairs, RECIPE, tmp_path / "two", workers=2, log=_silent)

    for first, second in zip(one, two, strict=True):
        for name in ("image.npy", "labels.npy", "spots.npy"):
            assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
