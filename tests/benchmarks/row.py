"""One line of a comparison: our figure, a peer's on the same work, and how it was come by."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Unit(StrEnum):
    """What a figure counts."""

    SECONDS = "s"
    CPU_SECONDS = "CPU s"  #: what a busy machine does not change much
    CPU_MILLISECONDS = "CPU ms"
    GFLOP = "GFLOP"
    GFLOP_PER_SECOND = "GFLOP/s"
    GB_PER_SECOND = "GB/s"
    SHARE = "share"  #: of voxels, or a Dice: 0 to 1, and no ratio of two says anything

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate."""
        return self.value.endswith("/s")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a comparison.

    Parameters
    ----------
    benchmark, work
        What was measured, and on what: sizes, formats.
    unit
        Of ``ours`` and ``theirs``.
    ours
        Our figure.
    peer, theirs
        Who did the same work in the same run, and the figure; ``None`` without a peer.
    ours_peak_mb, theirs_peak_mb
        Peak memory as the script defines it, the same for both, decimal megabytes; ``None`` if
        not measured.
    extrapolation
        How ``theirs`` was come by where the work was not done in full; empty if it was.
    rounds
        How often each side was measured; the script says whether the figure is the median or the
        best of them. ``None``: the script says that as well.
    """

    benchmark: str
    work: str
    unit: Unit
    ours: float
    peer: str | None = None
    theirs: float | None = None
    ours_peak_mb: float | None = None
    theirs_peak_mb: float | None = None
    extrapolation: str = ""
    rounds: int | None = None

    def __post_init__(self) -> None:
        if (self.peer is None) != (self.theirs is None):
            raise ValueError(f"{self.benchmark}, {self.work}: a peer and its figure go together")
        figures = (self.ours,) if self.theirs is None else (self.ours, self.theirs)
        if self.unit is Unit.SHARE:
            if not all(0 <= figure <= 1 for figure in figures):
                raise ValueError(f"{self.benchmark}, {self.work}: no share")
        elif min(figures) <= 0:
            raise ValueError(f"{self.benchmark}, {self.work}: nothing was measured")

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; below 1 it is worse; None of shares."""
        if self.theirs is None or self.unit is Unit.SHARE:
            return None
        return self.ours / self.theirs if self.unit.more_is_better else self.theirs / self.ours


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let a script take ``--json PATH``."""
    parser.add_argument("--json", type=Path, default=None, help="write the rows there as well")


def write_rows(path: Path | None, rows: Iterable[Row]) -> None:
    """Write rows where ``--json`` says, if it does."""
    if path is not None:
        path.write_text(json.dumps([as_json(row) for row in rows], indent=1) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read what ``write_rows`` wrote."""
    return [from_json(record) for record in json.loads(path.read_text())]


def as_json(row: Row) -> dict[str, object]:
    """A row with its ratio."""
    return asdict(row) | {"ratio": row.ratio}


def from_json(record: dict[str, object]) -> Row:
    """A row of its JSON."""
    fields = {name: value for name, value in record.items() if name != "ratio"}
    return Row(**{**fields, "unit": Unit(str(fields["unit"]))})  # type: ignore[arg-type]
