"""The figures as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from inference.structures import structure
from training.evaluation.outcome import Outcome
from training.evaluation.summary import Statistics, Summary, by_structure, of_case, overall

_FIGURES = ("dice", "surface_dice", "hd95_mm", "volume_error_ml", "volume_error_percent")
_STATISTICS = tuple(field.name for field in fields(Statistics))

Row = Sequence[str | int | float | None]


def write_tables(outcome: Outcome, folder: Path) -> tuple[Path, ...]:
    """Write ``structures_by_case.csv``, ``structures.csv``, ``cases.csv``, ``failures.csv``.

    In ``structures.csv`` the line ``all`` is every structure of every case. Empty fields are
    figures that do not exist, as a distance to a structure that is not there.
    """
    tables: dict[str, Iterable[Row]] = {
        "structures_by_case.csv": _structures_by_case(outcome),
        "structures.csv": _summaries(
            "structure",
            [("all", overall(outcome.cases))]
            + [(structure(i).name, s) for i, s in by_structure(outcome.cases).items()],
        ),
        "cases.csv": _summaries("case", [(c.name, of_case(c)) for c in outcome.cases]),
        "failures.csv": [
            ("case", "reason", "detail"),
            *((f.name, str(f.reason), f.detail) for f in outcome.failures),
        ],
    }
    for name, rows in tables.items():
        _write(folder / name, rows)
    return tuple(folder / name for name in tables)


def _structures_by_case(outcome: Outcome) -> Iterator[Row]:
    yield (
        "case",
        "structure",
        "presence",
        "reference_ml",
        "other_ml",
        "volume_error_ml",
        "volume_error_percent",
        "dice",
        "surface_dice",
        "tolerance_mm",
        "hd95_mm",
        "swapped",
    )
    for case in outcome.cases:
        for a in case.structures:
            yield (
                case.name,
                structure(a.structure_id).name,
                str(a.presence),
                a.reference_ml,
                a.other_ml,
                a.volume_error_ml,
                a.volume_error_percent,
                a.dice,
                a.surface_dice,
                a.tolerance_mm,
                a.hd95_mm,
                int(a.is_swapped),
            )


def _summaries(key: str, rows: Iterable[tuple[str, Summary]]) -> Iterator[Row]:
    yield (
        key,
        "both",
        "reference_only",
        "other_only",
        "neither",
        "swapped",
        "dice_missing_as_zero",
        "dice_missing_as_zero_large",
        *(f"{figure}_{statistic}" for figure in _FIGURES for statistic in _STATISTICS),
    )
    for name, s in rows:
        yield (
            name,
            s.presence.both,
            s.presence.reference_only,
            s.presence.other_only,
            s.presence.neither,
            s.swapped,
            s.dice_missing_as_zero,
            s.dice_missing_as_zero_large,
            *(value for figure in _FIGURES for value in _values(getattr(s, figure))),
        )


def _values(statistics: Statistics | None) -> Row:
    if statistics is None:
        return (0, *(None for _ in _STATISTICS[1:]))
    return [getattr(statistics, name) for name in _STATISTICS]


def _write(path: Path, rows: Iterable[Row]) -> None:
    draft = path.with_name(f".{path.name}.writing")
    with draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        for row in rows:
            table.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    draft.replace(path)
