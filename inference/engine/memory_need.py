"""What a run takes in memory, estimated before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.engine.plan import WindowPlan, head_voxels
from inference.windows import Precision

#: Whole volumes of features that the network holds at its peak, as measured on a CPU (8.1 and 11.0
#: at most): with them what a kept heap cannot use again, which is more where blocks are larger.
_LIVE_FEATURE_VOLUMES = {Precision.BF16: 9, Precision.FP32: 12}
#: Of a voxel in the box of a structure that is cleaned up, as measured.
_CLEAN_UP_BYTES = 10
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a run takes beyond what the process holds before it.

    Parameters
    ----------
    device
        Where the network runs: window, sums, slab, logits.
    host
        In main memory whatever the device: labels on both grids, or standings on the network's.
    source
        The int16 scan itself.
    after
        In main memory once the network is done: labels, and what their clean-up takes.
    beside_card
        In main memory while a card computes: the slab, which is made there.
    """

    device: int
    host: int
    source: int
    after: int = 0
    beside_card: int = 0

    def main_bytes(self, *, on_card: bool, is_read: bool) -> int:
        """Of main memory.

        Parameters
        ----------
        on_card
            Whether the network runs on a card.
        is_read
            Whether the scan is in memory already.
        """
        computing = self.beside_card if on_card else self.device
        return max(computing + self.host, self.after) + (0 if is_read else self.source)

    def with_coarse_pass(self, coarse: MemoryNeed, kept: int) -> MemoryNeed:
        """The same after a coarse pass that needs ``coarse`` and leaves ``kept`` bytes."""
        return MemoryNeed(
            device=max(self.device, coarse.device),
            host=max(self.host, coarse.host) + kept,
            source=self.source,
            after=max(self.after, coarse.after) + kept,
            beside_card=max(self.beside_card, coarse.beside_card),
        )


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A scan, and how it is run.

    Parameters
    ----------
    plan
        Its windows.
    features, classes
        Channels at full resolution, before and after the last layer.
    grid, source
        Shapes of the network's grid and of the scan, voxels.
    grid_voxel_bytes
        What is kept of each voxel of the network's grid until all are labelled.
    is_cleaned
        Whether labels are cleaned up, which takes most for a structure that fills the scan.
    on_card
        Whether the network runs on a card.
    """

    plan: WindowPlan
    features: int
    classes: int
    grid: tuple[int, ...]
    source: tuple[int, ...]
    grid_voxel_bytes: int = 1
    is_cleaned: bool = False
    on_card: bool = False

    def memory_need(self) -> MemoryNeed:
        """Estimate of this run."""
        plan = self.plan
        voxels = math.prod(self.source)
        logits = head_voxels(on_card=self.on_card) * self.classes * _FLOAT_BYTES
        sums = plan.blending_bytes(self.features) + plan.slab_bytes()
        return MemoryNeed(
            device=self._window_bytes() + sums + logits,
            host=math.prod(self.grid) * self.grid_voxel_bytes + voxels,
            source=2 * voxels,
            after=voxels * (1 + (_CLEAN_UP_BYTES if self.is_cleaned else 0)),
            beside_card=plan.slab_bytes(),
        )

    def _window_bytes(self) -> int:
        """Features of one window, and on a card their copy in single precision for the sums."""
        precision = self.plan.spec.precision
        is_half = precision is Precision.BF16
        number_bytes = _FLOAT_BYTES // 2 if is_half else _FLOAT_BYTES
        copy_bytes = _FLOAT_BYTES if self.on_card and is_half else 0
        volume = self.plan.spec.window_voxels**3 * self.features
        return volume * (number_bytes * _LIVE_FEATURE_VOLUMES[precision] + copy_bytes)
