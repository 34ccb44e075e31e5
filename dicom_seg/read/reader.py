"""From a planned stack to its volume in Hounsfield units."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.hounsfield import PlaneCounts
from dicom_seg.read.pixels import PlaneReader
from dicom_seg.read.slice_table import SliceTable
from inference.finding import Finding
from inference.plausibility import implausible_hu
from inference.reasons import Reason
from inference.volume import Volume

#: Padding of a higher value than this would hide tissue.
_TISSUE_HU: Final = -500


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
    """Decode the planes of ``plan`` in parallel into one int16 volume ``(z, y, x)``.

    Besides the volume itself no more memory is taken than a few planes.

    Parameters
    ----------
    workers
        Threads; one a usable processor if None.
    progress
        Called with the share of planes that are read, 0 to 1, from the calling thread.

    Raises
    ------
    SeriesRefusedError
        `corrupt-pixel-data` naming the instance, `unreadable-file` or `source-missing` if a
        file has gone, `oom-cpu`.
    """
    table = plan.table
    geometry = table.geometry()
    try:
        hu = np.empty(geometry.shape, np.int16)
    except MemoryError as error:
        raise SeriesRefusedError(Reason.OOM_CPU, f"a volume of {geometry.shape}") from error
    counts = _read_planes(table, hu, workers or len(os.sched_getaffinity(0)), progress)
    findings = (*plan.findings, *_findings(table, hu, counts))
    return SourceStack(Volume(hu, geometry), plan, findings)


def _read_planes(
    table: SliceTable,
    hu: npt.NDArray[np.int16],
    workers: int,
    progress: Callable[[float], None] | None,
) -> list[PlaneCounts]:
    """Fill ``hu``; stops at the first plane that fails."""
    reader = PlaneReader(table.rows)
    counts = []
    with ThreadPoolExecutor(workers, thread_name_prefix="plane") as executor:
        tasks = [executor.submit(reader.read, row, hu[z]) for z, row in enumerate(table.rows)]
        try:
            for task in as_completed(tasks):
                counts.append(task.result())
                if progress is not None:
                    progress(len(counts) / len(tasks))
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return counts


def _findings(
    table: SliceTable, hu: npt.NDArray[np.int16], counts: Sequence[PlaneCounts]
) -> list[Finding]:
    findings = []
    rounded = sum(count.rounded for count in counts)
    clipped = sum(count.clipped for count in counts)
    if rounded:
        findings.append(Finding(Reason.HU_ROUNDED, f"{rounded} voxels"))
    if clipped:
        findings.append(Finding(Reason.HU_CLIPPED, f"{clipped} voxels"))
    implausible = implausible_hu(hu) or _tissue_as_padding(table, counts)
    if implausible:
        findings.append(Finding(Reason.IMPLAUSIBLE_HU, implausible))
    return findings


def _tissue_as_padding(table: SliceTable, counts: Sequence[PlaneCounts]) -> str:
    """Padding is air to the network, whatever its value: said where the value is tissue."""
    padded = sum(count.padded for count in counts)
    highest = max(
        (row.padding[1] * row.rescale_slope + row.rescale_intercept
         for row in table.rows if row.padding is not None),
        default=float("-inf"),
    )  # fmt: skip
    if padded and highest > _TISSUE_HU:
        return f"{padded} voxels of padding with a value of up to {highest:.0f} HU"
    return ""
