"""From planes in any order to stacks: sets of planes that can lie on one another.

Planes are grouped by orientation, and apart again where two of them share a position and an
attribute tells them apart. Nothing here depends on the order in which the planes came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from dicom_seg.read.planes import SEPARATORS, Plane
from dicom_seg.read.slice_table import ORIENTATION_TOLERANCE

#: Planes closer than this share of a usual step are at one position.
SAME_POSITION_SHARE: Final = 0.1
SAME_POSITION_MM: Final = 0.01
#: Planes at one position that are shifted by less than this share of a pixel are at one place.
SAME_PLACE_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stack:
    """Parallel planes in increasing position along their normal."""

    planes: tuple[Plane, ...]
    separated_by: str  #: "AcquisitionNumber=2"; empty if nothing had to be separated
    #: the same without the value, which may tell of the patient: "AcquisitionNumber, 2 of 3"
    told_as: str = ""


def identity_of(plane: Plane) -> tuple[str, int]:
    """What orders planes when nothing else does: SOP Instance UID and frame."""
    return plane.row.sop_instance_uid, plane.row.frame_number or 0


def by_orientation(planes: Iterable[Plane]) -> list[tuple[Plane, ...]]:
    """Groups of parallel planes, the largest first."""
    groups: list[list[Plane]] = []
    for plane in sorted(planes, key=identity_of):
        for group in groups:
            if _parallel(group[0], plane):
                group.append(plane)
                break
        else:
            groups.append([plane])
    groups.sort(key=lambda group: (-len(group), identity_of(group[0])))
    return [tuple(group) for group in groups]


def _parallel(one: Plane, other: Plane) -> bool:
    cosines = (*one.row.row_cosine, *one.row.column_cosine)
    others = (*other.row.row_cosine, *other.row.column_cosine)
    return all(abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(cosines, others, strict=True))


def positions_mm(planes: Sequence[Plane]) -> npt.NDArray[np.float64]:
    """``(n,)``, distance of each plane from the LPS origin along the normal of the first."""
    origins = np.array([plane.row.origin_mm for plane in planes])
    return np.asarray(origins @ np.array(planes[0].row.normal), dtype=np.float64)


def beside(one: Plane, other: Plane) -> bool:
    """True if two parallel planes lie shifted along their rows or columns.

    By more than a share of a pixel: their equal pixels would be at two places in the patient.
    """
    shift = np.array(other.row.origin_mm) - np.array(one.row.origin_mm)
    row = one.row
    aside_mm = np.array([row.row_cosine, row.column_cosine]) @ shift
    pixel_mm = np.array([row.column_spacing_mm, row.row_spacing_mm])
    return bool((np.abs(aside_mm) > SAME_PLACE_SHARE * pixel_mm).any())


def in_order(planes: Iterable[Plane]) -> tuple[Plane, ...]:
    """Parallel planes by position along their normal; by identity where that is equal."""
    known = sorted(planes, key=identity_of)
    order = np.argsort(positions_mm(known), kind="stable")
    return tuple(known[i] for i in order)


def collisions(planes: Sequence[Plane]) -> list[tuple[Plane, ...]]:
    """Groups of two and more planes, of ``planes`` in order, that share a position."""
    positions = positions_mm(planes)
    tolerance = _same_position_mm(positions)
    groups: list[tuple[Plane, ...]] = []
    start = 0
    for end in range(1, len(planes) + 1):
        if end == len(planes) or positions[end] - positions[start] > tolerance:
            if end - start > 1:
                groups.append(tuple(planes[start:end]))
            start = end
    return groups


def _same_position_mm(positions: npt.NDArray[np.float64]) -> float:
    """Distance up to which two planes count as one position.

    The usual step is taken from the longer ones, so that a stack in which every position comes
    twice, a little apart, does not take the distance of the twins for its step.
    """
    steps = np.diff(positions)
    steps = steps[steps > SAME_POSITION_MM]
    if not steps.size:
        return SAME_POSITION_MM
    return max(SAME_POSITION_MM, SAME_POSITION_SHARE * float(np.percentile(steps, 75)))


def separate(
    planes: Sequence[Plane], separates: Callable[[tuple[Plane, ...]], bool], most: int
) -> list[Stack] | None:
    """Split ``planes`` by the attribute, or pair of attributes, that makes the fewest stacks.

    Parameters
    ----------
    planes
        Parallel planes in order.
    separates
        True for a stack that needs no further separation.
    most
        More stacks than this explain nothing: a time that differs from rotation to rotation
        separates any two planes.

    Returns
    -------
    list of Stack or None
        None if no attribute separates the planes into at most ``most`` stacks, two planes each
        on average, all of which satisfy ``separates``.
    """
    varying = [
        index
        for index in range(len(SEPARATORS))
        if len({plane.traits[index] for plane in planes}) > 1
    ]
    choices = [(index,) for index in varying] + list(combinations(varying, 2))
    best: list[Stack] | None = None
    for indices in choices:
        stacks = _split(planes, indices)
        if len(stacks) > min(most, len(planes) // 2):
            continue
        if best is not None and len(stacks) >= len(best):
            continue
        if all(separates(stack.planes) for stack in stacks):
            best = stacks
    return best


def _split(planes: Sequence[Plane], indices: tuple[int, ...]) -> list[Stack]:
    groups: dict[tuple[str, ...], list[Plane]] = {}
    for plane in planes:
        groups.setdefault(tuple(plane.traits[index] for index in indices), []).append(plane)
    keywords = ", ".join(SEPARATORS[index] for index in indices)
    return [
        Stack(
            tuple(group),
            ", ".join(
                f"{SEPARATORS[index]}={value[:64]}"
                for index, value in zip(indices, values, strict=True)
            ),
            f"{keywords}, {number} of {len(groups)}",
        )
        for number, (values, group) in enumerate(sorted(groups.items()), start=1)
    ]


def overlap(stacks: Sequence[Stack]) -> bool:
    """True if each stack shares more than a plane's worth of range with another one."""
    normal = np.array(stacks[0].planes[0].row.normal)
    spans = sorted(
        (float(np.dot(stack.planes[0].row.origin_mm, normal)),
         float(np.dot(stack.planes[-1].row.origin_mm, normal)))
        for stack in stacks
    )  # fmt: skip
    return all(after[0] < before[1] for before, after in pairwise(spans))
