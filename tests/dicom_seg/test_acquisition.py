"""Geometries of the scanner, checked in patient millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_seg.synthetic.acquisition import (
    PatientPosition,
    Plane,
    centre_mm,
    centred_on,
    covering,
    image_axes,
    reversed_stack,
    shifted,
    stack,
    tilted,
    turned,
    unevenly_spaced,
    without_planes,
)

CENTRE = (12.0, -34.0, 560.0)

# LPS direction of a row (towards the next column) and of a column, worked out by hand from
# the definitions of PS3.3 C.7.3.1.1.2: the observer stands where the patient goes in.
AS_ACQUIRED = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
}


@pytest.mark.parametrize("position", PatientPosition)
def test_rows_and_columns_run_as_the_patient_lies(position):
    geometry = stack((3, 4, 5), (3.0, 0.9, 0.7), CENTRE, position)

    row, column = AS_ACQUIRED[position.value]
    np.testing.assert_allclose(geometry.column_step_mm, np.array(row) * 0.7)
    np.testing.assert_allclose(geometry.row_step_mm, np.array(column) * 0.9)


@pytest.mark.parametrize("position", PatientPosition)
def test_planes_ascend_into_the_gantry(position):
    geometry = stack((3, 4, 5), (3.0, 0.9, 0.7), CENTRE, position)

    headwards = 1 if position.value.startswith("HF") else -1
    np.testing.assert_allclose(geometry.stack_step_mm, [0, 0, 3.0 * headwards])
    assert (np.diff(geometry.positions_mm) > 0).all()


@pytest.mark.parametrize(
    ("plane", "row", "column"),
    [(Plane.CORONAL, (1, 0, 0), (0, 0, -1)), (Plane.SAGITTAL, (0, 1, 0), (0, 0, -1))],
)
def test_coronal_and_sagittal_planes_have_the_head_on_top(plane, row, column):
    _, down, right = image_axes(plane=plane)

    np.testing.assert_allclose(right, row)
    np.testing.assert_allclose(down, column)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("position", ["HFS", "FFDR"])
def test_the_middle_of_the_stack_is_where_it_was_asked_for(plane, position):
    geometry = stack((6, 4, 5), (3.0, 0.9, 0.7), CENTRE, PatientPosition(position), plane)

    np.testing.assert_allclose(centre_mm(geometry), CENTRE)
    np.testing.assert_allclose(geometry.lps_mm([2.5, 1.5, 2.0]), CENTRE)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("position", PatientPosition)
def test_a_covering_stack_holds_the_whole_box(plane, position):
    box = np.array([[-101.0, -50.0, 7.0], [99.0, 60.0, 400.0]])

    geometry = covering(box, (5.0, 2.0, 3.0), position, plane)

    corners = geometry.lps_mm(
        np.array([(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)])
        * (np.array(geometry.shape) - 1)
    )
    assert (corners.min(axis=0) <= box[0] + 1e-6).all()
    assert (corners.max(axis=0) >= box[1] - 1e-6).all()
    np.testing.assert_allclose(corners.mean(axis=0), box.mean(axis=0))


@pytest.mark.parametrize("degrees", [16.5, -20.0])
def test_a_tilted_gantry_leans_every_plane_and_leaves_the_table_straight(degrees):
    straight = stack((5, 21, 9), (3.0, 0.9, 0.7), CENTRE)

    leaning = tilted(straight, degrees)

    assert leaning.tilt_degrees == pytest.approx(abs(degrees))
    np.testing.assert_allclose(leaning.stack_step_mm, straight.stack_step_mm)
    np.testing.assert_allclose(leaning.lps_mm([2, 10, 4]), straight.lps_mm([2, 10, 4]))
    assert np.sign(leaning.row_step_mm[2]) == np.sign(degrees)
    assert leaning.spacing_mm == pytest.approx((3.0 * np.cos(np.radians(degrees)), 0.9, 0.7))


def test_an_oblique_stack_keeps_its_middle_and_its_angles():
    turned_stack = turned(stack((5, 6, 7), (3.0, 0.9, 0.7), CENTRE), (1.0, 2.0, 0.5), 37.0)

    assert turned_stack.tilt_degrees == pytest.approx(0.0, abs=1e-5)
    assert turned_stack.spacing_mm == pytest.approx((3.0, 0.9, 0.7))
    np.testing.assert_allclose(centre_mm(turned_stack), CENTRE)
    assert np.abs(turned_stack.normal).max() < 0.99


def test_a_quarter_turn_about_the_long_axis_takes_left_to_the_back():
    turned_stack = turned(stack((3, 4, 5), (3.0, 1.0, 1.0)), (0, 0, 1), 90.0)

    np.testing.assert_allclose(turned_stack.column_step_mm, [0, 1, 0], atol=1e-12)


def test_uneven_steps_are_the_distances_of_neighbours():
    geometry = unevenly_spaced(stack((4, 5, 6), (3.0, 1.0, 1.0), CENTRE), [1.0, 4.0, 2.5])

    np.testing.assert_allclose(np.diff(geometry.positions_mm), [1.0, 4.0, 2.5])
    np.testing.assert_allclose(centre_mm(geometry), CENTRE)
    assert not geometry.is_affine


def test_uneven_steps_must_be_as_many_as_the_gaps():
    with pytest.raises(ValueError, match="3 steps"):
        unevenly_spaced(stack((4, 5, 6), (3.0, 1.0, 1.0)), [1.0])


def test_missing_planes_leave_the_others_where_they_are():
    whole = stack((6, 5, 4), (3.0, 1.0, 1.0), CENTRE)

    gap = without_planes(whole, 2, 2)

    assert gap.shape == (4, 5, 4)
    np.testing.assert_allclose(gap.origins_mm, whole.origins_mm[[0, 1, 4, 5]])


def test_shifted_planes_lie_aside_in_their_own_plane():
    whole = stack((6, 5, 4), (3.0, 0.9, 0.7), CENTRE)

    moved = shifted(whole, 4, rows=2, columns=-3)

    np.testing.assert_allclose(moved.positions_mm, whole.positions_mm)
    np.testing.assert_allclose(moved.origins_mm[:4], whole.origins_mm[:4])
    np.testing.assert_allclose(moved.lps_mm([4, 0, 3]), whole.lps_mm([4, 2, 0]))


def test_a_reversed_stack_has_the_same_planes():
    whole = stack((6, 5, 4), (3.0, 1.0, 1.0), CENTRE)

    np.testing.assert_allclose(reversed_stack(whole).origins_mm, whole.origins_mm[::-1])


def test_a_stack_can_be_moved_to_a_point():
    moved = centred_on(stack((6, 5, 4), (3.0, 1.0, 1.0), CENTRE), (1.0, 2.0, 3.0))

    np.testing.assert_allclose(centre_mm(moved), [1.0, 2.0, 3.0])
