"""What a label map itself shows to be doubtful: cut structures, sides that are swapped."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from inference.finding import Finding
from inference.label_map import BACKGROUND, LabelMap
from inference.padding import cut_by_field
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES, structure
from inference.volume import Volume


def check_labels(label_map: LabelMap, truncated: Collection[int]) -> tuple[Finding, ...]:
    """Findings on a label map.

    ``truncated-structure`` names every structure that the scan cuts: its volume is a part of
    the whole. ``laterality-order`` names every pair whose left one lies to the right of its
    twin, by centroids in patient millimetres. Whether an empty label map is a fault is for the
    caller to say.

    Parameters
    ----------
    label_map
        What is judged.
    truncated
        Ids of ``truncated_structures``, which needs the scan as well.
    """
    findings = []
    if truncated:
        names = ", ".join(structure(i).name for i in sorted(truncated))
        findings.append(Finding(Reason.TRUNCATED_STRUCTURE, names))
    swapped = _swapped(label_map)
    if swapped:
        findings.append(Finding(Reason.LATERALITY_ORDER, "; ".join(swapped)))
    return tuple(findings)


def truncated_structures(label_map: LabelMap, volume: Volume) -> frozenset[int]:
    """Ids that the scan cuts: at the border of its array, or of what it measured within it."""
    return frozenset(touches_border(label_map)) | frozenset(cut_by_field(label_map, volume))


def touches_border(label_map: LabelMap) -> tuple[int, ...]:
    """Ids that reach the first or last plane, row or column, ascending."""
    labels = label_map.labels
    ids: set[int] = set()
    for axis in range(3):
        for end in (0, -1):
            ids.update(int(i) for i in np.unique(labels.take(end, axis=axis)))
    return tuple(sorted(ids - {BACKGROUND}))


def _swapped(label_map: LabelMap) -> list[str]:
    centroids = label_map.centroids_mm()
    pairs = [
        (left, STRUCTURE_BY_NAME[left.twin])
        for left in STRUCTURES
        if left.is_left and left.twin is not None
    ]
    return [
        f"{left.name} at x {centroids[left.id][0]:.1f} mm, "
        f"{right.name} at x {centroids[right.id][0]:.1f} mm"
        for left, right in pairs
        if left.id in centroids
        and right.id in centroids
        and centroids[left.id][0] <= centroids[right.id][0]  # LPS: +x is left
    ]
