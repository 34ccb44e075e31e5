"""How well a segmenter finds the structures of synthetic patients that it never saw."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.agreement import agreement
from inference.label_map import LabelMap
from inference.segmenter import Segmenter
from inference.structures import STRUCTURES
from inference.synthetic.patient import SyntheticPatient, default_geometry

#: Seeds of the patients that the embedded model is judged on; none is trained on.
HELD_OUT_SEEDS = range(1, 11)
#: As clinical series: finer within the plane than the network's grid.
EVALUATION_SPACING_MM = (3.0, 1.5, 1.5)
#: Structures with less of them in the scan take no part in means, ml.
SMALLEST_ML = 5.0


@dataclass(frozen=True, slots=True)
class StructureScore:
    """One structure in one scan."""

    seed: int
    structure_id: int
    truth_ml: float
    found_ml: float
    dice: float
    swapped: bool  #: confused with its twin on the other side


def score_seeds(
    segmenter: Segmenter,
    seeds: Iterable[int] = HELD_OUT_SEEDS,
    spacing_mm: tuple[float, float, float] = EVALUATION_SPACING_MM,
) -> list[StructureScore]:
    """Scan each patient with its own field of view, segment, compare on the scan's planes."""
    scores: list[StructureScore] = []
    for seed in seeds:
        patient = SyntheticPatient.from_seed(seed)
        volume, truth = patient.sample(default_geometry(patient, spacing_mm))
        scores += score_labels(seed, truth, segmenter.segment(volume))
    return scores


def score_labels(seed: int, truth: LabelMap, found: LabelMap) -> list[StructureScore]:
    """Scores of all structures that the scan truly shows."""
    return [
        StructureScore(
            seed=seed,
            structure_id=each.structure_id,
            truth_ml=each.truth_ml,
            found_ml=each.found_ml,
            dice=each.dice,
            swapped=each.is_swapped,
        )
        for each in agreement(truth, found)
    ]


def mean_dice(scores: Iterable[StructureScore]) -> float:
    """Mean over all structures of ``SMALLEST_ML`` and more in all scans."""
    return float(np.mean([s.dice for s in scores if s.truth_ml >= SMALLEST_ML]))


def swap_count(scores: Iterable[StructureScore]) -> int:
    """Structures of any size that were confused with their twin."""
    return sum(s.swapped for s in scores)


def write_scores(scores: Iterable[StructureScore], path: Path) -> None:
    """One CSV line a structure and scan."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["seed", "structure", "truth_ml", "found_ml", "dice", "swapped"])
        for s in scores:
            name = STRUCTURES[s.structure_id - 1].name
            volumes = (f"{s.truth_ml:.2f}", f"{s.found_ml:.2f}")
            table.writerow([s.seed, name, *volumes, f"{s.dice:.4f}", int(s.swapped)])


def dice_by_structure(scores: Iterable[StructureScore]) -> dict[str, tuple[float, float, int]]:
    """Mean and lowest Dice and the number of scans, of parts of ``SMALLEST_ML`` and more."""
    by_name: dict[str, list[float]] = {}
    for s in scores:
        if s.truth_ml >= SMALLEST_ML:
            by_name.setdefault(STRUCTURES[s.structure_id - 1].name, []).append(s.dice)
    return {name: (float(np.mean(d)), min(d), len(d)) for name, d in by_name.items()}
