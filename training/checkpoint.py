"""Checkpoints: the whole state of a run and its record; whole or not at all."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.durable import durable_file
from inference.reasons import Reason
from training.errors import TrainingError
from training.history import ValidationRow
from training.record import RunRecord
from training.state import TrainingState


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds."""

    record: RunRecord
    arrays: dict[str, Any]  #: as ``TrainingState.arrays``; on the CPU
    where: Path

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.arrays["step"])

    @property
    def best(self) -> ValidationRow | None:
        """Of the validations so far; None where there was none."""
        return _row(self.arrays.get("best"))

    @property
    def judged(self) -> ValidationRow | None:
        """The last validation; of these weights if it was at the same step."""
        return _row(self.arrays.get("judged"))

    def restore(self, state: TrainingState, record: RunRecord) -> None:
        """Let ``state`` go on from here.

        Raises
        ------
        TrainingError
            ``checkpoint`` if it is of another run.
        """
        if changed := self.record.differences(record):
            raise TrainingError(
                Reason.CHECKPOINT, f"{self.where}: another run: {', '.join(changed)} differ"
            )
        if "judged" not in self.arrays:
            raise TrainingError(Reason.CHECKPOINT, f"{self.where}: of an earlier version")
        state.network.load_state_dict(self.arrays["network"])
        state.average.load_state_dict(self.arrays["average"])
        state.heads.load_state_dict(self.arrays["heads"])
        state.optimizer.load_state_dict(self.arrays["optimizer"])
        for momentum, saved in zip(state.momenta, self.arrays["momenta"], strict=True):
            momentum.copy_(saved)
        state.step, state.best, state.judged = self.step, self.best, self.judged


def _row(saved: tuple[Any, ...] | None) -> ValidationRow | None:
    return None if saved is None else ValidationRow(*saved)


def save_checkpoint(state: TrainingState, record: RunRecord, path: Path) -> None:
    """Write a checkpoint; what was there is replaced only when the new one is durable."""
    with durable_file(path) as draft, draft.open("wb") as file:
        torch.save({"record": record.to_json(), **state.arrays()}, file)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; numbers and text only, nothing in it is executed.

    Raises
    ------
    TrainingError
        ``checkpoint``.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        record = saved.pop("record")
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(Reason.CHECKPOINT, f"{path}: {reason}") from error
    return Checkpoint(RunRecord.from_json(record, str(path)), saved, path)
