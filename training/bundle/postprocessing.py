"""Label maps on the scan's own grid, as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.label_map import LabelMap
from inference.nifti import write_label_nifti
from inference.preprocessing import labels_to_source
from training.bundle.preprocessing import GRID_SUFFIX
from training.dataset import case_name


@dataclass(frozen=True, slots=True)
class LabelWriter:
    """Writes label maps as uint8 NIfTI, named as the published bundle names them.

    Parameters
    ----------
    output_dir
        Made where it does not exist.
    output_ext
        ``.nii.gz`` or ``.nii``.
    output_postfix
        Of the file name, after ``_``.
    separate_folder
        One folder a scan: ``NAME/NAME_trans.nii.gz``.
    image_key, pred_key
        Of the image and of its labels, where it is used as a transform.
    """

    output_dir: str
    output_ext: str = ".nii.gz"
    output_postfix: str = "trans"
    separate_folder: bool = True
    image_key: str = "image"
    pred_key: str = "pred"

    def __post_init__(self) -> None:
        if self.output_ext not in {".nii.gz", ".nii"}:
            raise ValueError(f"output_ext must be .nii.gz or .nii: {self.output_ext!r}")

    def path_of(self, scan: Path) -> Path:
        """Where the labels of a scan go."""
        name = case_name(scan) or scan.name
        folder = Path(self.output_dir) / (name if self.separate_folder else "")
        postfix = f"_{self.output_postfix}" if self.output_postfix else ""
        return folder / f"{name}{postfix}{self.output_ext}"

    def write(self, label_map: LabelMap, scan: Path) -> Path:
        """Write the labels of a scan, whole or not at all; the file that was written."""
        path = self.path_of(scan)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_nifti(label_map, path)
        return path

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Put labels of the network's grid onto the scan and write them.

        ``pred_key`` holds ``(1, x, y, z)``; it becomes the scan's own ``(z, y, x)`` uint8.
        """
        labels = np.asarray(data[self.pred_key][0], dtype=np.uint8)
        placed = labels_to_source(labels, data[self.image_key + GRID_SUFFIX])
        self.write(placed, Path(data[self.image_key].meta["filename_or_obj"]))
        return {**data, self.pred_key: placed.labels}
