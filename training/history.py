"""The curves of a run as CSV: one row a step, one row a validation."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

_LOSSES = ("step", "loss", "learning_rate")
_VALIDATIONS = ("step", "mean_dice", "mean_dice_5ml", "structures_5ml")


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """What a validation found, by the averaged weights."""

    step: int
    mean_dice: float  #: over all structures of all cases
    mean_dice_5ml: float | None  #: over those of 5 ml and more; None: there is none
    structures_5ml: int  #: how many those are

    @property
    def score(self) -> float:
        """What validations of a run are ranked by."""
        return self.mean_dice if self.mean_dice_5ml is None else self.mean_dice_5ml

    @property
    def measure(self) -> str:
        """What ``score`` is, in words."""
        over = "all structures, none has 5 ml" if self.mean_dice_5ml is None else "5 ml and more"
        return f"mean Dice, {over}"


@dataclass(frozen=True, slots=True)
class History:
    """Losses and validations of a run in its folder."""

    folder: Path

    @classmethod
    def begin(cls, folder: Path, step: int) -> History:
        """Keep what is there up to ``step``; rows beyond are of steps that were lost."""
        history = cls(folder)
        _rewind(history._losses, _LOSSES, step)
        _rewind(history._validations, _VALIDATIONS, step)
        return history

    @property
    def _losses(self) -> Path:
        return self.folder / "losses.csv"

    @property
    def _validations(self) -> Path:
        return self.folder / "validations.csv"

    def add_loss(self, step: int, loss: float, learning_rate: float) -> None:
        """Append a step; steps count from 1."""
        with self._losses.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, f"{loss:.9g}", f"{learning_rate:.6g}"])

    def add_validation(self, row: ValidationRow) -> None:
        """Append a validation."""
        with self._validations.open("a", newline="", encoding="utf-8") as file:
            large = "" if row.mean_dice_5ml is None else f"{row.mean_dice_5ml:.5f}"
            values = (row.step, f"{row.mean_dice:.5f}", large)
            csv.writer(file).writerow([*values, row.structures_5ml])

    def losses(self) -> list[float]:
        """Of all steps so far."""
        return [float(row["loss"]) for row in _rows(self._losses)]

    def validations(self) -> list[ValidationRow]:
        """All so far."""
        return [
            ValidationRow(
                int(row["step"]),
                float(row["mean_dice"]),
                float(row["mean_dice_5ml"]) if row["mean_dice_5ml"] else None,
                int(row["structures_5ml"]),
            )
            for row in _rows(self._validations)
        ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _rewind(path: Path, header: tuple[str, ...], step: int) -> None:
    """Keep the rows up to ``step``; a row that was cut off by a kill is one of those beyond."""
    kept: list[list[str]] = []
    if path.exists() and step:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= step]
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *kept])
    draft.replace(path)
