"""One of the two segmentations: structures by id, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.finding import Finding
from inference.geometry import Geometry
from inference.label_map import LabelMap


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A segmentation in ids of ``inference.structures``.

    Parameters
    ----------
    layers
        Label maps on one grid; more than one where structures overlap. Each structure lies
        in one of them.
    sparse
        True where planes without any structure may be missing from the grid: a DICOM
        Segmentation need not store them.
    findings
        What is worth saying about it.
    values
        Where the meaning of its values was taken from.
    """

    layers: tuple[LabelMap, ...]
    sparse: bool = False
    findings: tuple[Finding, ...] = ()
    values: str = "codes and labels of the segments"

    @property
    def geometry(self) -> Geometry:
        """The grid of all layers."""
        return self.layers[0].geometry


class LayeredLabels:
    """Structures written plane by plane; one that overlaps another moves to a layer of its own.

    Parameters
    ----------
    shape
        ``(z, y, x)``.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._layers = [np.zeros(shape, dtype=np.uint8)]
        self._layer_of: dict[int, int] = {}

    def add(self, structure_id: int, z: int, inside: npt.NDArray[np.bool_]) -> None:
        """Add ``(y, x)`` voxels of plane ``z`` to a structure."""
        number = self._layer_of.setdefault(structure_id, 0)
        while self._taken(number, structure_id, z, inside):
            number = self._move(structure_id, number)
        self._layers[number][z][inside] = structure_id

    def side(self, geometry: Geometry, findings: tuple[Finding, ...], sparse: bool) -> Side:
        """What was written, on a grid."""
        maps = tuple(LabelMap(layer, geometry) for layer in self._layers)
        return Side(maps, sparse, findings)

    def _taken(self, number: int, structure_id: int, z: int, inside: npt.NDArray[np.bool_]) -> bool:
        there = self._layers[number][z][inside]
        return bool(((there != 0) & (there != structure_id)).any())

    def _move(self, structure_id: int, number: int) -> int:
        """To the next layer where what is written so far meets nothing."""
        own = self._layers[number] == structure_id
        self._layers[number][own] = 0
        number += 1
        while number < len(self._layers) and self._layers[number][own].any():
            number += 1
        if number == len(self._layers):
            self._layers.append(np.zeros_like(self._layers[0]))
        self._layers[number][own] = structure_id
        self._layer_of[structure_id] = number
        return number
