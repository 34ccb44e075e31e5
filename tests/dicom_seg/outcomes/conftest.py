"""What becomes of a series, and series to try it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import LeftOut, Outcome, SeriesRules
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.reasons import Reason
from inference.volume import Volume


@pytest.fixture(scope="session")
def body() -> Callable[..., Volume]:
    """``body(geometry, hu=40)``: a block of tissue in air, another value in every plane."""

    def make(geometry: Geometry, hu: int = 40) -> Volume:
        array = np.full(geometry.shape, -1000, dtype=np.int16)
        array[:, 4:-4, 4:-4] = hu + np.arange(geometry.shape[0])[:, None, None]
        return Volume(array, geometry)

    return make


@dataclass(frozen=True)
class Verdict:
    """What became of a series, its pixels read where that is how it goes on."""

    outcome: Outcome
    reason: Reason | None
    detail: str
    findings: frozenset[Reason]
    left_out: tuple[LeftOut, ...]
    stacks: int


@pytest.fixture(scope="session")
def judge() -> Callable[..., Verdict]:
    """``judge(paths, rules)`` examines a series, and reads it where that is how it goes on."""
    return _judge


def _judge(paths: Sequence[Path], rules: SeriesRules | None = None) -> Verdict:
    found = examine_series(paths, rules or SeriesRules())
    used = [(row.path, row.frame_number) for plan in found.stacks for row in plan.table.rows]
    assert len(set(used)) == len(used)
    accounted = {path for path, _ in used} | {out.path for out in found.left_out}
    assert accounted == set(paths), "every file is used or listed with its reason"
    findings = {f.reason for plan in found.stacks for f in plan.findings}
    outcome, reason, detail = found.outcome, found.reason, found.detail
    try:
        for plan in found.stacks:
            findings |= {f.reason for f in read_stack(plan).findings}
    except SeriesRefusedError as error:
        outcome, reason, detail = Outcome.REFUSE, error.reason, error.detail
    return Verdict(outcome, reason, detail, frozenset(findings), found.left_out, len(found.stacks))


@pytest.fixture
def write(tmp_path: Path, body: Callable[..., Volume]) -> Callable[..., list[Path]]:
    """``write(volume or geometry, **options)``: a series in a folder of its own."""

    def written(what: Volume | Geometry | None = None, **options: object) -> list[Path]:
        where = stack((12, 24, 30), (3.0, 1.7, 1.5)) if what is None else what
        volume = where if isinstance(where, Volume) else body(where)
        folder = tmp_path / f"series{len(list(tmp_path.iterdir()))}"
        return write_ct_series(volume, folder, SeriesOptions(**options))

    return written
