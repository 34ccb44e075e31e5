"""``prepare_report.csv``: every case, every fault."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from training.prepare.outcome import Outcome

REPORT = "prepare_report.csv"
COLUMNS = ("case", "split", "outcome", "image", "code", "effect", "file", "detail")


def write_report(outcomes: Iterable[Outcome], root: Path) -> Path:
    """One line a remark, and one for a case without any; by case."""
    path = root / REPORT
    draft = root / f".{REPORT}.draft"
    with draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for outcome in sorted(outcomes, key=lambda outcome: outcome.case):
            table.writerows(_lines(outcome))
    draft.replace(path)
    return path


def _lines(outcome: Outcome) -> list[tuple[str, ...]]:
    about = (
        outcome.case,
        outcome.split or "",
        "prepared" if outcome.prepared else "refused",
        outcome.image or "",
    )
    remarks = [
        (str(remark.reason), "refuses" if remark.refuses else "remark", remark.file, remark.detail)
        for remark in outcome.remarks
    ]
    return [(*about, *remark) for remark in remarks or [("", "", "", "")]]
