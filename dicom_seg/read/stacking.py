"""Which stacks the planes of a series make, and which planes stay behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import LeftOut, SeriesRules
from dicom_seg.read.pixels import PlaneReader
from dicom_seg.read.planes import Plane
from dicom_seg.read.stack_shape import check_one_grid, is_even, shape_findings
from dicom_seg.read.stacks import (
    Stack,
    beside,
    by_orientation,
    collisions,
    identity_of,
    in_order,
    overlap,
    positions_mm,
    separate,
)
from inference.finding import Finding
from inference.reasons import Reason

_SHOWN = 4
#: Stacks that an attribute may make of planes of which two share a position.
_STACKS_A_PLANE = 2


@dataclass(frozen=True, slots=True)
class Stacking:
    """The usable stacks of a series."""

    stacks: tuple[Stack, ...]
    findings: tuple[tuple[Finding, ...], ...]  #: of each stack
    left_out: tuple[LeftOut, ...]


def stack_planes(planes: Sequence[Plane], rules: SeriesRules) -> Stacking:
    """Sort planes into stacks.

    Pixels are read only where planes share a position and nothing else tells them apart.

    Raises
    ------
    SeriesRefusedError
        With the reason for which there is no stack to process, which may be one to skip.
    """
    if len(planes) < rules.min_slices:
        raise SeriesRefusedError(
            Reason.TOO_FEW_SLICES, f"{len(planes)} planes, fewer than {rules.min_slices}"
        )
    parallel, findings, left_out = _one_orientation(planes, rules)
    check_one_grid(parallel)
    ordered, twins = _without_twins(in_order(parallel))
    left_out += twins
    stacks = _separated(ordered, rules)
    if twins:
        detail = f"{len(twins)} planes: {_uids(twin.sop_instance_uid for twin in twins)}"
        findings.append(Finding(Reason.DUPLICATE_SLICE, detail))
    if len(stacks) > 1:
        keyword = ", ".join(part.split("=")[0] for part in stacks[0].separated_by.split(", "))
        findings.append(Finding(Reason.SPLIT_STACK, f"{len(stacks)} stacks by {keyword}"))
    return _usable(stacks, tuple(findings), left_out, rules)


def leave_out(planes: Iterable[Plane], reason: Reason, detail: str) -> list[LeftOut]:
    """Planes that are not used, for one reason."""
    return [
        LeftOut(plane.row.path, plane.row.sop_instance_uid, plane.row.frame_number, reason, detail)
        for plane in planes
    ]


def _one_orientation(
    planes: Sequence[Plane], rules: SeriesRules
) -> tuple[tuple[Plane, ...], list[Finding], list[LeftOut]]:
    groups = by_orientation(planes)
    if len(groups) == 1:
        return groups[0], [], []
    sizes = ", ".join(str(len(group)) for group in groups[:_SHOWN])
    detail = f"{len(groups)} orientations, of {sizes} planes"
    enough = [group for group in groups if len(group) >= rules.min_slices]
    if len(enough) != 1:
        raise SeriesRefusedError(Reason.MIXED_ORIENTATION, detail)
    others = [plane for group in groups if group is not enough[0] for plane in group]
    return (
        enough[0],
        [Finding(Reason.MIXED_ORIENTATION, detail)],
        leave_out(others, Reason.OTHER_STACK, "another orientation"),
    )


def _separated(planes: tuple[Plane, ...], rules: SeriesRules) -> list[Stack]:
    """Stacks in which no two planes share a position."""
    shared = collisions(planes)
    if not shared:
        if is_even(planes):
            return [Stack(planes, "")]
        return _interleaved(planes, rules) or [Stack(planes, "")]
    most = _STACKS_A_PLANE * max(len(group) for group in shared)
    stacks = separate(planes, lambda stack: not collisions(stack), most)
    if stacks is not None:
        return stacks
    first = shared[0]
    raise SeriesRefusedError(
        Reason.DUPLICATE_POSITION,
        f"{len(shared)} positions with more than one plane, the first at"
        f" {positions_mm(planes)[planes.index(first[0])]:.2f} mm:"
        f" {_uids(plane.row.sop_instance_uid for plane in first)}",
    )


def _interleaved(planes: tuple[Plane, ...], rules: SeriesRules) -> list[Stack] | None:
    """Even stacks that lie between one another's planes: two acquisitions, not one uneven one."""
    stacks = separate(
        planes,
        lambda stack: len(stack) >= rules.min_slices and is_even(stack),
        len(planes) // max(1, rules.min_slices),
    )
    return stacks if stacks is not None and overlap(stacks) else None


def _without_twins(planes: tuple[Plane, ...]) -> tuple[tuple[Plane, ...], list[LeftOut]]:
    """Planes in order without those that equal another one at the same position.

    Twins that an attribute tells apart are different stacks, whatever their pixels.
    """
    twins: dict[Plane, Plane] = {}
    suspects = [alike for group in collisions(planes) for alike in _alike(group)]
    reader = PlaneReader(tuple(plane.row for alike in suspects for plane in alike))
    for first, *others in suspects:
        twins |= dict.fromkeys(_equal_to(first, others, reader), first)
    left_out = [
        left
        for twin, kept in twins.items()
        for left in leave_out(
            [twin], Reason.DUPLICATE_SLICE, f"equals instance {kept.row.sop_instance_uid}"
        )
    ]
    return tuple(plane for plane in planes if plane not in twins), left_out


def _alike(group: Sequence[Plane]) -> list[list[Plane]]:
    """Two and more planes that no attribute tells apart, the one to keep first."""
    alike: dict[tuple[str, ...], list[Plane]] = {}
    for plane in sorted(group, key=identity_of):
        alike.setdefault(plane.traits, []).append(plane)
    return [planes for planes in alike.values() if len(planes) > 1]


def _equal_to(first: Plane, others: Sequence[Plane], reader: PlaneReader) -> list[Plane]:
    """Those of ``others`` that hold the pixels and the rescale of ``first`` at its place."""
    kept = _read(reader, first)
    rescale = first.row.rescale_slope, first.row.rescale_intercept
    return [
        other
        for other in others
        if (other.row.rescale_slope, other.row.rescale_intercept) == rescale
        and not beside(first, other)
        and np.array_equal(kept, _read(reader, other))
    ]


def _read(reader: PlaneReader, plane: Plane) -> npt.NDArray[np.int16]:
    hu = np.empty((plane.row.rows, plane.row.columns), np.int16)
    reader.read(plane.row, hu)
    return hu


def _usable(
    stacks: Sequence[Stack],
    findings: tuple[Finding, ...],
    left_out: list[LeftOut],
    rules: SeriesRules,
) -> Stacking:
    """Stacks that are long and whole enough; the others are left out with their reason."""
    used: list[tuple[Stack, tuple[Finding, ...]]] = []
    refusal: SeriesRefusedError | None = None
    for stack in stacks:
        try:
            used.append((stack, findings + _checked(stack, rules)))
        except SeriesRefusedError as error:
            refusal = refusal or error
            left_out += leave_out(stack.planes, error.reason, error.detail)
    if not used and refusal is not None:
        raise refusal
    return Stacking(
        tuple(stack for stack, _ in used), tuple(found for _, found in used), tuple(left_out)
    )


def _checked(stack: Stack, rules: SeriesRules) -> tuple[Finding, ...]:
    count = len(stack.planes)
    if count < rules.min_slices:
        raise SeriesRefusedError(
            Reason.TOO_FEW_SLICES, f"{count} planes, fewer than {rules.min_slices}"
        )
    row = stack.planes[0].row
    if count * row.rows * row.columns > rules.max_voxels:
        raise SeriesRefusedError(
            Reason.TOO_LARGE,
            f"{count} planes of {row.rows} x {row.columns} exceed {rules.max_voxels} voxels",
        )
    return shape_findings(stack.planes, rules)


def _uids(uids: Iterable[str]) -> str:
    known = list(uids)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
