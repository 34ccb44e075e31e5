"""From files in any order to the stacks of one series, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_seg.examination import (
    LeftOut,
    Outcome,
    SeriesExamination,
    SeriesIdentity,
    SeriesRules,
    StackPlan,
)

__all__ = [
    "LeftOut",
    "Outcome",
    "SeriesExamination",
    "SeriesIdentity",
    "SeriesRules",
    "StackPlan",
    "examine_series",
]

_PUBLISHED_RULES = SeriesRules()


def examine_series(
    paths: Sequence[Path], rules: SeriesRules = _PUBLISHED_RULES
) -> SeriesExamination:
    """Read the headers of ``paths`` and decide what becomes of the series."""
    raise NotImplementedError
