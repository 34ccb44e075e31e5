"""Planes in the patient: every value in millimetres, LPS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InvalidGeometryError
from inference.geometry import Geometry
from inference.reasons import Reason


def planes(origins_mm: np.ndarray, rows: int = 5, columns: int = 6) -> Geometry:
    return Geometry(
        shape=(len(origins_mm), rows, columns),
        origins_mm=np.asarray(origins_mm, dtype=np.float64),
        row_step_mm=np.array([0.0, 0.8, 0.0]),
        column_step_mm=np.array([0.7, 0.0, 0.0]),
    )


def stack(z_mm: list[float], shift_y_mm: float = 0.0) -> Geometry:
    origins = [[-10.0, -20.0 + shift_y_mm * i, z] for i, z in enumerate(z_mm)]
    return planes(np.array(origins))


def test_an_index_finds_its_place_in_mm() -> None:
    geometry = stack([30.0, 32.0, 34.0, 36.0])

    np.testing.assert_allclose(
        geometry.lps_mm([3, 1, 2]), [-10 + 2 * 0.7, -20 + 1 * 0.8, 30 + 3 * 2.0]
    )
    np.testing.assert_allclose(geometry.affine @ [3, 1, 2, 1], [*geometry.lps_mm([3, 1, 2]), 1.0])


def test_uneven_planes_keep_their_own_positions_and_have_no_affine() -> None:
    geometry = stack([0.0, 2.0, 7.0, 9.0])

    np.testing.assert_allclose(geometry.lps_mm([2, 0, 0]), [-10, -20, 7])
    np.testing.assert_allclose(geometry.lps_mm([1.5, 0, 0]), [-10, -20, 4.5])
    assert not geometry.is_affine
    with pytest.raises(InvalidGeometryError) as error:
        _ = geometry.affine
    assert error.value.reason is Reason.MISSING_GEOMETRY


def test_tilt_is_the_angle_between_normal_and_stack() -> None:
    tilted = stack([0.0, 2.0, 4.0, 6.0], shift_y_mm=2.0 * np.tan(np.radians(16.5)))

    assert tilted.tilt_degrees == pytest.approx(16.5)
    assert tilted.is_affine
    assert tilted.spacing_mm == pytest.approx((2.0, 0.8, 0.7))
    assert stack([0.0, 2.0, 4.0]).tilt_degrees == pytest.approx(0.0)


def test_spacing_is_measured_along_the_normal_and_named_row_then_column() -> None:
    geometry = stack([0.0, 5.0, 10.0], shift_y_mm=1.0)

    assert geometry.spacing_mm == pytest.approx((5.0, 0.8, 0.7))


@given(z=st.floats(-2, 6), y=st.floats(-3, 9), x=st.floats(-3, 9), shift=st.floats(-1.5, 1.5))
def test_index_of_undoes_lps_mm_on_tilted_uneven_planes(
    z: float, y: float, x: float, shift: float
) -> None:
    geometry = stack([0.0, 2.0, 7.0, 9.0, 10.0], shift_y_mm=shift)

    np.testing.assert_allclose(geometry.index_of(geometry.lps_mm([z, y, x])), [z, y, x], atol=1e-9)


@given(seed=st.integers(0, 1000))
def test_any_rotation_and_either_direction_of_stacking_round_trips(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.5, 4.0, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    geometry = Geometry.from_affine(affine, (4, 5, 6), "1.2.3")
    index = rng.uniform(0, 4, (20, 3))

    np.testing.assert_allclose(geometry.affine, affine, atol=1e-9)
    np.testing.assert_allclose(geometry.index_of(geometry.lps_mm(index)), index, atol=1e-8)


def test_slice_thickness_shares_gaps_between_neighbours() -> None:
    thickness = stack([0.0, 2.0, 7.0, 9.0]).slice_thickness_mm()

    np.testing.assert_allclose(thickness, [2.0, 3.5, 3.5, 2.0])


def test_voxel_volume_is_row_times_column_times_thickness() -> None:
    volumes = stack([0.0, 2.0, 4.0]).voxel_volumes_ml()

    np.testing.assert_allclose(volumes, 2.0 * 0.8 * 0.7 / 1000)


def test_one_plane_is_a_stack_along_its_normal() -> None:
    geometry = stack([30.0])

    np.testing.assert_allclose(geometry.lps_mm([1, 0, 0]), [-10, -20, 31])
    np.testing.assert_allclose(geometry.index_of([-10, -20, 31]), [1, 0, 0], atol=1e-12)


def test_matches_compares_every_corner_in_mm() -> None:
    geometry = stack([0.0, 2.0, 4.0])
    wider = Geometry(
        shape=geometry.shape,
        origins_mm=geometry.origins_mm,
        row_step_mm=geometry.row_step_mm,
        column_step_mm=geometry.column_step_mm * 1.1,
    )

    assert geometry.matches(stack([0.0, 2.0, 4.0]))
    assert not geometry.matches(stack([0.0, 2.0, 4.1]))
    assert not geometry.matches(wider)
    assert not geometry.matches(stack([0.0, 2.0]))


@pytest.mark.parametrize(
    "origins",
    [
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 2], [0, 0, 1]],
        [[0, 0, 0], [0, 0, np.nan]],
        [[0, 0, 0], [0, 5, 0]],
    ],
    ids=["same-place", "out-of-order", "not-finite", "within-the-plane"],
)
def test_planes_that_cannot_be_a_stack_are_refused(origins: list[list[float]]) -> None:
    with pytest.raises(InvalidGeometryError):
        planes(np.array(origins, dtype=np.float64))


def test_parallel_rows_and_columns_are_refused() -> None:
    with pytest.raises(InvalidGeometryError):
        Geometry((1, 2, 2), np.zeros((1, 3)), np.array([1.0, 0, 0]), np.array([2.0, 0, 0]))


def test_a_geometry_does_not_change_under_its_owner() -> None:
    origins = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    geometry = planes(origins)
    origins[1, 2] = 99.0

    assert geometry.origins_mm[1, 2] == 2.0
    with pytest.raises(ValueError, match="read-only"):
        geometry.origins_mm[0, 0] = 1.0
