"""What segments: the seam between the model and everything that uses label maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.volume import Volume

#: Told the finished share of the work, 0 to 1, non-decreasing.
Progress = Callable[[float], None]


class Segmenter(Protocol):
    """Turns a CT into a label map on the same planes."""

    @property
    def identity(self) -> SegmenterIdentity:
        """Who makes the label maps."""

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """Label every voxel of ``volume``.

        Parameters
        ----------
        volume
            CT numbers on parallel planes.
        progress
            Told the finished share of the work.

        Raises
        ------
        InferenceError
            ``model-error``, ``oom-cpu`` or ``oom-gpu``.
        """
