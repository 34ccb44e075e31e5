"""How two label maps of one scan agree: overlaps, Dice, and sides that were confused.

One rule says what a swapped side is, wherever results are compared with the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.label_map import LabelMap
from inference.structures import CLASS_COUNT, STRUCTURE_BY_NAME, STRUCTURES


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Voxels by true and found class."""

    counts: npt.NDArray[np.int64]  #: ``(105, 105)``, true class by found class; 0 background

    @classmethod
    def between(cls, truth: LabelMap, found: LabelMap) -> Overlap:
        """Count plane by plane; both label maps lie on the same planes.

        Raises
        ------
        ValueError
            If they do not.
        """
        if not truth.geometry.matches(found.geometry):
            raise ValueError(f"{truth.geometry.shape} and {found.geometry.shape} are other planes")
        counts = np.zeros(CLASS_COUNT * CLASS_COUNT, dtype=np.int64)
        for true_plane, found_plane in zip(truth.labels, found.labels, strict=True):
            pairs = true_plane.astype(np.intp) * CLASS_COUNT + found_plane
            counts += np.bincount(pairs.ravel(), minlength=counts.size)
        return cls(counts.reshape(CLASS_COUNT, CLASS_COUNT))

    def dice(self, structure_id: int) -> float:
        """Dice of one structure, 0 to 1; 0 where neither side has it."""
        total = self.counts[structure_id].sum() + self.counts[:, structure_id].sum()
        return float(2 * self.counts[structure_id, structure_id] / total) if total else 0.0


@dataclass(frozen=True, slots=True)
class StructureAgreement:
    """One structure that the truth shows."""

    structure_id: int  #: 1..104
    truth_ml: float
    found_ml: float
    dice: float  #: 0 to 1
    is_swapped: bool  #: confused with its twin on the other side


def agreement(truth: LabelMap, found: LabelMap) -> tuple[StructureAgreement, ...]:
    """Agreement on every structure of the truth, in the order of the class list.

    Raises
    ------
    ValueError
        If the label maps do not lie on the same planes.
    """
    overlap = Overlap.between(truth, found)
    swapped = swapped_structures(overlap, found)
    truth_ml, found_ml = truth.volumes_ml(), found.volumes_ml()
    return tuple(
        StructureAgreement(
            structure_id=each.id,
            truth_ml=truth_ml[each.id],
            found_ml=found_ml.get(each.id, 0.0),
            dice=overlap.dice(each.id),
            is_swapped=each.id in swapped,
        )
        for each in STRUCTURES
        if each.id in truth_ml
    )


def swapped_structures(overlap: Overlap, found: LabelMap) -> frozenset[int]:
    """Ids of structures that were confused with their twin on the other side.

    A structure is swapped if more of it was called its twin than itself, if more of what was
    called it is its twin than itself, or, where the truth shows both, if what was found of
    the left one lies to the right of what was found of the right one (LPS: +x is left).
    """
    counts = overlap.counts
    centroids_mm = found.centroids_mm()
    swapped = set()
    for each in STRUCTURES:
        if each.twin is None or not counts[each.id].any():
            continue
        own, twin = each.id, STRUCTURE_BY_NAME[each.twin].id
        if max(counts[own, twin], counts[twin, own]) > counts[own, own]:
            swapped.add(own)
        elif counts[twin].any() and own in centroids_mm and twin in centroids_mm:
            left, right = (own, twin) if each.is_left else (twin, own)
            if centroids_mm[left][0] < centroids_mm[right][0]:
                swapped.add(own)
    return frozenset(swapped)
