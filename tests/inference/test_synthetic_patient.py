"""The synthetic patient: whole, plausible, and the same body on every grid."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.structures import STRUCTURES
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import Arms, FieldOfView, Metal, Phase
from inference.volume import Volume

#: Plausible volumes, ml: from a child's to a giant's organ.
RANGES_ML = {
    "adrenal": (1.5, 12),
    "aorta": (150, 600),
    "autochthon": (400, 1300),
    "brain": (1000, 2000),
    "clavicula": (10, 70),
    "colon": (500, 2500),
    "duodenum": (30, 200),
    "esophagus": (15, 80),
    "face": (200, 900),
    "femur": (100, 450),
    "gallbladder": (10, 80),
    "gluteus_maximus": (350, 1100),
    "gluteus_medius": (120, 450),
    "gluteus_minimus": (40, 180),
    "heart": (40, 250),
    "hip": (200, 600),
    "humerus": (100, 300),
    "iliac": (15, 80),
    "iliopsoas": (200, 650),
    "inferior_vena_cava": (50, 200),
    "kidney": (80, 300),
    "liver": (900, 2600),
    "lung": (150, 1300),
    "pancreas": (35, 160),
    "portal": (15, 70),
    "pulmonary_artery": (40, 180),
    "rib": (4, 50),
    "sacrum": (120, 350),
    "scapula": (70, 250),
    "small_bowel": (300, 1200),
    "spleen": (60, 350),
    "stomach": (150, 700),
    "trachea": (25, 100),
    "urinary_bladder": (60, 350),
    "vertebrae": (7, 95),
}


@cache
def whole_body(seed: int) -> tuple[Volume, LabelMap]:
    """A coarse scan from thigh to head."""
    patient = SyntheticPatient.from_seed(seed)
    geometry = default_geometry(patient, (5.0, 4.0, 4.0), FieldOfView.WHOLE)
    return patient.sample(geometry)


def centres_mm(label_map: LabelMap) -> dict[str, np.ndarray]:
    index = np.argwhere(label_map.labels > 0)
    ids = label_map.labels[tuple(index.T)]
    return {
        s.name: label_map.geometry.lps_mm(index[ids == s.id].mean(axis=0))
        for s in STRUCTURES
        if (ids == s.id).any()
    }


@pytest.mark.parametrize("seed", [0, 3, 17])
def test_a_whole_body_scan_shows_every_structure_in_a_plausible_size(seed):
    _, labels = whole_body(seed)
    volumes = labels.volumes_ml()

    assert set(volumes) == set(range(1, 105))
    for structure in STRUCTURES:
        low, high = next(r for prefix, r in RANGES_ML.items() if structure.name.startswith(prefix))
        assert low <= volumes[structure.id] <= high, structure.name


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 17])
def test_every_left_structure_lies_left_of_its_right_twin(seed):
    centres = centres_mm(whole_body(seed)[1])

    for structure in STRUCTURES:
        if structure.is_left:
            assert centres[structure.name][0] > centres[structure.twin][0] + 10, structure.name


@pytest.mark.parametrize("seed", [0, 1, 3, 17])
def test_vertebrae_and_ribs_follow_each_other_upwards(seed):
    centres = centres_mm(whole_body(seed)[1])
    column = [f"L{n}" for n in range(5, 0, -1)] + [f"T{n}" for n in range(12, 0, -1)]
    column += [f"C{n}" for n in range(7, 0, -1)]

    for chain in (
        [f"vertebrae_{level}" for level in column],
        [f"rib_left_{n}" for n in range(12, 0, -1)],
        [f"rib_right_{n}" for n in range(12, 0, -1)],
    ):
        heights = [centres[name][2] for name in chain]
        assert np.all(np.diff(heights) > 5), chain


def test_twins_are_not_mirror_images():
    volumes = whole_body(3)[1].volumes_ml()
    pairs = [
        (s.id, STRUCTURES[[t.name for t in STRUCTURES].index(s.twin)].id)
        for s in STRUCTURES
        if s.is_left
    ]

    assert sum(volumes[a] != volumes[b] for a, b in pairs) > 0.9 * len(pairs)


def test_the_same_seed_and_geometry_give_the_same_bytes():
    first = whole_body(3)
    patient = SyntheticPatient.from_seed(3)
    volume, labels = patient.sample(first[0].geometry)

    assert volume.hu.tobytes() == first[0].hu.tobytes()
    assert labels.labels.tobytes() == first[1].labels.tobytes()


def test_another_seed_gives_another_body_pose_and_scan():
    patients = [SyntheticPatient.from_seed(seed) for seed in range(60)]

    assert len({p.traits.size for p in patients}) == 60
    assert len({p.traits.pose.tobytes() for p in patients}) == 60
    assert {p.traits.arms for p in patients} == set(Arms)
    assert {p.traits.phase for p in patients} == set(Phase)
    assert {p.traits.field_of_view for p in patients} == set(FieldOfView)
    assert {p.traits.metal for p in patients} == set(Metal)
    assert {p.traits.table for p in patients} == {True, False}
    assert whole_body(0)[1].labels.tobytes() != whole_body(3)[1].labels.tobytes()


def _oblique(shape: tuple[int, int, int], centre_mm: np.ndarray) -> Geometry:
    column = np.array([0.9, 0.3, -0.316]) / np.linalg.norm([0.9, 0.3, -0.316])
    row = np.cross([0.2, 0.1, 1.0], column)
    row /= np.linalg.norm(row)
    normal = np.cross(column, row)
    positions = np.cumsum(np.tile([4.0, 4.0, 7.5], shape[0])[: shape[0]])
    half = 2.5 * shape[1] * row + 2.5 * shape[2] * column + positions.mean() * normal
    shear = np.outer(positions, 0.3 * row)  # a tilted gantry
    return Geometry(
        shape=shape,
        origins_mm=centre_mm - half + np.outer(positions, normal) + shear,
        row_step_mm=5.0 * row,
        column_step_mm=5.0 * column,
    )


def test_a_tilted_uneven_oblique_scan_shows_the_same_body_in_millimetres():
    patient = SyntheticPatient.from_seed(5)
    box = patient.box_mm
    centre = (np.asarray(box.low) + np.asarray(box.high)) / 2
    _, oblique = patient.sample(_oblique((24, 40, 60), centre))
    rng = np.random.default_rng(0)
    index = np.argwhere(oblique.labels > 0)
    index = index[rng.choice(len(index), 25)]

    for zyx in index:
        point = oblique.geometry.lps_mm(zyx)
        alone = Geometry((1, 1, 1), point[None], np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))
        _, label = patient.sample(alone)
        assert label.labels[0, 0, 0] == oblique.labels[tuple(zyx)]


def test_every_second_voxel_of_a_fine_scan_is_the_coarse_scan():
    patient = SyntheticPatient.from_seed(2)
    coarse = default_geometry(patient, (12.0, 8.0, 8.0))
    matrix = coarse.affine.copy()
    matrix[:3, :3] /= 2
    nz, ny, nx = coarse.shape
    fine = Geometry.from_affine(matrix, (2 * nz, 2 * ny, 2 * nx))

    _, few = patient.sample(coarse)
    _, many = patient.sample(fine)

    assert (many.labels[::2, ::2, ::2] == few.labels).mean() > 0.9999  # rounding at a surface


def test_contrast_medium_shows_in_the_aorta():
    means = {}
    for seed in range(40):
        patient = SyntheticPatient.from_seed(seed)
        phase = patient.traits.phase
        if phase in means:
            continue
        geometry = default_geometry(patient, (16.0, 4.0, 4.0), FieldOfView.ABDOMEN)
        volume, labels = patient.sample(geometry)
        means[phase] = volume.hu[labels.labels == 7].mean()

    assert means[Phase.ARTERIAL] > means[Phase.VENOUS] + 60 > means[Phase.NATIVE] + 120


def test_hu_are_those_of_air_lung_fat_soft_tissue_and_bone():
    volume, labels = whole_body(0)
    by_name = {s.name: volume.hu[labels.labels == s.id] for s in STRUCTURES}

    assert -900 < np.median(by_name["lung_upper_lobe_left"]) < -750
    assert 0 < np.median(by_name["liver"]) < 180
    assert 100 < np.median(by_name["vertebrae_L3"]) < 700
    assert volume.hu.min() >= -1024
    assert volume.hu.max() <= 3071


def test_metal_shines_and_keeps_the_labels_of_what_holds_it():
    seed = next(s for s in range(200) if SyntheticPatient.from_seed(s).traits.metal is Metal.HIP)
    volume, labels = whole_body(seed)

    shining = labels.labels[volume.hu > 2500]
    femurs = [s.id for s in STRUCTURES if s.name.startswith("femur")]
    assert np.isin(shining, femurs).mean() > 0.8


def test_the_default_geometry_holds_the_field_of_view_of_the_patient():
    for seed in range(12):
        patient = SyntheticPatient.from_seed(seed)
        geometry = default_geometry(patient, (3.0, 1.5, 1.5))
        span = geometry.positions_mm[-1] - geometry.positions_mm[0]
        view = patient.traits.field_of_view

        assert geometry.spacing_mm == pytest.approx((3.0, 1.5, 1.5))
        assert span == pytest.approx(
            (view.high_mm - view.low_mm) * patient.traits.size[2], rel=0.03
        )
