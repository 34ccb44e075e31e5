"""From a dataset folder to a model that segments, by the commands alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from inference.label_map import LabelMap
from inference.model_store import ModelStore
from inference.nifti import write_label_nifti
from inference.segmenter import SegResNetSegmenter
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from training.__main__ import main

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TINY = (
    "case.spacing_mm=12.0",
    "network.init_filters=8",
    "network.blocks_down=[1, 1, 1]",
    "network.blocks_up=[1, 1]",
    "plan.steps=2",
    "plan.window=16",
    "plan.early_window=16",
)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def volume():
    patient = SyntheticPatient.from_seed(1)
    return patient.sample(default_geometry(patient, (12, 10, 10), FieldOfView.THORAX))


@pytest.fixture
def dataset(volume, tmp_path) -> Path:
    import nibabel as nib

    scan, truth = volume
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "dataset" / name).mkdir(parents=True)
    write_label_nifti(truth, tmp_path / "dataset" / "labelsTr" / "a.nii.gz")
    affine = nib.load(tmp_path / "dataset" / "labelsTr" / "a.nii.gz").affine
    image = nib.Nifti1Image(scan.hu.transpose(2, 1, 0), affine)
    nib.save(image, tmp_path / "dataset" / "imagesTr" / "a.nii.gz")
    return tmp_path / "dataset"


def _train(dataset: Path, out: Path, *more: str):
    settings = [word for text in TINY for word in ("--set", text)]
    preset = ["--preset", str(CONFIGS / "train_one_case.toml")]
    folders = ["--dataset-dir", str(dataset), "--out", str(out)]
    return CliRunner().invoke(main, ["train", *preset, *folders, "--device=cpu", *settings, *more])


def test_a_trained_network_is_exported_and_segments(dataset, volume, tmp_path):
    trained = _train(dataset, tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    assert str(checkpoint) in trained.output

    exported = CliRunner().invoke(
        main,
        [
            "export", str(checkpoint), "--store", str(tmp_path / "store"), "--name", "mine",
            "--source", "this test", "--licence", "none", "--data", "one synthetic patient",
            "--card", str(tmp_path / "card.md"),
        ],
    )  # fmt: skip

    assert exported.exit_code == 0, exported.output
    store = ModelStore(tmp_path / "store")
    manifest = store.verify("mine")
    made = dict(manifest.training)
    assert made["data"] == "one synthetic patient"
    assert made["split, training"] == made["split, validation"] == "a"
    assert made["steps"] == "2 of 2"
    assert "window 16" in made["recipe"]
    assert made["metrics"].startswith("validation mean Dice")
    assert made["metrics"].endswith("of these weights")
    assert manifest.weights_sha256 in (tmp_path / "card.md").read_text()
    labels = SegResNetSegmenter(store.load("mine")).segment(volume[0])
    assert isinstance(labels, LabelMap)
    assert labels.geometry.matches(volume[0].geometry)


def test_a_second_call_needs_resume_and_finds_nothing_left_to_do(dataset, tmp_path):
    assert _train(dataset, tmp_path / "run").exit_code == 0

    again = _train(dataset, tmp_path / "run")
    resumed = _train(dataset, tmp_path / "run", "--resume")

    assert again.exit_code == 1
    assert "checkpoint: " in again.output
    assert resumed.exit_code == 0, resumed.output
    assert np.loadtxt(tmp_path / "run" / "losses.csv", delimiter=",", skiprows=1).shape == (2, 3)


def test_a_wrong_override_is_a_wrong_call(dataset, tmp_path):
    result = _train(dataset, tmp_path / "run", "--set", "plan.speed=9")

    assert result.exit_code == 2
    assert "plan.speed: no such key" in result.output


def test_a_file_that_is_no_checkpoint_is_not_exported(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")

    arguments = ["--store", str(tmp_path / "store"), "--name", "x", "--source", "s"]
    result = CliRunner().invoke(
        main, ["export", str(tmp_path / "x.pt"), *arguments, "--licence", "l", "--data", "d"]
    )

    assert result.exit_code == 1
    assert "checkpoint: " in result.output
    assert not (tmp_path / "store").exists()
