"""Small cases in the layout of the raw dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.structures import STRUCTURES

SHAPE = (9, 7, 11)
AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, 30], [0, 0, 1.5, -100], [0, 0, 0, 1]])

WriteNifti = Callable[..., None]
MakeCase = Callable[..., Path]


@pytest.fixture
def write_nifti() -> WriteNifti:
    """Write an array as NIfTI with an sform."""

    def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, 2)
        image.set_qform(None, 0)
        nib.save(image, path)

    return write


@pytest.fixture
def make_raw_case(tmp_path, write_nifti) -> MakeCase:
    """A whole case with 104 masks, six of them not empty."""

    def make(name: str = "s0001", seed: int = 0, root: Path | None = None) -> Path:
        rng = np.random.default_rng(seed)
        folder = (root or tmp_path / "raw") / name
        (folder / "segmentations").mkdir(parents=True)
        hu = rng.integers(-1000, 1500, SHAPE).astype(np.int32)
        write_nifti(folder / "ct.nii.gz", hu)
        truth = rng.choice([0, 0, 0, 1, 2, 5, 44, 92, 104], SHAPE)
        write_nifti(folder / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
        empty = (folder / "empty.nii.gz").read_bytes()
        (folder / "empty.nii.gz").unlink()
        for structure in STRUCTURES:
            path = folder / "segmentations" / f"{structure.name}.nii.gz"
            mask = (truth == structure.id).astype(np.uint8)
            if mask.any():
                write_nifti(path, mask)
            else:
                path.write_bytes(empty)
        np.save(folder / ".truth.npy", truth.astype(np.uint8))
        return folder

    return make


@pytest.fixture
def raw_case(make_raw_case) -> Path:
    """One whole case in ``tmp_path / "raw"``."""
    return make_raw_case()
