"""Grids: the same in another order, lacking empty planes, or truly different."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dicom_seg.synthetic.acquisition import stack, tilted
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.nifti import write_label_nifti
from inference.reasons import Reason
from training.compare.nifti_side import read_nifti_side
from training.compare.placement import onto_one_grid
from training.compare.plane_stack import distinct_planes, with_empty_planes
from training.compare.side import Side
from training.errors import TrainingError

SHAPE = (5, 6, 7)
GRID = stack(SHAPE, (2.5, 0.8, 0.7), (11.0, -23.0, 400.0))


@pytest.fixture
def labels(rng) -> LabelMap:
    return LabelMap(rng.integers(0, 105, SHAPE, dtype=np.uint8), GRID)


def stored_in_other_order(labels: LabelMap, order, backward) -> LabelMap:
    """The same voxels at the same places, axes permuted and turned round."""
    affine, array = labels.geometry.affine, labels.labels
    turned = affine[:, [*order, 3]].copy()
    array = array.transpose(order)
    for axis in np.flatnonzero(backward):
        turned[:3, 3] += (array.shape[axis] - 1) * turned[:3, axis]
        turned[:3, axis] *= -1
        array = np.flip(array, axis)
    return LabelMap(np.ascontiguousarray(array), Geometry.from_affine(turned, array.shape))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_order_in_which_voxels_are_stored_does_not_matter(labels, order):
    for backward in itertools.product((False, True), repeat=3):
        other = stored_in_other_order(labels, order, backward)

        first, second = onto_one_grid(Side((labels,)), Side((other,)), resample=False)

        np.testing.assert_array_equal(second.layers[0].labels, labels.labels)
        assert first.geometry.matches(second.geometry)
        assert second.findings == ()


def test_a_grid_that_differs_is_refused_unless_resampling_is_asked_for(labels):
    moved = GRID.affine
    moved[:3, 3] += [0.7, 0, 0]  # one column
    other = LabelMap(labels.labels, Geometry.from_affine(moved, SHAPE))

    with pytest.raises(TrainingError) as refusal:
        onto_one_grid(Side((labels,)), Side((other,)), resample=False)
    _, second = onto_one_grid(Side((labels,)), Side((other,)), resample=True)

    assert refusal.value.reason is Reason.OTHER_GRID
    assert "0.700 mm" in refusal.value.detail
    np.testing.assert_array_equal(second.layers[0].labels[..., 1:], labels.labels[..., :-1])
    assert not second.layers[0].labels[..., 0].any()
    assert [f.reason for f in second.findings] == [Reason.RESAMPLED]
    lost = np.count_nonzero(labels.labels[..., -1]) * 2.5 * 0.8 * 0.7 / 1000
    assert f"; {lost:.3f} of {sum(labels.volumes_ml().values()):.3f} mL lie outside" in (
        second.findings[0].detail
    )


def test_resampling_to_a_finer_grid_takes_the_nearest_voxel(labels):
    fine = GRID.affine @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] -= GRID.affine[:3, :3] @ [0.25, 0.25, 0.25]
    shape = tuple(2 * n for n in SHAPE)
    target = LabelMap(np.zeros(shape, dtype=np.uint8), Geometry.from_affine(fine, shape))

    _, second = onto_one_grid(Side((target,)), Side((labels,)), resample=True)

    doubled = labels.labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(second.layers[0].labels, doubled)


def part(labels: LabelMap, planes: list[int]) -> Side:
    grid = labels.geometry
    geometry = Geometry(
        (len(planes), *grid.shape[1:]),
        grid.origins_mm[planes],
        grid.row_step_mm,
        grid.column_step_mm,
    )
    return Side((LabelMap(labels.labels[planes], geometry),), sparse=True)


@pytest.mark.parametrize("kind", ["even", "tilted"])
def test_planes_that_a_segmentation_does_not_store_are_empty(labels, kind):
    geometry = tilted(GRID, 12.0) if kind == "tilted" else GRID
    labels = LabelMap(labels.labels, geometry)

    for first, second in (
        (Side((labels,)), part(labels, [1, 3])),
        (part(labels, [1, 3]), Side((labels,))),
    ):
        sides = onto_one_grid(first, second, resample=False)
        sparse = sides[0] if first.sparse else sides[1]
        assert sparse.geometry.shape == SHAPE
        np.testing.assert_array_equal(sparse.layers[0].labels[[1, 3]], labels.labels[[1, 3]])
        assert not sparse.layers[0].labels[[0, 2, 4]].any()


def test_two_segmentations_share_the_planes_of_both_and_those_between(labels):
    first, second = onto_one_grid(part(labels, [0, 1]), part(labels, [3, 4]), resample=False)

    assert first.geometry.matches(GRID)
    assert second.geometry.matches(GRID)
    np.testing.assert_array_equal(first.layers[0].labels[:2], labels.labels[:2])
    np.testing.assert_array_equal(second.layers[0].labels[3:], labels.labels[3:])
    assert not first.layers[0].labels[2:].any()


def test_planes_between_those_of_the_other_side_are_another_grid(labels):
    off = part(labels, [1, 3])
    grid = off.geometry
    origins_mm = grid.origins_mm + np.array([0, 0, 1.0])
    moved = Geometry(grid.shape, origins_mm, grid.row_step_mm, grid.column_step_mm)

    with pytest.raises(TrainingError) as refusal:
        onto_one_grid(
            Side((labels,)), Side((LabelMap(off.layers[0].labels, moved),), sparse=True), False
        )

    assert refusal.value.reason is Reason.OTHER_GRID


def test_a_nifti_file_lies_where_its_source_lies(labels, tmp_path):
    write_label_nifti(labels, tmp_path / "labels.nii.gz")

    first, second = onto_one_grid(
        Side((labels,)), read_nifti_side(tmp_path / "labels.nii.gz"), resample=False
    )

    np.testing.assert_array_equal(first.layers[0].labels, second.layers[0].labels)


def test_only_whole_steps_are_filled():
    normal = np.array([0.0, 0.0, 1.0])

    def origins(*z):
        return np.array([[1.0, 2.0, value] for value in z])

    filled, place = with_empty_planes(origins(0, 2, 8, 11), normal, 2.0)
    np.testing.assert_allclose(filled[:, 2], [0, 2, 4, 6, 8, 11])
    assert place.tolist() == [0, 1, 4, 5]
    alone, place = with_empty_planes(origins(5), normal, 3.0)
    assert alone[:, 2].tolist() == [2, 5, 8]
    assert place.tolist() == [1]
    planes, which = distinct_planes(origins(4, 0, 4.004, 2), normal, 0.01)
    assert planes[:, 2].tolist() == [0, 2, 4]
    assert which.tolist() == [2, 0, 2, 1]
