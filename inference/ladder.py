"""In which ways a scan may be segmented where memory is short, the best one first."""

from __future__ import annotations

from dataclasses import replace

from inference.engine.arithmetic import windows_on_cpu
from inference.engine.memory_fit import is_card
from inference.engine.plan import Carry, usual_carry
from inference.segmenter_options import SegmenterOptions


def ladder(options: SegmenterOptions) -> list[SegmenterOptions]:
    """As asked for; with sums between layers in half precision; both on the CPU for a card."""
    ways = _with_fewer_bytes(options)
    if is_card(options.device):
        ways += _with_fewer_bytes(on_cpu(options))
    return ways


def on_cpu(options: SegmenterOptions) -> SegmenterOptions:
    """The CPU in place of a card; what was asked for beside the device stays."""
    return replace(options, device="cpu", windows=windows_on_cpu(options.windows))


def _with_fewer_bytes(options: SegmenterOptions) -> list[SegmenterOptions]:
    """Ways to run on one device, the best one first."""
    usual = options.carry or usual_carry(options.windows.precision)
    return [options] + ([] if usual is Carry.FP16 else [replace(options, carry=Carry.FP16)])
