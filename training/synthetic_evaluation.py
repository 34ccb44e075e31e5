"""How well a segmenter finds the structures of synthetic patients that it never saw."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.label_map import LabelMap
from inference.segmenter import Segmenter
from inference.structures import CLASS_COUNT, STRUCTURE_BY_NAME, STRUCTURES
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
    """Scores of all structures that the scan truly shows.

    A structure counts as swapped if more of it was called its twin than itself, or if what
    was found of a left one lies to the right of what was found of its twin.
    """
    confusion = _confusion(truth.labels, found.labels)
    truth_ml, found_ml = truth.volumes_ml(), found.volumes_ml()
    middles = _left_mm(found)
    scores = []
    for structure in STRUCTURES:
        own = structure.id
        if own not in truth_ml:
            continue
        swapped = False
        if structure.twin is not None:
            twin = STRUCTURE_BY_NAME[structure.twin].id
            swapped = bool(confusion[own, twin] > confusion[own, own])
            if structure.is_left and own in middles and twin in middles:
                swapped |= middles[own] < middles[twin]
        total = confusion[own].sum() + confusion[:, own].sum()
        scores.append(
            StructureScore(
                seed=seed,
                structure_id=own,
                truth_ml=truth_ml[own],
                found_ml=found_ml.get(own, 0.0),
                dice=float(2 * confusion[own, own] / total),
                swapped=swapped,
            )
        )
    return scores


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


def _confusion(truth: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """``(105, 105)``, voxels by true and found class."""
    counts = np.zeros(CLASS_COUNT * CLASS_COUNT, dtype=np.int64)
    for true_plane, found_plane in zip(truth, found, strict=True):
        pairs = true_plane.astype(np.intp) * CLASS_COUNT + found_plane
        counts += np.bincount(pairs.ravel(), minlength=counts.size)
    return counts.reshape(CLASS_COUNT, CLASS_COUNT)


def _left_mm(label_map: LabelMap) -> dict[int, float]:
    """LPS x of the centre of each structure."""
    sums, counts = np.zeros((CLASS_COUNT, 3)), np.zeros(CLASS_COUNT)
    rows, columns = (np.arange(n, dtype=np.float64) for n in label_map.geometry.shape[1:])
    for z, plane in enumerate(label_map.labels):
        ids = plane.ravel()
        own = np.bincount(ids, minlength=CLASS_COUNT)
        counts += own
        sums[:, 0] += own * z
        for axis, index in ((1, np.repeat(rows, columns.size)), (2, np.tile(columns, rows.size))):
            sums[:, axis] += np.bincount(ids, weights=index, minlength=CLASS_COUNT)
    present = [int(i) for i in np.flatnonzero(counts) if i]
    middle = sums[present] / counts[present, None]
    return {
        i: float(x) for i, x in zip(present, label_map.geometry.lps_mm(middle)[:, 0], strict=True)
    }
