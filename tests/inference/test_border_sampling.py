"""Borders between voxels of the network's grid: where they are, and what they leave alone."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from inference.border_sampling import sample_smooth
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.network_grid import NetworkGrid
from inference.plane_map import PlaneMap, identity_map
from inference.preprocessing import labels_to_source, standings_to_source
from inference.standings import lead_codes, leads

Array = npt.NDArray[np.float64]


def stack(
    row: npt.ArrayLike,
    column: npt.ArrayLike,
    positions_mm: npt.ArrayLike,
    tilt_degrees: float = 0.0,
) -> Geometry:
    """Planes of 52 x 56 pixels, 1.1 x 0.9 mm; ``row`` and ``column`` are directions of indices."""
    along_row, along_column = np.asarray(row, float), np.asarray(column, float)
    across = np.cross(along_row, along_column)
    across = across + np.tan(np.radians(tilt_degrees)) * along_column
    at = np.asarray(positions_mm, float)
    return Geometry(
        shape=(at.size, 52, 56),
        origins_mm=np.array([-31.0, 12.0, 250.0]) + at[:, None] * across,
        row_step_mm=1.1 * along_column,
        column_step_mm=0.9 * along_row,
    )


EVEN = np.arange(30) * 1.7
SLANT = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.15, 1.0, 0.3], [0.1, -0.25, 1.0]]))[0]
SLANT = SLANT * np.sign(np.diag(SLANT))
GEOMETRIES = {
    "axial": stack([1, 0, 0], [0, 1, 0], EVEN),
    "planes downward": stack([1, 0, 0], [0, 1, 0], EVEN[::-1]),
    "prone": stack([-1, 0, 0], [0, -1, 0], EVEN),
    "feet first": stack([-1, 0, 0], [0, 1, 0], EVEN),
    "sagittal": stack([0, 1, 0], [0, 0, -1], EVEN),
    "coronal": stack([1, 0, 0], [0, 0, -1], EVEN),
    "oblique": stack(SLANT[:, 0], SLANT[:, 1], EVEN),
    "gantry tilt": stack([1, 0, 0], [0, 1, 0], EVEN, 21.0),
    "oblique and tilted": stack(SLANT[:, 0], SLANT[:, 1], EVEN, -12.0),
    "uneven": stack([1, 0, 0], [0, 1, 0], np.cumsum([2, 2, 1, 1, 1, 3, 3, 2, 2, 4] * 3)),
    "uneven and tilted": stack([1, 0, 0], [0, 1, 0], np.cumsum([2, 1, 3, 2] * 7), 18.0),
}
every_geometry = pytest.mark.parametrize("name", GEOMETRIES)
several = pytest.mark.parametrize("spacing_mm", [1.5, 3.0])


def source_points(geometry: Geometry) -> Array:
    return geometry.lps_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))


def grid_points(grid: NetworkGrid) -> Array:
    """``(k, j, i, 3)``, LPS mm."""
    points = grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    return points.transpose(*grid.network_axes, 3)


def middle(geometry: Geometry) -> Array:
    """Well inside, off the centre in every direction, so that any flip moves it."""
    return geometry.lps_mm((np.array(geometry.shape) - 1) * [0.45, 0.4, 0.58])


def standings_of(logits: Array) -> npt.NDArray[np.uint8]:
    """``(..., 4)`` of ``(..., classes)``, every voxel ranked."""
    order = np.argsort(-logits, axis=-1, kind="stable")
    values = np.take_along_axis(logits, order, axis=-1)
    found = [*np.moveaxis(order[..., :2], -1, 0)]
    found += [lead_codes(values[..., 0] - values[..., which]) for which in (1, 2)]
    return np.stack(found, axis=-1).astype(np.uint8)


def inside_or_out(depth_mm: Array) -> npt.NDArray[np.uint8]:
    """Standings of background and class 1, whose logits differ by the depth below a surface."""
    far = np.full_like(depth_mm, -20.0)
    return standings_of(np.stack([-depth_mm / 2, depth_mm / 2, far], axis=-1))


def both_ways(depth_mm: Array, grid: NetworkGrid) -> tuple[LabelMap, LabelMap]:
    """Nearest and smooth."""
    standings = inside_or_out(depth_mm)
    labels = np.ascontiguousarray(standings[..., 0])
    return labels_to_source(grid.network_view(labels), grid), standings_to_source(standings, grid)


def within(geometry: Geometry, grid: NetworkGrid) -> npt.NDArray[np.bool_]:
    """Voxels of the source that the grid reaches."""
    where = grid.from_source()
    inside = np.ones(geometry.shape, dtype=bool)
    turned = grid.turned_view(inside)
    for k, plane in enumerate(where.planes):
        rows, columns = where.rows_of(k), where.columns_of(k)
        turned[k] &= 0 <= plane <= grid.grid_shape[0] - 1
        turned[k] &= ((rows >= 0) & (rows <= grid.grid_shape[1] - 1))[:, None]
        turned[k] &= (columns >= 0) & (columns <= grid.grid_shape[2] - 1)
    return inside


@every_geometry
@several
def test_a_plane_is_where_it_is_in_mm(name: str, spacing_mm: float) -> None:
    geometry = GEOMETRIES[name]
    grid = NetworkGrid.covering(geometry, spacing_mm)
    normal = np.array([0.5, -0.7, 0.4]) / np.linalg.norm([0.5, -0.7, 0.4])

    nearest, smooth = both_ways((grid_points(grid) - middle(geometry)) @ normal, grid)

    depth = (source_points(geometry) - middle(geometry)) @ normal
    wrong = ((smooth.labels == 1) != (depth > 0)) & within(geometry, grid)
    # leads are kept in steps: 0.125 times their root, half of it a rounding
    slack_mm = np.sqrt(2 * spacing_mm) / 16 + 1e-3
    assert np.abs(depth[wrong]).max(initial=0) < slack_mm
    before = ((nearest.labels == 1) != (depth > 0)) & within(geometry, grid)
    assert np.abs(depth[before]).max() > 0.4 * spacing_mm
    assert wrong.sum() < 0.25 * before.sum()


@every_geometry
def test_a_ball_has_the_volume_and_the_surface_of_a_ball(name: str) -> None:
    geometry = GEOMETRIES[name]
    grid = NetworkGrid.covering(geometry, 3.0)
    centre, radius_mm = middle(geometry), 13.0
    depth = radius_mm - np.linalg.norm(grid_points(grid) - centre, axis=-1)

    nearest, smooth = both_ways(depth, grid)

    distance = np.linalg.norm(source_points(geometry) - centre, axis=-1)
    inside = within(geometry, grid)
    truth = np.where((distance < radius_mm) & inside, 1, 0).astype(np.uint8)
    ml = LabelMap(truth, geometry).volumes_ml()[1]
    errors = []
    for found in (nearest, smooth):
        labels = np.where(inside, found.labels, 0).astype(np.uint8)
        wrong = labels != truth
        off_mm = np.abs(distance - radius_mm)[wrong]
        errors.append((wrong.sum() / truth.sum(), off_mm.max()))
        assert abs(LabelMap(labels, geometry).volumes_ml()[1] / ml - 1) < 0.04
    (before, before_mm), (after, after_mm) = errors
    assert after < 0.4 * before
    # a chord of 3 * sqrt(3) mm lies at most 0.26 mm below the sphere
    assert after_mm < 0.7 < before_mm


def brute_force(standings: npt.NDArray[np.uint8], at: Array) -> tuple[int, float, float]:
    """Winner, its score and the best score of another candidate at a point, in double precision."""
    shape = np.array(standings.shape[:3])
    at = np.clip(at, 0, shape - 1)
    low = np.minimum(at.astype(int), np.maximum(shape - 2, 0))
    scores: dict[int, float] = {}
    corners = []
    for side in itertools.product((0, 1), repeat=3):
        weight = np.prod(np.where(side, at - low, 1 - (at - low)))
        corners.append((weight, standings[tuple(np.minimum(low + side, shape - 1))]))
    for candidate in {int(voxel[0]) for weight, voxel in corners if weight}:
        scores[candidate] = 0.0
        for weight, (first, second, *codes) in corners:
            lead, third = leads(np.array(codes, dtype=np.uint8)).astype(float)
            behind = 0.0 if candidate == first else lead if candidate == second else third
            scores[candidate] -= weight * behind
    winner = max(scores, key=lambda each: scores[each])
    others = [score for each, score in scores.items() if each != winner]
    return winner, scores[winner], max(others, default=-np.inf)


@pytest.mark.parametrize("shear", [0.0, 0.07])
@pytest.mark.parametrize("tilt", [0.0, 0.31])
@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 6, 7), (5, 1, 2)])
def test_every_label_is_that_of_a_reference_in_double_precision(
    rng: np.random.Generator, shape: tuple[int, int, int], tilt: float, shear: float
) -> None:
    # small leads of few classes: many meet, and many are close
    standings = standings_of(rng.normal(0, 0.3, (*shape, 6)))
    planes = np.sort(rng.uniform(-0.7, shape[0] - 0.3, 7))
    where = PlaneMap(
        planes=planes,
        rows=np.arange(11) * 0.61 - 0.9,
        columns=np.arange(13) * 0.57 - 0.4,
        row_shifts=tilt * planes,
        column_shifts=-tilt * planes,
        column_per_row=shear,
    )
    out = np.empty((7, 11, 13), dtype=np.uint8)

    sample_smooth(standings, where, out)

    sampled = 0
    for k, j, i in np.ndindex(*out.shape):
        columns = where.columns_of(k)
        at = [planes[k], where.rows_of(k)[j], columns[j, i] if columns.ndim == 2 else columns[i]]
        winner, best, other = brute_force(standings, np.array(at))
        if best - other > 2e-4:
            assert out[k, j, i] == winner
            sampled += 1
    assert sampled > 0.98 * out.size
    assert len(np.unique(out)) > 3


def test_no_label_moves_by_a_voxel_of_the_grid(rng: np.random.Generator) -> None:
    standings = standings_of(rng.normal(0, 3, (6, 7, 8, 9)))
    labels = standings[..., 0]
    planes, rows, columns = (np.linspace(-0.4, n - 0.6, 4 * n) for n in (6, 7, 8))
    still = np.zeros(planes.size)
    out = np.empty((planes.size, rows.size, columns.size), dtype=np.uint8)

    sample_smooth(standings, PlaneMap(planes, rows, columns, still, still, 0.0), out)

    for (k, j, i), label in np.ndenumerate(out):
        at = np.clip([planes[k], rows[j], columns[i]], 0, [5, 6, 7])
        low, high = np.floor(at).astype(int), np.ceil(at).astype(int) + 1
        around = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert label in labels[around]


@pytest.mark.parametrize("spacing_mm", [(3.0, 3.0, 3.0), (1.5, 1.5, 1.5)])
def test_on_planes_that_are_the_grid_nothing_moves(
    rng: np.random.Generator, spacing_mm: tuple[float, float, float]
) -> None:
    affine = np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry.from_affine(affine, (7, 9, 8))
    grid = NetworkGrid.covering(geometry, spacing_mm[0])
    standings = standings_of(rng.normal(0, 0.2, (*grid.grid_shape, 8)))

    smooth = standings_to_source(standings, grid).labels

    labels = np.ascontiguousarray(standings[..., 0])
    nearest = labels_to_source(grid.network_view(labels), grid).labels
    np.testing.assert_array_equal(smooth, nearest)
    assert len(np.unique(smooth)) == 8


def test_ties_and_borders_of_what_was_not_computed_stay_nearest(rng: np.random.Generator) -> None:
    tied = standings_of(np.zeros((6, 7, 8, 5)))
    tied[..., 0] = rng.integers(0, 4, tied.shape[:3])
    tied[..., 1] = 4
    unknown = standings_of(rng.normal(0, 1, (6, 7, 8, 5)))
    unknown[1::2, 1::2, 1::2] = 0
    still = np.zeros(15)
    where = PlaneMap(*(np.linspace(-1, 8, 15) for _ in range(3)), still, still, 0.0)

    for standings in (tied, unknown):
        out = np.empty((15, 15, 15), dtype=np.uint8)
        sample_smooth(standings, where, out)

        index = [np.rint(np.clip(where.planes, 0, n - 1)).astype(int) for n in (6, 7, 8)]
        np.testing.assert_array_equal(out, standings[np.ix_(*index)][..., 0])


@every_geometry
def test_left_stays_left_and_high_stays_high(name: str) -> None:
    geometry = GEOMETRIES[name]
    grid = NetworkGrid.covering(geometry, 3.0)
    centre = middle(geometry)
    logits = np.concatenate([grid_points(grid) - centre, centre - grid_points(grid)], axis=-1)

    labels = standings_to_source(standings_of(logits), grid).labels

    away = source_points(geometry) - centre
    away = np.concatenate([away, -away], axis=-1)
    inside = within(geometry, grid)
    first_two = np.sort(away, axis=-1)[..., -2:]
    clear = inside & (first_two[..., 1] - first_two[..., 0] > 0.5)
    clear &= np.linalg.norm(away, axis=-1) > 6  # where all six meet scores are bounds
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(labels[clear], away.argmax(axis=-1)[clear])


def test_memory_is_a_few_planes(rng: np.random.Generator) -> None:
    shape = (90, 200, 200)
    geometry = Geometry.from_affine(np.diag([2.5, 0.8, 0.8, 1.0])[[2, 1, 0, 3]], shape)
    grid = NetworkGrid.covering(geometry, 3.0)
    standings = np.zeros((*grid.grid_shape, 4), dtype=np.uint8)
    standings[..., 0] = rng.integers(0, 3, grid.grid_shape)
    standings[..., 1], standings[..., 2:] = 3, 40

    tracemalloc.start()
    try:
        placed = standings_to_source(standings, grid)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # eight neighbours of 16384 points, several times over; a copy in float32 would be four times
    # what it holds in labels
    assert peak < placed.labels.nbytes + 12e6


def test_standings_that_do_not_fit_the_grid_are_refused() -> None:
    grid = NetworkGrid.covering(GEOMETRIES["axial"], 3.0)

    with pytest.raises(ValueError, match="grid"):
        standings_to_source(np.zeros((3, 4, 5, 4), dtype=np.uint8), grid)


def test_an_axis_of_one_voxel_has_no_neighbours() -> None:
    standings = standings_of(np.eye(3)[[[[0, 1, 2]]]])

    out = np.empty((1, 1, 3), dtype=np.uint8)
    sample_smooth(standings, identity_map((1, 1, 3)), out)

    np.testing.assert_array_equal(out, [[[0, 1, 2]]])
