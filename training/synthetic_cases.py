"""Synthetic patients as the network sees them, cached on disk.

A case is made once by the clinic's own preprocessing and kept as int16 and uint8; training
maps the files into memory, so any number of cases fits.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.preprocessing import IntensitySpec, NetworkGrid, labels_to_network, to_network
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView

#: Image values -1..1 are stored times this.
STORED_SCALE = 32767
#: Places remembered for each structure of a case, to draw windows around.
SPOTS_PER_STRUCTURE = 64
#: A case is whole once this is written.
_LAST_FILE = "frame.npy"


@dataclass(frozen=True, slots=True)
class Case:
    """One cached volume on the network's grid, ``(x, y, z)``."""

    folder: Path

    def image(self) -> npt.NDArray[np.int16]:
        """Network values times ``STORED_SCALE``, mapped."""
        return np.asarray(np.load(self.folder / "image.npy", mmap_mode="r"))

    def labels(self) -> npt.NDArray[np.uint8]:
        """Structure ids, mapped."""
        return np.asarray(np.load(self.folder / "labels.npy", mmap_mode="r"))

    def spots(self) -> npt.NDArray[np.int16]:
        """``(n, 4)``: structure id and one of its voxels."""
        return np.asarray(np.load(self.folder / "spots.npy"))

    def frame(self) -> npt.NDArray[np.float64]:
        """``(3, 4)``: voxel ``(x, y, z, 1)`` to mm of the reference body."""
        return np.asarray(np.load(self.folder / "frame.npy"))


@dataclass(frozen=True, slots=True)
class CaseRecipe:
    """How patients become cases."""

    spacing_mm: float  #: of the network's grid
    intensity: IntensitySpec


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
        if not (target / _LAST_FILE).exists()
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
    labels = np.ascontiguousarray(labels_to_network(truth, seen.grid))
    folder.mkdir(exist_ok=True)
    np.save(
        folder / "image.npy",
        np.round(np.ascontiguousarray(seen.array) * STORED_SCALE).astype(np.int16),
    )
    np.save(folder / "labels.npy", labels)
    np.save(folder / "spots.npy", _spots(labels, np.random.default_rng(seed)))
    np.save(folder / _LAST_FILE, _frame(patient, seen.grid))


def _frame(patient: SyntheticPatient, grid: NetworkGrid) -> npt.NDArray[np.float64]:
    corners = grid.lps_mm(np.vstack([np.zeros(3), np.eye(3)])) - patient.frame.origin_mm
    origin, *ends = corners @ patient.frame.matrix.T
    return np.column_stack([*(end - origin for end in ends), origin])


def _spots(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(257))
    rows = []
    for structure_id in np.unique(flat[order[bounds[1] :]]):
        own = order[bounds[structure_id] : bounds[structure_id + 1]]
        places = np.unravel_index(rng.choice(own, SPOTS_PER_STRUCTURE), labels.shape)
        rows.append(np.column_stack([np.full(SPOTS_PER_STRUCTURE, structure_id), *places]))
    return np.concatenate(rows).astype(np.int16)
