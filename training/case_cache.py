"""Scans of a dataset as the network sees them, made once and kept on disk.

The clinic's own preprocessing makes them; training and validation map the files, so memory
holds only the pages in use, once for all processes of a machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.errors import InferenceError
from inference.nifti import read_nifti
from inference.preprocessing import NetworkInput, labels_to_network, to_network
from inference.reasons import Reason
from training.case import Case, CaseRecipe, write_case
from training.dataset import DatasetError, ScanPair
from training.file_lock import alone
from training.process_pool import process_pool
from training.v1_labels import read_v1_labels

#: Counts up when the same scan and recipe give another case.
_FORMAT = 1
_SOURCE = "source.json"


def cache_pairs(
    pairs: Sequence[ScanPair],
    recipe: CaseRecipe,
    folder: Path,
    workers: int = 1,
    log: Callable[[str], None] = print,
) -> list[Case]:
    """The cases of these scans, in their order; those already in ``folder`` are kept.

    A case is made anew when size or time of its files, or the recipe, differ from those that
    it was made of. It appears whole or not at all, so an interrupted call is simply repeated.
    Processes that call this at the same time wait for the first one, which makes the cases.
    Memory is that of ``to_network`` for each worker.

    Parameters
    ----------
    pairs
        Scans with labels.
    recipe
        Spacing and intensity of the network.
    folder
        Of the cache; several recipes and datasets may share it.
    workers
        Processes that make cases. With one, this process makes them.
    log
        Takes a line for each case made.

    Raises
    ------
    DatasetError
        ``missing-labels`` or ``other-grid``, or the reason for which the first faulty file
        cannot be read. All other cases have been made by then, and each fault is logged.
    """
    targets = [_target(pair, recipe, folder) for pair in pairs]
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".lock"):
        for left in folder.glob("*/.making-*"):
            shutil.rmtree(left)
        missing = {
            target: pair
            for target, pair in zip(targets, pairs, strict=True)
            if not _is_whole(pair, target)
        }
        _make_all(missing, recipe, workers, log)
    return [Case(target) for target in targets]


def preprocess(pair: ScanPair, recipe: CaseRecipe) -> tuple[NetworkInput, npt.NDArray[np.uint8]]:
    """What the network sees of a scan, and ``(x, y, z)`` truth on the same grid.

    Raises
    ------
    InferenceError
        ``missing-labels``, ``other-grid``, or the reason for which a file cannot be read.
    """
    if pair.labels is None:
        raise DatasetError(Reason.MISSING_LABELS, str(pair.image))
    volume = read_nifti(pair.image)
    seen = to_network(volume, recipe.spacing_mm, recipe.intensity)
    geometry = volume.geometry
    del volume
    truth = read_v1_labels(pair.labels)
    if not truth.geometry.matches(geometry):
        raise DatasetError(
            Reason.OTHER_GRID,
            f"{pair.labels}: {truth.geometry.shape} voxels, its scan has {geometry.shape}"
            if truth.geometry.shape != geometry.shape
            else f"{pair.labels}: lies elsewhere than its scan",
        )
    return seen, labels_to_network(truth, seen.grid)


def _make_all(
    missing: dict[Path, ScanPair], recipe: CaseRecipe, workers: int, log: Callable[[str], None]
) -> None:
    first: InferenceError | None = None
    for number, (pair, error) in enumerate(_outcomes(missing, recipe, workers), 1):
        log(f"case {number} of {len(missing)}: {error or pair.name}")
        first = first or error
    if first is not None:
        raise first


def _outcomes(
    missing: dict[Path, ScanPair], recipe: CaseRecipe, workers: int
) -> Iterator[tuple[ScanPair, InferenceError | None]]:
    if workers == 1 or len(missing) < 2:
        for target, pair in missing.items():
            yield pair, _make(pair, recipe, target)
        return
    with process_pool(min(workers, len(missing))) as pool:
        jobs: dict[Future[InferenceError | None], ScanPair] = {
            pool.submit(_make, pair, recipe, target): pair for target, pair in missing.items()
        }
        for job in as_completed(jobs):
            yield jobs[job], job.result()


def _make(pair: ScanPair, recipe: CaseRecipe, target: Path) -> InferenceError | None:
    source = _source(pair)
    try:
        seen, labels = preprocess(pair, recipe)
    except InferenceError as error:
        return DatasetError(error.reason, error.detail)
    seed = hashlib.sha256(pair.name.encode()).digest()[:8]
    write_case(target, seen, labels, np.random.default_rng(list(seed)))
    draft = target / f"{_SOURCE}.draft"
    draft.write_text(json.dumps(source), encoding="utf-8")
    draft.replace(target / _SOURCE)
    return None


def _target(pair: ScanPair, recipe: CaseRecipe, folder: Path) -> Path:
    chain = json.dumps([_FORMAT, asdict(recipe)], sort_keys=True)
    place = str(pair.image.resolve().parent)
    return folder / f"{recipe.spacing_mm:g}mm-{_digest(chain)}" / f"{pair.name}-{_digest(place)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _source(pair: ScanPair) -> dict[str, list[int]]:
    """Size and time of the files that a case is made of."""
    files = {"image": pair.image, "labels": pair.labels}
    stats = {name: path.stat() for name, path in files.items() if path is not None}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _is_whole(pair: ScanPair, target: Path) -> bool:
    try:
        made_of = json.loads((target / _SOURCE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(made_of == _source(pair))
