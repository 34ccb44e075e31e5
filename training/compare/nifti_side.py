"""A multi-label NIfTI file as one side of a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.finding import Finding
from inference.label_map import LabelMap
from inference.nifti import NiftiError, nifti_geometry, nifti_planes, open_nifti
from inference.reasons import Reason
from training.compare.label_values import (
    MAX_VALUE,
    LabelValues,
    Numbering,
    known_values,
    values_within,
)
from training.compare.side import Side

MAX_VOXELS = 1_500_000_000
_VALUES = MAX_VALUE + 1


def read_nifti_side(path: Path, labels: LabelValues | Numbering = Numbering.AUTO) -> Side:
    """Read a label file.

    Values whose name is no structure of the class list are left out and named in a finding.

    Raises
    ------
    NiftiError
        As ``inference.nifti.read_nifti``; ``unknown-label`` if the file holds a value that
        its label table does not name; ``corrupt-pixel-data`` if a value is no whole number.
    """
    image = open_nifti(path, MAX_VOXELS)
    geometry = nifti_geometry(image, path)
    if labels is Numbering.AUTO:
        values = values_within(image.header.extensions) or replace(
            known_values(Numbering.V1), source="TotalSegmentator v1, as the file has no label table"
        )
    elif isinstance(labels, Numbering):
        values = known_values(labels)
    else:
        values = labels
    table = np.zeros(_VALUES, dtype=np.uint8)
    for value, structure_id in values.structure_ids.items():
        table[value] = structure_id
    seen = np.zeros(_VALUES, dtype=np.bool_)
    ids = np.empty(geometry.shape, dtype=np.uint8)
    for z, plane in enumerate(nifti_planes(image, path)):
        odd = ~((plane >= 0) & (plane < _VALUES) & (plane == np.rint(plane)))
        if odd.any():
            value = plane[odd].flat[0]
            raise NiftiError(Reason.CORRUPT_PIXEL_DATA, f"{path}: plane {z} holds {value:g}")
        whole = plane.astype(np.uint16)
        seen[whole] = True
        ids[z] = table[whole]
    present = [int(value) for value in np.flatnonzero(seen) if value]
    _refuse_unnamed(path, present, values)
    return Side((LabelMap(ids, geometry),), False, _findings(present, values), values.source)


def _refuse_unnamed(path: Path, present: list[int], values: LabelValues) -> None:
    unnamed = [value for value in present if value not in values.names]
    if unnamed:
        numbers = ", ".join(map(str, unnamed[:8])) + (", ..." if len(unnamed) > 8 else "")
        raise NiftiError(Reason.UNKNOWN_LABEL, f"{path}: value {numbers} not in {values.source}")


def _findings(present: list[int], values: LabelValues) -> tuple[Finding, ...]:
    left_out = [values.names[value] for value in present if value not in values.structure_ids]
    if not left_out:
        return ()
    return (Finding(Reason.UNKNOWN_LABEL, f"left out: {', '.join(left_out)}"),)
