"""What many cases show together: presence counted apart, and statistics of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from inference.structures import STRUCTURE_COUNT
from training.evaluation.figures import CaseFigures, Presence, StructureFigures

#: Structures with less of them in the reference are left out of one of the means, ml.
SMALL_ML = 5.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one figure; quartiles are interpolated linearly."""

    n: int
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """None where there is no value; values that are None take no part."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not known.size:
            return None
        low, middle, high = np.percentile(known, [25, 50, 75])
        return cls(known.size, float(known.mean()), float(low), float(middle), float(high))


@dataclass(frozen=True, slots=True)
class PresenceCounts:
    """On how many scans, or for how many structures, which side shows it."""

    both: int  #: true positives where one side is the truth
    reference_only: int  #: false negatives
    other_only: int  #: false positives
    neither: int  #: true negatives


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of a group of structures of scans.

    Those of overlap, distance and volume are over the pairs that both sides show.
    """

    presence: PresenceCounts
    dice: Statistics | None
    surface_dice: Statistics | None
    hd95_mm: Statistics | None
    volume_error_ml: Statistics | None
    volume_error_percent: Statistics | None
    swapped: int
    #: Mean over all that the reference shows; what the other side lacks counts as 0
    dice_missing_as_zero: float | None
    #: The same over structures of ``SMALL_ML`` and more in the reference
    dice_missing_as_zero_large: float | None


def summarise(agreements: Sequence[StructureFigures], total: int) -> Summary:
    """Summarise a group out of ``total`` pairs of structure and scan."""
    both = [a for a in agreements if a.presence is Presence.BOTH]
    truth = [a for a in agreements if a.reference_ml > 0]
    large = [a for a in truth if a.reference_ml >= SMALL_ML]
    counts = PresenceCounts(
        both=len(both),
        reference_only=len(truth) - len(both),
        other_only=len(agreements) - len(truth),
        neither=total - len(agreements),
    )
    return Summary(
        presence=counts,
        dice=Statistics.of(a.dice for a in both),
        surface_dice=Statistics.of(a.surface_dice for a in both),
        hd95_mm=Statistics.of(a.hd95_mm for a in both),
        volume_error_ml=Statistics.of(a.volume_error_ml for a in both),
        volume_error_percent=Statistics.of(a.volume_error_percent for a in both),
        swapped=sum(a.is_swapped for a in agreements),
        dice_missing_as_zero=_mean_dice(truth),
        dice_missing_as_zero_large=_mean_dice(large),
    )


def overall(cases: Sequence[CaseFigures]) -> Summary:
    """All structures of all cases."""
    every = [a for case in cases for a in case.structures]
    return summarise(every, len(cases) * STRUCTURE_COUNT)


def by_structure(cases: Sequence[CaseFigures]) -> dict[int, Summary]:
    """Each structure that some side of some case shows, by ascending id."""
    groups: dict[int, list[StructureFigures]] = {}
    for case in cases:
        for agreement in case.structures:
            groups.setdefault(agreement.structure_id, []).append(agreement)
    return {i: summarise(groups[i], len(cases)) for i in sorted(groups)}


def of_case(case: CaseFigures) -> Summary:
    """All structures of one case."""
    return summarise(case.structures, STRUCTURE_COUNT)


def headline(cases: Sequence[CaseFigures]) -> str:
    """The figures in all, as one line."""
    total = overall(cases)
    facts = [f"{len(cases)} cases, {total.presence.both} structures on both sides"]
    for name, value in (
        ("mean Dice", total.dice_missing_as_zero),
        (f"of {SMALL_ML:g} mL and more", total.dice_missing_as_zero_large),
        ("mean surface Dice", None if total.surface_dice is None else total.surface_dice.mean),
        ("median HD95 in mm", None if total.hd95_mm is None else total.hd95_mm.median),
    ):
        facts.append(f"{name} {'none' if value is None else format(value, '.4f')}")
    facts.append(f"left/right swaps {total.swapped}")
    return ", ".join(facts)


def _mean_dice(agreements: Sequence[StructureFigures]) -> float | None:
    if not agreements:
        return None
    return float(np.mean([a.dice or 0.0 for a in agreements]))
