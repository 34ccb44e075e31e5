"""The 104 structures of the whole-body model, in the order of TotalSegmentator v1.

TotalSegmentator v2 numbers them anew (only ids 1 to 6 agree): ids here are always v1.
Facts live in ``data/structures.csv``; this module imports no torch.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

STRUCTURE_COUNT = 104
#: Output channels of the network: background and the structures.
CLASS_COUNT = STRUCTURE_COUNT + 1


@dataclass(frozen=True, slots=True)
class Structure:
    """One anatomical structure of the class list."""

    id: int  #: 1..104, its value in a label map and its channel in the network
    name: str  #: TotalSegmentator v1 name
    twin: str | None  #: the name of the same structure on the other side
    rgb: tuple[int, int, int]  #: display colour, 0..255

    @property
    def is_left(self) -> bool:
        """True for the left one of a pair."""
        return self.twin is not None and "left" in self.name.split("_")


def _load() -> tuple[Structure, ...]:
    table = (files("inference") / "data" / "structures.csv").read_text(encoding="utf-8")
    return tuple(
        Structure(
            id=int(row["id"]),
            name=row["name"],
            twin=row["twin"] or None,
            rgb=(int(row["red"]), int(row["green"]), int(row["blue"])),
        )
        for row in csv.DictReader(table.splitlines())
    )


STRUCTURES: tuple[Structure, ...] = _load()
STRUCTURE_BY_NAME = MappingProxyType({structure.name: structure for structure in STRUCTURES})


def structure(structure_id: int) -> Structure:
    """The structure with this id, 1..104."""
    return STRUCTURES[structure_id - 1]
