"""The closed set of reason codes and its texts."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

from inference.reasons import Reason, describe, reason_table

OUTCOMES = {"finding", "ignored", "skipped", "held", "refused", "quarantined", "failed"}
ROOT = Path(__file__).resolve().parents[2]


def test_enum_and_table_hold_the_same_codes_once_each() -> None:
    table = (files("inference") / "data" / "reasons.csv").read_text(encoding="utf-8")
    codes = [row["code"] for row in csv.DictReader(table.splitlines())]

    assert codes == [str(reason) for reason in Reason]


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    for reason in Reason:
        text = describe(reason)
        assert set(text.outcome.split(" or ")) <= OUTCOMES, reason
        assert text.meaning, reason
        assert text.advice, reason


def test_the_documented_table_is_the_one_in_use() -> None:
    assert (ROOT / "docs" / "reason_codes.md").read_text(encoding="utf-8") == reason_table()
