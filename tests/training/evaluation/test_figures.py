"""Figures of agreement, against brute force: every piece of surface against every other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME
from training.errors import TrainingError
from training.evaluation.figures import Presence, measure
from training.evaluation.tolerances import Tolerances

LIVER, SPLEEN, AORTA = 5, 1, 7
SHAPE = (7, 9, 8)
SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 0.7, 0.9), (0.6, 2.0, 1.1)]


def grid(spacing_mm=(3.0, 0.7, 0.9), shape=SHAPE) -> Geometry:
    z, y, x = spacing_mm
    return Geometry.from_affine([[0, 0, x, -20], [0, y, 0, 15], [z, 0, 0, 7], [0, 0, 0, 1]], shape)


def label_map(mask, geometry=None, structure_id=LIVER) -> LabelMap:
    labels = np.where(np.asarray(mask, dtype=bool), structure_id, 0).astype(np.uint8)
    return LabelMap(labels, geometry or grid())


def box(*ranges: tuple[int, int], shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def corner_area_mm2(inside: np.ndarray, spacing_mm) -> float:
    """Area of the surface within one block of eight voxels, from MONAI's published table."""
    from monai.metrics.utils import get_code_to_measure_table

    table, kernel = get_code_to_measure_table(spacing_mm)
    code = int((inside * kernel.numpy().reshape(2, 2, 2)).sum())
    return float(table[code])


def brute_pieces(mask: np.ndarray, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """Middles (mm from voxel 0) and areas of all blocks that are neither in nor out."""
    padded = np.pad(mask, 1)
    points, areas = [], []
    for z, y, x in itertools.product(*(range(n + 1) for n in mask.shape)):
        block = padded[z : z + 2, y : y + 2, x : x + 2]
        if block.any() and not block.all():
            points.append((np.array([z, y, x]) - 0.5) * spacing_mm)
            areas.append(corner_area_mm2(block, spacing_mm))
    return np.array(points), np.array(areas)


def brute_figures(first, second, spacing_mm, tolerance_mm) -> tuple[float, float, float]:
    (p, a), (q, b) = brute_pieces(first, spacing_mm), brute_pieces(second, spacing_mm)
    gaps = np.linalg.norm(p[:, None] - q[None], axis=-1)
    there, back = gaps.min(axis=1), gaps.min(axis=0)
    near = a[there <= tolerance_mm + 1e-9].sum() + b[back <= tolerance_mm + 1e-9].sum()

    def within(distances, areas):
        """The smallest distance that holds 95 % of the area."""
        for limit in np.sort(distances):
            if areas[distances <= limit].sum() >= 0.95 * areas.sum() * (1 - 1e-12):
                return limit
        raise AssertionError

    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    return dice, near / (a.sum() + b.sum()), max(within(there, a), within(back, b))


CASES = {
    "overlapping boxes": (box((1, 5), (2, 7), (2, 6)), box((2, 6), (2, 8), (1, 5))),
    "identical": (box((1, 5), (2, 7), (2, 6)), box((1, 5), (2, 7), (2, 6))),
    "disjoint": (box((0, 2), (0, 2), (0, 2)), box((5, 7), (6, 9), (5, 8))),
    "single voxels": (box((3, 4), (4, 5), (4, 5)), box((3, 4), (6, 7), (4, 5))),
    "one voxel in a box": (box((3, 4), (4, 5), (4, 5)), box((1, 6), (2, 7), (2, 7))),
    "touching every border": (np.ones(SHAPE, dtype=bool), box((1, 7), (0, 9), (0, 7))),
    "a plane at the border": (box((0, 1), (0, 9), (0, 8)), box((0, 2), (0, 9), (0, 8))),
}


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_figures_equal_brute_force(name, spacing_mm):
    first, second = CASES[name]
    geometry = grid(spacing_mm)
    tolerances = Tolerances(1.1)

    (found,) = measure(label_map(first, geometry), label_map(second, geometry), tolerances)

    dice, surface_dice, hd95_mm = brute_figures(first, second, spacing_mm, 1.1)
    assert found.dice == pytest.approx(dice, abs=1e-12)
    assert found.surface_dice == pytest.approx(surface_dice, abs=1e-6)  # MONAI's areas: float32
    assert found.hd95_mm == pytest.approx(hd95_mm, abs=1e-9)
    assert found.reference_ml == pytest.approx(first.sum() * np.prod(spacing_mm) / 1000)
    assert found.other_ml == pytest.approx(second.sum() * np.prod(spacing_mm) / 1000)


def test_ragged_structures_of_any_shape_equal_brute_force(rng):
    for _ in range(6):
        spacing_mm = tuple(rng.uniform(0.5, 3.0, 3))
        first, second = rng.random((2, 6, 7, 5)) < rng.uniform(0.05, 0.6)
        first[0, 0, 0] = second[-1, -1, -1] = True
        geometry = grid(spacing_mm, first.shape)
        tolerance_mm = float(rng.uniform(0.3, 2.0))

        (found,) = measure(
            label_map(first, geometry), label_map(second, geometry), Tolerances(tolerance_mm)
        )

        expected = brute_figures(first, second, spacing_mm, tolerance_mm)
        figures = (found.dice, found.surface_dice, found.hd95_mm)
        assert figures == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_surface_dice_equals_that_of_monai():
    import torch
    from monai.metrics import compute_surface_dice

    first, second = CASES["overlapping boxes"]
    spacing_mm = (3.0, 0.7, 0.9)
    theirs = compute_surface_dice(
        torch.from_numpy(second)[None, None],
        torch.from_numpy(first)[None, None],
        [1.1],
        include_background=True,
        spacing=spacing_mm,
        use_subvoxels=True,
    )

    (found,) = measure(label_map(first), label_map(second), Tolerances(1.1))

    assert found.surface_dice == pytest.approx(float(theirs), abs=1e-6)


def test_axes_turned_in_the_patient_change_no_figure():
    first, second = CASES["overlapping boxes"]
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([3.0, 0.7, 0.9])
    oblique = Geometry.from_affine(matrix, SHAPE)

    (there,) = measure(label_map(first, oblique), label_map(second, oblique))
    (straight,) = measure(label_map(first), label_map(second))

    assert there.hd95_mm == pytest.approx(straight.hd95_mm)
    assert there.surface_dice == pytest.approx(straight.surface_dice)


def test_a_bent_stack_is_measured_between_true_positions():
    """Two planes of one voxel each, 10 mm apart where the others are 2 mm apart."""
    origins_mm = np.zeros((5, 3))
    origins_mm[:, 2] = [0, 2, 4, 14, 16]
    uneven = Geometry((5, 4, 4), origins_mm, np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))
    shape = uneven.shape
    first = label_map(box((1, 2), (1, 2), (1, 2), shape=shape), uneven)
    second = label_map(box((3, 4), (1, 2), (1, 2), shape=shape), uneven)

    (found,) = measure(first, second)

    # pieces lie half-way between planes: 1 and 3 mm against 9 and 15 mm
    assert found.hd95_mm == pytest.approx(12.0)
    assert found.reference_ml == pytest.approx(2 / 1000)
    assert found.other_ml == pytest.approx(6 / 1000)


def test_a_structure_on_one_side_has_volume_and_no_distance():
    empty = label_map(np.zeros(SHAPE))
    full = label_map(box((1, 3), (1, 3), (1, 3)))

    (missed,) = measure(full, empty)
    (invented,) = measure(empty, full)

    assert missed.presence is Presence.REFERENCE_ONLY
    assert invented.presence is Presence.OTHER_ONLY
    assert (missed.dice, missed.surface_dice, missed.hd95_mm) == (None, None, None)
    assert missed.volume_error_percent == pytest.approx(-100)
    assert invented.volume_error_percent is None
    assert invented.volume_error_ml == pytest.approx(8 * 3 * 0.7 * 0.9 / 1000)
    assert measure(empty, empty) == ()


def test_structures_do_not_disturb_each_other():
    first, second = CASES["overlapping boxes"]
    alone = measure(label_map(first), label_map(second))
    crowded_first, crowded_second = label_map(first), label_map(second)
    crowded_first.labels[crowded_first.labels == 0] = SPLEEN
    crowded_second.labels[crowded_second.labels == 0] = SPLEEN
    crowded_second.labels[0, 0, 0] = AORTA

    by_id = {s.structure_id: s for s in measure(crowded_first, crowded_second)}

    assert by_id[LIVER] == alone[0]
    assert set(by_id) == {SPLEEN, LIVER, AORTA}
    assert measure(crowded_first, crowded_second, only={LIVER}) == alone


def test_each_structure_has_its_own_tolerance():
    first = label_map(box((2, 4), (2, 6), (2, 6)))
    second = label_map(box((2, 4), (2, 6), (3, 7)))  # 0.9 mm aside

    (near,) = measure(first, second, Tolerances(0.01, {LIVER: 0.91}))
    (far,) = measure(first, second, Tolerances(0.91, {LIVER: 0.01}))

    assert near.surface_dice == 1
    assert near.tolerance_mm == 0.91
    assert far.surface_dice < 0.8


def test_twins_that_were_confused_are_flagged():
    left, right = STRUCTURE_BY_NAME["kidney_left"].id, STRUCTURE_BY_NAME["kidney_right"].id
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:5, 2:6, 5:8], labels[2:5, 2:6, 0:3] = left, right  # +x is the patient's left
    swapped = np.select([labels == left, labels == right], [right, left], 0).astype(np.uint8)
    truth = LabelMap(labels, grid())

    assert not any(s.is_swapped for s in measure(truth, truth))
    confused = measure(truth, LabelMap(swapped, grid()))

    assert {s.structure_id for s in confused if s.is_swapped} == {left, right}


def test_another_grid_is_refused():
    with pytest.raises(TrainingError) as refusal:
        measure(label_map(np.ones(SHAPE)), label_map(np.ones(SHAPE), grid((3.0, 0.7, 1.0))))

    assert refusal.value.reason is Reason.OTHER_GRID
