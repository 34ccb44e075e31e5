"""Comparison of pairs of segmentations, from files to tables and a page."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference.errors import InferenceError
from training.compare.label_values import LabelValues, Numbering
from training.compare.nifti_side import read_nifti_side
from training.compare.pairs import FilePair, find_pairs
from training.compare.placement import onto_one_grid
from training.compare.seg_side import read_seg_side
from training.compare.side import Side
from training.dataset import case_name
from training.evaluation.figures import CaseFigures, StructureFigures, measure
from training.evaluation.outcome import CaseFailure, CaseOutcome, Labels, Outcome
from training.evaluation.page import write_page
from training.evaluation.tables import write_tables
from training.evaluation.tolerances import Tolerances

PAGE_NAME = "comparison.html"

Values = LabelValues | Numbering


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How segmentations are compared.

    Parameters
    ----------
    values
        What the values of label files of A and of B stand for; a DICOM Segmentation says so
        itself.
    resample
        Bring a side on another grid to that of the other, nearest; refused otherwise.
    tolerances
        Of the surface Dice.
    log
        Told one line a pair.
    """

    values: tuple[Values, Values] = (Numbering.AUTO, Numbering.AUTO)
    resample: bool = False
    tolerances: Tolerances = field(default_factory=Tolerances)
    log: Callable[[str], None] = lambda _: None


def compare(first: Path, second: Path, out: Path, options: CompareOptions | None = None) -> Outcome:
    """Compare two files, or two folders of files with the same names.

    Writes the tables and ``comparison.html`` to ``out``. A pair that cannot be compared has
    its reason there and stops no other.

    Raises
    ------
    TrainingError
        ``no-cases`` or ``duplicate-case``.
    """
    options = options or CompareOptions()
    pairs, alone = find_pairs(first, second)
    outcomes: list[CaseOutcome] = []
    remarks: list[tuple[str, str]] = []
    values: tuple[set[str], set[str]] = (set(), set())
    for pair in pairs:
        outcome = _compare_pair(pair, options, remarks, values)
        outcomes.append(outcome)
        said = f"{outcome.reason}: {outcome.detail}" if isinstance(outcome, CaseFailure) else "done"
        options.log(f"{pair.name}: {said}")
    facts = (
        ("A", first.name),
        ("B", second.name),
        *((f"values of {s}", "; ".join(sorted(v))) for s, v in zip("AB", values, strict=True)),
        ("tolerance of the surface Dice", options.tolerances.describe()),
        ("other grids", "resampled, nearest" if options.resample else "refused"),
    )
    report = Outcome.of(Labels("Comparison", "A", "B"), facts, [*outcomes, *alone], remarks)
    out.mkdir(parents=True, exist_ok=True)
    write_tables(report, out)
    write_page(report, out / PAGE_NAME)
    return report


def read_side(path: Path, values: Values = Numbering.AUTO) -> Side:
    """Read a NIfTI file (by its suffix) or a DICOM Segmentation.

    Raises
    ------
    InferenceError
        As ``read_nifti_side`` and ``read_seg_side``.
    """
    if case_name(path) is not None:
        return read_nifti_side(path, values)
    return read_seg_side(path)


def agreement_of(first: Side, second: Side, tolerances: Tolerances) -> tuple[StructureFigures, ...]:
    """Compare two sides on one grid; each structure in the layers where it lies."""
    placed = (_layer_of(first), _layer_of(second))
    agreements: list[StructureFigures] = []
    for a, b in itertools.product(range(len(first.layers)), range(len(second.layers))):
        ids = {
            i
            for i in placed[0].keys() | placed[1].keys()
            if placed[0].get(i, 0) == a and placed[1].get(i, 0) == b
        }
        if ids:
            agreements += measure(first.layers[a], second.layers[b], tolerances, only=ids)
    return tuple(sorted(agreements, key=lambda agreement: agreement.structure_id))


def _compare_pair(
    pair: FilePair,
    options: CompareOptions,
    remarks: list[tuple[str, str]],
    values: tuple[set[str], set[str]],
) -> CaseOutcome:
    try:
        first = read_side(pair.first, options.values[0])
        second = read_side(pair.second, options.values[1])
        first, second = onto_one_grid(first, second, options.resample)
        agreement = CaseFigures(pair.name, agreement_of(first, second, options.tolerances))
    except InferenceError as error:  # one bad pair never stops the others
        return CaseFailure(pair.name, error.reason, error.detail)
    for label, side, said in zip("AB", (first, second), values, strict=True):
        said.add(side.values)
        remarks += [(pair.name, f"{label}: {f.reason}: {f.detail}") for f in side.findings]
    return agreement


def _layer_of(side: Side) -> dict[int, int]:
    return {i: number for number, layer in enumerate(side.layers) for i in layer.present()}
