"""Synthetic patients as cached cases."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.preprocessing import NetworkGrid, labels_to_network, to_network
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from training.case import Case, CaseRecipe, write_case


def make_cases(seeds: range, recipe: CaseRecipe, folder: Path, workers: int = 1) -> list[Case]:
    """The cases of these seeds; those already in ``folder`` are kept.

    Every second patient is scanned at half the spacing within the plane, as clinical series
    are finer than the network's grid and carry more noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"case_{seed:05d}" for seed in seeds]
    missing = [
        (seed, target)
        for seed, target in zip(seeds, targets, strict=True)
        if Case(target).frame() is None
    ]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_make_case, seed, recipe, target) for seed, target in missing]
        for job in jobs:
            job.result()
    return [Case(target) for target in targets]


def _make_case(seed: int, recipe: CaseRecipe, folder: Path) -> None:
    patient = SyntheticPatient.from_seed(seed)
    fine = recipe.spacing_mm / (1 + seed % 2)
    geometry = default_geometry(patient, (recipe.spacing_mm, fine, fine), FieldOfView.WHOLE)
    volume, truth = patient.sample(geometry)
    seen = to_network(volume, recipe.spacing_mm, recipe.intensity)
    labels = labels_to_network(truth, seen.grid)
    write_case(folder, seen, labels, np.random.default_rng(seed), _frame(patient, seen.grid))


def _frame(patient: SyntheticPatient, grid: NetworkGrid) -> npt.NDArray[np.float64]:
    corners = grid.lps_mm(np.vstack([np.zeros(3), np.eye(3)])) - patient.frame.origin_mm
    origin, *ends = corners @ patient.frame.matrix.T
    return np.column_stack([*(end - origin for end in ends), origin])
