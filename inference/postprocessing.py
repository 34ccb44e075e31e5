"""Clean-up of label maps that a site can switch on, structure by structure.

Everything is off by default: a result is what the network said. Each structure is worked on
within its bounding box only, so memory follows the structures and not the scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from inference.label_map import BACKGROUND, LabelMap
from inference.structures import STRUCTURE_BY_NAME, structure


@dataclass(frozen=True, slots=True)
class CleanUp:
    """What is done to one structure, in this order."""

    largest_component: bool = False  #: keep the largest 26-connected part only
    minimum_ml: float = 0.0  #: remove the structure if what is left is smaller
    fill_holes: bool = False  #: enclosed background becomes the structure

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_ml < 1e6:
            raise ValueError(f"minimum_ml must be a volume: {self.minimum_ml}")

    def __str__(self) -> str:
        parts = [
            *(["largest-component"] if self.largest_component else []),
            *([f"minimum {self.minimum_ml:g} mL"] if self.minimum_ml else []),
            *(["fill-holes"] if self.fill_holes else []),
        ]
        return "+".join(parts) or "none"


NOTHING = CleanUp()


@dataclass(frozen=True, slots=True)
class PostprocessingSpec:
    """What is done to which structure.

    Parameters
    ----------
    default
        For every structure that is not named.
    by_structure
        ``(name, clean-up)`` of single structures.
    """

    default: CleanUp = NOTHING
    by_structure: tuple[tuple[str, CleanUp], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.by_structure]
        unknown = sorted(set(names) - set(STRUCTURE_BY_NAME))
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"unknown or repeated structures: {unknown or names}")

    def of(self, structure_id: int) -> CleanUp:
        """What is done to one structure."""
        name = structure(structure_id).name
        return next((rule for n, rule in self.by_structure if n == name), self.default)

    def __str__(self) -> str:
        named = "; ".join(f"{name}: {rule}" for name, rule in sorted(self.by_structure, key=str))
        return f"{self.default}; {named}" if named else str(self.default)


NO_POSTPROCESSING = PostprocessingSpec()


def postprocess(label_map: LabelMap, spec: PostprocessingSpec) -> LabelMap:
    """The label map with each structure cleaned up; ids in ascending order.

    Voxels that a structure loses become background. Filling takes background only, never a
    voxel of another structure.
    """
    boxes = {i: box for i, box in label_map.boxes().items() if spec.of(i) != NOTHING}
    if not boxes:
        return label_map
    labels = label_map.labels.copy()
    voxel_ml = label_map.geometry.voxel_volumes_ml()
    for structure_id, box in boxes.items():
        _clean(labels[box], structure_id, spec.of(structure_id), voxel_ml[box[0]])
    return LabelMap(labels, label_map.geometry)


def _clean(
    labels: npt.NDArray[np.uint8],
    structure_id: int,
    rule: CleanUp,
    voxel_ml: npt.NDArray[np.float64],
) -> None:
    """Clean one structure in place within its box; ``voxel_ml`` is that of each plane."""
    mask = labels == structure_id
    if rule.largest_component:
        kept = _largest(mask, voxel_ml)
        labels[mask & ~kept] = BACKGROUND
        mask = kept
    if rule.minimum_ml and float(mask.sum(axis=(1, 2)) @ voxel_ml) < rule.minimum_ml:
        labels[mask] = BACKGROUND
        return
    if rule.fill_holes:
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(_image(mask))) > 0
        labels[filled & (labels == BACKGROUND)] = structure_id


def _largest(
    mask: npt.NDArray[np.bool_], voxel_ml: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """The 26-connected part of greatest volume; the first in array order of equal ones."""
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(_image(mask), True))
    count = int(parts.max(initial=0))
    if count <= 1:
        return mask
    volumes = np.zeros(count + 1)
    for plane, ml in zip(parts, voxel_ml, strict=True):
        volumes += ml * np.bincount(plane.ravel(), minlength=count + 1)
    volumes[0] = -1.0
    return np.asarray(parts == int(volumes.argmax()))


def _image(mask: npt.NDArray[np.bool_]) -> sitk.Image:
    return sitk.GetImageFromArray(mask.view(np.uint8))
