"""Label files of training and evaluation, which hold the ids of the class list."""

from __future__ import annotations

from pathlib import Path

from inference.label_map import LabelMap
from inference.nifti import MAX_VOXELS, open_nifti, read_label_nifti
from inference.reasons import Reason
from inference.structures import STRUCTURE_COUNT
from training.compare.label_values import values_within
from training.errors import TrainingError


def read_v1_labels(path: Path) -> LabelMap:
    """Read structure ids, unless the label table within the file gives them other names.

    Raises
    ------
    InferenceError
        As ``read_label_nifti``; ``unknown-label`` if the file's own table is not that of v1.
    """
    values = values_within(open_nifti(path, MAX_VOXELS).header.extensions)
    if values is not None:
        others = [
            f"{value} is {name}"
            for value, name in sorted(values.names.items())
            if value <= STRUCTURE_COUNT and values.structure_ids.get(value) != value
        ]
        if others:
            raise TrainingError(
                Reason.UNKNOWN_LABEL,
                f"{path}: its label table is not that of v1: {', '.join(others[:3])}",
            )
    return read_label_nifti(path, MAX_VOXELS)
