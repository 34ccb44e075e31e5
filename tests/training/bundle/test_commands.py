"""The six documented commands, to their end, with what they leave behind."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.manifest import ModelManifest
from inference.model_store import LoadedModel, ModelStore
from inference.nifti import read_label_nifti, read_nifti
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.windows import WindowSpec
from training.dataset import DatasetFolder
from training.evaluation.run import evaluate_cases
from training.export import ModelDetails, export_model

MONAI = ["-m", "monai.bundle", "run", "--config_file"]
TORCHRUN = [
    *["-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2"],
    *MONAI,
]
#: Small windows, and so are all commands that use them.
WINDOWS = ["--validate#inferer#roi_size", "[32,32,32]", "--val_cases", "2"]
TINY = [
    *WINDOWS,
    *["--pixdim", "[14.0,14.0,14.0]", "--batch_size", "2", "--init_LR", "0.01"],
    *["--network_def#init_filters", "8", "--network_def#dropout_prob", "0.0"],
    *["--network_def#blocks_down", "[1,1,1]", "--network_def#blocks_up", "[1,1]"],
    *["--train#trainer#max_epochs", "3", "--train#trainer#amp", "False"],
    *["--preset_overrides", "['plan.window=32','plan.early_window=32','plan.warm_up_steps=1']"],
]
TRAIN = "configs/train.json"
EVALUATE = "'configs/train.json','configs/evaluate.json'"


def _run(root: Path, *arguments: str) -> str:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root, env=environ, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    reasons = [line for line in done.stderr.splitlines() if "Error" in line]
    assert done.returncode == 0, "\n".join(reasons) + done.stderr[-1000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(bundle_root) -> Path:
    """The root after command 1."""
    _run(bundle_root, *MONAI, TRAIN, *TINY)
    return bundle_root


@pytest.fixture(scope="module")
def evaluated(trained) -> Path:
    """The report of command 4."""
    _run(trained, *MONAI, f"[{EVALUATE}]", *WINDOWS)
    return trained / "eval" / "evaluation"


def _weights(root: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(root / "models" / "model.pt", weights_only=True)
    return loaded


def _losses(folder: Path) -> list[float]:
    with (folder / "losses.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def _segmenter(root: Path) -> SegResNetSegmenter:
    """Of the trained weights, without anything of the bundle."""
    manifest = ModelManifest.from_json((root / "models" / "model.json").read_bytes(), "model.json")
    model = LoadedModel(manifest, _weights(root))
    return SegResNetSegmenter(model, SegmenterOptions(windows=WindowSpec(window_voxels=32)))


def test_training_leaves_weights_with_their_manifest_and_a_checkpoint_that_exports(
    trained, tmp_path
):
    losses = _losses(trained / "eval" / "training")
    assert len(losses) >= 3
    assert losses[-1] < losses[0]

    store = ModelStore(tmp_path)
    details = ModelDetails(name="x", source="a test", licence="none", intended_use="tests")
    exported = export_model(trained / "eval" / "training" / "best.pt", details, store)
    manifest = _segmenter(trained).identity
    assert manifest.digest != exported.weights_sha256  # another file of the same weights
    weights = _weights(trained)
    for name, tensor in store.load("x").state_dict.items():
        torch.testing.assert_close(weights[name], tensor)


def test_a_dataset_named_on_the_command_line_is_trained_on(trained, dataset, tmp_path):
    out = ["--output_dir", str(tmp_path / "eval"), "--ckpt_dir", str(tmp_path / "models")]
    _run(trained, *MONAI, TRAIN, "--dataset_dir", str(dataset), *TINY, *out)
    ours = _weights(tmp_path)
    for name, tensor in _weights(trained).items():  # the same files by another path
        torch.testing.assert_close(ours[name], tensor)


def test_two_processes_train_as_one_does(trained, tmp_path):
    out = ["--output_dir", str(tmp_path / "eval"), "--ckpt_dir", str(tmp_path / "models")]
    configs = "['configs/train.json','configs/multi_gpu_train.json']"
    _run(trained, *TORCHRUN, configs, *TINY, *out)
    np.testing.assert_allclose(
        _losses(tmp_path / "eval" / "training"),
        _losses(trained / "eval" / "training"),
        rtol=1e-3,
    )
    assert (tmp_path / "models" / "model.pt").is_file()


def test_evaluation_gives_the_figures_of_a_direct_call(trained, evaluated, tmp_path):
    pairs = DatasetFolder(trained / "sampledata").training_pairs()[-2:]
    evaluate_cases(_segmenter(trained), pairs, tmp_path)
    for table in ("cases.csv", "structures.csv", "structures_by_case.csv"):
        assert (evaluated / table).read_text() == (tmp_path / table).read_text()
    assert (evaluated / "evaluation.html").is_file()


def test_two_processes_evaluate_as_one_does(trained, evaluated, tmp_path):
    configs = f"[{EVALUATE},'configs/multi_gpu_evaluate.json']"
    _run(trained, *TORCHRUN, configs, *WINDOWS, "--output_dir", str(tmp_path))
    for table in ("cases.csv", "structures.csv", "structures_by_case.csv"):
        ours = (tmp_path / "evaluation" / table).read_text()
        assert ours == (evaluated / table).read_text()


def _check_labels(scan: Path, path: Path, segmenter: SegResNetSegmenter) -> None:
    volume, found = read_nifti(scan), read_label_nifti(path)
    assert found.geometry.matches(volume.geometry)
    np.testing.assert_array_equal(found.labels, segmenter.segment(volume).labels)


def test_inference_labels_every_test_scan_on_its_own_grid(trained):
    _run(trained, *MONAI, "configs/inference.json", "--inferer#roi_size", "[32,32,32]")
    scans = sorted((trained / "sampledata" / "imagesTs").iterdir())
    assert len(scans) == 2
    for scan in scans:
        name = scan.name.removesuffix(".nii.gz")
        path = trained / "eval" / name / f"{name}_trans.nii.gz"
        _check_labels(scan, path, _segmenter(trained))


def test_inference_takes_a_list_of_scans(trained, tmp_path):
    first = min((trained / "sampledata" / "imagesTr").iterdir())  # the real one, if there is one
    scans = [f"sampledata/imagesTr/{first.name}", "sampledata/imagesTs/p0004.nii.gz"]
    out = ["--output_dir", str(tmp_path), "--inferer#roi_size", "[32,32,32]"]
    _run(trained, *MONAI, "configs/inference.json", "--datalist", str(scans), *out)
    name = first.name.removesuffix(".nii.gz")
    assert {path.name for path in tmp_path.rglob("*.nii.gz")} == {
        f"{name}_trans.nii.gz",
        "p0004_trans.nii.gz",
    }
    _check_labels(first, tmp_path / name / f"{name}_trans.nii.gz", _segmenter(trained))
