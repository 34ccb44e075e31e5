"""From a planned stack to its volume in Hounsfield units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dicom_seg.examination import StackPlan
from inference.finding import Finding
from inference.volume import Volume


@dataclass(frozen=True, slots=True, eq=False)
class SourceStack:
    """The planes of one stack as a volume; plane ``z`` is row ``z`` of the plan's table."""

    volume: Volume
    plan: StackPlan
    findings: tuple[Finding, ...]  #: those of the plan and those of the pixels


def read_stack(
    plan: StackPlan,
    workers: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> SourceStack:
    """Decode the planes of ``plan`` in parallel into one int16 volume ``(z, y, x)``."""
    raise NotImplementedError
