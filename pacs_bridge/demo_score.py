"""How well a decoded Segmentation agrees with the exact truth of a synthetic patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np

from dicom_seg.codes import STRUCTURE_CODES
from inference.agreement import StructureAgreement, agreement
from inference.geometry import Geometry
from inference.label_map import BACKGROUND, LabelMap
from inference.structures import Structure, structure

#: Smaller structures are listed and do not count: a voxel decides their Dice.
COUNTED_FROM_ML = 5.0
REQUIRED_MEAN_DICE = 0.80


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement as a whole."""

    structures: tuple[StructureAgreement, ...]  #: of the truth, the largest first

    @property
    def counted(self) -> tuple[StructureAgreement, ...]:
        """Those that are large enough for the mean."""
        return tuple(each for each in self.structures if each.truth_ml >= COUNTED_FROM_ML)

    @property
    def mean_dice(self) -> float:
        """Mean over the structures that count."""
        return float(np.mean([each.dice for each in self.counted]))

    @property
    def swapped(self) -> tuple[str, ...]:
        """Names of structures of any size that were confused with their twin."""
        return tuple(
            structure(each.structure_id).name for each in self.structures if each.is_swapped
        )

    @property
    def is_good(self) -> bool:
        """Whether the demo may call itself a success."""
        return self.mean_dice >= REQUIRED_MEAN_DICE and not self.swapped


def score(truth: LabelMap, found: LabelMap) -> Score:
    """Agreement on every structure of the truth, on the same planes."""
    return Score(tuple(sorted(agreement(truth, found), key=lambda each: -each.truth_ml)))


def decode(path: Path, geometry: Geometry) -> LabelMap:
    """Read a Segmentation with highdicom, and look it up on ``geometry`` in patient mm.

    Structures are told by their codes, sides by the words of their modifiers, and places by the
    object's own positions; nothing of what wrote the object takes part.
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
    """By the type's code, and the side that a reader is told in words."""
    item = description.SegmentedPropertyTypeCodeSequence[0]
    modifiers = item.get("SegmentedPropertyTypeModifierCodeSequence", ())
    side = str(modifiers[0].CodeMeaning) if modifiers else ""
    found = [
        code.structure_id
        for code in STRUCTURE_CODES
        if code.type.value == item.CodeValue
        and (not side or _side(structure(code.structure_id)) == side)
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} structures are coded {item.CodeValue} {side!r}")
    return found[0]


def _side(one: Structure) -> str:
    if one.twin is None:
        return ""
    return "Left" if one.is_left else "Right"
