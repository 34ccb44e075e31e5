"""Loss and Dice of a run as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.history import History


def draw_curves(history: History, path: Path) -> None:
    """Write a PNG: loss, smoothed, and Dice of the validations over the steps."""
    from matplotlib.figure import Figure  # slow to import

    losses = np.asarray(history.losses())
    rows = history.validations()
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    width = max(1, len(losses) // 100)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid") if len(losses) else losses
    left.plot(np.arange(len(smooth)) + width, smooth, linewidth=1)
    left.set(xlabel="step", ylabel=f"loss, mean of {width} steps")
    steps = [row.step for row in rows]
    large = [np.nan if row.mean_dice_5ml is None else row.mean_dice_5ml for row in rows]
    right.plot(steps, large, ".-", label="5 ml and more")
    right.plot(steps, [row.mean_dice for row in rows], ".-", label="all structures")
    right.set(xlabel="step", ylabel="mean Dice", ylim=(0, 1))
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format="png")
    draft.replace(path)
