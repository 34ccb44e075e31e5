"""The report as a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from inference.reasons import Reason
from pacs_bridge.report import (
    SCHEMA,
    Ending,
    LeftOutInstance,
    SeriesNames,
    SeriesReport,
    SoftwareReport,
    report_json_schema,
)


@pytest.fixture
def report() -> SeriesReport:
    return SeriesReport(
        created=datetime(2026, 11, 21, tzinfo=UTC),
        ending=Ending("skip", Reason.NOT_CT, "Modality is MR"),
        series=SeriesNames("1.2", "1.2.3", 1),
        software=SoftwareReport.of_this_process(),
        model=None,
        parameters={},
        stacks=(),
        left_out=(LeftOutInstance("a.dcm", "1.2.3.4", None, Reason.NOT_CT, "MR"),),
        timings_s={},
        peak_memory_bytes=1,
    )


def test_a_report_is_read_as_it_was_written(report: SeriesReport, tmp_path: Path) -> None:
    assert SeriesReport.read(report.write(tmp_path)) == report
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_file_begins_with_its_schema(report: SeriesReport) -> None:
    assert next(iter(json.loads(report.to_json()).items())) == ("schema", SCHEMA)


def test_unknown_keys_and_codes_are_refused(report: SeriesReport, tmp_path: Path) -> None:
    facts = json.loads(report.to_json())
    for change in ({"extra": 1}, {"schema": "other/1"}, {"left_out": [{"reason": "no-such-code"}]}):
        path = tmp_path / "report.json"
        path.write_text(json.dumps(facts | change))
        with pytest.raises(ValidationError):
            SeriesReport.read(path)


def test_the_schema_names_every_part(report: SeriesReport) -> None:
    assert set(report_json_schema()["properties"]) == set(json.loads(report.to_json()))
