"""Voxels that were not measured: no structure is there, and one that ends there may go on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from inference.label_map import BACKGROUND, LabelMap
from inference.volume import PADDING_HU, Volume

#: Nothing is measured that is less dense: padding, and what scanners and converters write
#: beside the field of reconstruction where they do not call it so (-2000, -2048, -3024).
BESIDE_FIELD_BELOW_HU = -1500
#: A structure that ends so near to the field's edge is cut by it: one voxel of the coarsest
#: network, to which the air beside the field blurs the edge.
REACH_MM = 3.0


def clear_padding(label_map: LabelMap, volume: Volume) -> None:
    """Make labels background where ``volume`` is padding, in place, plane by plane.

    A network knows nothing of padding, and labels that are put onto the planes of the source
    reach up to half a voxel of the network's grid beyond what was measured.

    Parameters
    ----------
    label_map
        On the planes of ``volume``.
    volume
        What was labelled.
    """
    for labels, hu in zip(label_map.labels, volume.hu, strict=True):
        labels[hu == PADDING_HU] = BACKGROUND


def cut_by_field(label_map: LabelMap, volume: Volume) -> tuple[int, ...]:
    """Ids that reach what was not measured, ascending.

    That is: voxels below ``BESIDE_FIELD_BELOW_HU`` that are connected to the edge of their
    plane, so that neither padding amid the patient nor streaks of metal count. Labels within
    ``REACH_MM`` in the plane reach it, and those right above and below. At any time it holds
    masks of a few planes.

    Parameters
    ----------
    label_map
        On the planes of ``volume``.
    volume
        What was labelled.
    """
    _, row_mm, column_mm = volume.geometry.spacing_mm
    reach = [max(1, math.ceil(REACH_MM / spacing_mm)) for spacing_mm in (column_mm, row_mm)]
    found = np.zeros(256, dtype=np.bool_)
    before: _Beside | None = None
    for z, labels in enumerate(label_map.labels):
        beside = _Beside.of(volume.hu[z], reach, before)
        found[labels[beside.near]] = True
        if before is not None and beside is not before:
            found[labels[before.field]] = True
            found[label_map.labels[z - 1][beside.field]] = True
        before = beside
    found[BACKGROUND] = False
    return tuple(int(i) for i in np.flatnonzero(found))


@dataclass(frozen=True, slots=True, eq=False)  # eq: arrays have no truth value
class _Beside:
    """What of one plane, ``(y, x)``, lies beside the field of reconstruction."""

    low: npt.NDArray[np.bool_]  #: less dense than anything that is measured
    field: npt.NDArray[np.bool_]  #: that which is connected to the edge of the plane
    near: npt.NDArray[np.bool_]  #: the same, and what is within reach of it

    @classmethod
    def of(cls, hu: npt.NDArray[np.int16], reach: list[int], before: Self | None) -> Self:
        """``reach`` is ``(x, y)``, pixels; ``before`` is taken again where the plane is alike."""
        low = hu < BESIDE_FIELD_BELOW_HU
        if before is not None and np.array_equal(low, before.low):
            return before
        if not low.any():
            return cls(low, low, low)
        at_edge = sitk.BinaryGrindPeak(sitk.GetImageFromArray(low.view(np.uint8)), True, 1, 0)
        near = sitk.BinaryDilate(at_edge, reach, sitk.sitkBall, 0, 1)
        field, near = (sitk.GetArrayFromImage(image) > 0 for image in (at_edge, near))
        return cls(low, field, near)
