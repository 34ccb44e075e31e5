"""Which blocks of a coarse picture hold the air around the patient, and nothing else.

What is named here is not computed, so doubt counts as patient. Air is around the patient if
it is pure and reached through pure air from the side of the field of view in its own axial
plane. Emphysema is not pure; bullae and a pneumothorax are, but the chest wall lies around
them, unless the field of view cuts it away. A field that may do so has no air around it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from inference.engine.network_scan import NetworkScan
from inference.padding import BESIDE_FIELD_BELOW_HU

#: Mean HU of a block below which it holds air alone: severe emphysema averages -950 to -960,
#: and a block that a fifth of a millimetre of skin reaches into is above.
_PURE_BELOW_HU = -970.0
#: What is below air, as padding may be, must not make up for what is above.
_LOWEST_HU = -1024.0
#: Narrower fields of view may lie within the chest of an adult. They hold little air as well.
_SMALL_FIELD_MM = 350.0
#: Air passes no gap that is narrower than twice this and one block.
_NARROW_BLOCKS = 1
_SUPERIOR = 2  # of the network's (x, y, z)


def surrounding_air(scan: NetworkScan) -> npt.NDArray[np.bool_]:
    """``(k, j, i)``, a block of ``scan.coarse_hu`` each; none where the field is small."""
    found = np.zeros(scan.coarse_hu.shape, dtype=np.bool_)
    if narrowest_field_mm(scan) < _SMALL_FIELD_MM:
        return found
    axial = scan.network_axes.index(_SUPERIOR)
    hu = np.moveaxis(np.maximum(scan.coarse_hu, _LOWEST_HU), axial, 0)
    for plane, out in zip(hu, np.moveaxis(found, axial, 0), strict=True):
        out[...] = _reached_from_the_side(plane)
    return found


def narrowest_field_mm(scan: NetworkScan) -> float:
    """The least that was measured of an axial plane along one of its axes.

    Planes count one by one: those of a tilted stack lie beside each other, and all together
    reach further than any of them. A stack that is sheared within its axial planes has no width
    to rely on: 0.
    """
    axial = scan.network_axes.index(_SUPERIOR)
    where, planes = scan.sampler.where, scan.sampler.grid.turned
    is_tilted = bool(where.row_shifts.any() or where.column_shifts.any())
    if where.column_per_row or (is_tilted and axial != 0):
        return 0.0
    steps_mm = planes.spacing_mm
    rows_mm, columns_mm = (steps_mm[n] * np.arange(planes.shape[n], dtype=float) for n in (1, 2))
    at_mm = (planes.positions_mm, rows_mm, columns_mm)
    seen = _measured(scan.sampler.hu)
    others = (axis for axis in range(3) if axis != axial)
    return min(_least_mm(seen[axial, axis], at_mm[axis]) + steps_mm[axis] for axis in others)


def _measured(hu: npt.NDArray[np.int16]) -> dict[tuple[int, int], npt.NDArray[np.bool_]]:
    """For each two axes of ``(z, y, x)``, where along both of them anything was measured."""
    depth, height, width = hu.shape
    z_y, z_x, y_x = (
        np.zeros(face, dtype=np.bool_) for face in ((depth, height), (depth, width), hu.shape[1:])
    )
    for z, plane in enumerate(hu):
        measured = plane >= BESIDE_FIELD_BELOW_HU
        z_y[z], z_x[z] = measured.any(axis=1), measured.any(axis=0)
        y_x |= measured
    faces = {(0, 1): z_y, (0, 2): z_x, (1, 2): y_x}
    return faces | {(second, first): face.T for (first, second), face in faces.items()}


def _least_mm(seen: npt.NDArray[np.bool_], at_mm: npt.NDArray[np.float64]) -> float:
    """The least distance of the first and the last in a line of ``seen``; empty ones aside."""
    lines = seen[seen.any(axis=1)]
    if not len(lines):
        return 0.0
    first, last = lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
    return float(np.abs(at_mm[last] - at_mm[first]).min())


def _reached_from_the_side(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which blocks of an axial plane are pure and connected to its sides by more than a gap."""
    radius = [_NARROW_BLOCKS] * 2
    around = sitk.BoxMean(sitk.GetImageFromArray(hu), radius)  # of many voxels: hardly noisy
    enclosing = sitk.BinaryFillhole(around >= _PURE_BELOW_HU)
    reached = sitk.BinaryDilate(enclosing == 0, radius, sitk.sitkBox)
    return np.asarray(sitk.GetArrayFromImage(reached) > 0) & (hu < _PURE_BELOW_HU)
