"""Rows as a table, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence

from row import Row, Unit

HEADINGS = (
    "benchmark",
    "work",
    "unit",
    "ours",
    "peer",
    "its",
    "ratio",
    "MB",
    "its MB",
    "rounds",
    "",
)
LEFT = frozenset({0, 1, 2, 4, len(HEADINGS) - 1})  #: columns of words


def cells(row: Row) -> tuple[str, ...]:
    """What is said of one row."""
    return (
        row.benchmark,
        row.work,
        row.unit.value,
        figure(row.ours, row.unit),
        row.peer or "",
        figure(row.theirs, row.unit),
        number(row.ratio),
        number(row.ours_peak_mb),
        number(row.theirs_peak_mb),
        number(row.rounds),
        f"extrapolated: {row.extrapolation}" if row.extrapolation else "",
    )


def figure(value: float | None, unit: Unit) -> str:
    """As many digits as differ."""
    return f"{value:.5f}" if unit is Unit.SHARE and value is not None else number(value)


def number(value: float | None) -> str:
    """Three digits, without exponents."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(rows: Sequence[Row]) -> str:
    """Columns in line."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """The same for a page."""
    rule = ["---" if column in LEFT else "---:" for column in range(len(HEADINGS))]
    lines = [HEADINGS, rule, *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
