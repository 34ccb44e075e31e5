"""What a part of the synthetic body is made of, and how contrast medium changes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from inference.structures import STRUCTURE_BY_NAME
from inference.synthetic.shapes import Inset, Shape

#: Label of tissue that belongs to none of the 104 structures.
UNLABELLED = 0


@dataclass(frozen=True, slots=True)
class Tissue:
    """CT numbers of a part: a core and, where ``shell_mm`` is set, a shell around it.

    The shell is the wall of a hollow organ or the cortex of a bone, measured inward from
    the surface.
    """

    hu: float
    shell_hu: float = 0.0
    shell_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """One solid of one tissue; later parts of a body replace earlier ones where they overlap."""

    shape: Shape
    tissue: Tissue
    structure_id: int | None = UNLABELLED  #: None changes the HU and keeps what was labelled


def labelled(name: str, tissue: Tissue, *shapes: Shape) -> list[Part]:
    """Parts of the structure called ``name`` in the class list."""
    return _joined(STRUCTURE_BY_NAME[name].id, tissue, shapes)


def unlabelled(tissue: Tissue, *shapes: Shape) -> list[Part]:
    """Parts that belong to the body but to no structure."""
    return _joined(UNLABELLED, tissue, shapes)


def _joined(structure_id: int, tissue: Tissue, shapes: tuple[Shape, ...]) -> list[Part]:
    """One solid made of several: all shells first, so that none runs through a neighbour."""
    if len(shapes) < 2 or not tissue.shell_mm:
        return [Part(shape, tissue, structure_id) for shape in shapes]
    shells = [Part(shape, Tissue(tissue.shell_hu), structure_id) for shape in shapes]
    cores = [Part(Inset(s, tissue.shell_mm), Tissue(tissue.hu), structure_id) for s in shapes]
    return shells + cores


def inlaid(tissue: Tissue, *shapes: Shape) -> list[Part]:
    """Parts that leave the labels as they are: implants, and vessels within a lobe."""
    return [Part(shape, tissue, None) for shape in shapes]


AIR = Tissue(-1000)
FAT = Tissue(-100)
CARTILAGE = Tissue(115)
SOFT = Tissue(35)


class Phase(Enum):
    """Contrast phase, with the enhancement that it adds, HU."""

    NATIVE = (0, 0, 0, 0, 0, 0)
    ARTERIAL = (280, 40, 15, 120, 45, 35)
    VENOUS = (120, 110, 55, 110, 60, 40)
    LATE = (70, 70, 40, 90, 40, 30)

    def __init__(
        self, arteries: int, veins: int, liver: int, kidney: int, spleen: int, organs: int
    ) -> None:
        self.arteries_hu = arteries
        self.veins_hu = veins
        self.liver_hu = liver
        self.kidney_hu = kidney
        self.spleen_hu = spleen
        self.organs_hu = organs
