"""The segmenter of a job, got when its turn at the device has come."""

from __future__ import annotations

from collections.abc import Callable

from inference.engine.heap import give_back_heap
from inference.errors import ModelError
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Progress, Segmenter, fitted_segmenter
from inference.volume import Volume

#: Memory may be free and the device in order at the next attempt; or it is this job each time.
COUNTED = (Reason.OOM_CPU, Reason.OOM_GPU, Reason.MODEL_ERROR)


class LateSegmenter:
    """A ``Segmenter`` that is loaded when it is first used.

    Parameters
    ----------
    get
        Loads it, or gives the one that is warm.
    look_at_device
        Called after a failure that the device may be to blame for.
    """

    def __init__(self, get: Callable[[], Segmenter], look_at_device: Callable[[], None]) -> None:
        self._get = get
        self._look_at_device = look_at_device
        self._identity: SegmenterIdentity | None = None

    @property
    def identity(self) -> SegmenterIdentity:
        """Of the segmenter."""
        if self._identity is None:
            self._identity = self._get().identity
        return self._identity

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """See ``Segmenter.segment``."""
        try:
            # not kept: another job may need another model
            segmenter = fitted_segmenter(self._get(), volume.geometry, is_read=True)
            self._identity = segmenter.identity
            labels = segmenter.segment(volume, progress)
            self._identity = segmenter.identity  # says now what was left out
            return labels
        except ModelError as error:
            if error.reason in COUNTED:
                self._look_at_device()
            raise
        finally:
            # Each job has a thread and the C library a heap for each: what this one kept for its
            # next window is of no use to the next job, and would stand beside its own.
            give_back_heap()
