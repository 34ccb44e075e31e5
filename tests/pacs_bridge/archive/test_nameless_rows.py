"""What an archive lists without a UID: in the account like everything else, and never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dicom_seg.read.examination import SeriesRules
from pacs_bridge.archive.accounts import outcome_counts, series_lines
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.remote_plan import RemotePlan
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.facts import SeriesFacts
from pacs_bridge.sources.remote_archive import FoundPatient, FoundSeries, SeriesQuery

_JANE = FoundPatient("PID-1", "", "Doe^Jane", "19700101")
_FACTS = SeriesFacts(modality="CT")


class Catalogue:
    """An archive that is only searched."""

    def __init__(self, rows: list[FoundSeries]) -> None:
        self._rows = rows

    def find(
        self, query: SeriesQuery, _check: Callable[[], None] = lambda: None
    ) -> Iterator[FoundSeries]:
        yield from (each for each in self._rows if query.wants(each))


def _row(series: str, study: str = "1.9", **more: object) -> FoundSeries:
    return replace(FoundSeries(study, series, "CT", 12, "20260101", _FACTS, (), _JANE), **more)


def _outcomes(plan: PlanFile, *rows: FoundSeries) -> dict[str, int]:
    archive = Catalogue(list(rows))
    RemotePlan(plan, "pacs", archive, SeriesRules(), IdentityHash(b"key")).found(SeriesQuery())
    return {count.reason or count.state: count.series for count in outcome_counts(plan)}


def test_every_row_without_a_uid_is_accounted_for_once_however_often_it_is_planned(
    tmp_path: Path,
) -> None:
    plan = PlanFile(tmp_path / "run", must_exist=False)
    rows = [_row("1.1"), _row(""), _row(""), _row("../x"), _row("1.2", study="1.9\\1.8")]
    for _ in range(2):
        assert _outcomes(plan, *rows) == {"planned": 1, "missing-identity": 4}
    grown = [replace(each, instance_count=13) for each in rows]
    assert _outcomes(plan, *grown) == {"planned": 1, "missing-identity": 4}
    assert _outcomes(plan, *grown, _row("", study="1.7")) == {"planned": 1, "missing-identity": 5}
    told = [
        (line.series_instance_uid, line.study_instance_uid, line.detail)
        for line in series_lines(plan)
        if line.state == "left-out"
    ]
    assert len({series for series, _, _ in told}) == 5
    assert all(series.startswith("without-uid-in-pacs-") for series, _, _ in told)
    assert {study for _, study, _ in told} == {"1.9", "1.7", ""}
    assert not any("Doe" in text or "PID" in text for each in told for text in each)
    plan.close()
