"""Trials: what a machine must be able to do for any job, tried without one.

When a job fails, its series may be to blame or the machine. Work that is known to be good tells
the two apart: if that fails as well, it was not the series.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EIO
from pathlib import Path

import numpy as np

from inference.errors import InferenceError, ModelError
from inference.geometry import Geometry
from inference.reasons import Reason
from inference.segmenter import Segmenter
from inference.volume import AIR_HU, Volume
from pacs_bridge.errors import TransientError
from pacs_bridge.late_segmenter import COUNTED
from pacs_bridge.memory_ledger import MemoryShare

#: Of the block that is segmented: less than one window of either published model.
TRIAL_SHAPE = (24, 24, 24)
_SPACING_MM = 3.0
_FILE_BYTES = 16 * 2**20  #: more than the results of one series

_OF_STORE = (Reason.UNKNOWN_MODEL, Reason.MODEL_CHECKSUM, Reason.MODEL_MANIFEST)
_OF_FOLDER = (Reason.DISK_FULL, Reason.QUEUE_UNAVAILABLE, Reason.INTERNAL_ERROR)

#: Does what it is a trial of, and raises what went wrong.
Trial = Callable[[], None]


def try_segmenter(segmenter: Segmenter) -> None:
    """Segment a block of water in air.

    Raises
    ------
    InferenceError
        As ``Segmenter.segment``.
    """
    hu = np.full(TRIAL_SHAPE, AIR_HU, dtype=np.int16)
    hu[4:-4, 4:-4, 4:-4] = 0
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[[2, 1, 0], [0, 1, 2]] = _SPACING_MM
    volume = Volume(hu, Geometry.from_affine(affine, TRIAL_SHAPE))
    segmenter.segment(volume, lambda _share: None)


def try_segmenters(segmenters: Sequence[Segmenter]) -> None:
    """Try one after the other until one succeeds: then the others have a fault of their own.

    Raises
    ------
    ModelError
        For what the first one failed with, if all fail.
    """
    faults: list[tuple[Reason, str]] = []  # no error is kept: its frames hold memory
    for each in segmenters:
        try:
            try_segmenter(each)
        except (InferenceError, TransientError) as error:
            faults.append((error.reason, error.detail))
        else:
            return
    raise ModelError(*faults[0])


def try_folder(folder: Path) -> None:
    """Write a file, bring it to the disk and read it; it is gone when this ends, however it ends.

    Raises
    ------
    OSError
        If that is not possible, or something else was read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = os.urandom(2**20) * (_FILE_BYTES // 2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        if file.read() != written:
            raise OSError(EIO, "what was written is not what is read")


def beside_jobs(trial: Trial, memory: MemoryShare) -> Trial:
    """A trial that says what memory it takes as jobs do, and keeps none of it.

    Parameters
    ----------
    trial
        Its segmenters have ``memory`` for theirs.
    memory
        Its part of what all who are at work may take.
    """

    def run() -> None:
        with memory.stack():
            trial()

    return run


@dataclass(frozen=True, slots=True)
class Trials:
    """The trial that tells whether a failure was the machine's."""

    folder: Path  #: where the work of a job is written

    def after(self, reason: Reason, segmenters: Sequence[Segmenter]) -> Trial | None:
        """The trial of what failed for a reason; None if no machine is ever to blame for it.

        Parameters
        ----------
        reason
            Of the failure.
        segmenters
            The one that was at work, or was to be, and one of each other model of this machine;
            they may be loaded when they are first used.
        """
        if self.is_of_device(reason):
            return lambda: try_segmenters(segmenters)
        if reason in _OF_FOLDER:
            return lambda: try_folder(self.folder)
        return None

    def is_of_device(self, reason: Reason) -> bool:
        """Whether the trial of what failed for a reason segments something."""
        return reason in COUNTED + _OF_STORE
