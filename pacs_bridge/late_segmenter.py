"""The segmenter of a job, got when its turn at the device has come."""

from __future__ import annotations

from collections.abc import Callable

from inference.engine.heap import give_back_heap
from inference.errors import ModelError
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Progress, Segmenter, fitted_segmenter, settles_how_it_runs
from inference.volume import Volume
from pacs_bridge.memory_ledger import MemoryShare

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
    memory
        Of the job; None: nobody works beside it.
    """

    def __init__(
        self,
        get: Callable[[], Segmenter],
        look_at_device: Callable[[], None],
        memory: MemoryShare | None = None,
    ) -> None:
        self._get = get
        self._look_at_device = look_at_device
        self._memory = memory or MemoryShare()
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
            segmenter = self._get()
            wanted = _main_memory_bytes(segmenter, volume.geometry)
            with self._memory.computing(wanted) as promised:
                return self._segment(segmenter, volume, promised, progress)
        except ModelError as error:
            if error.reason in COUNTED:
                self._look_at_device()
            raise

    def _segment(
        self, segmenter: Segmenter, volume: Volume, promised: int, progress: Progress | None
    ) -> LabelMap:
        try:
            # not kept: another job may need another model
            fitted = fitted_segmenter(
                segmenter, volume.geometry, is_read=True, promised_bytes=promised
            )
            self._memory.fitted(_main_memory_bytes(fitted, volume.geometry))
            self._identity = fitted.identity
            labels = fitted.segment(volume, progress)
            self._identity = fitted.identity  # says now what was left out
            return labels
        finally:
            # What this job kept for its next window is free: the next one is not to wait for it.
            give_back_heap()


def _main_memory_bytes(segmenter: Segmenter, geometry: Geometry) -> int:
    """What it takes beyond the scan, as far as it says so."""
    return segmenter.main_memory_bytes(geometry) if settles_how_it_runs(segmenter) else 0
