"""Rows as a table, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence

from row import Row

HEADINGS = ("benchmark", "work", "unit", "ours", "peer", "its", "ratio", "MB", "its MB", "")


def cells(row: Row) -> tuple[str, ...]:
    """What is said of one row."""
    return (
        row.benchmark,
        row.work,
        row.unit.value,
        number(row.ours),
        row.peer or "",
        number(row.theirs),
        number(row.ratio),
        number(row.ours_peak_mb),
        number(row.theirs_peak_mb),
        f"extrapolated: {row.extrapolation}" if row.extrapolation else "",
    )


def number(value: float | None) -> str:
    """Three digits, without exponents."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(rows: Sequence[Row]) -> str:
    """Columns in line."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = {0, 1, 2, 4, len(HEADINGS) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """The same for a page."""
    rule = ["---" if column in {0, 1, 2, 4, 9} else "---:" for column in range(len(HEADINGS))]
    lines = [HEADINGS, rule, *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
