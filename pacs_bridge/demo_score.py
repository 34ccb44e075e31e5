"""How well a decoded Segmentation agrees with the exact truth of a synthetic patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np

from dicom_seg.codes import STRUCTURE_CODES
from inference.geometry import Geometry
from inference.label_map import BACKGROUND, LabelMap
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES

#: Smaller structures are listed and do not count: a voxel decides their Dice.
COUNTED_FROM_ML = 5.0
REQUIRED_MEAN_DICE = 0.80


@dataclass(frozen=True, slots=True)
class StructureScore:
    """Agreement on one structure of the truth."""

    name: str
    truth_ml: float
    found_ml: float
    dice: float
    twin_dice: float  #: of what was found with the truth of its twin; 0 without a twin

    @property
    def is_counted(self) -> bool:
        """Whether it is large enough for the mean."""
        return self.truth_ml >= COUNTED_FROM_ML

    @property
    def is_swapped(self) -> bool:
        """Whether what was found agrees better with the other side."""
        return self.twin_dice > self.dice


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement as a whole."""

    structures: tuple[StructureScore, ...]  #: of the truth, the largest first

    @property
    def mean_dice(self) -> float:
        """Mean over the structures that count."""
        return float(np.mean([each.dice for each in self.structures if each.is_counted]))

    @property
    def swapped(self) -> tuple[str, ...]:
        """Structures found on the side of their twin."""
        return tuple(each.name for each in self.structures if each.is_swapped)

    @property
    def is_good(self) -> bool:
        """Whether the demo may call itself a success."""
        return self.mean_dice >= REQUIRED_MEAN_DICE and not self.swapped


def score(truth: LabelMap, found: LabelMap) -> Score:
    """Dice of every structure of the truth, on the same planes."""
    pairs = truth.labels.astype(np.intp) * 256 + found.labels  # one count for all overlaps
    overlap = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    truth_volumes, found_volumes = truth.volumes_ml(), found.volumes_ml()
    truth_count, found_count = overlap.sum(axis=1), overlap.sum(axis=0)

    def dice(truth_id: int, found_id: int) -> float:
        total = truth_count[truth_id] + found_count[found_id]
        return float(2 * overlap[truth_id, found_id] / total) if total else 0.0

    scores = [
        StructureScore(
            name=each.name,
            truth_ml=truth_volumes[each.id],
            found_ml=found_volumes.get(each.id, 0.0),
            dice=dice(each.id, each.id),
            twin_dice=dice(STRUCTURE_BY_NAME[each.twin].id, each.id) if each.twin else 0.0,
        )
        for each in STRUCTURES
        if each.id in truth_volumes
    ]
    return Score(tuple(sorted(scores, key=lambda each: -each.truth_ml)))


def decode(path: Path, geometry: Geometry) -> LabelMap:
    """Read a Segmentation with highdicom, and look it up on ``geometry`` in patient mm.

    Structures are told by their codes and placed by the object's own positions; nothing of
    what wrote the object takes part.
    """
    seg = hd.seg.segread(path)
    volume = seg.get_volume(
        combine_segments=True, relabel=False, allow_missing_positions=True, dtype=np.uint8
    )
    structure_of = np.zeros(256, dtype=np.uint8)
    for number in seg.segment_numbers:
        structure_of[number] = _structure_id(seg.get_segment_description(number))
    stored = structure_of[volume.array]
    placed = Geometry.from_affine(volume.affine, volume.spatial_shape)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    _, rows, columns = geometry.shape
    y, x = np.mgrid[:rows, :columns]
    for z in range(geometry.shape[0]):
        points = geometry.lps_mm(np.stack([np.full_like(y, z), y, x], axis=-1))
        index = np.rint(placed.index_of(points)).astype(np.intp)
        top = np.array(placed.shape) - 1
        inside = ((index >= 0) & (index <= top)).all(axis=-1)
        nearest = tuple(np.moveaxis(np.clip(index, 0, top), -1, 0))
        labels[z] = np.where(inside, stored[nearest], BACKGROUND)
    return LabelMap(labels, geometry)


def _structure_id(description: hd.seg.SegmentDescription) -> int:
    kind = description.segmented_property_type
    item = description.SegmentedPropertyTypeCodeSequence[0]
    modifiers = item.get("SegmentedPropertyTypeModifierCodeSequence", ())
    found = (kind.value, modifiers[0].CodeValue if modifiers else None)
    for code in STRUCTURE_CODES:
        if (code.type.value, code.modifier.value if code.modifier else None) == found:
            return code.structure_id
    raise ValueError(f"no structure is coded {found}")
