"""The figures as one self-contained HTML page: no script, style or picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from inference.structures import structure
from training.evaluation.outcome import Outcome
from training.evaluation.plots import figure
from training.evaluation.summary import (
    SMALL_ML,
    Statistics,
    Summary,
    by_structure,
    of_case,
    overall,
)

_STYLE = """
body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #1c2733; margin: 2rem auto;
  max-width: 1420px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.tile { border: 1px solid #cfd8e0; border-radius: 6px; padding: .5rem .8rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.35rem; } .tile span { color: #566573; font-size: .8rem; }
.tile.bad { border-color: #c0392b; } .tile.bad b { color: #c0392b; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .82rem; }
th, td { padding: .15rem .55rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th { background: #eef2f5; cursor: pointer; position: sticky; top: 0; }
tbody tr:nth-child(even) { background: #f7f9fa; } td.bad { color: #c0392b; font-weight: 600; }
.figure text { font-size: 11px; fill: #1c2733; } .figure .panel { font-weight: 600; }
.figure .tick { font-size: 9px; fill: #566573; text-anchor: middle; }
.figure .grid { stroke: #d5dde3; stroke-width: .7; } .figure .band { fill: #f5f7f9; }
.figure .box { fill: #9ec5e8; } .figure circle { fill: #1f5f99; fill-opacity: .55; }
.figure .median { stroke: #0b2e4f; stroke-width: 2; } .note { color: #566573; max-width: 60rem; }
"""

_SORT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], at = head.cellIndex, up = head.dataset.up !== "1";
  const key = row => { const t = row.cells[at].textContent, n = parseFloat(t);
    return isNaN(n) ? t : n; };
  head.dataset.up = up ? "1" : "";
  [...body.rows].sort((a, b) => { const p = key(a), q = key(b);
    if (typeof p !== typeof q) return typeof p === "number" ? -1 : 1;
    return (p < q ? -1 : p > q ? 1 : 0) * (up ? 1 : -1); }).forEach(row => body.append(row));
});
"""

_HEADS = (
    "Dice median",
    "mean",
    "quartiles",
    "surface Dice median",
    "mean",
    "HD95 median, mm",
    "mean, mm",
    "volume error median, mL",
    "median, %",
)


def write_page(outcome: Outcome, path: Path) -> None:
    """Write the page; whole or not at all."""
    draft = path.with_name(f".{path.name}.writing")
    draft.write_text("\n".join(_page(outcome)), encoding="utf-8")
    draft.replace(path)


def _page(outcome: Outcome) -> Iterator[str]:
    labels, total = outcome.labels, overall(outcome.cases)
    title = escape(labels.title)
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield _table(("what", "which"), outcome.facts, text=(1,))
    yield '<div class="tiles">' + "".join(_tiles(outcome, total)) + "</div>"
    if outcome.failures:
        yield "<h2>Cases without figures</h2>"
        rows = [(f.name, str(f.reason), f.detail) for f in outcome.failures]
        yield _table(("case", "reason", "detail"), rows, text=(1, 2))
    swaps = [
        (case.name, structure(a.structure_id).name)
        for case in outcome.cases
        for a in case.structures
        if a.is_swapped
    ]
    if swaps:
        yield "<h2>Left and right seem to be swapped</h2>"
        yield _table(("case", "structure"), swaps, text=(1,))
    if outcome.remarks:
        yield "<h2>Remarks</h2>" + _table(("case", "remark"), outcome.remarks, text=(1,))
    yield "<h2>By structure</h2>" + f'<p class="note">{escape(_reading(outcome))}</p>'
    yield f'<div class="wide">{figure(outcome.cases)}</div>'
    presence = ("both", f"{labels.reference} only", f"{labels.other} only", "neither")
    structures = by_structure(outcome.cases).items()
    lines = [(structure(i).name, *_cells(summary)) for i, summary in structures]
    yield _table(("structure", *presence, *_HEADS), lines)
    yield "<h2>By case</h2>"
    lines = [(case.name, *_cells(of_case(case))) for case in outcome.cases]
    yield _table(("case", *presence, *_HEADS), lines)
    yield f"<script>{_SORT}</script></body></html>\n"


def _tiles(outcome: Outcome, total: Summary) -> Iterator[str]:
    labels, presence = outcome.labels, total.presence
    yield _tile(str(len(outcome.cases)), "cases")
    if outcome.failures:
        yield _tile(str(len(outcome.failures)), "cases without figures", bad=True)
    yield _tile(str(presence.both), "structures on both sides")
    yield _tile(_mean(total.dice), "mean Dice")
    yield _tile(_number(total.dice_missing_as_zero), "mean Dice, missing as 0")
    large = f"the same, {SMALL_ML:g} mL and more"
    yield _tile(_number(total.dice_missing_as_zero_large), large)
    yield _tile(_mean(total.surface_dice), "mean surface Dice")
    yield _tile(_median(total.hd95_mm, 1), "median HD95, mm")
    yield _tile(str(presence.reference_only), f"{labels.reference} only")
    yield _tile(str(presence.other_only), f"{labels.other} only")
    yield _tile(str(total.swapped), "left/right swaps", bad=total.swapped > 0)


def _reading(outcome: Outcome) -> str:
    return (
        "Dots are scans, bars reach from the lower to the upper quartile, dark lines are medians. "
        "Overlap, distance and volume are over scans in which both sides show the structure; "
        f"presence is counted apart. Volume error is {outcome.labels.other} less "
        f"{outcome.labels.reference}. All figures of every scan are in structures_by_case.csv."
    )


def _cells(summary: Summary) -> Sequence[str]:
    presence, dice = summary.presence, summary.dice
    quartiles = "" if dice is None else f"{dice.lower_quartile:.3f} to {dice.upper_quartile:.3f}"
    return (
        str(presence.both),
        str(presence.reference_only),
        str(presence.other_only),
        str(presence.neither),
        _median(dice),
        _mean(dice),
        quartiles,
        _median(summary.surface_dice),
        _mean(summary.surface_dice),
        _median(summary.hd95_mm, 2),
        _mean(summary.hd95_mm, 2),
        _median(summary.volume_error_ml, 2),
        _median(summary.volume_error_percent, 1),
    )


def _mean(statistics: Statistics | None, digits: int = 3) -> str:
    return _number(None if statistics is None else statistics.mean, digits)


def _median(statistics: Statistics | None, digits: int = 3) -> str:
    return _number(None if statistics is None else statistics.median, digits)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _tile(value: str, caption: str, bad: bool = False) -> str:
    kind = "tile bad" if bad else "tile"
    return (
        f'<div class="{kind}"><b>{escape(value or "none")}</b><span>{escape(caption)}</span></div>'
    )


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]], text: Sequence[int] = ()) -> str:
    parts = ['<div class="wide"><table><thead><tr>']
    for number, head in enumerate(heads):
        kind = ' class="text"' if number in text else ""
        parts.append(f"<th{kind}>{escape(head)}</th>")
    parts.append("</tr></thead><tbody>")
    for row in rows:
        cells = (
            f'<td class="text">{escape(cell)}</td>' if n in text else f"<td>{escape(cell)}</td>"
            for n, cell in enumerate(row)
        )
        parts.append("<tr>" + "".join(cells) + "</tr>")
    parts.append("</tbody></table></div>")
    return "".join(parts)
