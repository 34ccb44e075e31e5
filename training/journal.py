"""What a run shows of itself while it goes on: CSV, TensorBoard, curves and pictures."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from training.case import STORED_SCALE, Case
from training.curves import draw_curves
from training.history import History, ValidationRow
from training.overlay import draw_overlay
from training.patch import Patch
from training.update import StepResult
from training.validation import Look

#: Steps from one line of the log to the next.
LOG_STEPS = 20


@dataclass(slots=True)
class Journal:
    """Everything that the first process writes besides checkpoints."""

    folder: Path
    history: History
    board: Any  #: tensorboardX.SummaryWriter
    log: Callable[[str], None]
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=LOG_STEPS))

    @classmethod
    def open(cls, folder: Path, step: int, log: Callable[[str], None]) -> Journal:
        """Begin after ``step``; what was written of later steps is dropped."""
        from tensorboardX import SummaryWriter  # slow to import

        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        return cls(folder, History.begin(folder, step), board, log)

    def step(self, step: int, result: StepResult, patch: Patch) -> None:
        """Note a step that was done, and one of its windows; the first is drawn."""
        self.recent.append(result.loss)
        self.history.add_loss(step, result.loss, result.learning_rate)
        self.board.add_scalar("training/loss", result.loss, step)
        self.board.add_scalar("training/learning_rate", result.learning_rate, step)
        if step == 1:
            labels = (patch.labels,)
            draw_overlay(patch.image, labels, self.folder / "pictures" / "first_window.png")
        if step % LOG_STEPS == 0:
            line: dict[str, float] = {"step": step, "loss": round(fmean(self.recent), 4)}
            if result.astray_mm is not None:
                line["astray_mm"] = round(result.astray_mm, 1)
            self.log(json.dumps(line))

    def look(self, step: int) -> Look:
        """Draws what a validation finds, one picture a case."""

        def draw(case: Case, found: npt.NDArray[np.uint8]) -> None:
            path = self.folder / "pictures" / f"{case.folder.name}_{step:07d}.png"
            image = case.image().astype(np.float32) / np.float32(STORED_SCALE)
            draw_overlay(image, (case.labels(), found), path)

        return draw

    def validation(self, row: ValidationRow) -> None:
        """Note a validation and draw the curves so far."""
        self.history.add_validation(row)
        self.board.add_scalar("validation/mean_dice", row.mean_dice, row.step)
        if row.mean_dice_5ml is not None:
            self.board.add_scalar("validation/mean_dice_5ml", row.mean_dice_5ml, row.step)
        draw_curves(self.history, self.folder / "curves.png")
        name = "mean_dice" if row.mean_dice_5ml is None else "mean_dice_5ml"
        self.log(json.dumps({"step": row.step, name: round(row.score, 4)}))

    def close(self) -> None:
        """Draw the curves once more and finish the files."""
        draw_curves(self.history, self.folder / "curves.png")
        self.board.close()
