"""Evaluation of many cases, shared by any number of processes.

Each process measures every ``world_size``-th case and leaves a file a case in ``out/cases``;
whoever finds all of them there writes the report. Neither messages nor order matter, so that
two processes give the same report as one, and a run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.errors import InferenceError
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Segmenter
from training.dataset import ScanPair
from training.errors import TrainingError
from training.evaluation.case_file import read_case, remove_failure, write_case
from training.evaluation.figures import CaseFigures, measure
from training.evaluation.outcome import CaseFailure, CaseOutcome, Labels, Outcome
from training.evaluation.page import write_page
from training.evaluation.sources import LabelSource, ModelLabels
from training.evaluation.summary import of_case
from training.evaluation.tables import write_tables
from training.evaluation.tolerances import Tolerances
from training.v1_labels import read_v1_labels

PAGE_NAME = "evaluation.html"
_CASES = "cases"
#: Changes when the figures mean something else, so that old case files are not taken up.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How cases are judged.

    Parameters
    ----------
    tolerances
        Of the surface Dice.
    log
        Told one line a case.
    """

    tolerances: Tolerances = field(default_factory=Tolerances)
    log: Callable[[str], None] = lambda _: None


def evaluate_cases(
    segmenter: Segmenter | LabelSource,
    pairs: Sequence[ScanPair],
    out: Path,
    rank: int = 0,
    world_size: int = 1,
    options: EvaluationOptions | None = None,
) -> Outcome | None:
    """Judge label maps against the truth, on the grid of each scan.

    Memory: one scan, its two label maps and what the segmenter takes; 104 channels never
    exist on the scan's grid.

    Parameters
    ----------
    segmenter
        Runs on each scan as in the clinic; or another source of label maps.
    pairs
        The same in every process. A case without truth counts as failed.
    out
        Folder for ``cases/``, the tables and ``evaluation.html``; case files of the same
        inputs are taken up.
    rank, world_size
        Which share of the cases this process measures.
    options
        How they are judged.

    Returns
    -------
    Outcome or None
        What the report says; None if other processes have yet to finish, which then write it.
    """
    options = options or EvaluationOptions()
    source = segmenter if isinstance(segmenter, LabelSource) else ModelLabels(segmenter)
    folder = out / _CASES
    keys = {pair.name: _key(pair, source, options.tolerances) for pair in pairs}
    for pair in pairs[rank::world_size]:  # else another process may take it for this run's
        remove_failure(pair.name, keys[pair.name], folder)
    for number, pair in enumerate(pairs):
        if number % world_size != rank:
            continue
        if isinstance(read_case(pair.name, keys[pair.name], folder), CaseFigures):
            options.log(f"{pair.name}: measured before")
            continue
        begin = time.monotonic()
        outcome = _judge(pair, source, options.tolerances)
        write_case(outcome, keys[pair.name], folder)
        options.log(f"{_line(outcome)}, {time.monotonic() - begin:.1f} s")
    outcomes = [read_case(pair.name, keys[pair.name], folder) for pair in pairs]
    known = [outcome for outcome in outcomes if outcome is not None]
    if len(known) < len(pairs):
        return None
    report = Outcome.of(
        Labels("Evaluation", "truth", "found"),
        (*source.facts, ("tolerance of the surface Dice", options.tolerances.describe())),
        known,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_tables(report, out)
    write_page(report, out / PAGE_NAME)
    return report


def _judge(pair: ScanPair, source: LabelSource, tolerances: Tolerances) -> CaseOutcome:
    try:
        if pair.labels is None:
            raise TrainingError(Reason.MISSING_LABELS, f"{pair.name}: the truth is not known")
        truth = read_v1_labels(pair.labels)
        found = source.label_map(pair)
        _check_grids(pair, truth, found)
        return CaseFigures(pair.name, measure(truth, found, tolerances))
    except InferenceError as error:  # one bad case never stops the others
        return CaseFailure(pair.name, error.reason, error.detail)


def _check_grids(pair: ScanPair, truth: LabelMap, found: LabelMap) -> None:
    if not truth.geometry.matches(found.geometry):
        raise TrainingError(
            Reason.OTHER_GRID,
            f"{pair.labels}: {truth.geometry.shape} voxels of {_spacing(truth)} mm; "
            f"found {found.geometry.shape} of {_spacing(found)} mm",
        )


def _spacing(labels: LabelMap) -> str:
    return " x ".join(f"{mm:.3f}" for mm in labels.geometry.spacing_mm)


def _key(pair: ScanPair, source: LabelSource, tolerances: Tolerances) -> str:
    """Digest of all that the figures of a case depend on; of files, size and time of change."""
    files = []
    try:
        for path in (*source.inputs(pair), *([] if pair.labels is None else [pair.labels])):
            status = path.stat()
            files.append([str(path), status.st_size, status.st_mtime_ns])
    except (OSError, InferenceError):
        files.append(["missing", 0, 0])
    by_id = sorted(tolerances.by_id_mm.items())
    record = [_FORMAT, pair.name, files, source.facts, tolerances.default_mm, by_id]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _line(outcome: CaseOutcome) -> str:
    if isinstance(outcome, CaseFailure):
        return f"{outcome.name}: {outcome.reason}: {outcome.detail}"
    dice = of_case(outcome).dice_missing_as_zero
    return f"{outcome.name}: " + ("no structure" if dice is None else f"mean Dice {dice:.4f}")
