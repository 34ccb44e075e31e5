"""Overlap, distance and volume of two label maps of one scan, structure by structure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from inference.agreement import Overlap, swapped_structures
from inference.geometry import FloatArray
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.structures import CLASS_COUNT
from training.errors import TrainingError
from training.evaluation.distances import SurfaceDistances
from training.evaluation.surface import SurfaceTables, surface_of
from training.evaluation.tolerances import Tolerances


class Presence(StrEnum):
    """On which side a structure has at least one voxel."""

    BOTH = "both"
    REFERENCE_ONLY = "reference-only"
    OTHER_ONLY = "other-only"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class StructureFigures:
    """One structure of one scan, which at least one side shows.

    Overlap and distances are None where one side lacks the structure: presence is counted
    apart from them.
    """

    structure_id: int  #: 1..104
    reference_ml: float
    other_ml: float
    dice: float | None  #: 0..1, by volume
    surface_dice: float | None  #: 0..1, at ``tolerance_mm``
    tolerance_mm: float
    hd95_mm: float | None
    is_swapped: bool = False  #: confused with its twin on the other side

    @property
    def presence(self) -> Presence:
        """Which side shows it."""
        if self.reference_ml > 0 and self.other_ml > 0:
            return Presence.BOTH
        return Presence.REFERENCE_ONLY if self.reference_ml > 0 else Presence.OTHER_ONLY

    @property
    def volume_error_ml(self) -> float:
        """Other less reference."""
        return self.other_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float | None:
        """Other less reference, of the reference; None where the reference has none."""
        return 100.0 * self.volume_error_ml / self.reference_ml if self.reference_ml > 0 else None


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """All structures of one scan that at least one side shows, by ascending id."""

    name: str
    structures: tuple[StructureFigures, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Volumes:
    """``(105,)`` each, ml by id."""

    reference: FloatArray
    other: FloatArray
    shared: FloatArray


def measure(
    reference: LabelMap,
    other: LabelMap,
    tolerances: Tolerances | None = None,
    only: Collection[int] | None = None,
) -> tuple[StructureFigures, ...]:
    """Compare two label maps on the same grid.

    Memory beyond the label maps: two surfaces of one structure at a time.

    Parameters
    ----------
    reference, other
        On the same planes. Background takes no part.
    tolerances
        Of the surface Dice; 3 mm for every structure where None.
    only
        Ids to compare; all where None.

    Raises
    ------
    TrainingError
        ``other-grid`` if the grids differ.
    """
    if not reference.geometry.matches(other.geometry):
        raise TrainingError(
            Reason.OTHER_GRID, f"{reference.geometry.shape} and {other.geometry.shape} voxels"
        )
    tolerances = tolerances or Tolerances()
    volumes = _volumes(reference, other)
    boxes = (reference.boxes(), other.boxes())
    tables = SurfaceTables(reference.geometry)
    swapped = swapped_structures(Overlap.between(reference, other), other)
    found = []
    for structure_id in range(1, CLASS_COUNT) if only is None else sorted(only):
        reference_ml, other_ml = volumes.reference[structure_id], volumes.other[structure_id]
        if not (reference_ml or other_ml):
            continue
        dice = surface_dice = hd95_mm = None
        if reference_ml and other_ml:
            dice = 2 * volumes.shared[structure_id] / (reference_ml + other_ml)
            distances = SurfaceDistances.between(
                surface_of(reference, structure_id, boxes[0][structure_id], tables),
                surface_of(other, structure_id, boxes[1][structure_id], tables),
            )
            surface_dice = distances.surface_dice(tolerances.mm(structure_id))
            hd95_mm = distances.hausdorff_mm()
        found.append(
            StructureFigures(
                structure_id=structure_id,
                reference_ml=float(reference_ml),
                other_ml=float(other_ml),
                dice=None if dice is None else float(dice),
                surface_dice=surface_dice,
                tolerance_mm=tolerances.mm(structure_id),
                hd95_mm=hd95_mm,
                is_swapped=structure_id in swapped,
            )
        )
    return tuple(found)


def _volumes(reference: LabelMap, other: LabelMap) -> _Volumes:
    totals = np.zeros((3, 256))
    plane_ml = reference.geometry.voxel_volumes_ml()
    for ml, first, second in zip(plane_ml, reference.labels, other.labels, strict=True):
        same = first[first == second]
        for row, ids in enumerate((first.ravel(), second.ravel(), same)):
            totals[row] += ml * np.bincount(ids, minlength=256)
    return _Volumes(*totals[:, :CLASS_COUNT])
