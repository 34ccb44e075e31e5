"""One figure as inline SVG: a row a structure, a panel a figure, a dot a scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from inference.structures import structure
from training.evaluation.figures import CaseFigures, StructureFigures
from training.evaluation.summary import Statistics

_ROW = 15  #: pixels
_NAMES = 190
_PANEL = 215
_GAP = 34
_HEAD = 46
#: With more dots a row, only the quartiles and the worst scans are drawn.
_MOST_DOTS = 60
_WORST = 3


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of every structure.

    Parameters
    ----------
    title
        With its unit.
    value
        The figure of a structure in a scan; None where it does not exist.
    ticks
        Where the axis is labelled; the first and last are its ends.
    badness
        Larger is worse.
    logarithmic
        Of the axis; values are clipped to its ends.
    """

    title: str
    value: Callable[[StructureFigures], float | None]
    ticks: tuple[float, ...]
    badness: Callable[[float], float]
    logarithmic: bool = False

    def x(self, value: float) -> float:
        """Pixels from the left end of the panel."""
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return _PANEL * (value - low) / (high - low)


PANELS = (
    Panel("Dice", lambda a: a.dice, (0, 0.2, 0.4, 0.6, 0.8, 1), lambda v: -v),
    Panel("surface Dice", lambda a: a.surface_dice, (0, 0.2, 0.4, 0.6, 0.8, 1), lambda v: -v),
    Panel("HD95, mm", lambda a: a.hd95_mm, (0.5, 1, 2, 5, 10, 20, 50, 100), lambda v: v, True),
    Panel("volume error, %", lambda a: a.volume_error_percent, (-100, -50, 0, 50, 100), abs),
)


def figure(cases: Sequence[CaseFigures]) -> str:
    """The SVG of all structures that both sides show in some case; empty if there are none."""
    rows: dict[int, list[tuple[str, StructureFigures]]] = {}
    for case in cases:
        for agreement in case.structures:
            if agreement.dice is not None:
                rows.setdefault(agreement.structure_id, []).append((case.name, agreement))
    if not rows:
        return ""
    width = _NAMES + len(PANELS) * (_PANEL + _GAP)
    height = _HEAD + len(rows) * _ROW + 8
    parts = [
        f'<svg class="figure" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Figures by structure">'
    ]
    for line, structure_id in enumerate(sorted(rows)):
        y = _HEAD + line * _ROW
        if line % 2:
            parts.append(f'<rect class="band" x="0" y="{y}" width="{width}" height="{_ROW}"/>')
        name = escape(structure(structure_id).name)
        parts.append(f'<text x="{_NAMES - 10}" y="{y + 11}" text-anchor="end">{name}</text>')
    for number, panel in enumerate(PANELS):
        left = _NAMES + number * (_PANEL + _GAP)
        parts.append(f'<g transform="translate({left} 0)">')
        parts += _axis(panel, height)
        for line, structure_id in enumerate(sorted(rows)):
            parts += _row(panel, _HEAD + line * _ROW, rows[structure_id])
        parts.append("</g>")
    parts.append("</svg>")
    return "\n".join(parts)


def _axis(panel: Panel, height: int) -> Iterator[str]:
    yield f'<text class="panel" x="0" y="16">{escape(panel.title)}</text>'
    for tick in panel.ticks:
        x = panel.x(tick)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 6}" y2="{height - 6}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{_HEAD - 12}">{tick:g}</text>'


def _row(panel: Panel, y: int, row: Sequence[tuple[str, StructureFigures]]) -> Iterator[str]:
    known = [(name, v) for name, a in row if (v := panel.value(a)) is not None]
    statistics = Statistics.of(value for _, value in known)
    if statistics is None:
        return
    middle = y + _ROW / 2
    if statistics.n > 1:
        low, high = panel.x(statistics.lower_quartile), panel.x(statistics.upper_quartile)
        yield (
            f'<rect class="box" x="{low:.1f}" y="{y + 3}" '
            f'width="{max(high - low, 1):.1f}" height="{_ROW - 6}"/>'
        )
    if statistics.n > _MOST_DOTS:
        known = sorted(known, key=lambda item: panel.badness(item[1]), reverse=True)[:_WORST]
    for name, value in known:
        yield (
            f'<circle cx="{panel.x(value):.1f}" cy="{middle:.1f}" r="2.6">'
            f"<title>{escape(name)}: {value:.4g}</title></circle>"
        )
    x = panel.x(statistics.median)
    yield f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2}" y2="{y + _ROW - 2}"/>'
