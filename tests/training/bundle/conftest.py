"""A bundle's root with a dataset so small that every command ends in seconds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from inference.network import NetworkSpec, build_network
from inference.nifti import write_label_nifti
from inference.synthetic.patient import SyntheticPatient, default_geometry

ROOT = Path(__file__).resolve().parents[3]
SMALL = NetworkSpec(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1), dropout_prob=0.0)
COARSE_MM = (14.0, 10.0, 10.0)


def _write_patient(seed: int, folder: Path, part: str) -> None:
    patient = SyntheticPatient.from_seed(seed)
    volume, truth = patient.sample(default_geometry(patient, COARSE_MM))
    name = f"p{seed:04d}.nii.gz"
    for kind in ("images", "labels"):
        (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
    write_label_nifti(truth, folder / f"labels{part}" / name)
    labels = nib.load(folder / f"labels{part}" / name)
    scan = nib.Nifti1Image(volume.hu.transpose(2, 1, 0), labels.affine, dtype=np.int16)
    nib.save(scan, folder / f"images{part}" / name)


def _write_real_crop(shared: Path, folder: Path) -> None:
    source = shared / "totalseg_v1_dataset"
    crop = (slice(30, 70), slice(30, 70), slice(40, 72))
    for kind, path in (
        ("imagesTr", source / "s0001" / "ct.nii.gz"),
        ("labelsTr", source / "s0001_labels_v1_fast.nii.gz"),
    ):
        nib.save(nib.load(path).slicer[crop], folder / kind / "a_s0001.nii.gz")


@pytest.fixture(scope="session")
def dataset(request, tmp_path_factory) -> Path:
    """Three synthetic patients and a crop of a real scan to train on, two to segment."""
    folder = tmp_path_factory.mktemp("dataset")
    for seed in (1, 2, 3):
        _write_patient(seed, folder, "Tr")
    for seed in (4, 5):
        _write_patient(seed, folder, "Ts")
    with contextlib.suppress(pytest.skip.Exception):  # raised where no real scan is at hand
        _write_real_crop(request.getfixturevalue("shared_data"), folder)
    return folder


@pytest.fixture(scope="session")
def bundle_root(dataset, tmp_path_factory) -> Path:
    """The shipped configs, and the dataset where they look for it."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "configs", root / "configs")
    shutil.copytree(dataset, root / "sampledata")
    return root


@pytest.fixture(scope="session")
def small_weights() -> Callable[[int], dict[str, torch.Tensor]]:
    """Random weights of the small network whose labels are diverse."""

    def make(seed: int) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights = build_network(SMALL).state_dict()
        head = weights["conv_final.2.conv.weight"]
        weights["conv_final.2.conv.weight"] = head - head.mean(dim=1, keepdim=True)
        weights["conv_final.2.conv.bias"] = torch.zeros(head.shape[0])
        return weights

    return make


@pytest.fixture(scope="session")
def small_network() -> NetworkSpec:
    """Of ``small_weights``."""
    return SMALL
