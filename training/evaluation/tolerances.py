"""How far two surfaces may lie apart and still count as one."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME
from training.errors import TrainingError

#: Wasserthal et al. 2023, doi:10.1148/ryai.230024: the published accuracy of these 104 classes
#: is a surface Dice at 3 mm.
PUBLISHED_TOLERANCE_MM = 3.0


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerance of the surface Dice, by structure.

    Parameters
    ----------
    default_mm
        For structures without one of their own.
    by_id_mm
        Structure id to tolerance.
    """

    default_mm: float = PUBLISHED_TOLERANCE_MM
    by_id_mm: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def mm(self, structure_id: int) -> float:
        """The tolerance of one structure, mm."""
        return self.by_id_mm.get(structure_id, self.default_mm)

    def describe(self) -> str:
        """As one line for a report."""
        own = f", {len(self.by_id_mm)} structures have their own" if self.by_id_mm else ""
        return f"{self.default_mm:g} mm{own}"


def read_tolerances(path: Path, default_mm: float = PUBLISHED_TOLERANCE_MM) -> Tolerances:
    """Read a CSV file with the columns ``structure`` and ``tolerance_mm``.

    Raises
    ------
    TrainingError
        ``unreadable-file`` if it cannot be read, lacks a column, names what is no structure or
        a tolerance that is no positive number; all faulty lines at once.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {error}") from error
    by_id: dict[int, float] = {}
    faults = []
    for number, row in enumerate(rows, start=2):
        structure = STRUCTURE_BY_NAME.get((row.get("structure") or "").strip())
        tolerance_mm = _positive(row.get("tolerance_mm"))
        if structure is None or tolerance_mm is None or structure.id in by_id:
            faults.append(f"line {number}: {row.get('structure')!r} {row.get('tolerance_mm')!r}")
        else:
            by_id[structure.id] = tolerance_mm
    if faults or not rows:
        raise TrainingError(Reason.UNREADABLE_FILE, f"{path}: {'; '.join(faults) or 'no lines'}")
    return Tolerances(default_mm, MappingProxyType(by_id))


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
