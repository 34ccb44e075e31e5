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
from inference.volume import PADDING_HU

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
    axial = scan.network_axes.index(_SUPERIOR)
    found = np.zeros(scan.coarse_hu.shape, dtype=np.bool_)
    if min(np.delete(field_mm(scan), axial)) < _SMALL_FIELD_MM:
        return found
    hu = np.moveaxis(np.maximum(scan.coarse_hu, _LOWEST_HU), axial, 0)
    for plane, out in zip(hu, np.moveaxis(found, axial, 0), strict=True):
        out[...] = _reached_from_the_side(plane)
    return found


def field_mm(scan: NetworkScan) -> npt.NDArray[np.float64]:
    """How far the scan reaches along ``k``, ``j`` and ``i``, padding left out."""
    hu, grid = scan.sampler.hu, scan.sampler.grid
    seen = [np.zeros(count, dtype=np.bool_) for count in hu.shape]
    for z, plane in enumerate(hu):
        scanned = plane != PADDING_HU
        rows = scanned.any(axis=1)
        seen[0][z] = rows.any()
        seen[1] |= rows
        seen[2] |= scanned.any(axis=0)
    shares = [np.ptp(np.flatnonzero(each)) + 1 if each.any() else 0 for each in seen]
    return np.array(shares) / hu.shape * grid.grid_shape * grid.spacing_mm


def _reached_from_the_side(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which blocks of an axial plane are pure and connected to its sides by more than a gap."""
    radius = [_NARROW_BLOCKS] * 2
    around = sitk.BoxMean(sitk.GetImageFromArray(hu), radius)  # of many voxels: hardly noisy
    enclosing = sitk.BinaryFillhole(around >= _PURE_BELOW_HU)
    reached = sitk.BinaryDilate(enclosing == 0, radius, sitk.sitkBox)
    return np.asarray(sitk.GetArrayFromImage(reached) > 0) & (hu < _PURE_BELOW_HU)
