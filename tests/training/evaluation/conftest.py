"""A small dataset, with predictions whose faults are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.nifti import write_label_nifti
from training.dataset import DatasetFolder

LIVER, SPLEEN, AORTA = 5, 1, 7
GEOMETRY = Geometry.from_affine(
    [[0, 0, 5, -40], [0, 5, 0, -40], [5, 0, 0, 0], [0, 0, 0, 1]], (6, 14, 16)
)


def truth(shift: int) -> np.ndarray:
    """A liver of 27 ml, a spleen of 3 ml."""
    labels = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    labels[1:5, 2 + shift : 8 + shift, 2:11] = LIVER
    labels[2:5, 10:12, 12:16] = SPLEEN
    return labels


def prediction(shift: int) -> np.ndarray:
    """The liver a row aside; an aorta that is not there; no spleen in the second case."""
    labels = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    labels[1:5, 3 + shift : 9 + shift, 2:11] = LIVER
    if shift == 0:
        labels[2:5, 10:12, 12:16] = SPLEEN
    labels[0, 0, 0] = AORTA
    return labels


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetFolder:
    """Two test cases; beside them, predictions."""
    for folder in ("imagesTs", "labelsTs", "predictions"):
        (tmp_path / folder).mkdir()
    for shift, name in enumerate(("first", "second")):
        write_label_nifti(LabelMap(truth(shift), GEOMETRY), tmp_path / f"imagesTs/{name}.nii.gz")
        write_label_nifti(LabelMap(truth(shift), GEOMETRY), tmp_path / f"labelsTs/{name}.nii.gz")
        write_label_nifti(
            LabelMap(prediction(shift), GEOMETRY), tmp_path / f"predictions/{name}.nii.gz"
        )
    return DatasetFolder(tmp_path)
