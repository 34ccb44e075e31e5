"""Preprocessing and its inverse against MONAI's own transforms, in the published order."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import NormalizeIntensityd, ScaleIntensityd
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd

from inference.geometry import Geometry
from inference.preprocessing import PUBLISHED_INTENSITY, labels_to_source, to_network
from inference.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def published(spacing_mm: float) -> Compose:
    axes = (("L", "R"), ("P", "A"), ("I", "S"))
    return Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=axes),
            Spacingd(keys="image", pixdim=[spacing_mm] * 3, mode="bilinear"),
            NormalizeIntensityd(keys="image", nonzero=True),
            ScaleIntensityd(keys="image", minv=-1.0, maxv=1.0),
        ]
    )


def compare(
    hu_xyz: npt.NDArray[np.int16], affine_ras: npt.NDArray[np.float64], spacing_mm: float
) -> tuple[npt.NDArray[np.float32], float]:
    """Differences of the network's input, and the share of labels that come back elsewhere."""
    chain = published(spacing_mm)
    image = torch.from_numpy(hu_xyz.astype(np.float32))[None]
    data = chain({"image": MetaTensor(image, affine=torch.from_numpy(affine_ras))})
    theirs = data["image"][0].numpy()
    labels = np.random.default_rng(5).integers(0, 105, theirs.shape).astype(np.uint8)
    meta = copy.deepcopy(data["image"].meta)
    data["pred"] = MetaTensor(torch.from_numpy(labels.astype(np.float32))[None], meta=meta)
    inverse = Invertd(keys="pred", transform=chain, orig_keys="image", nearest_interp=True)
    placed = inverse(data)["pred"][0].numpy()

    geometry = Geometry.from_affine((LPS @ affine_ras)[:, [2, 1, 0, 3]], hu_xyz.shape[::-1])
    volume = Volume(np.ascontiguousarray(hu_xyz.T), geometry)
    ours = to_network(volume, spacing_mm, PUBLISHED_INTENSITY)
    assert ours.array.shape == theirs.shape
    back = labels_to_source(labels, ours.grid).labels
    return ours.array - theirs, float((placed != back.T).mean())


def turned(order: tuple[int, int, int], signs: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    axes = np.zeros((3, 3))
    axes[order, range(3)] = signs
    return axes


@pytest.mark.parametrize("spacing_mm", [1.5, 3.0])
@pytest.mark.parametrize(
    ("order", "signs"),
    [
        ((0, 1, 2), (1, 1, 1)),  # RAS
        ((0, 1, 2), (-1, -1, 1)),  # LPS
        ((0, 1, 2), (-1, 1, -1)),
        ((1, 2, 0), (1, -1, -1)),  # sagittal planes
        ((0, 2, 1), (-1, -1, 1)),  # coronal planes
    ],
)
@pytest.mark.parametrize(
    "spacing_xyz",
    [
        (0.75, 0.75, 1.5),
        (1.5, 1.5, 1.5),  # 1.5 to 3 mm: half of all source voxels are ties
        (3.0, 3.0, 3.0),  # 3 to 1.5 mm: sums of neighbours that may or may not be exactly 0 HU
        (1.4995, 3.0, 2.0),  # near the wanted spacing: kept as it is
        (0.9765625, 0.9765625, 5.0),
    ],
)
def test_input_and_inverse_equal_monais(
    rng: np.random.Generator,
    spacing_mm: float,
    order: tuple[int, int, int],
    signs: tuple[int, int, int],
    spacing_xyz: tuple[float, float, float],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = turned(order, signs) @ np.diag(np.float32(spacing_xyz))
    affine[:3, 3] = np.float32([-120.3, 41.7, 903.2])  # NIfTI keeps single precision
    hu = rng.integers(-200, 200, (31, 26, 19)).astype(np.int16)  # many voxels at exactly 0 HU

    difference, moved = compare(hu, affine, spacing_mm)

    assert np.abs(difference).max() < 1e-5
    assert moved == 0


@pytest.mark.parametrize("spacing_mm", [1.5, 3.0])
def test_an_oblique_scan_differs_by_rounding_only(
    rng: np.random.Generator, spacing_mm: float
) -> None:
    angle = np.radians(14)
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag([0.83, 0.83, 2.3])
    hu = rng.integers(1, 400, (31, 26, 19)).astype(np.int16)

    difference, moved = compare(hu, affine, spacing_mm)

    assert np.abs(difference).max() < 1e-5
    assert moved == 0


@pytest.mark.parametrize("shear", [0.35, -0.35])
def test_a_sheared_matrix_is_straightened_as_monai_does_it(
    rng: np.random.Generator, shear: float
) -> None:
    affine = np.diag([0.817, 0.793, 2.371, 1.0])  # no ties
    affine[1, 2] = shear * 2.371
    hu = rng.integers(1, 400, (31, 26, 19)).astype(np.int16)

    difference, moved = compare(hu, affine, 1.5)

    assert np.abs(difference).max() < 1e-5
    assert moved == 0


def test_a_constant_scan_is_the_same_constant(rng: np.random.Generator) -> None:
    hu = np.full((20, 20, 20), 37, dtype=np.int16)

    difference, _ = compare(hu, np.diag([1.5, 1.5, 1.5, 1.0]), 1.5)

    assert np.abs(difference).max() == 0
