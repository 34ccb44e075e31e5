"""How one scan is run: which windows, along which axes, and what that takes in memory.

Importing this module imports no torch.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import StrEnum

from inference.engine.network_scan import Box
from inference.engine.region import NeededIn, Region
from inference.engine.tiling import (
    Order,
    Tiling,
    even_tiling,
    fitted_tiling,
    published_tiling,
    reach,
)
from inference.windows import Precision, WindowSpec

_FLOAT_BYTES = 4
#: Voxels whose logits exist at a time: a few MB, which stay in a processor's cache.
_CPU_VOXELS, _CARD_VOXELS = 8192, 1 << 18


def head_voxels(*, on_card: bool) -> int:
    """How many voxels go through the last layer at a time."""
    return _CARD_VOXELS if on_card else _CPU_VOXELS


class Carry(StrEnum):
    """How sums are kept that wait for the next layer of windows."""

    FP32 = "fp32"
    FP16 = "fp16"  #: half the memory; an eighth of bf16's rounding

    @property
    def size_bytes(self) -> int:
        """Of one number."""
        return 4 if self is Carry.FP32 else 2


def usual_carry(precision: Precision) -> Carry:
    """As precise as the network itself asks for."""
    return Carry.FP16 if precision is Precision.BF16 else Carry.FP32


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows of one scan.

    Parameters
    ----------
    spec
        Of the windows.
    part
        The box of the scan that they cover, ``(k, j, i)``.
    order
        Which axes of the scan the axes ``(a, b, c)`` of the tiling are.
    tiling
        The windows, in order.
    carry
        How sums wait for the next layer.
    """

    spec: WindowSpec
    part: Box
    order: Order
    tiling: Tiling
    carry: Carry

    def blending_bytes(self, features: int) -> int:
        """Memory of the sums between windows."""
        window, (_, rows, columns) = self.tiling.window, self.tiling.extents
        band = window * window * columns * _FLOAT_BYTES
        carry = self.tiling.carried * rows * columns * self.carry.size_bytes
        return (features + 1) * (band + carry)

    def held_bytes(self, features: int) -> int:
        """Memory of all that a plan decides about."""
        return self.blending_bytes(features) + self.slab_bytes()

    def slab_bytes(self) -> int:
        """Memory of the voxels of a layer."""
        return self.tiling.window * math.prod(self.tiling.extents[1:]) * _FLOAT_BYTES


def plan_windows(
    shape: tuple[int, ...],
    spec: WindowSpec,
    features: int,
    region: Region | None = None,
    carry: Carry | None = None,
) -> WindowPlan:
    """The plan with the fewest windows, and of those the one that takes least memory.

    No plan for a region takes more than that for all of the scan, which is what is estimated
    before anything is known of it. Where a small region would, for its layers overlap by more,
    they are spread over more of the scan: no further apart than those of the whole scan are, and
    no more of them.

    Parameters
    ----------
    shape
        ``(k, j, i)`` of the scan on the network's grid.
    spec
        Of the windows.
    features
        Channels that are blended.
    region
        What has to be covered; None: everything, with windows where MONAI puts them.
    carry
        None: as the precision asks for.
    """
    waiting = carry or usual_carry(spec.precision)
    if region is None or region.mask.all():  # as many windows in whatever order
        plans = _plans(shape, spec, region, waiting)
        return min(plans, key=lambda plan: plan.held_bytes(features))
    depth, height, width = shape
    everything = Region.everything((depth, height, width))
    bound = plan_windows(shape, spec, features, everything, carry).held_bytes(features)
    for is_spread in (False, True):
        plans = _plans(shape, spec, region, waiting, is_spread=is_spread)
        frugal = [plan for plan in plans if plan.held_bytes(features) <= bound]
        if frugal:
            return min(
                frugal, key=lambda plan: (plan.tiling.window_count, plan.held_bytes(features))
            )
    raise AssertionError("unreachable")  # spread layers overlap by no more than those of the scan


def _plans(
    shape: tuple[int, ...],
    spec: WindowSpec,
    region: Region | None,
    carry: Carry,
    *,
    is_spread: bool = False,
) -> list[WindowPlan]:
    """One for each order of axes; layers may be spread as far as they are enough for."""
    tight = _part(shape, spec.window_voxels, region)

    def plan(order: Order) -> WindowPlan:
        part = _spread(tight, order[0], shape[order[0]], spec) if is_spread else tight
        a, b, c = (max(part[axis].stop - part[axis].start, spec.window_voxels) for axis in order)
        if region is None:
            tiling = published_tiling((a, b, c), spec)
        elif region.mask.all():
            tiling = even_tiling((a, b, c), spec)
        else:
            tiling = fitted_tiling((a, b, c), spec, NeededIn(region, part, order))
        return WindowPlan(spec, part, order, tiling, carry)

    return [plan((a, b, 3 - a - b)) for a, b in itertools.permutations(range(3), 2)]


def _spread(part: Box, axis: int, extent: int, spec: WindowSpec) -> Box:
    """The part made as long along an axis as takes no more windows there."""
    side = part[axis]
    length = min(reach(side.stop - side.start, spec), extent)
    start = max(side.start - (length - (side.stop - side.start)) // 2, 0)
    start = min(start, extent - length)
    sides = list(part)
    sides[axis] = slice(start, start + length)
    return sides[0], sides[1], sides[2]


def _part(shape: tuple[int, ...], window: int, region: Region | None) -> Box:
    """The box that windows tile: what matters, a window wide where the scan is."""
    whole = [slice(0, extent) for extent in shape]
    found = region.box() if region is not None else None
    sides = []
    for side, all_of_it in zip(found or whole, whole, strict=True):
        missing = max(window - (side.stop - side.start), 0)
        start = max(min(side.start - missing // 2, all_of_it.stop - window), 0)
        sides.append(slice(start, min(max(side.stop, start + window), all_of_it.stop)))
    return sides[0], sides[1], sides[2]
