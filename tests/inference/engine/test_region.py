"""What is computed holds all anatomy; what is left out is air, cloth and table."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from inference.engine.network_scan import NetworkScan
from inference.engine.region import Region
from inference.geometry import Geometry
from inference.intensity import PUBLISHED_INTENSITY, ROBUST_INTENSITY
from inference.network_grid import NetworkGrid
from inference.preprocessing import labels_to_network
from inference.structures import STRUCTURE_BY_NAME
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import Arms, Metal
from inference.volume import PADDING_HU, Volume
from inference.wanted_labels import wanted_labels

#: Arms up and down, metal in hip and chest, all on a table.
SEEDS = (0, 1, 3)
#: Of 3 mm voxels: no narrower field of view has air around the patient.
WIDE = (64, 128, 128)


def voxels(region: Region) -> npt.NDArray[np.bool_]:
    """The region's mask on the network's grid."""
    inside = tuple(slice(extent) for extent in region.shape)
    return np.asarray(np.kron(region.mask, np.ones([region.block] * 3, dtype=bool))[inside])


def ball(shape: tuple[int, int, int], inside_hu: int, outside_hu: int = -1000) -> Volume:
    """A ball of 60 mm radius in the middle, 3 mm voxels."""
    index = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    hu = np.where((index**2).sum(axis=0) < 20**2, inside_hu, outside_hu).astype(np.int16)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    return Volume(hu, Geometry.from_affine(affine, shape))


def body(volume: Volume) -> Region:
    grid = NetworkGrid.covering(volume.geometry, 3.0)
    return Region.body(NetworkScan.of(volume, grid, ROBUST_INTENSITY))


def with_air(geometry: Geometry) -> Geometry:
    """Ten rows more in front of the patient and behind; a scanner's fields are square."""
    depth, height, width = geometry.shape
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.lps_mm([0, -10, 0])
    return Geometry.from_affine(affine, (depth, height + 20, width))


@cache
def patient(seed: int) -> tuple[SyntheticPatient, Volume, npt.NDArray[np.uint8]]:
    """Whole body, coarse, and its labels on the network's grid."""
    one = SyntheticPatient.from_seed(seed)
    volume, truth = one.sample(with_air(default_geometry(one, (6.0, 5.0, 5.0))))
    grid = NetworkGrid.covering(volume.geometry, 3.0)
    return one, volume, grid.grid_view(labels_to_network(truth, grid))


def test_the_patients_of_these_tests_differ_in_what_matters() -> None:
    traits = [patient(seed)[0].traits for seed in SEEDS]

    assert {each.arms for each in traits} == set(Arms)
    assert len({each.metal for each in traits} - {Metal.NONE}) >= 2
    assert all(each.table for each in traits)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_structure_of_a_patient_is_cut(seed: int) -> None:
    _, volume, labels = patient(seed)

    inside = voxels(body(volume))

    assert not (labels[~inside] > 0).any()
    assert inside.mean() < 0.8  # and something is left out


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_field_of_view_within_the_body_is_computed_whole(seed: int) -> None:
    _, volume, _ = patient(seed)
    z, y, x = (slice(round(0.4 * n), round(0.6 * n)) for n in volume.hu.shape)
    corner = volume.geometry.lps_mm([z.start, y.start, x.start])
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = corner
    hu = np.ascontiguousarray(volume.hu[z, y, x])

    assert body(Volume(hu, Geometry.from_affine(affine, hu.shape))).mask.all()


def test_inflated_lung_that_fills_the_field_of_view_is_no_air() -> None:
    assert body(ball((40, 40, 40), 40, -860)).mask.all()


def test_noisy_air_is_left_out(rng: np.random.Generator) -> None:
    quiet = ball(WIDE, 40)
    noisy = quiet.hu + rng.normal(0, 60, quiet.hu.shape)

    found = body(Volume(np.clip(noisy, -1024, 3071).astype(np.int16), quiet.geometry))

    clean = body(quiet)
    assert found.mask[clean.mask].all()
    assert found.mask.mean() < 1.3 * clean.mask.mean()
    assert clean.mask.mean() < 0.5


def test_a_thin_bright_table_and_a_tube_are_left_out() -> None:
    volume = ball(WIDE, 40)
    volume.hu[:, 110, :] = 100  # behind the patient, 3 mm
    volume.hu[:, 12:14, 12:14] = 3000

    assert body(volume).box() == body(ball(WIDE, 40)).box()


def test_padding_is_air() -> None:
    volume = ball(WIDE, 40)
    padded = volume.hu.copy()
    padded[:, :5] = padded[:, -5:] = PADDING_HU

    assert body(Volume(padded, volume.geometry)).box() == body(volume).box()


def test_the_share_of_a_region_counts_voxels() -> None:
    region = Region(np.zeros((3, 2, 4), dtype=bool), 4, (9, 8, 13))
    region.mask[1:, :1, 3:] = True

    assert region.share == pytest.approx(voxels(region).mean())
    assert Region.everything((9, 8, 13)).share == 1


def test_a_small_field_of_view_is_computed_whole() -> None:
    assert body(ball((64, 128, 115), 40)).mask.all()  # 345 mm wide


def test_air_alone_is_an_empty_region() -> None:
    assert body(ball((8, 128, 128), -1000)).is_empty
    assert body(ball((8, 128, 128), -1000)).box() is None


def test_metal_beyond_the_scale_does_not_hide_the_body() -> None:
    volume = ball(WIDE, 40)
    volume.hu[30:33, 62:65, 62:65] = 30000
    grid = NetworkGrid.covering(volume.geometry, 3.0)

    found = Region.body(NetworkScan.of(volume, grid, PUBLISHED_INTENSITY))

    np.testing.assert_array_equal(found.mask, body(ball(WIDE, 40)).mask)


def test_a_structure_is_surrounded_by_its_margin() -> None:
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    labels[30, 28, 31] = STRUCTURE_BY_NAME["liver"].id
    labels[2, 2, 2] = STRUCTURE_BY_NAME["spleen"].id

    region = Region.of_labels(labels, wanted_labels(["liver"]), block=2, spacing_mm=3.0)

    inside = voxels(region)
    assert inside[20:41, 18:39, 21:42].all()  # 30 mm of 3 mm voxels
    assert not inside[2, 2, 2]
    assert Region.of_labels(labels, wanted_labels(["brain"]), block=2, spacing_mm=3.0).is_empty


def test_the_margin_of_a_structure_is_in_millimetres_whatever_a_block_measures() -> None:
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    labels[30, 30, 30] = STRUCTURE_BY_NAME["liver"].id

    inside = voxels(Region.of_labels(labels, wanted_labels(["liver"]), block=2, spacing_mm=2.5))

    assert inside[18:43, 30, 30].all()  # 12 voxels of 2.5 mm to both sides


def test_a_part_that_windows_touch_beyond_the_region_may_go_on_there() -> None:
    wanted = wanted_labels(["colon"])
    labels = np.zeros((60, 40, 40), dtype=np.uint8)
    labels[20, 20, 20] = STRUCTURE_BY_NAME["colon"].id
    whole = Region(np.ones((30, 20, 20), dtype=np.bool_), 2, labels.shape)
    near = Region.of_labels(labels, wanted, block=2, spacing_mm=3.0)
    assert not near.cuts(labels, wanted, whole)

    labels[40:44] = STRUCTURE_BY_NAME["colon"].id  # ten voxels beyond it, in the same window

    assert near.cuts(labels, wanted, whole)
