"""Segmenting a list of scans: one bad file never stops the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data.dataset import Dataset

from inference.errors import InferenceError
from inference.network import build_network
from inference.reasons import Reason
from training.bundle.inference import SegmentationRun
from training.bundle.inferer import WindowInferer
from training.bundle.postprocessing import LabelWriter
from training.bundle.preprocessing import ToNetwork
from training.bundle.weights import WeightsLoader
from training.dataset import DatasetError


@pytest.fixture
def run_on(tmp_path, small_weights, small_network):
    """Segments scans with random weights."""
    torch.save(small_weights(1), tmp_path / "model.pt")
    preprocessing = ToNetwork((16.0, 16.0, 16.0))
    network = build_network(small_network)
    weights = WeightsLoader(str(tmp_path), "model.pt", network, preprocessing)

    def run(scans: list[Path], **naming: object) -> tuple[Path, ...]:
        return SegmentationRun(
            dataset=Dataset([{"image": str(scan)} for scan in scans]),
            weights=weights,
            inferer=WindowInferer((32, 32, 32)),
            postprocessing=LabelWriter(str(tmp_path / "out"), **naming),
            device="cpu",
        ).run()

    return run


def test_a_bad_scan_is_named_and_the_others_are_segmented(run_on, dataset, tmp_path):
    good = dataset / "imagesTs" / "p0004.nii.gz"
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:2000])

    with pytest.raises(InferenceError) as caught:
        run_on([bad, good])

    assert caught.value.reason is Reason.UNREADABLE_FILE
    assert "1 of 2 scans failed" in caught.value.detail
    assert "bad.nii.gz" in caught.value.detail
    written = sorted(path.name for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert written == ["p0004_trans.nii.gz"]


def test_names_of_results_follow_the_config(run_on, dataset, tmp_path):
    scan = dataset / "imagesTs" / "p0004.nii.gz"
    written = run_on([scan], output_ext=".nii", output_postfix="seg", separate_folder=False)
    assert written == (tmp_path / "out" / "p0004_seg.nii",)


def test_two_scans_of_one_name_are_refused_before_any_work(run_on, dataset, tmp_path):
    scan = dataset / "imagesTs" / "p0004.nii.gz"
    other = tmp_path / scan.name
    other.write_bytes(scan.read_bytes())
    with pytest.raises(DatasetError) as caught:
        run_on([scan, other])
    assert caught.value.reason is Reason.DUPLICATE_CASE
    assert not (tmp_path / "out").exists()


def test_no_scan_at_all_is_said(run_on):
    with pytest.raises(DatasetError) as caught:
        run_on([])
    assert caught.value.reason is Reason.NO_CASES
