"""No anatomy is taken for the air around the patient, whatever the field of view cuts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from inference.engine.network_scan import NetworkScan
from inference.engine.plan import WindowPlan, plan_windows
from inference.engine.region import Region
from inference.engine.surrounding_air import narrowest_field_mm, surrounding_air
from inference.geometry import Geometry
from inference.intensity import ROBUST_INTENSITY
from inference.network_grid import NetworkGrid
from inference.volume import PADDING_HU, Volume
from inference.windows import WindowSpec

Hu = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

AIR, LUNG, TISSUE = -1000.0, -860.0, 40.0
SPACING_MM = (5.0, 3.0, 3.0)
#: Small windows, so that what is left out shows.
WINDOWS = WindowSpec(window_voxels=32)


def scan_of(hu: Hu, tilt_mm: float = 0.0, to_lps: tuple[int, int, int] = (2, 1, 0)) -> NetworkScan:
    """The scan of a series with noise, as a 3 mm network sees it.

    ``tilt_mm`` moves each plane along its rows' order, as a tilted gantry does; ``to_lps`` says
    which axis of ``hu`` runs along x, y and z: an axial series if it is not given.
    """
    noisy = np.where(hu < -1500, hu, hu + np.random.default_rng(1).normal(0, 20, hu.shape)).astype(
        np.int16
    )
    affine = np.diag([*SPACING_MM, 1.0])
    affine[1, 0] = tilt_mm
    volume = Volume(noisy, Geometry.from_affine(affine[[*to_lps, 3]], hu.shape))
    return NetworkScan.of(volume, NetworkGrid.covering(volume.geometry, 3.0), ROBUST_INTENSITY)


def planned(scan: NetworkScan) -> WindowPlan:
    return plan_windows(scan.shape, WINDOWS, 32, Region.body(scan))


def in_no_window(hu: Hu, what: Mask) -> int:
    """How many voxels of a series, of those that matter, no window sees."""
    scan = scan_of(hu)
    plan = planned(scan)
    seen = np.zeros(scan.shape, dtype=np.bool_)
    part = seen[plan.part].transpose(plan.order)
    window = plan.tiling.window
    for layer in plan.tiling.layers:
        for band in layer.bands:
            for column in band.columns:
                starts = (layer.start, band.start, column)
                part[tuple(slice(start, start + window) for start in starts)] = True
    grid = scan.sampler.grid
    index = [
        np.clip((np.arange(count) * step / 3.0).round().astype(int), 0, extent - 1)
        for count, step, extent in zip(hu.shape, SPACING_MM, scan.shape, strict=True)
    ]
    return int((grid.turned_view(what) & ~seen[np.ix_(*index)]).sum())


def ellipse(shape: tuple[int, ...], centre_mm: tuple[float, float], half_mm: Hu) -> Mask:
    """``(y, x)``, voxels of 3 mm."""
    y, x = (3.0 * (np.arange(n) - (n - 1) / 2) for n in shape[-2:])
    away = ((y - centre_mm[0]) / half_mm[0])[:, None] ** 2
    return np.asarray(away + ((x - centre_mm[1]) / half_mm[1]) ** 2 <= 1)


def chest(lung_hu: float, shape: tuple[int, int, int] = (24, 150, 150)) -> Hu:
    """A trunk of 360 x 240 mm with two lungs, cut above and below, in 450 mm of air."""
    hu = np.full(shape, AIR)
    hu[:, ellipse(shape, (0, 0), np.array([120.0, 180.0]))] = TISSUE
    for side in (-80, 80):
        hu[:, ellipse(shape, (0, side), np.array([85.0, 60.0]))] = lung_hu
    return hu


@pytest.mark.parametrize("lung_hu", [LUNG, -910.0, -935.0, -955.0, -1000.0])
def test_lung_that_the_field_of_view_cuts_is_computed(lung_hu: float) -> None:
    hu = np.full((40, 80, 80), lung_hu)  # 240 mm
    hu[:, :, :13] = TISSUE
    for at in range(15, 80, 9):
        hu[:, at, 20::12] = 30.0  # vessels

    assert in_no_window(hu, np.ones(hu.shape, dtype=bool)) == 0


@pytest.mark.parametrize("lung_hu", [-910.0, -935.0, -955.0])
def test_emphysema_that_a_wide_field_of_view_cuts_is_computed(lung_hu: float) -> None:
    hu = chest(lung_hu)[:, :, 55:]  # of a patient who lies far beside the middle
    hu = np.concatenate([hu, np.full((24, 150, 40), AIR)], axis=2)

    assert in_no_window(hu, hu > AIR) == 0


@pytest.mark.parametrize("gas_hu", [-955.0, -1000.0])
def test_gas_within_the_chest_is_computed_where_the_scan_ends_in_it(gas_hu: float) -> None:
    hu = chest(gas_hu)
    trunk = np.broadcast_to(ellipse(hu.shape, (0, 0), np.array([120.0, 180.0])), hu.shape)

    assert in_no_window(hu, trunk) == 0
    assert surrounding_air(scan_of(hu)).mean() > 0.3


def test_the_body_is_solid_whatever_gas_is_in_it() -> None:
    full, empty = chest(TISSUE), chest(-1000.0)

    np.testing.assert_array_equal(surrounding_air(scan_of(full)), surrounding_air(scan_of(empty)))


def cut_chest(beside_hu: float, drift: int = 0) -> Hu:
    """A pneumothorax fills a field that is 450 mm wide and 240 mm deep, ``drift`` rows a plane."""
    hu = np.full((12, 150, 150), beside_hu)
    for z, plane in enumerate(hu):
        row = 15 + z * drift
        plane[row : row + 80] = -1000.0
        plane[row : row + 80, :13] = TISSUE
    return hu


@pytest.mark.parametrize("beside_hu", [float(PADDING_HU), -2000.0, -3024.0])
def test_a_small_field_in_a_wide_matrix_is_small_whatever_lies_beside_it(beside_hu: float) -> None:
    scan = scan_of(cut_chest(beside_hu))

    assert narrowest_field_mm(scan) == 240
    assert not surrounding_air(scan).any()


def test_the_planes_of_a_narrow_tilted_stack_do_not_add_up_to_a_wide_field() -> None:
    hu = cut_chest(float(PADDING_HU))[:, 15:95]
    hu = np.concatenate([hu] * 5)  # 300 mm long

    scan = scan_of(hu, tilt_mm=2.3)

    assert scan.shape[1] * 3 > 350
    assert narrowest_field_mm(scan) == 240
    assert not surrounding_air(scan).any()


def test_a_narrow_tilted_stack_that_somebody_set_upright_is_narrow() -> None:
    scan = scan_of(cut_chest(float(PADDING_HU), drift=5))

    assert narrowest_field_mm(scan) == 240
    assert not surrounding_air(scan).any()


def test_a_tilted_stack_of_wide_planes_is_as_wide_as_they_are() -> None:
    scan = scan_of(chest(TISSUE), tilt_mm=2.3)

    assert narrowest_field_mm(scan) == 450
    assert surrounding_air(scan).mean() > 0.3


def test_the_field_of_coronal_planes_is_that_of_the_axial_ones_across_them() -> None:
    hu = np.full((80, 40, 150), AIR)  # 400 mm from front to back

    assert narrowest_field_mm(scan_of(hu, to_lps=(2, 0, 1))) == 400
    assert narrowest_field_mm(scan_of(hu[:50], to_lps=(2, 0, 1))) == 250
    assert narrowest_field_mm(scan_of(hu, tilt_mm=1.0, to_lps=(2, 0, 1))) == 0


def test_dark_streaks_of_metal_open_no_body() -> None:
    hu = chest(TISSUE)
    what = hu > AIR
    hu[:, 70:80, 60:66] = 3000.0
    hu[:, 73:77, :60] = np.where(what[:, 73:77, :60], -1000.0, AIR)  # 12 mm, out to the skin

    assert in_no_window(hu, what) == 0
    streak = surrounding_air(scan_of(hu))[:, 36:38, 20:30]
    assert not streak.any()


def test_a_patient_on_the_side_on_a_thick_table_is_computed_and_the_air_is_not() -> None:
    shape = (24, 150, 150)
    hu = np.full(shape, AIR)
    hu[:, ellipse(shape, (-10, 0), np.array([180.0, 120.0]))] = TISSUE
    for lung in (-90, 70):
        hu[:, ellipse(shape, (lung, 0), np.array([60.0, 85.0]))] = -955.0
    what = hu > AIR
    hu[:, 132:142, 10:140] = np.where(hu[:, 132:142, 10:140] == AIR, -920.0, TISSUE)

    assert in_no_window(hu, what) == 0
    assert surrounding_air(scan_of(hu)).mean() > 0.3


@pytest.mark.parametrize("diameter_mm", [15, 18, 24, 40])
def test_an_arm_beside_the_trunk_is_computed(diameter_mm: int) -> None:
    hu = chest(LUNG)
    arm = ellipse(hu.shape, (0, -208), np.full(2, diameter_mm / 2))
    hu[:, arm] = TISSUE

    assert in_no_window(hu, np.broadcast_to(arm, hu.shape)) == 0


@pytest.mark.parametrize("side_voxels", [70, 150])
def test_the_limbs_of_an_infant_are_computed(side_voxels: int) -> None:
    shape = (50, side_voxels, side_voxels)
    hu = np.full(shape, AIR)
    hu[:20, ellipse(shape, (0, 0), np.array([45.0, 60.0]))] = TISSUE
    for side in (-40, 40):
        hu[20:, ellipse(shape, (0, side), np.full(2, 9.0))] = TISSUE

    assert in_no_window(hu, hu > AIR) == 0


def test_a_field_of_view_wider_than_the_patient_still_saves_windows() -> None:
    scan = scan_of(chest(LUNG))
    everything = plan_windows(scan.shape, WINDOWS, 32, Region.everything(scan.shape))

    assert planned(scan).tiling.window_count < 0.75 * everything.tiling.window_count


def test_air_that_is_not_calibrated_counts_as_patient() -> None:
    hu = np.where(chest(LUNG) == AIR, -955.0, chest(LUNG))

    assert Region.body(scan_of(hu)).mask.all()
