"""The network over a whole scan, window by window, in bounded memory.

Windows, weights and border padding are those of MONAI's ``SlidingWindowInferer`` as the
published model uses it. What differs is where windows are blended: in the 32 channels before
the last layer instead of its 105 logits (``inference.engine.split_network``), and only where
windows to come still reach (``inference.engine.blending``). The scan, too, exists only where
the current layer of windows needs it. The result differs from MONAI's at ties within
rounding only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inference.engine.blending import Blend
from inference.engine.network_scan import Box
from inference.engine.plan import Carry, WindowPlan, plan_windows
from inference.engine.slab import Slab, WindowSource
from inference.engine.split_network import SplitNetwork, importance_map
from inference.engine.tiling import Order
from inference.errors import ModelError
from inference.reasons import Reason
from inference.windows import WindowSpec

__all__ = ["SplitNetwork", "importance_map", "segment_scan", "segment_windows"]

#: Told the finished share of the work, 0 to 1, non-decreasing.
Progress = Callable[[float], None]


def segment_windows(
    network: SplitNetwork,
    array: npt.NDArray[np.float32],
    spec: WindowSpec,
    progress: Progress | None = None,
) -> npt.NDArray[np.uint8]:
    """The most likely class of each voxel of an array.

    Parameters
    ----------
    network
        On the device that does the work, in the precision of ``spec``.
    array
        ``(x, y, z)``, -1..1; any memory layout.
    spec
        How windows cover it.
    progress
        Told the finished share of windows.

    Returns
    -------
    ``(x, y, z)`` uint8, in the memory layout of ``array``.

    Raises
    ------
    ModelError
        ``model-error`` if the network gives values that are not finite.
    """
    labels = np.empty_like(array, dtype=np.uint8, order="K")
    plan = plan_windows(array.shape, spec, network.features)
    segment_scan(network, _WholeArray(array), plan, labels, progress)
    return labels


@torch.inference_mode()
def segment_scan(
    network: SplitNetwork,
    source: WindowSource,
    plan: WindowPlan,
    found: npt.NDArray[np.uint8],
    progress: Progress | None = None,
) -> None:
    """Fill ``found`` with the most likely class of each voxel that windows cover.

    Parameters
    ----------
    network
        On the device that does the work, in the precision of ``plan.spec``.
    source
        The scan.
    plan
        Which windows, in which order.
    found
        ``(k, j, i)`` of the source: labels; or ``(k, j, i, 4)``: standings
        (``inference.standings``). Voxels that no window covers become background.
    progress
        Told the finished share of windows.

    Raises
    ------
    ModelError
        ``model-error`` if the network gives values that are not finite.
    """
    found[...] = 0
    ranked = found.ndim == 4
    tiling = plan.tiling
    slab = Slab(source, plan.part, plan.order, tiling.window, network.device)
    blocks = found if ranked else found[..., None]
    out = blocks[plan.part].transpose((*plan.order, 3))

    def place(a: int, b: int, block: torch.Tensor) -> None:
        _place(
            block.cpu().numpy(), (a - slab.padding[0], b - slab.padding[1]), slab.padding[2], out
        )

    carry_type = torch.float16 if plan.carry is Carry.FP16 else torch.float32
    blend = Blend(network, tiling, carry_type, place, ranked)
    windows = _Windows(network, plan.spec, source.network_axes, plan.order)
    ends = [*(layer.start for layer in tiling.layers[1:]), tiling.extents[0]]
    done = 0
    for layer, end in zip(tiling.layers, ends, strict=True):
        slab.advance(layer.start)
        blend.begin_layer(layer.start, min(end - layer.start, tiling.window))
        for band in layer.bands:
            blend.begin_band(band.start)
            for column in band.columns:
                slab.window(band.start, column, windows.buffer)
                blend.add(column, windows.features())
                done += 1
                if progress is not None:
                    progress(done / tiling.window_count)
        blend.end_layer()


class _Windows:
    """Runs the network on one window at a time, in a buffer that is kept."""

    def __init__(
        self,
        network: SplitNetwork,
        spec: WindowSpec,
        network_axes: tuple[int, int, int],
        order: Order,
    ) -> None:
        self._network = network
        layout = torch.channels_last_3d if spec.channels_last else torch.contiguous_format
        self._input = torch.zeros(
            (1, 1, *(spec.window_voxels,) * 3), device=network.device
        ).contiguous(memory_format=layout)
        self._to_scan = (*(network_axes[axis] + 1 for axis in order), 0)

    @property
    def buffer(self) -> torch.Tensor:
        """``(x, y, z)``, where the next window is put."""
        return self._input[0, 0]

    def features(self) -> torch.Tensor:
        """``(a, b, c, features)`` of the window in the buffer."""
        found: torch.Tensor = self._network.body(self._input)[0]
        if not bool(torch.isfinite(found.sum(dtype=torch.float32))):
            raise ModelError(Reason.MODEL_ERROR, "the network gave values that are not finite")
        return found.permute(self._to_scan)


@dataclass(frozen=True, slots=True, eq=False)
class _WholeArray:
    """An ``(x, y, z)`` array in memory as a source of windows."""

    array: npt.NDArray[np.float32]
    network_axes: tuple[int, int, int] = (0, 1, 2)

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.array.shape
        return x, y, z

    def fill(self, box: Box, out: npt.NDArray[np.float32]) -> None:
        out[...] = self.array[box]


def _place(
    block: npt.NDArray[np.uint8], at: tuple[int, int], before: int, out: npt.NDArray[np.uint8]
) -> None:
    """Copy a block to where it belongs, padding cut off."""
    a, b = (
        slice(max(-start, 0), max(n - start, 0)) for start, n in zip(at, out.shape, strict=False)
    )
    some = block[a, b, before : before + out.shape[2]]
    first, row = (max(start, 0) for start in at)
    out[first : first + some.shape[0], row : row + some.shape[1]] = some
