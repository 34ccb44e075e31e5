"""What the network sees, and its labels, keep their place in the patient."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from inference.geometry import Geometry
from inference.intensity import IntensitySpec, Scaling
from inference.label_map import LabelMap
from inference.network_grid import NetworkGrid
from inference.preprocessing import (
    PUBLISHED_INTENSITY,
    ROBUST_INTENSITY,
    labels_to_network,
    labels_to_source,
    to_network,
)
from inference.volume import PADDING_HU, Volume

#: A fixed window, so that network values can be turned back into HU.
FIXED = IntensitySpec(clamp_hu=(-1024, 3071), scaling=Scaling.CLAMP_RANGE)


def rotation(degrees_about_xyz: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    x, y, z = np.radians(degrees_about_xyz)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def stack(
    column: npt.ArrayLike,
    row: npt.ArrayLike,
    normal: npt.ArrayLike,
    positions_mm: npt.ArrayLike,
    shear_degrees: float = 0.0,
) -> Geometry:
    """Planes of 40 x 44 pixels, 1.3 x 0.9 mm, at positions along the normal."""
    row_cosine, column_cosine = np.asarray(column, float), np.asarray(row, float)
    across = np.asarray(normal, float) + np.tan(np.radians(shear_degrees)) * column_cosine
    at = np.asarray(positions_mm, float)
    return Geometry(
        shape=(at.size, 40, 44),
        origins_mm=np.array([-31.0, 12.0, 250.0]) + at[:, None] * across,
        row_step_mm=1.3 * column_cosine,
        column_step_mm=0.9 * row_cosine,
    )


EVEN = np.arange(24) * 2.0
TURN = rotation((12, -9, 25))
GEOMETRIES = {
    "axial": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], EVEN),
    "axial, planes downward": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], EVEN[::-1]),
    "prone": stack([-1, 0, 0], [0, -1, 0], [0, 0, 1], EVEN),
    "feet first": stack([-1, 0, 0], [0, 1, 0], [0, 0, -1], EVEN),
    "decubitus": stack([0, 1, 0], [-1, 0, 0], [0, 0, 1], EVEN),
    "sagittal": stack([0, 1, 0], [0, 0, -1], [-1, 0, 0], EVEN),
    "coronal": stack([1, 0, 0], [0, 0, -1], [0, 1, 0], EVEN),
    "oblique": stack(TURN[:, 0], TURN[:, 1], TURN[:, 2], EVEN),
    "gantry tilt": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], EVEN, 21.0),
    "gantry tilt, other way": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], EVEN, -16.5),
    "oblique and tilted": stack(TURN[:, 0], TURN[:, 1], TURN[:, 2], EVEN, 12.0),
    "tilted coronal": stack([1, 0, 0], [0, 0, -1], [0, 1, 0], EVEN, 15.0),
    "uneven": stack(
        [1, 0, 0], [0, 1, 0], [0, 0, 1], np.cumsum([2, 2, 1, 1, 1, 3, 3, 2, 2, 2, 4, 1] * 2)
    ),
    "gap": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], [*range(0, 24, 2), *range(30, 54, 2)]),
    "uneven and tilted": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], np.cumsum([2, 1, 3, 2] * 6), 18.0),
    "one plane": stack([1, 0, 0], [0, 1, 0], [0, 0, 1], [0.0]),
}
every_geometry = pytest.mark.parametrize("name", GEOMETRIES)
several = pytest.mark.parametrize("spacing_mm", [1.5, 3.0])


def source_points(geometry: Geometry) -> npt.NDArray[np.float64]:
    return geometry.lps_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))


def grid_points(grid: NetworkGrid) -> npt.NDArray[np.float64]:
    return grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def middle(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Well inside, off the centre in every direction, so that any flip moves it."""
    return geometry.lps_mm((np.array(geometry.shape) - 1) * [0.4, 0.35, 0.6])


@every_geometry
@several
def test_axes_run_to_right_anterior_and_superior(name: str, spacing_mm: float) -> None:
    grid = NetworkGrid.covering(GEOMETRIES[name], spacing_mm)

    steps_lps = np.array([grid.lps_mm(step) - grid.lps_mm([0, 0, 0]) for step in np.eye(3)])
    np.testing.assert_allclose(steps_lps @ steps_lps.T, spacing_mm**2 * np.eye(3), atol=1e-9)
    assert (np.diag(steps_lps) * [-1, -1, 1] > 0.8 * spacing_mm).all()
    assert np.linalg.det(steps_lps) > 0  # no mirror image: RAS and LPS have one handedness


@every_geometry
@several
def test_a_field_that_is_linear_in_mm_is_reproduced(name: str, spacing_mm: float) -> None:
    geometry = GEOMETRIES[name]
    slope, centre = np.array([9.0, -7.0, 5.0]), middle(geometry)
    field = (source_points(geometry) - centre) @ slope
    volume = Volume(np.rint(field).astype(np.int16), geometry)

    seen = to_network(volume, spacing_mm, FIXED)

    points = grid_points(seen.grid)
    index = geometry.index_of(points)
    last = np.array(geometry.shape) - 1
    inside = ((index > -1e-9) & (index < last + 1e-9)).all(axis=-1)
    assert inside.mean() > 0.4
    hu = (seen.array + 1) / 2 * 4095 - 1024
    np.testing.assert_allclose(hu[inside], ((points - centre) @ slope)[inside], atol=0.51)


@every_geometry
@several
def test_a_bright_ball_keeps_its_place_in_mm(name: str, spacing_mm: float) -> None:
    geometry = GEOMETRIES[name]
    centre, radius_mm = middle(geometry), 9.0
    source = np.linalg.norm(source_points(geometry) - centre, axis=-1)
    volume = Volume(np.where(source < radius_mm, 3000, -1000).astype(np.int16), geometry)

    seen = to_network(volume, spacing_mm, FIXED)
    bright = seen.array > 0  # half-way

    distance = np.linalg.norm(grid_points(seen.grid) - centre, axis=-1)
    step_mm = max(float(np.diff(geometry.positions_mm).max(initial=0)), 1.3)
    blur_mm = step_mm / np.cos(np.radians(geometry.tilt_degrees))
    assert bright.any()
    assert distance[bright].max() < radius_mm + blur_mm
    if geometry.shape[0] > 1:
        assert bright[distance < radius_mm - blur_mm].all()


@every_geometry
@several
def test_labels_come_back_in_place_on_every_source_plane(name: str, spacing_mm: float) -> None:
    geometry = GEOMETRIES[name]
    grid = NetworkGrid.covering(geometry, spacing_mm)
    centre, radius_mm = middle(geometry), 10.0
    distance = np.linalg.norm(grid_points(grid) - centre, axis=-1)

    placed = labels_to_source(np.where(distance < radius_mm, 77, 0).astype(np.uint8), grid)

    # nearest neighbours move a surface by half a voxel's diagonal at most
    slack_mm = spacing_mm * np.sqrt(3) / 2 + 1e-6
    source = np.linalg.norm(source_points(geometry) - centre, axis=-1)
    assert placed.geometry is geometry
    assert set(np.unique(placed.labels)) == {0, 77}
    assert source[placed.labels == 77].max() < radius_mm + slack_mm
    assert source[placed.labels == 0].min() > radius_mm - slack_mm


@every_geometry
def test_labels_of_the_source_reach_the_network_in_place(name: str) -> None:
    geometry = GEOMETRIES[name]
    grid = NetworkGrid.covering(geometry, 1.5)
    centre, radius_mm = middle(geometry), 10.0
    source = np.linalg.norm(source_points(geometry) - centre, axis=-1)
    labels = np.where(source < radius_mm, 5, 0).astype(np.uint8)

    seen = labels_to_network(LabelMap(labels, geometry), grid)

    steps = np.diff(geometry.positions_mm)
    far_mm = np.linalg.norm([np.abs(steps).max(initial=0), 1.3, 0.9]) / 2
    slack_mm = far_mm / np.cos(np.radians(geometry.tilt_degrees)) + 1e-6
    distance = np.linalg.norm(grid_points(grid) - centre, axis=-1)
    assert distance[seen == 5].max() < radius_mm + slack_mm
    index = geometry.index_of(grid_points(grid))
    inside = ((index >= 0) & (index <= np.array(geometry.shape) - 1)).all(axis=-1)
    assert distance[(seen == 0) & inside].min(initial=np.inf) > radius_mm - slack_mm


def test_the_grid_covers_the_corners_of_a_tilted_stack_which_are_air_there() -> None:
    geometry = GEOMETRIES["gantry tilt"]
    volume = Volume(np.full(geometry.shape, 50, dtype=np.int16), geometry)

    seen = to_network(volume, 1.5, FIXED)

    index = geometry.index_of(grid_points(seen.grid))
    beyond = ((index < -3) | (index > np.array(geometry.shape) + 2)).any(axis=-1)
    assert beyond.mean() > 0.1
    assert (seen.array[beyond] == -1).all()
    assert (
        labels_to_network(LabelMap(np.ones(geometry.shape, dtype=np.uint8), geometry), seen.grid)[
            beyond
        ]
        == 0
    ).all()


def test_padding_is_air_and_does_not_bleed_or_count(rng: np.random.Generator) -> None:
    geometry = GEOMETRIES["axial"]
    hu = rng.integers(-1000, 1500, geometry.shape).astype(np.int16)
    padded = hu.copy()
    padded[:, :8] = PADDING_HU

    plain = to_network(Volume(hu, geometry), 1.5, ROBUST_INTENSITY)
    seen = to_network(Volume(padded, geometry), 1.5, ROBUST_INTENSITY)

    row = geometry.index_of(grid_points(seen.grid))[..., 1]
    assert (seen.array[row < 7.4] == -1).all()
    # voxels whose neighbours were all measured keep their contrast
    far = row > 8
    assert np.abs(seen.array[far] - plain.array[far]).max() < 0.01
    assert seen.array[far].min() < -0.99


def test_vendor_padding_and_metal_do_not_decide_the_contrast_of_tissue() -> None:
    geometry = GEOMETRIES["axial"]
    hu = np.full(geometry.shape, -1024, dtype=np.int16)
    hu[:, 10:30, 10:30] = 40
    hu[:, 19:23, 19:24] = 3071
    spoiled = hu.copy()
    spoiled[:, 0, :] = -3024
    spoiled[:, 19:23, 19:24] = 20000

    seen = to_network(Volume(hu, geometry), 1.5, ROBUST_INTENSITY)
    clean = seen.array
    robust = to_network(Volume(spoiled, geometry), 1.5, ROBUST_INTENSITY).array
    published = to_network(Volume(spoiled, geometry), 1.5, PUBLISHED_INTENSITY).array

    index = geometry.index_of(grid_points(seen.grid))[..., 1:]
    tissue = ((index > 11) & (index < 18)).all(axis=-1)
    assert clean[tissue].mean() == pytest.approx(2 * (40 + 1024) / 4095 - 1, abs=0.01)
    np.testing.assert_allclose(robust[tissue], clean[tissue], atol=0.01)
    assert published[tissue].mean() < -0.7  # what the published chain makes of it


def test_no_copy_of_the_scan_is_made(rng: np.random.Generator) -> None:
    shape = (60, 200, 200)
    geometry = Geometry.from_affine(np.diag([2.5, 0.8, 0.8, 1.0]), shape)
    volume = Volume(rng.integers(-1000, 1000, shape).astype(np.int16), geometry)
    plane_bytes = 200 * 200 * 8

    tracemalloc.start()
    try:
        seen = to_network(volume, 1.5)
        network_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        placed = labels_to_source(
            seen.grid.network_view(np.zeros(seen.grid.grid_shape, dtype=np.uint8)), seen.grid
        )
        back_peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert network_peak < seen.array.nbytes + 12 * plane_bytes
    assert back_peak < placed.labels.nbytes + seen.array.size + 4 * plane_bytes


def test_labels_that_do_not_fit_the_grid_are_refused() -> None:
    grid = NetworkGrid.covering(GEOMETRIES["axial"], 3.0)

    with pytest.raises(ValueError, match="grid"):
        labels_to_source(np.zeros((3, 4, 5), dtype=np.uint8), grid)
    other = GEOMETRIES["prone"]
    with pytest.raises(ValueError, match="source"):
        labels_to_network(LabelMap(np.zeros(other.shape, dtype=np.uint8), other), grid)
