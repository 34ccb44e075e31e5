"""Ratios as bars, for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from row import Row

WIDTH_IN, LINE_IN, DOTS_PER_INCH = 10.0, 0.13, 110
MOST_LETTERS = 62  # in a line of a label: the bars keep half of the width
BETTER, WORSE = "#2b6ca3", "#b5524a"


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """One bar a row that has a peer, on a logarithmic axis; hatched where extrapolated.

    Parameters
    ----------
    rows
        In the order from top to bottom.
    title, path
        Said above the bars; a PNG or SVG file.
    """
    shown = [row for row in rows if row.ratio is not None]
    labels = [textwrap.fill(f"{row.benchmark}: {row.work}", MOST_LETTERS) for row in shown]
    lines = 1 + max((label.count("\n") for label in labels), default=1)
    height_in = 1.2 + LINE_IN * (0.6 + lines) * max(len(shown), 2)
    figure, axes = plt.subplots(figsize=(WIDTH_IN, height_in), layout="constrained")
    for place, row in enumerate(shown):
        assert row.ratio is not None
        axes.barh(
            place,
            row.ratio - 1,
            left=1,
            color=BETTER if row.ratio >= 1 else WORSE,
            hatch="//" if row.extrapolation else None,
            edgecolor="white" if row.extrapolation else "none",
        )
        end = max(row.ratio, 1) * 1.05
        axes.text(end, place, f"{row.ratio:.2g} x {row.peer}", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    ratios = [row.ratio or 1.0 for row in shown] or [1.0]
    axes.set_xlim(min(0.5, min(ratios) / 1.3), max(ratios) * 50)  # room for the peers' names
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times better than the peer; hatched: peer extrapolated", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
