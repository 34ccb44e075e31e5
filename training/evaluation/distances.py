"""Distances between two surfaces, and the two figures that are read from them.

Nearest pieces are found with a k-d tree over positions in millimetres: exact, in memory that
grows with the surfaces and not with the volume between them, and true to any geometry. A
distance transform needs evenly spaced planes at right angles and the whole box in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from inference.geometry import FloatArray
from training.evaluation.surface import Surface

#: What rounding may add to a distance that lies exactly at a tolerance, mm.
_ROUNDING_MM = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """From each piece of one surface to the nearest of the other, both ways, ascending."""

    reference_mm: FloatArray  #: (n,), from the reference to the other
    reference_areas_mm2: FloatArray  #: (n,), in the same order
    other_mm: FloatArray  #: (m,), from the other to the reference
    other_areas_mm2: FloatArray  #: (m,)

    @classmethod
    def between(cls, reference: Surface, other: Surface) -> SurfaceDistances:
        """Measure; neither surface may be empty."""
        to_other = _nearest_mm(reference, other)
        to_reference = _nearest_mm(other, reference)
        first, second = np.argsort(to_other), np.argsort(to_reference)
        return cls(
            to_other[first],
            reference.areas_mm2[first],
            to_reference[second],
            other.areas_mm2[second],
        )

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces that lies within the tolerance of the other (0..1).

        Nikolov et al. 2021, doi:10.2196/26151: normalised surface Dice.
        """
        limit = tolerance_mm + _ROUNDING_MM
        within = (
            self.reference_areas_mm2[self.reference_mm <= limit].sum()
            + self.other_areas_mm2[self.other_mm <= limit].sum()
        )
        return float(within / (self.reference_areas_mm2.sum() + self.other_areas_mm2.sum()))

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """The larger of the two directed percentiles, by area.

        With 100 the Hausdorff distance; with 95 HD95 as in Nikolov et al. 2021.
        """
        return max(
            _percentile_mm(self.reference_mm, self.reference_areas_mm2, percent),
            _percentile_mm(self.other_mm, self.other_areas_mm2, percent),
        )


def _nearest_mm(of: Surface, to: Surface) -> FloatArray:
    tree = cKDTree(to.positions_mm, balanced_tree=False, compact_nodes=True)
    distances, _ = tree.query(of.positions_mm)
    return np.asarray(distances, dtype=np.float64)


def _percentile_mm(distances_mm: FloatArray, areas_mm2: FloatArray, percent: float) -> float:
    """The distance within which ``percent`` of the area lies."""
    share = np.cumsum(areas_mm2) / areas_mm2.sum()
    index = int(np.searchsorted(share, percent / 100.0 - 1e-12))
    return float(distances_mm[min(index, distances_mm.size - 1)])
